"""The thread that takes frames from the mailbox and processes and publishes them.

Each frame is read and checked for a reason to bypass the engine (``_begin``), derained if needed
(``_derain``), encoded and published (``_end``). While it is dry, ``_probe`` then checks a patch.
"""

import math
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import RelativeHumidity

from derain_ros.engines import Derained, EngineError
from derain_ros.engines.contract import MINIMUM_SIDE
from derain_ros.images.memory import Memory
from derain_ros.images.message_fields import ImageFormatError
from derain_ros.images.pipeline import Frame, Infer
from derain_ros.node.camera import Camera, is_wet
from derain_ros.node.frame_sizes import FrameSizes, Size
from derain_ros.node.mailbox import Mailbox, Outcome, Taken
from derain_ros.node.outputs import Outputs, Work
from derain_ros.node.parameters import LiveSettings
from derain_ros.node.reporter import LOG_EVERY_SECONDS, Throttle
from derain_ros.node.supervisor import FaultError, Supervisor
from derain_ros.rain_gate import PROBE_SIDE

LONGEST_AGE = 10.0
"""Age in seconds above which a stamp is taken to be from another clock and ignored."""


class Worker:
    """Takes frames from the mailbox, derains them and publishes the outputs with a subscriber.

    ``live`` returns the settings for the next frame; ``wants_intensity`` returns whether the rain
    intensity over all cameras has a subscriber.
    """

    def __init__(
        self, node: Node, cameras: Mapping[str, Camera], mailbox: Mailbox, supervisor: Supervisor,
        outputs: Outputs, live: Callable[[], LiveSettings], wants_intensity: Callable[[], bool],
    ):
        self._node = node
        self._cameras = cameras
        self._mailbox = mailbox
        self._supervisor = supervisor
        self._outputs = outputs
        self._live = live
        self._wants_intensity = wants_intensity
        self._sizes = FrameSizes()
        self._derained_in: dict[str, Size] = {}
        self._memories: defaultdict[str, Memory] = defaultdict(Memory)
        self._throttle = Throttle(LOG_EVERY_SECONDS)
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        """Start the thread and open the mailbox."""
        self._stopping = False
        self._memories.clear()
        self._supervisor.cancelled = False
        self._mailbox.open()
        # A daemon thread, so that it cannot keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name='derain', daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Close the mailbox and wait for current frames; return whether the thread has ended."""
        self._stopping = True
        self._supervisor.cancelled = True
        self._mailbox.close()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def demand(self) -> dict[Size, float] | None:
        """Return the frames per second by the size they are derained at; None while unknown."""
        demand = defaultdict(float)
        for camera, size in tuple(self._derained_in.items()):
            if (rate := self._mailbox.rate(camera)) is None:
                return None
            if rate:
                demand[size] += rate
        return demand

    def _run(self) -> None:
        while (taken := self._mailbox.take()) is not None:
            self._serve(taken)

    def _serve(self, taken: Sequence[Taken]) -> None:
        live, now = self._live(), time.monotonic()
        works = [Work(self._cameras[one.camera], one, live) for one in taken]
        finished = set()
        try:
            for work in works:
                work.camera.record.took('wait', now - work.taken.arrival)
                self._guarded(self._begin, work)
            self._drop_without_partner(works)
            self._derain(works)
            for work in works:
                if work.outcome is None:
                    self._guarded(self._end, work)
            for work in works:
                outcome = work.outcome
                self._guarded(self._probe, work)
                self._guarded(self._publish_intensity, work)
                if outcome is Outcome.IDLE:
                    outcome = work.outcome  # what cannot be read has failed
                finished.add(work)
                self._mailbox.finish(work.camera.name, outcome)
        except Exception:  # never expected, but the counts must still add up
            self._node.get_logger().error(traceback.format_exc())
            for work in works:
                if work not in finished:
                    self._mailbox.finish(work.camera.name, Outcome.FAILED)

    def _guarded(self, step: Callable[[Work], None], work: Work) -> None:
        try:
            step(work)
        except Exception as error:
            work.outcome, work.needs_engine = self._failed(work.camera, error), False

    # Before the engine

    def _begin(self, work: Work) -> None:
        camera, live = work.camera, work.live
        work.wanted = camera.outputs.wanted(live)
        if not work.wanted and not (live.enabled and self._wants_intensity_of(camera)):
            work.outcome = Outcome.IDLE
            camera.record.idled()
            return
        start = time.perf_counter()
        self._outputs.read(work)
        if work.wanted and work.wanted <= {'camera_info', 'status'}:
            size = work.frame.size
            camera.record.read(size, work.frame.encoding, work.frame.message.frame_id)
            published = camera.publish_info(work.header, size)
            work.outcome = Outcome.BYPASSED if published else Outcome.IDLE
            if published:
                work.reason = 'only camera_info is subscribed to'
                self._tell(work, self._age(work))
            return
        work.reason = self._reason_to_bypass(work)
        work.needs_engine = not work.reason and bool(work.wanted)
        if work.wanted:
            self._read(work, decode=work.needs_engine or self._outputs.need_pixels(work))
        camera.record.took('decode', time.perf_counter() - start)

    def _wants_intensity_of(self, camera: Camera) -> bool:
        return camera.outputs.wants_intensity() or self._wants_intensity()

    def _reason_to_bypass(self, work: Work) -> str:
        if not work.live.enabled:
            return 'enabled is false'
        if not work.wanted & {'rain_mask', 'overlay'} and work.live.strength == 0:
            return 'strength is 0'
        if work.live.rain_gate and not is_wet(work.camera, self._cameras.values(), work.live):
            return 'it is dry'
        return ''

    def _read(self, work: Work, *, decode: bool) -> None:
        if decode:
            work.frame.bits = work.camera.settings.bits or partial(self._bits, work)
            work.frame.decode()
        else:
            work.frame.check()
        height, width = work.frame.size
        work.camera.record.read(
            work.frame.size, work.frame.encoding, work.frame.message.frame_id)
        if work.needs_engine and min(height, width) < MINIMUM_SIDE:
            raise ImageFormatError(
                f'the image is {width}x{height} pixels, but the network needs at least '
                f'{MINIMUM_SIDE} on each side; set the camera driver to a larger size')

    def _bits(self, work: Work, samples: np.ndarray) -> int:
        camera, message = work.camera, work.frame.message
        bits, changed = camera.record.bits(samples)
        if changed:
            encoding = message.format if work.frame.compressed else message.encoding
            self._node.get_logger().info(
                f'{camera.image_topic}: {bits} bits of {encoding} are assumed to be used, from '
                f'the largest sample so far; set {camera.name}.bit_depth if that is wrong')
        return bits

    def _drop_without_partner(self, works: Sequence[Work]) -> None:
        if any(work.outcome is Outcome.FAILED for work in works):
            for work in works:
                if work.outcome is None and work.wanted:
                    work.reason, work.needs_engine = 'its partner could not be read', False
                    self._drop(work)

    def _drop(self, work: Work) -> None:
        work.outcome = Outcome.DROPPED
        self._tell(work, self._age(work))

    def _tell(self, work: Work, age: float | None) -> None:
        if 'status' in work.wanted:
            work.camera.outputs.publish('status', self._outputs.status(work, age))

    # The engine

    def _derain(self, works: Sequence[Work]) -> None:
        for work in works:
            if work.needs_engine:
                self._infer(work)
        fault = next((work.fault for work in works if work.fault), None)
        for work in works:  # of one camera, or of one group
            if fault is None or work.outcome is not None or not work.wanted:
                continue
            work.frame.derained = work.frame.rain_mask = None
            work.fault = fault
            if work.live.on_fault == 'drop':
                self._note_fault(work)
                self._drop(work)

    def _network(self, work: Work, until: float) -> tuple[Infer, bool]:
        """Return what derains images of a frame, and whether it uses the camera's memory."""
        def infer(images: np.ndarray, *states: np.ndarray) -> Derained:
            result, work.infer_seconds = self._supervisor.infer(
                images, *states, limit=work.live.watchdog_ms / 1e3, until=until)
            return result

        info, memory = self._supervisor.info, self._memories[work.camera.name]
        if info is None or not info.remembers:
            return infer, False
        return memory.through(infer, _seconds(work)), True

    def _infer(self, work: Work) -> None:
        try:
            size, warm = self._prepare(work, patient=True)
            if not warm:
                raise FaultError(self._supervisor.why_not(), serious=self._supervisor.broken)
            infer, remembers = self._network(work, self._until(work))
            start = time.monotonic()
            work.frame.derain(infer, size)
            if remembers and work.infer_seconds is not None:  # None for a frame that came again
                work.infer_seconds = time.monotonic() - start
        except FaultError as error:
            work.fault = error
            return
        except Exception as error:
            work.fault = FaultError(f'{type(error).__name__}: {error}')
            self._node.get_logger().error(traceback.format_exc())
            return
        if work.infer_seconds is not None:
            work.camera.record.took('infer', work.infer_seconds)
        self._update_rain(work, work.frame.rain_mask)

    def _prepare(self, work: Work, *, patient: bool = False) -> tuple[Size, bool]:
        """Return the size to derain a frame at, and whether the engine is warm for it.

        With the rain gate, and for a probe, it must also be warm for the patches that are probed.
        """
        name = work.camera.name
        self._derained_in[name] = size = self._sizes.choose(
            name, work.frame.size, time.monotonic())
        probing = work.live.rain_gate or not work.needs_engine
        sizes = [size, patch_size(size)] if probing else [size]
        return size, self._supervisor.prepare(
            [(1, *one, 3) for one in sizes], patient=patient and self._sizes.is_uneven(name))

    def _update_rain(self, work: Work, mask: np.ndarray) -> None:
        camera = work.camera
        changed = camera.record.update_rain(mask, work.live.gate)
        if changed is not None and work.live.rain_gate:
            self._node.get_logger().info(
                f'{camera.name}: {"it rains" if changed else "it is dry"}, rain intensity '
                f'{camera.record.rain_intensity:.3f}')

    def _until(self, work: Work) -> float:
        """Return the ``time.monotonic()`` at which a frame becomes too old."""
        max_age = work.live.max_age_ms / 1e3
        if max_age == 0:
            return float('inf')
        age = self._lag(work)
        if age is None or age > LONGEST_AGE:
            if age is not None and self._throttle.allows((work.camera.name, 'clock')):
                self._node.get_logger().warning(
                    f'{work.camera.image_topic}: stamps are {age:.0f} s behind the clock of this '
                    'node, so max_age_ms counts from the arrival of a frame; set use_sim_time for '
                    'a replayed bag')
            return work.taken.arrival + max_age
        return time.monotonic() + max_age - age

    # After the engine

    def _end(self, work: Work) -> None:
        camera = work.camera
        if not work.wanted:
            work.outcome = Outcome.IDLE
            return
        start = time.perf_counter()
        messages = self._outputs.write(work)
        encoded = time.perf_counter()
        for output, message in messages.items():
            camera.outputs.publish(output, message)
        if 'camera_info' in work.wanted:
            camera.publish_info(work.header, work.frame.size)
        camera.record.took('encode', encoded - start)
        camera.record.took('publish', time.perf_counter() - encoded)
        age = self._age(work)
        if age is not None:
            camera.record.took('age', age)
        self._tell(work, age)
        if work.fault:
            self._note_fault(work)
        work.outcome = work.way

    def _probe(self, work: Work) -> None:
        if work.frame is None or work.needs_engine or work.outcome in (
                Outcome.FAILED, Outcome.DROPPED):
            return
        live, record = work.live, work.camera.record
        if not live.enabled or not (live.rain_gate or self._wants_intensity_of(work.camera)):
            return
        if not record.probe_due():
            return
        self._read(work, decode=True)
        if min(work.frame.size) < MINIMUM_SIDE:
            return
        patch = Frame(bgr=np.ascontiguousarray(
            work.frame.bgr[record.next_patch(*work.frame.size)]))

        if not record.looks_again:
            self._memories[work.camera.name].forget()
        infer, remembers = self._network(work, float('inf'))
        # The status of the engine already reports a FaultError.
        with suppress(FaultError):
            # Also for the whole frame, so that nothing has to be compiled when rain begins.
            size, warm = self._prepare(work)
            if warm:
                patch.derain(infer, patch_size(size))
                if not (remembers and record.doubts(patch.rain_mask)):
                    self._update_rain(work, patch.rain_mask)

    def _publish_intensity(self, work: Work) -> None:
        intensity = work.camera.record.rain_intensity
        if work.frame is not None and not math.isnan(intensity) and (
                work.camera.outputs.wants_intensity()):
            work.camera.outputs.publish('rain_intensity', RelativeHumidity(
                header=work.header, relative_humidity=intensity))

    def _age(self, work: Work) -> float | None:
        lag = self._lag(work)
        return None if lag is None or lag > LONGEST_AGE else lag

    def _lag(self, work: Work) -> float | None:
        stamp = work.frame.message.stamp
        age = self._node.get_clock().now().nanoseconds - stamp
        # A missing stamp, or one in the future after the clock jumped back, gives no age.
        return age * 1e-9 if stamp > 0 and age >= 0 else None

    def _note_fault(self, work: Work) -> None:
        topic = work.camera.image_topic
        work.camera.record.failed(
            f'{topic}: {work.fault}', by_engine=work.fault.serious, fault=True)

    def _failed(self, camera: Camera, error: Exception) -> Outcome:
        if self._stopping:
            # If the process exits during a frame, its publishers are destroyed before it is done.
            return Outcome.DROPPED
        topic = camera.image_topic
        if isinstance(error, (ImageFormatError, EngineError)):
            reason = log = f'{topic}: {error}'
        else:
            reason = f'{topic}: {type(error).__name__}: {error}'
            log = f'{topic}:\n{"".join(traceback.format_exception(error))}'
        camera.record.failed(reason, by_engine=isinstance(error, EngineError))
        if self._throttle.allows((camera.name, type(error))):
            self._node.get_logger().error(f'camera {camera.name}: a frame failed: {log}')
        return Outcome.FAILED


def _seconds(work: Work) -> float:
    """Return a frame's time in seconds: its stamp, or its arrival if it has none."""
    stamp = work.frame.message.stamp
    return stamp * 1e-9 if stamp > 0 else work.taken.arrival


def patch_size(size: Size) -> Size:
    """Return height and width of the patch that is probed in a frame while it is dry."""
    return min(PROBE_SIDE[0], size[0]), min(PROBE_SIDE[1], size[1])
