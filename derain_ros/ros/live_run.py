"""Run the node as its own process, play a clip into it, and listen to what comes out.

Everything goes over DDS between processes, in a domain of its own on this host alone.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from derain_ros.models import share_directory
from derain_ros.ros.listener import CAMERA, COUNTS, OUTPUTS, Listener

_START_TIMEOUT = 90.0
_SETTLE_TIMEOUT = 60.0
_STOP_TIMEOUT = 5.0
_LOG_TAIL = 12
# What the Fast DDS profile takes: a segment each for node, replay and listener.
_SHARED_MEMORY = 3 * 80 << 20


class LiveRunError(RuntimeError):
    """A process of the run failed; the message holds the end of its log."""


@dataclass(frozen=True)
class Played:
    """What was sent into the node, and what it says it did with it.

    Attributes
    ----------
    frames
        Index in the clip and stamp (ns) of each frame sent.
    seconds
        From the first to the last.
    counts
        Counts of these frames, by the keys of :data:`COUNTS`.
    status
        All values of the camera in /diagnostics.

    """

    frames: list[tuple[int, int]]
    seconds: float
    counts: dict[str, int]
    status: dict[str, str]


class LiveRun:
    """A running node with its listener; made by :func:`live_run`."""

    def __init__(self, node: subprocess.Popen, log: Path, listener: Listener, stack: ExitStack):
        self._node = node
        self._log = log
        self._stack = stack
        self.listener = listener

    def check(self) -> None:
        """Raise LiveRunError if the node's process has ended."""
        if self._node.poll() is not None:
            raise LiveRunError(
                f'derain_node ended with status {self._node.returncode}:\n{_tail(self._log)}')

    def wait_until_active(self) -> None:
        """Wait for the node to be active and for its outputs to be found."""
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            if error := self.listener.error('derain: engine'):
                raise LiveRunError(f'derain_node does not become active: {error}')
            if self.listener.node_state() == 'active' and self.listener.outputs_found():
                return
            time.sleep(0.1)
        raise LiveRunError(
            f'derain_node did not become active within {_START_TIMEOUT:g} s '
            f'(state: {self.listener.node_state()}):\n{_tail(self._log)}')

    def play(self, arguments: Sequence[str], timeout: float) -> Played:
        """Play a clip into the node from another process.

        One frame goes ahead, so that loading and compiling for its size are over when the
        clip begins; it is not part of the result.

        Parameters
        ----------
        arguments
            Of :mod:`derain_ros.ros.replay`.
        timeout
            Seconds that the clip may take.

        Raises
        ------
        LiveRunError
            One of the processes failed or is stuck.

        """
        log, report_file = self._log.with_name('replay.log'), self._log.with_name('replay.json')
        process = self._stack.enter_context(_process(
            ['derain_ros.ros.replay', '--frame-ahead', '--report', str(report_file), *arguments],
            log, stdin=subprocess.PIPE))
        before = self._settle(process, log)
        process.stdin.close()
        deadline = time.monotonic() + timeout
        while process.poll() is None:
            self.check()
            if time.monotonic() > deadline:
                raise LiveRunError(f'the replay did not end within {timeout:g} s')
            time.sleep(0.05)
        self._check_replay(process, log)
        after = self._settle()
        report = json.loads(report_file.read_text())
        report_file.unlink()
        return Played(
            frames=[(index, stamp) for index, stamp in report['sent']],
            seconds=report['seconds'],
            counts={key: int(after[key]) - int(before[key]) for key in COUNTS},
            status=after,
        )

    def _settle(
        self, process: subprocess.Popen | None = None, log: Path | None = None
    ) -> dict[str, str]:
        """Wait until the node has received something and has nothing left to do."""
        name = f'derain: {CAMERA.strip("/")}'
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        # The next message may have been made before the last frame was done.
        seen = self.listener.status_count() + 1
        previous: list[int] = []
        while time.monotonic() < deadline:
            self.check()
            if process is not None and process.poll() is not None:
                self._check_replay(process, log)
            if self.listener.status_count() > seen:
                status = self.listener.values(name)
                counts = [int(status.get(key, 0)) for key in COUNTS]
                if counts == previous and counts[0] == sum(counts[1:]) > 0:
                    return status
                previous, seen = counts, self.listener.status_count()
            time.sleep(0.05)
        raise LiveRunError(
            f'/diagnostics has no steady status {name!r} after {_SETTLE_TIMEOUT:g} s:\n'
            f'{_tail(self._log)}')

    @staticmethod
    def _check_replay(process: subprocess.Popen, log: Path) -> None:
        if process.returncode:
            raise LiveRunError(
                f'the replay ended with status {process.returncode}:\n{_tail(log)}')


@contextmanager
def live_run(
    logs: Path,
    parameters: dict[str, str],
    *,
    topics: Iterable[str] = tuple(OUTPUTS),
    keep: bool = True,
):
    """Start the node and a listener; every process is gone when the context ends.

    Parameters
    ----------
    logs
        Folder for ``node.log`` and ``replay.log``.
    parameters
        Parameters of the node.
    topics
        Outputs to listen to, of :data:`OUTPUTS`.
    keep
        Keep the contents of what comes in, not its times alone.

    Yields
    ------
    LiveRun
        With the node active.

    Raises
    ------
    LiveRunError
        The node did not start.

    """
    logs.mkdir(parents=True, exist_ok=True)
    domain = _isolate()
    arguments = ['derain_ros.ros.main', '--ros-args']
    for key, value in parameters.items():
        arguments += ['-p', f'{key}:={value}']
    with ExitStack() as stack:
        # Without this a SIGTERM would leave the other processes behind.
        stack.enter_context(_terminate_cleanly())
        log = logs / 'node.log'
        node = stack.enter_context(_process(arguments, log))
        context = Context()
        context.init(domain_id=domain)
        stack.callback(context.try_shutdown)
        listener = Listener(context, topics, keep)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(listener)
        thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
        thread.start()
        stack.callback(thread.join, 2.0)
        stack.callback(executor.shutdown)
        run = LiveRun(node, log, listener, stack)
        run.wait_until_active()
        yield run


def percentile_ms(nanoseconds: Sequence[int], share: float) -> float:
    """Percentile of times given in nanoseconds, in milliseconds; NaN of none."""
    return float(np.percentile(nanoseconds, share)) / 1e6 if len(nanoseconds) else float('nan')


def _spin(executor: SingleThreadedExecutor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()


def _isolate() -> int:
    """Keep this process and its children to themselves; returns the ROS domain."""
    domain = 1 + os.getpid() % 101
    os.environ['ROS_DOMAIN_ID'] = str(domain)
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    else:
        os.environ.pop('ROS_LOCALHOST_ONLY', None)
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if _shared_memory() >= _SHARED_MEMORY:
        profile = share_directory() / 'config' / 'fastdds.xml'
        os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = str(profile)
    else:
        os.environ.pop('FASTRTPS_DEFAULT_PROFILES_FILE', None)
        print(f'derain: note: /dev/shm has less than {_SHARED_MEMORY >> 20} MiB to spare, so '
              'images go over UDP, which is slower (in Docker: --shm-size 512m)',
              file=sys.stderr)
    return domain


def _shared_memory() -> int:
    try:
        return shutil.disk_usage('/dev/shm').free
    except OSError:
        return 0


@contextmanager
def _process(arguments: Sequence[str], log: Path, stdin: int = subprocess.DEVNULL):
    with log.open('wb') as sink:
        process = subprocess.Popen(
            [sys.executable, '-m', *arguments], stdin=stdin, stdout=sink, stderr=sink,
            start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _terminate_cleanly():
    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _tail(log: Path) -> str:
    lines = log.read_text(errors='replace').splitlines()[-_LOG_TAIL:]
    return '\n'.join(['  ' + line for line in lines] + [f'(whole log: {log})'])
