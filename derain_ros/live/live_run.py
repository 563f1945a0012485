"""Run the node as its own process, play a clip into it, and listen to what comes out.

Everything goes over DDS between processes, in a domain of its own on this host alone.
"""

import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException

from derain_ros.live.listener import CAMERA, COUNTS, Listener, make_executor, output_topics
from derain_ros.live.processes import (
    ALLOCATOR,
    DERAIN,
    LiveRunError,
    Program,
    child,
    isolate,
    tail,
    terminate_cleanly,
)
from derain_ros.live.replay_process import Played, ReplayProcess, Sent

__all__ = ['LiveRun', 'LiveRunError', 'Played', 'live_run', 'percentile_ms']

_START_TIMEOUT = 90.0
_SETTLE_TIMEOUT = 60.0
_WARM_UP_TIMEOUT = 180.0


class LiveRun:
    """A running node with its listener; made by :func:`live_run`.

    Attributes
    ----------
    listener
        Where the messages are.
    pid
        Of the node's process.
    log
        What the node has printed.

    """

    def __init__(
        self, node: subprocess.Popen, log: Path, listener: Listener, cameras: Mapping[str, str],
    ):
        self._node = node
        self._cameras = cameras
        self.log = log
        self.listener = listener
        self.pid = node.pid

    def check(self) -> None:
        """Raise LiveRunError if the node's process has ended."""
        if self._node.poll() is not None:
            raise LiveRunError(
                f'the node ended with status {self._node.returncode}:\n{tail(self.log)}')

    def wait_until_active(self, *, managed: bool) -> None:
        """Wait for the node's outputs to be found and, if managed, for it to be active."""
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            if error := self.listener.error('derain: engine'):
                raise LiveRunError(f'derain_node does not become active: {error}')
            active = not managed or self.listener.node_state() == 'active'
            if active and self.listener.outputs_found():
                return
            time.sleep(0.1)
        state = self.listener.node_state() if managed else 'not managed'
        raise LiveRunError(
            f'the node did not become active within {_START_TIMEOUT:g} s (state: {state}):\n'
            f'{tail(self.log)}')

    @contextmanager
    def replay(self, arguments: Sequence[str]) -> Iterator[ReplayProcess]:
        """Start a replay that waits for commands."""
        log, report = self.log.with_name('replay.log'), self.log.with_name('replay.json')
        with child(
            ['derain_ros.live.replay', '--commands', '--report', str(report), *arguments,
             '--camera', *self._cameras], log, commands=True, answers=True,
        ) as process:
            yield ReplayProcess(process, log, report)

    def play(
        self, arguments: Sequence[str], timeout: float, watch: Callable[[], None] | None = None,
    ) -> Played:
        """Play a clip into the node from another process.

        Frames go ahead until the engine is ready for their size, so that loading and compiling
        are over when the clip begins; they are not part of the result.

        Parameters
        ----------
        arguments
            Of :mod:`derain_ros.live.replay`.
        timeout
            Seconds that the clip may take.
        watch
            Called some twenty times a second while the clip plays.

        Raises
        ------
        LiveRunError
            One of the processes failed or is stuck.

        """
        def look() -> None:
            self.check()
            if watch is not None:
                watch()

        with self.replay(arguments) as replay:
            before = self.warm_up(replay)
            replay.command('play')
            report = replay.finish(timeout, look)
        after = self.settle()
        return Played(
            sent={camera: [Sent(*frame) for frame in sent]
                  for camera, sent in report['sent'].items()},
            seconds=report['seconds'], before=before, after=after)

    def warm_up(
        self, replay: ReplayProcess, command: str = 'frame'
    ) -> dict[str, Mapping[str, str]]:
        """Send frames until one has come while the engine was ready; returns the statuses.

        Parameters
        ----------
        replay
            Where the frames come from.
        command
            Makes it send a frame on each camera.

        Raises
        ------
        LiveRunError
            One of the processes failed, or the engine does not become ready.

        """
        received = 0
        deadline = time.monotonic() + _WARM_UP_TIMEOUT
        while time.monotonic() < deadline:
            replay.command(command)
            statuses = self.settle(replay, received)
            if self.engine_ready():
                return statuses
            received = max(int(status['received']) for status in statuses.values())
            while not self.engine_ready() and time.monotonic() < deadline:
                self.check()
                time.sleep(0.05)
        state = self.listener.values('derain: engine').get('state', '')
        raise LiveRunError(
            f'the engine is not ready after {_WARM_UP_TIMEOUT:g} s (state: {state}):\n'
            f'{tail(self.log)}')

    def engine_ready(self) -> bool:
        """Whether the engine's newest status says that it is ready, or does not say."""
        return self.listener.values('derain: engine').get('state', 'ready') == 'ready'

    def settle(
        self, replay: ReplayProcess | None = None, received: int = 0
    ) -> dict[str, Mapping[str, str]]:
        """Wait until every camera has received more, and the node has nothing left to do.

        Parameters
        ----------
        replay
            Looked at meanwhile, if there is one.
        received
            Frames that each camera must have received in excess of.

        Returns
        -------
        dict
            All values of each camera in /diagnostics, by its namespace.

        Raises
        ------
        LiveRunError
            One of the processes has ended, or the counts do not come to rest.

        """
        names = {camera: f'derain: {name}' for camera, name in self._cameras.items()}
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        # The next message may have been made before the last frame was done.
        seen = self.listener.report_count() + 1
        previous: list[list[int]] = []
        while time.monotonic() < deadline:
            self.check()
            if replay is not None:
                replay.check()
            if self.listener.report_count() > seen:
                seen = self.listener.report_count()
                statuses = {
                    camera: self.listener.values(name) for camera, name in names.items()}
                counts = [[int(status.get(key, 0)) for key in COUNTS]
                          for status in statuses.values()]
                if counts == previous and all(
                    count[0] == sum(count[1:]) > received for count in counts
                ):
                    return statuses
                previous = counts
            time.sleep(0.05)
        raise LiveRunError(
            f'/diagnostics has no steady status of {", ".join(names.values())} after '
            f'{_SETTLE_TIMEOUT:g} s:\n{tail(self.log)}')


@contextmanager
def live_run(
    logs: Path,
    parameters: Mapping[str, str],
    *,
    cameras: Sequence[str] = (CAMERA,),
    outputs: Iterable[str] = ('image', 'rain_mask', 'camera_info'),
    keep: Collection[str] | None = None,
    program: Program = DERAIN,
    names: Sequence[str] | None = None,
) -> Iterator[LiveRun]:
    """Start a node and a listener; every process is gone when the context ends.

    Parameters
    ----------
    logs
        Folder for ``node.log`` and ``replay.log``.
    parameters
        Parameters of the node.
    cameras
        Namespaces of the cameras, such as ``/front``.
    outputs
        Outputs of each camera to listen to.
    keep
        Topics whose messages are kept, not their times alone; by default all.
    program
        The node.
    names
        Names of the cameras, where those of the namespaces will not do.

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
    domain = isolate(profile=program.tuned)
    if names is None:
        names = [camera.strip('/') for camera in cameras]
    arguments = [program.module, '--ros-args', '-p', f'cameras:=[{",".join(names)}]']
    for key, value in parameters.items():
        arguments += ['-p', f'{key}:={value}']
    topics: dict[str, type] = {}
    for camera in cameras:
        topics |= output_topics(camera, outputs)
    with ExitStack() as stack:
        # Without this a SIGTERM would leave the other processes behind.
        stack.enter_context(terminate_cleanly())
        log = logs / 'node.log'
        node = stack.enter_context(
            child(arguments, log, environment=ALLOCATOR if program.tuned else None))
        context = Context()
        # Not the arguments of this process: what looks like NAME:=VALUE there is for the node.
        context.init(args=[], domain_id=domain)
        stack.callback(context.try_shutdown)
        listener = Listener(context, topics, cameras, topics if keep is None else keep)
        stack.enter_context(_spinning(listener, make_executor(context)))
        run = LiveRun(node, log, listener, dict(zip(cameras, names, strict=True)))
        run.wait_until_active(managed=program.managed)
        yield run


def percentile_ms(nanoseconds: Sequence[int], share: float) -> float:
    """Percentile of times given in nanoseconds, in milliseconds; NaN of none."""
    return float(np.percentile(nanoseconds, share)) / 1e6 if len(nanoseconds) else float('nan')


@contextmanager
def _spinning(listener: Listener, executor: Executor) -> Iterator[None]:
    executor.add_node(listener)
    stop = threading.Event()

    def spin() -> None:
        # Not spin(): without a timeout, that of EventsExecutor burns a core on some builds.
        with suppress(ExternalShutdownException):
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.2)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(2.0)
        executor.shutdown()
