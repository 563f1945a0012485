"""The node's reports on itself: /diagnostics, the rain intensity, and warnings in the log."""

import functools
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Float32

from derain_ros.engines import EngineInfo
from derain_ros.node.camera import Camera, is_wet
from derain_ros.node.camera_record import CameraSnapshot
from derain_ros.node.mailbox import Counts, Mailbox
from derain_ros.node.parameters import LiveSettings
from derain_ros.node.supervisor import Supervisor

LOG_EVERY_SECONDS = 5.0
"""Shortest interval at which one kind of error on one camera is logged."""

CLOCK_SECONDS = 3.0  # how long simulated time may stand still before that is reported
SILENCE_LOG_SECONDS = 30.0  # shortest interval between warnings of one kind


class Throttle:
    """Lets one message of each kind through per interval, in seconds."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last: dict[object, float] = {}

    def allows(self, kind: object) -> bool:
        """Return whether a message of this kind may be logged now."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(kind, -math.inf) < self._seconds:
                return False
            self._last[kind] = now
            return True


class Reporter:
    """Publishes diagnostics and the rain intensity.

    ``problem`` is why the last transition failed, empty if it did not; ``live`` returns the
    settings for the next frame, and is None while no frames are expected.
    """

    def __init__(self, node: LifecycleNode):
        self.problem = ''
        self.live: Callable[[], LiveSettings] | None = None
        self._node = node
        self._clock = -1, 0.0
        self._throttle = Throttle(SILENCE_LOG_SECONDS)
        self._missing = Throttle(LOG_EVERY_SECONDS)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._intensity = node.create_publisher(Float32, '~/rain_intensity', 10)
        self.watch({}, None, None)

    def watch(
        self, cameras: Mapping[str, Camera], mailbox: Mailbox | None,
        supervisor: Supervisor | None,
    ) -> None:
        """Report on these from now on; ``supervisor`` is None if the node is not configured."""
        self._cameras, self._mailbox, self._supervisor = cameras, mailbox, supervisor
        self.reset()

    def reset(self) -> None:
        """Start a new reporting interval."""
        self._time = time.monotonic()
        self._counts: dict[str, Counts] = {}
        self._faults: dict[str, int] = {
            name: camera.record.snapshot().faults for name, camera in self._cameras.items()}
        self._silent: dict[str, bool] = {}

    def rain_is_listened_to(self) -> bool:
        """Return whether the node's rain intensity has a subscriber."""
        return self._intensity.get_subscription_count() > 0

    def watch_cameras(self) -> None:
        """Follow the publishers, publish rain intensity, report at once a camera gone silent."""
        if self.live is None:
            return
        for camera in self._cameras.values():
            camera.follow_publishers()
        known = [intensity for camera in self._cameras.values()
                 if not math.isnan(intensity := camera.record.rain_intensity)]
        if known and self.rain_is_listened_to():
            self._intensity.publish(Float32(data=sum(known) / len(known)))
        silent = {name: self._mailbox.silence(name)[0] is not None for name in self._cameras}
        if self._silent and silent != self._silent:
            self.report()
        self._silent = silent

    def report(self) -> None:
        """Publish the state of the engine and the cameras on /diagnostics."""
        now = time.monotonic()
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        counts = {} if self._mailbox is None else self._mailbox.counts()
        frames = {name: camera.record.snapshot() for name, camera in self._cameras.items()}
        new = {name: counts[name].since(self._counts.get(name, Counts())) for name in frames}
        cameras = [self._camera_status(camera, counts[name], new, frames[name], now)
                   for name, camera in self._cameras.items()]
        message.status = [self._engine_status(), *cameras]
        self._diagnostics.publish(message)
        self._time, self._counts = now, counts
        self._faults = {name: found.faults for name, found in frames.items()}

    def _engine_status(self) -> DiagnosticStatus:
        supervisor = self._supervisor
        missing = self.problem or (
            supervisor.problem if supervisor is not None and supervisor.info is None else '')
        if missing and self._missing.allows('engine'):
            self._node.get_logger().error(f'nothing is derained: {missing}')
        node = self._node.get_fully_qualified_name()
        if supervisor is None:
            return engine_status(node, None, self.problem, 'not configured',
                                 {'state': 'none', 'failures': 0})
        values = {'state': supervisor.state(), 'failures': supervisor.failures,
                  'activity': supervisor.activity,
                  **gpu_values(os.environ.get('CUDA_VISIBLE_DEVICES', ''))}
        return engine_status(node, supervisor.info, self.problem or supervisor.problem,
                             'the engine is being created', values)

    def _camera_status(
        self, camera: Camera, counts: Counts, new: Mapping[str, Counts], frames: CameraSnapshot,
        now: float,
    ) -> DiagnosticStatus:
        live = None if self.live is None else self.live()
        gate = 'off'
        level, message = DiagnosticStatus.OK, 'inactive'
        if live is not None:
            off = ('enabled is false' if not live.enabled else
                   'strength is 0' if live.strength == 0 else '')
            level, message = camera_level(
                new[camera.name], frames.faults - self._faults.get(camera.name, 0), frames,
                self._problems(camera, live, counts, new, frames), off)
            if live.rain_gate and live.enabled:
                gate = 'wet' if is_wet(camera, self._cameras.values(), live) else 'dry'
        fps = new[camera.name].published / max(now - self._time, 1e-3)
        return status(
            f'{self._node.get_fully_qualified_name()}: {camera.name}', level, message,
            camera.image_topic, camera_values(counts, fps, frames) | {
                'gate': gate, 'image_topic': camera.image_topic,
                'reliability': camera.reliability, 'sync_group': camera.settings.sync_group})

    def _clock_problem(self) -> str:
        """Return what is wrong with simulated time; empty if nothing is or it is not used."""
        if not self._node.get_parameter('use_sim_time').value:
            return ''
        now, steady = self._node.get_clock().now().nanoseconds, time.monotonic()
        if now != self._clock[0]:
            self._clock = now, steady
        if not self._node.count_publishers('/clock'):
            return ('use_sim_time is true, but nothing publishes /clock; start the simulator, or '
                    'ros2 bag play with --clock, or set use_sim_time to false')
        still = steady - self._clock[1]
        return '' if still < CLOCK_SECONDS else (
            f'simulated time has stood still for {still:.0f} s although /clock has a publisher; '
            'is the bag or the simulator paused?')

    def _problems(
        self, camera: Camera, live: LiveSettings, counts: Counts, new: Mapping[str, Counts],
        frames: CameraSnapshot,
    ) -> list[str]:
        seconds, ever = self._mailbox.silence(camera.name)
        problems = camera.problems(live, frames, silent_seconds=seconds, ever=ever)
        if clock := self._clock_problem():
            if self._throttle.allows(clock[:30]):
                self._node.get_logger().warning(clock)
            problems.insert(0, clock)
        # The frames that are dropped while one is processed may have partners.
        if seconds is None and not counts.in_work and (problem := self._loneliness(camera, new)):
            if self._throttle.allows(problem):
                self._node.get_logger().warning(f'{camera.name}: {problem}')
            problems.append(problem)
        return problems

    def _loneliness(self, camera: Camera, new: Mapping[str, Counts]) -> str:
        """Return why a grouped camera had all frames dropped since the last report.

        Empty if they were not, or for another reason than their partners.
        """
        group, own = camera.settings.sync_group, new[camera.name]
        if not group or not own.dropped or own.dropped < own.received or own.published:
            return ''
        others = [other.name for other in self._cameras.values()
                  if other.settings.sync_group == group and other is not camera]
        silent = [name for name in others if self._mailbox.silence(name)[0] is not None]
        if silent:
            return (f'no frame goes out without its partner from {", ".join(silent)}, which is '
                    f'silent; remove sync_group {group} if they are to be independent')
        if failing := [name for name in others if new[name].failed]:
            return (f'no frame goes out without its partner from {", ".join(failing)}, which '
                    f'fails; remove sync_group {group} if they are to be independent')
        return '' if own.unmatched < own.received else (
            f'no frame has a partner from {", ".join(others)}, of the same sync_group {group}; '
            'check that their stamps agree to sync_tolerance_ms')


def status(
    name: str, level: bytes, message: str, hardware_id: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Return a status with its values converted by ``str``."""
    return DiagnosticStatus(
        name=name, level=level, message=message, hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])


def camera_level(
    new: Counts, faults: int, frames: CameraSnapshot, problems: Sequence[str],
    switched_off: str = '',
) -> tuple[bytes, str]:
    """Return level and message of an active camera.

    ``new`` counts the frames since the last report, ``faults`` those that the engine should have
    derained and did not; ``problems`` are those of the topics, each with its remedy;
    ``switched_off`` names the parameter value that disables deraining, if any.
    """
    bad, failure = new.failed + faults, frames.failure
    if bad and failure is not None:
        level = DiagnosticStatus.ERROR if failure.by_engine else DiagnosticStatus.WARN
        what = 'were not derained' if faults else 'failed'
        return level, f'{bad} frames {what}, the last one: {failure.reason}'
    if problems:
        return DiagnosticStatus.WARN, '; '.join(problems)
    off = f'switched off ({switched_off}): ' if switched_off else ''
    if not new.published and new.idle:
        return DiagnosticStatus.OK, f'{off}idle: nobody subscribes to the images'
    return DiagnosticStatus.OK, (
        f'{off}{new.published} published, {new.dropped} dropped since the last report')


def camera_values(counts: Counts, fps: float, frames: CameraSnapshot) -> dict[str, object]:
    """Return the key-value pairs of a camera's status that describe its frames."""
    intensity, size = frames.rain_intensity, frames.size
    return {
        **{key: getattr(counts, key) for key in (
            'received', 'published', 'dropped', 'failed', 'idle', 'derained', 'bypassed',
            'passed_through')},
        'fps': f'{fps:.1f}',
        **{key: f'{value:.2f}' for key, value in frames.latencies.items()},
        'rain_intensity': '' if math.isnan(intensity) else f'{intensity:.4f}',
        'encoding': frames.encoding,
        'size': '' if size is None else f'{size[1]}x{size[0]}',
    }


def engine_status(
    node: str, info: EngineInfo | None, problem: str, idle_reason: str,
    values: Mapping[str, object],
) -> DiagnosticStatus:
    """Return the status ``<node>: engine``.

    ``idle_reason`` says why there is no engine if that is not a failure; ``values`` are additional
    key-value pairs, of which ``activity`` is what an engine that works is preparing.
    """
    if problem:
        level, message = DiagnosticStatus.ERROR, problem
    elif info is None:
        level, message = DiagnosticStatus.WARN, idle_reason
    else:
        level, message = DiagnosticStatus.OK, ', '.join(
            filter(None, (f'{info.engine} on {info.device}', values.get('activity'))))
    known = {key: getattr(info, key, '')
             for key in ('engine', 'device', 'model', 'precision', 'reason')}
    return status(f'{node}: engine', level, message, known['device'],
                  {'node': node, **known, **values})


def gpu_values(device: str = '') -> dict[str, int]:
    """Return ``gpu_temperature_c`` and ``gpu_utilisation_percent``, if NVML reports them.

    ``device`` is an index or UUID as in the parameter of that name; of a list the first is used,
    and empty means the first GPU.
    """
    try:
        import pynvml as nvml
    except ImportError:
        return {}
    try:
        handle = _gpu(device.partition(',')[0].strip())
        return {
            'gpu_temperature_c': nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            'gpu_utilisation_percent': nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        }
    except nvml.NVMLError:  # no driver yet, or some functions are missing as on a Jetson
        return {}


@functools.cache  # not of an exception, so that a driver may come later
def _gpu(device: str) -> Any:
    import pynvml

    pynvml.nvmlInit()
    return (pynvml.nvmlDeviceGetHandleByIndex(int(device or 0)) if device.isdigit() or not device
            else pynvml.nvmlDeviceGetHandleByUUID(device))
