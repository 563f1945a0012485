"""What the node says of itself: /diagnostics, the rain intensity, and warnings in the log."""

import math
import time
from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Float32

from derain_ros.node.camera import Camera, is_wet
from derain_ros.node.camera_record import CameraSnapshot
from derain_ros.node.diagnostics import (
    LOG_EVERY_SECONDS,
    CameraReport,
    Throttle,
    camera_status,
    engine_status,
    gpu_values,
)
from derain_ros.node.mailbox import Counts, Mailbox
from derain_ros.node.parameters import LiveSettings
from derain_ros.node.supervisor import Supervisor

CLOCK_SECONDS = 3.0
"""How long simulated time stands still before that is told."""

SILENCE_LOG_SECONDS = 30.0
"""A camera without frames is logged at most this often."""


class Reporter:
    """Publishes diagnostics and rain intensity.

    Parameters
    ----------
    node
        Owner of the publishers.

    Attributes
    ----------
    problem
        What the last transition failed with; empty if it did not.

    """

    def __init__(self, node: LifecycleNode):
        self.problem = ''
        self._node = node
        self._clock = -1, 0.0
        self._cameras: Mapping[str, Camera] = {}
        self._mailbox: Mailbox | None = None
        self._supervisor: Supervisor | None = None
        self._live: Callable[[], LiveSettings] | None = None
        self._throttle = Throttle(SILENCE_LOG_SECONDS)
        self._missing = Throttle(LOG_EVERY_SECONDS)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._intensity = node.create_publisher(Float32, '~/rain_intensity', 10)
        self.reset()

    def watch(
        self, cameras: Mapping[str, Camera], mailbox: Mailbox, supervisor: Supervisor
    ) -> None:
        """Report on these from now on."""
        self.problem = ''
        self._cameras, self._mailbox, self._supervisor = cameras, mailbox, supervisor
        self.reset()

    def activate(self, live: Callable[[], LiveSettings]) -> None:
        """Expect frames from now on."""
        self.problem = ''
        self._live = live

    def deactivate(self) -> None:
        """Expect no frames any more."""
        self._live = None

    def forget(self) -> None:
        """Report that nothing is configured."""
        self._cameras, self._mailbox, self._supervisor = {}, None, None
        self.reset()

    def reset(self) -> None:
        """Begin a new interval of reports."""
        self._time = time.monotonic()
        self._counts: dict[str, Counts] = {}
        self._faults: dict[str, int] = {
            name: camera.record.snapshot().faults for name, camera in self._cameras.items()}
        self._silent: dict[str, bool] = {}

    @property
    def inactive(self) -> bool:
        """No frames are expected."""
        return self._live is None

    def rain_is_listened_to(self) -> bool:
        """Tell whether somebody subscribes to the rain intensity."""
        return self._intensity.get_subscription_count() > 0

    def watch_cameras(self) -> None:
        """Follow the publishers, publish the rain intensity, tell at once who falls silent."""
        if self._live is None:
            return
        for camera in self._cameras.values():
            camera.follow_publishers()
        known = [camera.record.rain_intensity for camera in self._cameras.values()]
        known = [intensity for intensity in known if not math.isnan(intensity)]
        if known and self.rain_is_listened_to():
            self._intensity.publish(Float32(data=sum(known) / len(known)))
        silent = {name: self._mailbox.silence(name)[0] is not None for name in self._cameras}
        if self._silent and silent != self._silent:
            self.report()
        self._silent = silent

    def report(self) -> None:
        """Publish the state of engine and cameras."""
        now = time.monotonic()
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        counts = {} if self._mailbox is None else self._mailbox.counts()
        frames = {name: camera.record.snapshot() for name, camera in self._cameras.items()}
        cameras = [camera_status(self._camera_report(camera, counts[name], frames[name], now))
                   for name, camera in self._cameras.items()]
        message.status = [self._engine_status(), *cameras]
        self._diagnostics.publish(message)
        self._time, self._counts = now, counts
        self._faults = {name: found.faults for name, found in frames.items()}

    def _engine_status(self):
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
                  'activity': supervisor.activity, **gpu_values()}
        return engine_status(node, supervisor.info, self.problem or supervisor.problem,
                             'being created anew', values)

    def _camera_report(
        self, camera: Camera, counts: Counts, frames: CameraSnapshot, now: float
    ) -> CameraReport:
        live = None if self._live is None else self._live()
        gate = switched_off = ''
        if live is not None and not live.enabled:
            switched_off = 'enabled is false'
        elif live is not None and live.strength == 0:
            switched_off = 'strength is 0'
        if live is not None and live.rain_gate and live.enabled:
            gate = 'wet' if is_wet(camera, self._cameras.values()) else 'dry'
        return CameraReport(
            node=self._node.get_fully_qualified_name(),
            name=camera.name,
            image_topic=camera.image_topic,
            active=live is not None,
            counts=counts,
            previous=self._counts.get(camera.name, Counts()),
            seconds=now - self._time,
            frames=frames,
            reliability=camera.reliability,
            sync_group=camera.settings.sync_group,
            faults=frames.faults - self._faults.get(camera.name, 0),
            problems=[] if live is None else self._problems(camera, live, counts, frames),
            gate=gate or 'off',
            switched_off=switched_off,
        )

    def _clock_problem(self) -> str:
        """Say what is wrong with simulated time, if that is used."""
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
        self, camera: Camera, live: LiveSettings, counts: Counts, frames: CameraSnapshot
    ) -> list[str]:
        seconds, ever = self._mailbox.silence(camera.name)
        problems = camera.problems(live, frames, silent_seconds=seconds, ever=ever)
        if clock := self._clock_problem():
            if self._throttle.allows(clock[:30]):
                self._node.get_logger().warning(clock)
            problems.insert(0, clock)
        if seconds is None and (problem := self._loneliness(camera, counts)):
            if self._throttle.allows(problem):
                self._node.get_logger().warning(f'{camera.name}: {problem}')
            problems.append(problem)
        return problems

    def _loneliness(self, camera: Camera, counts: Counts) -> str:
        """Say why all frames of a camera of a group were dropped since the last report."""
        new = counts.since(self._counts.get(camera.name, Counts()))
        group = camera.settings.sync_group
        if not group or not new.dropped or new.dropped < new.received:
            return ''
        others = [other.name for other in self._cameras.values()
                  if other.settings.sync_group == group and other is not camera]
        silent = [name for name in others if self._mailbox.silence(name)[0] is not None]
        if silent:
            return (f'no frame goes out without its partner from {", ".join(silent)}, which is '
                    f'silent; take sync_group {group} out if they are to be independent')
        return (f'no frame has a partner from {", ".join(others)}, of the same sync_group '
                f'{group}; check that their stamps agree to sync_tolerance_ms')
