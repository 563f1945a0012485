"""The lifecycle node: parameters, topics and timing."""

import traceback
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from derain_ros.engines import Engine, EngineError, create_engine
from derain_ros.models import ModelError
from derain_ros.ros.camera import Camera
from derain_ros.ros.diagnostics import (
    SILENCE_SECONDS,
    CameraReport,
    Throttle,
    camera_status,
    engine_status,
)
from derain_ros.ros.mailbox import Counts, Mailbox
from derain_ros.ros.parameter_store import ParameterStore
from derain_ros.ros.settings import LiveSettings, ParameterError
from derain_ros.ros.worker import Worker

WATCH_SECONDS = 0.25
"""How often the publishers of the inputs are looked at."""

SILENCE_LOG_SECONDS = 30.0
"""A camera without frames is logged at most this often."""


class DerainNode(LifecycleNode):
    """Derains camera topics while active.

    Configuring reads the parameters, loads the engine and creates the outputs; activating
    subscribes. What configuring or activating fails with is logged, and the node stays where
    it was, so that parameters can be put right and the transition asked for again.
    """

    def __init__(self) -> None:
        super().__init__('derain')
        self._store = ParameterStore(self)
        self._configured = False
        self._live: LiveSettings | None = None
        self._engine: Engine | None = None
        self._mailbox: Mailbox | None = None
        self._cameras: dict[str, Camera] = {}
        self._worker: Worker | None = None
        self._active = False
        self._problem = ''
        self._reported: dict[str, Counts] = {}
        self._silence_throttle = Throttle(SILENCE_LOG_SECONDS)
        self._guard_change_state()

        # Timers of the node's own clock would stand still in simulated time without /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_timer(1.0, self._report, clock=steady)
        self.create_timer(WATCH_SECONDS, self._watch, clock=steady)
        self._autostart = None
        if self.get_parameter('autostart').value:
            self._autostart = self.create_timer(0.0, self._start, clock=steady)

    # Lifecycle. Each callback returns SUCCESS to go on, FAILURE to stay in the state before
    # it, ERROR where something is half done; on_error then returns to unconfigured.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read parameters, load the engine, create the outputs; FAILURE leaves nothing behind."""
        return self._transition('configure', self._configure, self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe; FAILURE leaves the node inactive."""
        return self._transition('activate', self._activate, self._deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and wait for the frame in work; waiting frames are dropped."""
        return self._transition('deactivate', self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the engine and take the outputs down."""
        return self._transition('clean up', self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, from whatever state."""
        return self._transition('shut down', self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what a failed transition left; SUCCESS returns to unconfigured."""
        return self._transition('recover', self._release)

    def close(self, timeout: float) -> None:
        """Free everything before the process ends, waiting for a frame in work at most so long."""
        if self._worker is not None and not self._worker.stop(timeout):
            return  # closing an engine that is running would crash
        self._release()

    def _transition(
        self, name: str, action: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        # rclpy swallows what a callback raises, so nothing may get out of here.
        try:
            action()
        except Exception as error:
            self._problem = f'could not {name}: {error}'
            expected = isinstance(error, (ParameterError, EngineError, ModelError))
            detail = str(error) if expected else traceback.format_exc()
            self.get_logger().error(f'could not {name}: {detail}')
            if undo is None:
                return TransitionCallbackReturn.ERROR
            return self._undo(undo)
        return TransitionCallbackReturn.SUCCESS

    def _undo(self, undo: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            undo()
        except Exception:
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.FAILURE

    def _configure(self) -> None:
        settings = self._store.settings()
        self._live = self._store.live_settings()
        self._configured = True
        self._engine = create_engine(settings.engine, settings.model)
        info = self._engine.info
        self.get_logger().info(
            f'engine {info.engine} on {info.device}, model {info.model}, {info.precision}: '
            f'{info.reason}')
        sources: dict[str, str] = {}
        for camera in settings.cameras:
            self._cameras[camera.name] = Camera(self, camera, settings)
            first = sources.setdefault(camera.image_topic, camera.name)
            if first != camera.name:
                self.get_logger().warning(
                    f'{camera.name} and {first} both subscribe to {camera.image_topic}; '
                    f'is {camera.name}.image_topic right?')
        self._mailbox = Mailbox(self._cameras)
        self._reported = {}
        self._worker = Worker(
            self, self._cameras, self._mailbox, self._engine, settings.output_encoding,
            lambda: self._live)
        self._problem = ''

    def _activate(self) -> None:
        self._worker.start()
        for name, camera in self._cameras.items():
            camera.start(self._mailbox.put)
            topics = camera.settings
            self.get_logger().info(
                f'{name}: {topics.image_topic} ({camera.message_type.__name__}, '
                f'{camera.reliability}) -> {topics.outputs["image"]}')
        self._active = True
        self._problem = ''

    def _deactivate(self) -> None:
        self._active = False
        for camera in self._cameras.values():
            camera.stop()
        if self._worker is not None:
            self._worker.stop()

    def _release(self) -> None:
        self._deactivate()
        for name in tuple(self._cameras):
            self._cameras.pop(name).close()
        self._worker = self._mailbox = None
        engine, self._engine = self._engine, None
        self._configured = False
        if engine is not None:
            engine.close()

    def _start(self) -> None:
        self._autostart.cancel()
        for trigger in (self.trigger_configure, self.trigger_activate):
            try:
                done = trigger() == TransitionCallbackReturn.SUCCESS
            except Exception as error:  # somebody else has changed the state meanwhile
                self.get_logger().warning(f'autostart stops: {error}')
                return
            if not done:
                name = self.get_fully_qualified_name()
                self.get_logger().error(
                    'autostart failed; put the parameters right with '
                    f'"ros2 param set {name} ...", then "ros2 lifecycle set {name} '
                    'configure" and "... activate", or start the node again')
                return

    def _guard_change_state(self) -> None:
        # rclpy raises, and never answers, when a state does not allow the transition asked for.
        service = next(found for found in self.services if found.srv_type is ChangeState)
        change_state = service.callback

        def guarded(
            request: ChangeState.Request, response: ChangeState.Response
        ) -> ChangeState.Response:
            try:
                return change_state(request, response)
            except Exception as error:
                asked = request.transition.label or request.transition.id
                self.get_logger().error(f'transition {asked!r} refused: {error}')
                response.success = False
                return response

        service.callback = guarded

    def set_parameters_atomically(
        self, parameter_list: list[Parameter]
    ) -> SetParametersResult:
        """Set all or none; both parameter services end here.

        rclpy's own checks do not name the parameter, and know no parameter of a camera that
        is added in the same call.
        """
        reason = self._store.refusal(parameter_list, self._configured)
        if reason:
            return SetParametersResult(successful=False, reason=reason)
        for parameter in parameter_list:
            if parameter.name == 'cameras':
                self._store.declare_cameras(parameter.value)
        result = super().set_parameters_atomically(parameter_list)
        if result.successful:
            self._store.accept(parameter_list)
            if self._configured:
                self._live = self._store.live_settings()
        return result

    def _watch(self) -> None:
        if self._active:
            for camera in self._cameras.values():
                camera.follow_publishers()

    def _report(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        counts = {} if self._mailbox is None else self._mailbox.counts()
        reports = [self._camera_report(camera, counts[name])
                   for name, camera in self._cameras.items()]
        problem = self._problem
        for report in reports:
            failed = report.counts.failed > report.previous.failed
            if failed and report.failure is not None and report.failure.by_engine:
                problem = report.failure.reason
        info = None if self._engine is None else self._engine.info
        message.status = [
            engine_status(info, problem, 'not configured'), *map(camera_status, reports)]
        self._diagnostics.publish(message)
        self._reported = counts

    def _camera_report(self, camera: Camera, counts: Counts) -> CameraReport:
        return CameraReport(
            name=camera.name,
            image_topic=camera.settings.image_topic,
            active=self._active,
            counts=counts,
            previous=self._reported.get(camera.name, Counts()),
            encoding=camera.encoding,
            size=camera.size,
            reliability=camera.reliability,
            latencies=camera.latencies.percentiles(),
            failure=camera.failure,
            silence=self._silence(camera) if self._active else '',
        )

    def _silence(self, camera: Camera) -> str:
        if self._mailbox.seconds_since_frame(camera.name) < SILENCE_SECONDS:
            return ''
        reason = camera.silence()
        if self._silence_throttle.allows(reason):
            self.get_logger().warning(f'{camera.name}: {reason}')
        return reason
