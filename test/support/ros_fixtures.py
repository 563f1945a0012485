"""The node as a process, and a peer that talks to it over DDS."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from derain_ros.live.processes import claim_domain
from derain_ros.node.process_memory import SHARED_MEMORY, profile_variable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WIDTH, HEIGHT = 64, 48
PICTURE = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
PROFILE = {profile_variable(): str(ROOT / 'config' / 'fastdds.xml')}
START_SECONDS = 120.0
DEADLINE_SECONDS = 90.0
_ASK_AGAIN_SECONDS = 10.0

# The processes of pytest-xdist, which have one parent, begin far from each other.
_workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))
_domains = count(os.getppid() + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])
                 * (101 // _workers))


def new_domain() -> int:
    """Return a ROS domain that no other test of this process, or process of this host, uses."""
    domain = claim_domain(next(_domains))
    _clear(range(7400 + 250 * domain, 7650 + 250 * domain))
    return domain


def _clear(ports: range) -> None:
    """Remove what killed processes have left of ports in the shared memory of Fast DDS."""
    for path in SHARED_MEMORY.glob('*fast*_port*'):
        if int(re.search(r'_port(\d+)', path.name)[1]) in ports:
            path.unlink(missing_ok=True)


def ros_environment(domain: int) -> dict[str, str]:
    """Return the environment for processes of a test, which stay on this host."""
    environment = os.environ | {
        'ROS_DOMAIN_ID': str(domain),
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(HERE), os.environ.get('PYTHONPATH', '')]),
        'PYTHONUNBUFFERED': '1',
    }
    for name in ('ROS_LOCALHOST_ONLY', 'FASTRTPS_DEFAULT_PROFILES_FILE',
                 'FASTDDS_DEFAULT_PROFILES_FILE'):
        environment.pop(name, None)
    return environment | localhost()


def localhost() -> dict[str, str]:
    """Return what keeps processes on this host; Humble knows the older of the two only."""
    if os.environ.get('ROS_DISTRO') == 'humble':
        return {'ROS_LOCALHOST_ONLY': '1'}
    return {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}


def shared_segments() -> set[Path]:
    """Return the segments and locks of Fast DDS 2 and 3 that there are."""
    return {path for name in ('fastrtps_*', 'fastdds_*') for path in SHARED_MEMORY.glob(name)}


def wait_for(condition: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS):
    """Return what ``condition`` returns once that is true; AssertionError after a while."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f'no {what} within {seconds:g} s'
        time.sleep(0.01)
    return value


def process_ended(process: subprocess.Popen, number: int) -> tuple[int, float]:
    """Send a signal; returns exit status and the seconds that the process took to end."""
    start = time.monotonic()
    process.send_signal(number)
    status = process.wait(DEADLINE_SECONDS)
    return status, time.monotonic() - start


def image(number, picture=PICTURE, encoding='bgr8', frame_id='lens'):
    """Return a message whose stamp is its number."""
    message = Image(
        height=picture.shape[0], width=picture.shape[1], encoding=encoding,
        step=picture[0].nbytes, data=picture.tobytes())
    message.header.stamp.sec, message.header.stamp.nanosec = number, 10 * number
    message.header.frame_id = frame_id
    return message


def send_until(publisher, messages, condition, what, rate=20):
    """Publish messages, again and again, until a condition holds."""
    numbers = count(1)

    def step():
        publisher.publish(messages(next(numbers)))
        time.sleep(1 / rate)
        return condition()

    wait_for(step, what)


def output(camera, name='image'):
    return f'/{camera}/derained/{name}'


class NodeProcess:
    """``derain_node`` with parameters, its log in a file; a context manager.

    ``program`` is what Python runs in its place: ``-m`` and a module, or a script.
    """

    def __init__(
        self, directory: Path, domain: int, parameters: Mapping[str, object] | None = None,
        arguments: tuple[str, ...] = (), environment: Mapping[str, str] | None = None,
        program: tuple[str, ...] = ('-m', 'derain_ros.node.main'),
    ):
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *program, '--ros-args', *arguments]
        if parameters is not None:
            file = directory / 'parameters.yaml'
            file.write_text(json.dumps({'derain': {'ros__parameters': parameters}}))
            command += ['--params-file', str(file)]
        self._log = directory / 'node.log'
        with self._log.open('wb') as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=ros_environment(domain) | dict(environment or {}))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        """Return what the node has logged so far."""
        return self._log.read_text(errors='replace')

    def status(self, name: str) -> str:
        """Return a value of /proc/PID/status, such as VmRSS, without its unit."""
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return status.split(f'{name}:')[1].split()[0]


class Peer(Node):
    """A node of the test's own process: publishes, listens, asks; a context manager."""

    def __init__(self, domain: int, target: str = '/derain'):
        os.environ.update(localhost())
        self._own_context = Context()
        self._own_context.init(domain_id=domain)
        super().__init__('peer', context=self._own_context)
        self._target = target
        self.received: dict[str, list] = defaultdict(list)
        self._listening = {}
        self._statuses: dict[str, list] = defaultdict(list)
        self._reported = 0.0
        self._asked = {}
        self._stopped = False
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._spinner = SingleThreadedExecutor(context=self._own_context)
        self._spinner.add_node(self)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The thread ends first: that of rclpy 7.1 does not wait for it in shutdown(), and what is
        # taken down under a thread that waits on it takes the process along.
        self._stopped = True
        self._thread.join(60.0)
        self._spinner.shutdown()
        self._own_context.try_shutdown()

    def _spin(self):
        with suppress(ExternalShutdownException):
            while not self._stopped:
                self._spinner.spin_once(timeout_sec=0.1)

    # What another thread takes down while the executor looks through it ends the one that spins
    # (rclpy of Kilted), and nothing is heard any more.

    def destroy_publisher(self, publisher):
        return self._in_thread(super().destroy_publisher, publisher)

    def destroy_subscription(self, subscription):
        return self._in_thread(super().destroy_subscription, subscription)

    def _in_thread(self, action, *arguments):
        if self._stopped:  # the context, which takes its nodes down on Kilted
            return action(*arguments)
        task = self._spinner.create_task(action, *arguments)
        wait_for(task.done, f'end of {action.__name__}')
        return task.result()

    # Topics

    def publisher(self, message_type: type, topic: str, *, reliable: bool = True):
        """Create a publisher."""
        return self.create_publisher(message_type, topic, _qos(reliable, 10))

    def listen(self, message_type: type, topic: str):
        """Collect the messages of a topic in ``received``, until :meth:`ignore`."""
        self._listening[topic] = self.create_subscription(
            message_type, topic, self.received[topic].append, _qos(True, 100))
        wait_for(lambda: self.count_publishers(topic), f'publisher on {topic}')

    def ignore(self, topic: str):
        """Stop listening to a topic."""
        self.destroy_subscription(self._listening.pop(topic))

    def matched(self, *publishers):
        """Wait until the node listens to each publisher, by a subscription that fits."""
        wait_for(lambda: all(publisher.get_subscription_count() for publisher in publishers),
                 'subscription of the node')

    # Diagnostics

    def status(self, name: str):
        """Return the newest status of a name, None before the first."""
        return found[-1] if (found := self.reports(name)) else None

    def reports(self, name: str) -> list:
        """Return every status of a name so far: one that lasts for a moment may be missed."""
        return list(self._statuses[f'{self._target}: {name}'])

    def says(self, name: str) -> str:
        """Return the message of the newest status of a name, '' before the first."""
        return '' if (status := self.status(name)) is None else status.message

    def level(self, name: str) -> bytes | None:
        """Return the level of the newest status of a name, None before the first."""
        return None if (status := self.status(name)) is None else status.level

    def values(self, name: str) -> dict[str, str]:
        """Return the values of the newest status of a name."""
        status = self.status(name)
        return {} if status is None else {pair.key: pair.value for pair in status.values}

    def counts(self, camera: str) -> dict[str, int]:
        """Return a camera's counts as of a report made after this call."""
        begin = time.time()
        wait_for(lambda: self._reported > begin, 'message on /diagnostics')
        values = self.values(camera)
        return {key: int(values[key])
                for key in ('received', 'published', 'dropped', 'failed', 'idle')}

    def settled_counts(self, camera: str) -> dict[str, int]:
        """Return a camera's counts once every frame is accounted for, with none in work."""
        def settled():
            counts = self.counts(camera)
            return counts['received'] == sum(counts.values()) - counts['received'] and counts
        return wait_for(settled, 'counts that add up')

    def _on_diagnostics(self, message):
        for status in message.status:
            self._statuses[status.name].append(status)
        self._reported = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec

    # Services

    def state(self, seconds: float | None = None) -> str:
        """Return the node's lifecycle state, '' if it does not answer in the time given."""
        answer = self._ask(GetState, 'get_state', GetState.Request(), seconds)
        return '' if answer is None else answer.current_state.label

    def wait_for_state(self, state: str, node: NodeProcess):
        """Wait for a lifecycle state of a running node."""
        def reached():
            assert node.process.poll() is None, f'the node ended:\n{node.log()}'
            return self.state(2.0) == state
        try:
            wait_for(reached, f'state {state}', START_SECONDS)
        except AssertionError as error:
            raise AssertionError(f'{error}; log of the node:\n{node.log()}') from None

    def change_state(self, transition: str) -> bool:
        """Ask for a transition; returns whether it succeeded."""
        request = ChangeState.Request(transition=Transition(label=transition))
        return self._ask(ChangeState, 'change_state', request).success

    def set(self, name: str, value: object) -> str:
        """Set a parameter; returns the reason of a refusal, '' if it was set."""
        change = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[change])
        result, = self._ask(SetParameters, 'set_parameters', request).results
        assert result.successful == (not result.reason)
        return result.reason

    def set_together(self, **values: object) -> str:
        """Set all or none; ``front__image_topic`` stands for ``front.image_topic``."""
        request = SetParametersAtomically.Request(parameters=[
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
            for name, value in values.items()])
        answer = self._ask(SetParametersAtomically, 'set_parameters_atomically', request)
        assert answer.result.successful == (not answer.result.reason)
        return answer.result.reason

    def get(self, *names: str) -> list:
        """Return values of parameters."""
        request = GetParameters.Request(names=list(names))
        values = self._ask(GetParameters, 'get_parameters', request).values
        return [getattr(value, f'{Parameter.Type(value.type).name.lower()}_value')
                for value in values]

    def set_enabled(self, enabled: bool) -> bool:
        """Switch deraining on or off; returns whether that succeeded."""
        return self._ask(SetBool, 'set_enabled', SetBool.Request(data=enabled)).success

    def reset(self) -> bool:
        """Reset counters, gate and back-off of the engine; returns whether that succeeded."""
        return self._ask(Trigger, 'reset', Trigger.Request()).success

    def _ask(self, service: type, name: str, request, seconds: float | None = None):
        client = self._asked.get(name)
        if client is None:
            client = self._asked[name] = self.create_client(service, f'{self._target}/{name}')
        limit = DEADLINE_SECONDS if seconds is None else seconds
        if not client.wait_for_service(limit):
            assert seconds is not None, f'no service {name}'
            return None
        future = client.call_async(request)
        deadline = time.monotonic() + limit
        again = time.monotonic() + _ASK_AGAIN_SECONDS
        while not future.done() and time.monotonic() < deadline:
            time.sleep(0.005)
            # An answer is lost if the node has not discovered yet who asks.
            if time.monotonic() > again and service.__name__.startswith('Get'):
                future, again = client.call_async(request), again + _ASK_AGAIN_SECONDS
        assert future.done() or seconds is not None, f'no answer from {name}'
        return future.result() if future.done() else None


def _qos(reliable: bool, depth: int) -> QoSProfile:
    return QoSProfile(
        depth=depth,
        reliability=(
            QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT))
