"""The lifecycle node: parameters, topics and timing."""

import os
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from derain_ros.engines import Engine, EngineError, auto_engines, check_engine, create_engine
from derain_ros.engines.models import ModelError, find_model
from derain_ros.images.cdr import read_stamp
from derain_ros.node.camera import Camera
from derain_ros.node.mailbox import Mailbox
from derain_ros.node.model_choice import ModelChoice
from derain_ros.node.outputs import Outputs
from derain_ros.node.parameter_store import ParameterStore
from derain_ros.node.parameters import LiveSettings, ParameterError, Settings
from derain_ros.node.reporter import LOG_EVERY_SECONDS, Reporter, Throttle
from derain_ros.node.supervisor import FaultError, Supervisor
from derain_ros.node.worker import Worker, patch_size

REPORT_SECONDS = 1.0  # longest interval between messages on /diagnostics
WATCH_SECONDS = 0.2  # how often publishers, cameras and engine are checked
ACTIVITY_SECONDS = 10.0  # how often the engine's preparation is logged

LOOK_SECONDS = 0.1
"""How often on_configure checks whether the engine is ready."""

STOP_SECONDS = 5.0
"""Longest wait for the frame being processed (deactivate) and for the engine (cleanup)."""


class DerainNode(LifecycleNode):
    """Derains camera topics while active.

    Configuring reads the parameters, loads the engine and creates the outputs; activating
    subscribes. If either fails, the reason is logged and the node stays in its previous state,
    so that the parameters can be corrected and the transition requested again.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        super().__init__('derain')
        self._stop = stop or threading.Event()
        self._store = ParameterStore(self)
        self._transitions = 0
        self._live: LiveSettings | None = None
        self._supervisor: Supervisor | None = None
        self._mailbox: Mailbox | None = None
        self._cameras: dict[str, Camera] = {}
        self._worker: Worker | None = None
        self._lingering: list[Supervisor] = []
        self._reports = Throttle(REPORT_SECONDS)
        self._activity = Throttle(ACTIVITY_SECONDS)
        self._engine_errors = Throttle(LOG_EVERY_SECONDS)
        self.exit_status = 0
        self._guard_change_state()

        # With simulated time and no /clock, timers on the node's own clock would never fire.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._reporter = Reporter(self)
        self.create_timer(REPORT_SECONDS, self._reporter.report, clock=steady)
        self.create_timer(WATCH_SECONDS, self._watch, clock=steady)
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self._autostart = None
        if self.get_parameter('autostart').value:
            self._autostart = self.create_timer(0.0, self._start, clock=steady)

    # Lifecycle callbacks return SUCCESS to complete the transition, FAILURE to return to the
    # previous state, ERROR if it is left half done; on_error then returns to unconfigured.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read parameters, load the engine, create the outputs; FAILURE leaves nothing behind."""
        return self._transition('configure', self._configure, self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe; FAILURE leaves the node inactive."""
        return self._transition('activate', self._activate, self._deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and wait for the frame being processed; waiting frames are dropped."""
        return self._transition('deactivate', self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the engine and destroy the publishers."""
        return self._transition('clean up', self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, in any state."""
        return self._transition('shut down', self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what a failed transition left behind; SUCCESS returns to unconfigured."""
        return self._transition('recover', self._release)

    def close(self, timeout: float) -> str:
        """Free everything before the process ends.

        Returns what is still running after ``timeout`` seconds: ``'frame'`` if a frame is being
        processed and the publishers are in use, ``'engine'`` if only the engine is, else ``''``.
        """
        deadline = time.monotonic() + timeout
        if self._worker is not None and not self._worker.stop(timeout):
            return 'frame'
        self._release(0.0)
        ended = [supervisor.close(max(0.0, deadline - time.monotonic()))
                 for supervisor in self._lingering]
        return '' if all(ended) else 'engine'

    def _transition(
        self, name: str, action: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        # rclpy swallows exceptions of a callback, so none may escape from here.
        self._transitions += 1
        try:
            if undo is not None:  # a new attempt
                self._reporter.problem = ''
            action()
            return TransitionCallbackReturn.SUCCESS
        except Exception as error:
            self._reporter.problem = f'could not {name}: {error}'
            expected = isinstance(error, (ParameterError, EngineError, ModelError))
            detail = str(error) if expected else traceback.format_exc()
            self.get_logger().error(f'could not {name}: {detail}')
        try:
            if undo is not None:
                undo()
                return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(traceback.format_exc())
        return TransitionCallbackReturn.ERROR

    def _configure(self) -> None:
        settings = self._store.settings()
        self._live = self._store.live_settings()
        self._lingering = [one for one in self._lingering if not one.close(0.0)]
        if self._lingering:
            self.get_logger().warning(
                'an engine that was closed earlier still hangs and holds its memory; restart '
                'the node to free it')
        self._open_engine(settings)
        self._warm_up(settings)
        self._store.warn_of_overrides(settings)
        sources: dict[str, str] = {}
        groups = [camera.sync_group for camera in settings.topics]
        for camera in settings.topics:
            self._cameras[camera.name] = Camera(self, camera, settings, self._live)
            first = sources.setdefault(camera.image_topic, camera.name)
            if first != camera.name:
                self.get_logger().warning(
                    f'{camera.name} and {first} both subscribe to {camera.image_topic}; '
                    f'is {camera.name}.image_topic right?')
            if camera.sync_group and groups.count(camera.sync_group) == 1:
                self.get_logger().warning(
                    f'{camera.name} is the only camera of sync_group {camera.sync_group}; is '
                    f'{camera.name}.sync_group right?')
        self._mailbox = Mailbox(
            {camera.name: camera.sync_group for camera in settings.topics},
            settings.sync_tolerance_ms / 1e3, lambda data: (read_stamp(data) or 0) * 1e-9)
        self._worker = Worker(
            self, self._cameras, self._mailbox, self._supervisor,
            Outputs(in_place=settings.fast_path, encoding=settings.output_encoding,
                    node=self.get_fully_qualified_name()),
            lambda: self._live, self._reporter.rain_is_listened_to)
        self._reporter.watch(self._cameras, self._mailbox, self._supervisor)

    def _open_engine(self, settings: Settings) -> None:
        """Create the engine; if that fails, frames bypass it until a later attempt succeeds."""
        # A wrong name stays wrong, so it is refused at once instead of being tried again.
        check_engine(settings.engine)
        if settings.model != 'auto':
            find_model(settings.model)
        self._supervisor = self._supervise(settings)
        self._reporter.watch({}, None, self._supervisor)
        failure = self._supervisor.open(self._stop, self._meanwhile)
        info = self._supervisor.info
        if info is not None:
            self.get_logger().info(
                f'engine {info.engine} on {info.device}, model {info.model}, {info.precision}: '
                f'{info.reason}')
        elif settings.wait_for_warm_up or self.get_parameter('build_only').value:
            raise EngineError(failure)
        else:
            fate = 'dropped' if self._live.on_fault == 'drop' else 'passed through unchanged'
            self.get_logger().error(
                f'{failure}; until an engine can be created, which is tried repeatedly, frames '
                f'are {fate}')

    def _supervise(self, settings: Settings) -> Supervisor:
        if settings.device:  # before the first engine, which starts CUDA
            os.environ['CUDA_VISIBLE_DEVICES'] = settings.device
            os.environ.setdefault('CUDA_DEVICE_ORDER', 'PCI_BUS_ID')  # as NVML counts
        make = partial(
            create_engine, precision=settings.precision, options=settings.engine_options)
        names = auto_engines() if settings.engine == 'auto' else [settings.engine]

        def create(names: list[str]) -> Engine:
            if settings.model != 'auto':
                return make(names, settings.model)
            return ModelChoice(
                partial(make, names), lambda: self._worker and self._worker.demand(),
                settings.cpu_budget, f'{settings.precision} {settings.engine_threads}',
                settings.engine_options.cache_directory, self.get_logger().info)

        return Supervisor(names, create, self._log_engine)

    def _warm_up(self, settings: Settings) -> None:
        shapes, supervisor = settings.warm_up_shapes, self._supervisor
        if settings.wait_for_warm_up and not shapes:
            self.get_logger().warning(
                'wait_for_warm_up waits for nothing, as warm_up_sizes is empty; put the sizes of '
                "the frames in it, for example '1280x720'")
        if self._live.rain_gate:  # no frame is derained before the patches can be probed
            patches = [(1, *patch_size(shape[1:3]), 3) for shape in shapes]
            shapes = list(dict.fromkeys([*shapes, *patches]))
        if not (settings.wait_for_warm_up or settings.build_only):
            with suppress(FaultError):  # reported again with a frame of that size
                supervisor.prepare(shapes)
            return
        try:
            while not supervisor.prepare(shapes):
                if supervisor.broken and supervisor.problem:
                    raise EngineError(supervisor.problem)
                supervisor.tend()  # no timer does so meanwhile
                if self._stop.wait(LOOK_SECONDS):
                    raise EngineError(
                        'the node was shut down while the engine was being prepared')
                self._meanwhile()
        except FaultError as error:
            raise EngineError(str(error)) from error

    def _activate(self) -> None:
        self._worker.start()
        for name, camera in self._cameras.items():
            kind = camera.start(self._mailbox.put).__name__
            self.get_logger().info(f'{name}: {camera.image_topic} ({kind}, {camera.reliability}) '
                                   f'-> {camera.settings.outputs["image"]}')
        self._reporter.live = lambda: self._live

    def _deactivate(self) -> None:
        if self._reporter.live is not None:
            self.get_logger().info('inactive now: no frames are processed')
        self._reporter.live = None
        for camera in self._cameras.values():
            camera.stop()
        if self._worker is not None and not self._worker.stop(STOP_SECONDS):
            raise EngineError(f'the frame being processed was not finished after '
                              f'{STOP_SECONDS:g} s')

    def _release(self, timeout: float = STOP_SECONDS) -> None:
        self._deactivate()
        self._reporter.watch({}, None, None)
        for name in tuple(self._cameras):
            self._cameras.pop(name).close()
        self._worker = self._mailbox = None
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None and not supervisor.close(
                0.0 if self._stop.is_set() else timeout):
            self._lingering.append(supervisor)

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        result = self.set_parameters_atomically([Parameter('enabled', value=request.data)])
        response.success = result.successful
        response.message = result.reason or f'enabled is {str(request.data).lower()}'
        return response

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._mailbox is None:
            response.message = 'nothing to reset: the node is not configured'
            return response
        self._mailbox.reset_counts()
        self._supervisor.reset()
        for camera in self._cameras.values():
            camera.record.forget()
        self._reporter.reset()
        response.success = True
        response.message = 'counters, rain gate, bit depth and engine back-off are reset'
        return response

    def _log_engine(self, text: str, bad: bool) -> None:
        if bad:
            if self._engine_errors.allows(text):
                self.get_logger().error(f'engine: {text}')
        else:
            self.get_logger().info(f'engine: {text}')

    def _log_activity(self) -> None:
        activity = self._supervisor.activity
        # The text after the comma is the progress.
        if activity and self._activity.allows(activity.partition(',')[0]):
            self.get_logger().info(f'engine: {activity}')

    def _start(self) -> None:
        self._autostart.cancel()
        if self.get_parameter('build_only').value:
            self._build_only()
            return
        for trigger in (self.trigger_configure, self.trigger_activate):
            try:
                done = trigger() == TransitionCallbackReturn.SUCCESS
            except Exception as error:  # another client has changed the state meanwhile
                self.get_logger().warning(f'autostart stops: {error}')
                return
            if self._stop.is_set():
                return
            if not done:
                name = self.get_fully_qualified_name()
                self.get_logger().error(
                    f'autostart failed; correct the parameters with "ros2 param set {name} ...", '
                    f'then "ros2 lifecycle set {name} configure" and "... activate", or start the '
                    'node again')
                return

    def _build_only(self) -> None:
        done = self.trigger_configure() == TransitionCallbackReturn.SUCCESS
        self.exit_status = 0 if done else 1
        if done:
            self.get_logger().info('the engine is ready; exiting, as build_only is set')
        self._stop.set()

    def _state(self) -> str:
        return self._state_machine.current_state[1]

    def _meanwhile(self) -> None:
        """Answer and report while a transition occupies the executor, so that no timer fires."""
        self._answer_queries()
        if self._reports.allows('report'):
            self._log_activity()
            self._reporter.report()

    def _answer_queries(self) -> None:
        for service in self.services:
            if service.srv_type in (GetState, GetAvailableStates, GetAvailableTransitions):
                while True:
                    with service.handle:
                        request, header = service.handle.service_take_request(
                            service.srv_type.Request) or (None, None)
                    if header is None:
                        break
                    response = service.callback(request, service.srv_type.Response())
                    service.send_response(response, header)

    def _guard_change_state(self) -> None:
        # For a transition that the state does not allow, rclpy raises and sends no response.
        service = next(found for found in self.services if found.srv_type is ChangeState)
        change_state = service.callback

        def guarded(
            request: ChangeState.Request, response: ChangeState.Response
        ) -> ChangeState.Response:
            before = self._transitions
            try:
                response = change_state(request, response)
            except Exception:
                response.success = False
            if not response.success and self._transitions == before:
                asked = request.transition.label or request.transition.id
                hint = ('; start it again' if self._state() == 'finalized' else
                        '; it configures and activates by itself: set its parameter autostart to '
                        'false if a lifecycle manager does this'
                        if self.get_parameter('autostart').value else '')
                self.get_logger().error(
                    f'transition {asked!r} refused: the node is {self._state()}{hint}')
            return response

        service.callback = guarded

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set all of the parameters or none; both parameter services call this method.

        It adds to rclpy's own checks, which do not name the parameter in their message and do
        not know the parameters of a camera that is added in the same call.
        """
        reason = self._store.refusal(parameter_list, self._state())
        if reason:
            return SetParametersResult(successful=False, reason=reason)
        for parameter in parameter_list:
            if parameter.name == 'cameras':
                self._store.declare_cameras(parameter.value)
        result = super().set_parameters_atomically(parameter_list)
        if result.successful:
            self._store.accept(parameter_list)
            if self._mailbox is not None:  # configured
                self._live = self._store.live_settings()
            for parameter in parameter_list:
                if parameter.name in LiveSettings.__dataclass_fields__:
                    value = parameter.value
                    said = str(value).lower() if isinstance(value, bool) else value
                    self.get_logger().info(f'{parameter.name} is {said} now')
        return result

    def _watch(self) -> None:
        if self._supervisor is not None:
            self._supervisor.tend()
            self._log_activity()
        self._reporter.watch_cameras()
