"""Run the node in its own process, play messages into it, and listen to its output.

All messages go over DDS between processes, in a separate domain limited to this host.
"""

import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException

from derain_ros.live.listener import COUNTS, Listener, output_topics
from derain_ros.live.played import Played, PlayedFrame, PlayedSource
from derain_ros.live.processes import (
    ALLOCATOR,
    Helper,
    LiveRunError,
    child,
    helper,
    isolate,
    tail,
    terminate_cleanly,
)
from derain_ros.node.main import make_executor

_DERAIN, _PLAIN = 'derain_ros.node.main', 'derain_ros.bench.plain_node'
_START_TIMEOUT = 90.0
_SETTLE_TIMEOUT = 60.0
_WARM_UP_TIMEOUT = 180.0
_ANSWER_TIMEOUT = 60.0

Watch = Callable[[bool], None]
"""Called with False about twenty times a second while messages are played, and with True when
playback begins and when it ends."""


class LiveRun:
    """A running node with its listener and its player; made by :func:`live_run`.

    ``pid`` is that of the node's process; ``before`` has the current values of each camera in
    /diagnostics, by namespace. Methods raise LiveRunError if a process fails or hangs.
    """

    def __init__(
        self, node: subprocess.Popen, log: Path, listener: Listener, source: PlayedSource,
    ):
        self._node = node
        self._log = log
        self._names = {camera.namespace: f'/derain: {camera.name}' for camera in source.cameras}
        self._topics = {camera.topic: camera.namespace for camera in source.cameras}
        self._player: Helper | None = None
        self.listener = listener
        self.pid = node.pid
        self.before: Mapping[str, Mapping[str, str]] = {}

    def check(self) -> None:
        """Raise LiveRunError if the node's process has ended."""
        if self._node.poll() is not None:
            raise LiveRunError(
                f'the node ended with status {self._node.returncode}:\n{tail(self._log)}')

    def play(
        self, seconds: float, factor: float = 1.0, watch: Watch = lambda begins_or_ends: None
    ) -> Played:
        """Play the source into the node, ``factor`` times as fast as recorded.

        A bag is repeated or cut to last ``seconds``; a clip may end earlier, by its plan.
        ``watch`` is a :data:`Watch`.
        """
        def look() -> None:
            self.check()
            watch(False)

        self.check()
        self.listener.drain()
        self._player.send(('play', factor, seconds))
        self._player.receive(_ANSWER_TIMEOUT, self.check)
        watch(True)
        self._player.receive(2 * seconds + _ANSWER_TIMEOUT, look)
        self.check()
        watch(True)
        report = self._player.receive(_ANSWER_TIMEOUT, self.check)
        after = self._settle()
        before, self.before = self.before, after
        return Played(
            frames={namespace: self._frames(namespace, report['sent'][topic])
                    for topic, namespace in self._topics.items()},
            before=before, after=after,
            reports={namespace: self.listener.reports(name)
                     for namespace, name in self._names.items()},
            seconds=report['seconds'], late_ns=report['late_ns'], starved=report['starved'])

    def step(self, topics: Collection[str], timeout: float) -> PlayedFrame:
        """Send each camera's next frame, and wait for the first one's output on the topics."""
        self._player.send(('step',))
        topic, namespace = next(iter(self._topics.items()))
        sent = self._player.receive(timeout, self.check)[topic]
        for output in topics:
            if self.listener.wait_for(output, sent[0], timeout) is None:
                self.check()
                raise LiveRunError(f'a frame did not come out on {output} within {timeout:g} s')
        self.listener.wait_until_told(sent[0], 1.0, namespace)
        return self._frames(namespace, [sent])[0]

    def _frames(self, namespace: str, sent: Iterable[tuple[int | None, int]]) -> list[PlayedFrame]:
        """Match the frames sent with their outputs and statuses."""
        came = reversed(self.listener.recorded(f'{namespace}/derained/image'))
        images, told = {found.stamp: found for found in came}, self.listener.told(namespace)
        return [
            PlayedFrame(stamp, handed_over, image and image.time, told.get(stamp),
                        image.data if image else b'')
            for stamp, handed_over in sent for image in (images.get(stamp),)]

    def wait_until_active(self, *, managed: bool) -> None:
        """Wait until the node's outputs are discovered and, if managed, the node is active."""
        def state() -> str:
            return self.listener.node_state() if managed else 'not managed'

        def active() -> bool:
            engine = self.listener.status('/derain: engine')
            if engine.level == DiagnosticStatus.ERROR:
                raise LiveRunError(f'derain_node does not become active: {engine.message}')
            return state() in ('active', 'not managed') and self.listener.outputs_found()

        self._wait(active, _START_TIMEOUT, lambda: (
            f'the node did not become active within {_START_TIMEOUT:g} s (state: {state()})'))

    def attach(self, player: Helper, sizes: int) -> None:
        """Set the player, and let it send frames of each size until the engine is ready for them.

        This completes loading and compiling before anything is measured.
        """
        self._player = player
        for size in range(sizes):
            received = 0
            while True:
                player.send(('sample', size))
                self.before = self._settle(received)
                if self._engine_state() == 'ready':
                    break
                received = max(int(status['received']) for status in self.before.values())
                self._wait(lambda: self._engine_state() == 'ready', _WARM_UP_TIMEOUT, lambda: (
                    f'the engine is not ready after {_WARM_UP_TIMEOUT:g} s (state: '
                    f'{self._engine_state()})'))

    def _engine_state(self) -> str:
        """Return the engine's state from its newest status; ``ready`` if that has none."""
        return self.listener.values('/derain: engine').get('state', 'ready')

    def _settle(self, received: int = 0) -> dict[str, Mapping[str, str]]:
        """Wait until cameras have more than ``received`` frames and the node is idle again.

        Returns all values of each camera in /diagnostics, by its namespace.
        """
        # The next message may have been created before the last frame was finished.
        seen = self.listener.report_count + 1
        previous: list[list[int]] = []

        def settled() -> dict[str, Mapping[str, str]] | None:
            nonlocal seen, previous
            self._player.check()
            if self.listener.report_count <= seen:
                return None
            seen = self.listener.report_count
            statuses = {camera: self.listener.values(name) for camera, name in self._names.items()}
            before, previous = previous, [
                [int(status.get(key, 0)) for key in COUNTS] for status in statuses.values()]
            done = all(count[0] == sum(count[1:]) > received for count in previous)
            return statuses if done and before == previous else None

        return self._wait(settled, _SETTLE_TIMEOUT, lambda: (
            f'/diagnostics has no steady status of {", ".join(self._names.values())} after '
            f'{_SETTLE_TIMEOUT:g} s'))

    def _wait(self, ready: Callable[[], Any], timeout: float, problem: Callable[[], str]) -> Any:
        """Return the first true result of ``ready``; raises LiveRunError after the timeout."""
        deadline = time.monotonic() + timeout
        while not (found := ready()):
            self.check()
            if time.monotonic() > deadline:
                raise LiveRunError(f'{problem()}:\n{tail(self._log)}')
            time.sleep(0.05)
        return found


@contextmanager
def live_run(
    logs: Path, source: PlayedSource, parameters: Mapping[str, str], *,
    outputs: Iterable[str] = ('image', 'rain_mask'), keep: bool = False, plain: bool = False,
) -> Iterator[LiveRun]:
    """Start a node, a listener and a player; all processes are terminated when the context ends.

    The node gets ``parameters`` besides those of the cameras; it is active and, if managed, its
    engine is ready for every frame size. Raises LiveRunError if it does not start. ``logs`` is
    the folder for ``node.log`` and ``replay.log``. The listener subscribes to the ``outputs`` of
    each camera; with ``keep`` it keeps whole messages, not only times. ``plain`` runs the plain
    node of the benchmarks, unmanaged and without the environment that our launch file sets.
    """
    logs.mkdir(parents=True, exist_ok=True)
    domain = isolate(profile=not plain)
    # In quotes, as YAML takes off and yes for booleans.
    names = ','.join(f"'{camera.name}'" for camera in source.cameras)
    arguments = [_PLAIN if plain else _DERAIN, '--ros-args', '-p', f'cameras:=[{names}]']
    topics: dict[str, type] = {}
    for camera in source.cameras:
        parameters = {**camera.parameters(), **parameters}
        topics |= output_topics(camera.namespace, outputs)
    for key, value in parameters.items():
        arguments += ['-p', f'{key}:={value}']
    with ExitStack() as stack:
        # Otherwise a SIGTERM would leave the other processes running.
        stack.enter_context(terminate_cleanly())
        log = logs / 'node.log'
        node = stack.enter_context(child(arguments, log, environment=None if plain else ALLOCATOR))
        context = Context()
        # Not this process's own arguments: those like NAME:=VALUE are meant for the node.
        context.init(args=[], domain_id=domain)
        stack.callback(context.try_shutdown)
        listener = Listener(
            context, topics, [camera.namespace for camera in source.cameras],
            topics if keep else (),
            reliable=parameters.get('output_reliability') != 'best_effort')
        stack.enter_context(_spinning(listener, make_executor(context)))
        run = LiveRun(node, log, listener, source)
        run.wait_until_active(managed=not plain)
        player = stack.enter_context(
            helper('player', 'derain_ros.live.player:serve', logs / 'replay.log', source))
        sizes = max(map(len, source.samples.values()))
        run.attach(player, 0 if plain else sizes)
        yield run


@contextmanager
def _spinning(listener: Listener, executor: Executor) -> Iterator[None]:
    executor.add_node(listener)
    stop = threading.Event()

    def spin() -> None:
        # Not spin(): EventsExecutor's burns a core on some builds if it has no timeout.
        with suppress(ExternalShutdownException):
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.2)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30.0)  # an executor that is still spinning must not be shut down
        executor.shutdown()
