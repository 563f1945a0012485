"""Supervises the engine, so that one that fails or hangs costs frames, never the node."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np

from derain_ros.engines import Derained, Engine, EngineError, EngineInfo
from derain_ros.engines.agreement import find_implausible, harmless_picture
from derain_ros.engines.contract import forget_shapes
from derain_ros.node.engine_thread import ClosedError, EngineThread, Job

GIVE_UP = 5.0  # multiple of its limit after which a stuck inference and its engine are given up

TOO_OLD = 'the frame grew older than max_age_ms before it was derained'
OUT_OF_ORDER = (
    'two inferences hang, and no frame is derained until one of them returns; restart the node')

REST, LONGEST_REST = 4.0, 10.0
"""Pause after a warm-up, for frames only: multiple of its duration, and most seconds."""

_LOOK_SECONDS = 0.1

FAILURES_PER_ENGINE = 3  # consecutive failures after which the next engine in line is tried

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before an engine is recreated, first and longest; doubled with each failure."""

LEAST_LIMIT = 0.2  # shortest automatic limit for an inference, seconds

SLOWER_THAN_USUAL = 4.0
"""The automatic limit is this multiple of the slowest recent inference of that size."""

REFUSED_FOR = 60.0  # seconds for which a size is not tried again
SMALL_SHAPE = (1, 64, 64, 3)  # test input for an engine that has not run yet

_REMEMBERED = 100

Shape = tuple[int, ...]
"""Batch, height, width, channels."""


class FaultError(Exception):
    """There is no result for a frame; ``serious`` if the engine is at fault or missing."""

    def __init__(self, reason: str, *, serious: bool = True):
        super().__init__(reason)
        self.serious = serious


class EngineLine:
    """The engines in order of preference, and their failures since :meth:`reset`."""

    def __init__(self, names: Sequence[str]):
        self._names = list(names)
        self._current = 0
        self._in_a_row = 0
        self.failures = 0

    def failed(self) -> None:
        """Count a failure of the current engine."""
        self.failures += 1
        self._in_a_row += 1

    def worked(self) -> None:
        """End the series of consecutive failures."""
        self._in_a_row = 0

    def reset(self) -> None:
        """Forget all failures."""
        self.failures = self._in_a_row = 0

    def next_names(self) -> list[str]:
        """Return the names to try in turn; after too many failures the current one comes last."""
        if self._next_is_due():
            self._current = (self._current + 1) % len(self._names)
        return self._names[self._current:] + self._names[:self._current]

    def created(self, name: str) -> None:
        """Note which engine is in use."""
        if name in self._names:
            self._current = self._names.index(name)

    def delay(self) -> float:
        """Return the seconds to wait before the next attempt."""
        if self._next_is_due() and len(self._names) > 1:
            return 0.0  # the waits are for the engine that failed
        return min(LONGEST_DELAY, FIRST_DELAY * 2 ** max(0, self._in_a_row - 1))

    def _next_is_due(self) -> bool:
        return self._in_a_row > 0 and self._in_a_row % FAILURES_PER_ENGINE == 0


class ShapeRecord:
    """Timings and refusals of an engine by input shape; not thread-safe."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[Shape, deque] = OrderedDict()
        self._refused: dict[Shape, tuple[str, float]] = {}

    def new_engine(self) -> None:
        """Forget the shapes the engine is warm for; refused ones stay refused."""
        self._seconds.clear()

    def any(self) -> bool:
        """Return whether the engine is warm for any shape."""
        return bool(self._seconds)

    def missing(self, shapes: Iterable[Shape]) -> list[Shape]:
        """Return the distinct shapes the engine is not warm for; mark the others as just used."""
        missing = []
        for shape in dict.fromkeys(shapes):
            if shape in self._seconds:
                self._seconds.move_to_end(shape)
            else:
                missing.append(shape)
        return missing

    def warm(self, shape: Shape, seconds: float) -> None:
        """Note that the engine is warm for a shape, and how long an inference of it took."""
        self._seconds[shape] = deque([seconds], maxlen=_REMEMBERED)
        forget_shapes(self._seconds)

    def took(self, shape: Shape, seconds: float) -> None:
        """Note how long an inference took."""
        self._seconds.setdefault(shape, deque(maxlen=_REMEMBERED)).append(seconds)

    def limit(self, shape: Shape) -> float:
        """Return the seconds after which an inference of a shape counts as stuck."""
        return max(LEAST_LIMIT, SLOWER_THAN_USUAL * max(self._seconds.get(shape, [0.0])))

    def last_used(self) -> Shape:
        """Return the shape used last, or a small one."""
        return next(reversed(self._seconds), SMALL_SHAPE)

    def refuse(self, shape: Shape, reason: str) -> None:
        """Refuse a shape for :data:`REFUSED_FOR` seconds."""
        self._refused[shape] = reason, time.monotonic() + REFUSED_FOR

    def why_refused(self, shapes: Iterable[Shape]) -> str:
        """Return why one of the shapes is refused now; empty if none is."""
        for shape in shapes:
            reason, until = self._refused.get(shape, ('', 0.0))
            if time.monotonic() < until:
                return reason
        return ''

    def accept_all(self) -> None:
        """Stop refusing shapes."""
        self._refused.clear()


class Supervisor:
    """Runs inferences in a separate thread, checks them and replaces an engine that fails.

    :meth:`infer` is for one caller at a time; the other methods may be called from any thread.
    ``line`` has engine names in order of preference; ``create`` returns the first that works of
    the names it is given; ``log`` gets a sentence about each change and whether it is a problem.
    """

    def __init__(
        self, line: Sequence[str], create: Callable[[list[str]], Engine],
        log: Callable[[str, bool], None],
    ):
        self._line = EngineLine(line)
        self._create = create
        self._log = log
        self._lock = threading.RLock()
        self._thread: EngineThread | None = None
        self._ending: list[EngineThread] = []
        self._closed = False
        self._opening = True
        self.problem = ''
        """Why the engine failed; empty while it works."""
        self._late = False
        self.cancelled = False
        """Whether inferences are not waited for any more, but raise FaultError."""
        self._rest_until = 0.0
        self._shapes = ShapeRecord()

    # What there is

    @property
    def info(self) -> EngineInfo | None:
        """The engine in use; None while there is none."""
        thread = self._thread
        return None if thread is None else thread.info

    @property
    def failures(self) -> int:
        """Failures since the start or the last reset."""
        return self._line.failures

    @property
    def activity(self) -> str:
        """What the engine is preparing, with the progress; empty if nothing."""
        thread = self._thread
        engine, job = (None, None) if thread is None else (thread.engine, thread.job)
        return ': '.join(filter(None, (
            job and job.preparing and f'warming up for {job.preparing}',
            engine and engine.activity)))

    @property
    def broken(self) -> bool:
        """Whether the engine has failed or is stuck."""
        return self.state() in ('stuck', 'failed', 'none')

    def state(self) -> str:
        """Return ``being created``, ``warming up``, ``ready``, ``stuck``, ``failed``, ``none``."""
        with self._lock:
            if self._thread is None:
                return 'none'
            job = self._thread.job
            if job is not None and job.overdue():
                return 'stuck'
            if job is not None and job.preparing:
                return 'warming up'
            if self._thread.info is not None:
                return 'ready'
            return 'failed' if self.problem else 'being created'

    # Life

    def open(self, stop: threading.Event, meanwhile: Callable[[], None] = lambda: None) -> str:
        """Create the first engine in line that works, calling ``meanwhile`` while waiting.

        Returns why none works, empty if one does. After a failure creation is retried, and
        :attr:`info` is None until it succeeds. Raises EngineError once ``stop`` is set.
        """
        with self._lock:
            self._start(0.0)
            thread = self._thread
        while not thread.attempted.wait(0.05):
            meanwhile()
            if stop.is_set():
                self.close()
                raise EngineError('the node was shut down while the engine was being created')
        self._opening = False
        return '' if thread.info is not None else thread.failure

    def close(self, timeout: float = 0.0) -> bool:
        """Release the engine; return whether all its threads ended within ``timeout`` seconds.

        A running inference is not interrupted: its thread closes the engine afterwards.
        """
        with self._lock:
            self._closed = True
            if self._thread is not None:
                self._ending.append(self._thread)
                self._thread = None
        for thread in self._ending:
            thread.abandon()
        deadline = time.monotonic() + timeout
        left = [thread for thread in self._ending
                if not thread.ended(max(0.0, deadline - time.monotonic()))]
        return not left

    def reset(self) -> None:
        """Forget failures and refused shapes, and recreate a failed engine at once."""
        with self._lock:
            self._line.reset()
            self._shapes.accept_all()
            if self._thread is not None:
                self._thread.hurry()

    def tend(self) -> None:
        """Abandon an inference that hangs; to be called regularly."""
        with self._lock:
            if self._closed:
                return
            self._ending = [thread for thread in self._ending if not thread.ended(0.0)]
            thread = self._thread
            job = None if thread is None else thread.job
            if self._late and job is None:
                self._late = False
                self.problem = ''
            if thread is None or not _hangs(thread):
                return
            if not any(map(_hangs, self._ending)):
                self._replace(
                    thread, f'an inference has been stuck for {job.elapsed() * 1e3:.0f} ms')
            # At most one hanging thread is abandoned; a second one is waited for.
            elif self.problem != OUT_OF_ORDER:
                self.problem = OUT_OF_ORDER
                self._log(OUT_OF_ORDER, True)

    # Work

    def prepare(self, shapes: Sequence[tuple[int, ...]], *, patient: bool = False) -> bool:
        """Return whether the engine is warm for these shapes; if not, begin to warm it up.

        With ``patient`` the warm-up begins only after a pause since the last one, in which frames
        have the engine to themselves. Raises FaultError if one of the shapes is refused.
        """
        with self._lock:
            if reason := self._shapes.why_refused(shapes):
                raise FaultError(reason)
            missing = self._shapes.missing(shapes)
            if not missing:
                return True
            thread = self._thread
            resting = patient and self._shapes.any() and time.monotonic() < self._rest_until
            if thread is not None and thread.engine and thread.job is None and not resting:
                with suppress(ClosedError):
                    thread.submit(lambda engine: self._warm_up(thread, engine, missing),
                                  limit=thread.engine.preparation_limit * len(missing),
                                  preparing=' and '.join(
                                      f'{width}x{height}' for _, height, width, _ in missing))
            return False

    def infer(
        self, images: np.ndarray, *states: np.ndarray, limit: float = 0.0,
        until: float = float('inf'),
    ) -> tuple[Derained, float]:
        """Derain a batch of a shape that :meth:`prepare` has accepted, see ``Engine.infer``.

        Returns the result and the seconds that the engine took. Raises FaultError if there is no
        result or it is implausible. An inference counts as stuck after ``limit`` seconds (0: set
        by recent ones), and is too late after ``until``, a value of ``time.monotonic()``.
        """
        self.tend()
        thread = self._thread
        if thread is None or thread.info is None:
            raise FaultError(self.why_not())
        busy = thread.job
        if busy is not None and (busy.preparing or busy.overdue()):
            raise FaultError(self.why_not(), serious=not busy.preparing)
        if not limit:
            with self._lock:
                limit = self._shapes.limit(images.shape)

        def work(engine: Engine) -> Derained:
            start = time.monotonic()
            result = engine.infer(images, *states)
            with self._lock:
                if thread is self._thread:  # also if it is too late for its frame
                    self._shapes.took(images.shape, time.monotonic() - start)
            return result

        try:
            if busy is not None and not self._await(busy, min(until, time.monotonic() + limit)):
                raise FaultError('the engine is still busy with an earlier frame',
                                 serious=busy.overdue())
            if time.monotonic() >= until:
                raise FaultError(TOO_OLD, serious=False)
            job = thread.submit(work, limit=limit)
        except ClosedError:
            raise FaultError(self.why_not()) from None
        if not self._await(job, min(until, time.monotonic() + limit)):
            if time.monotonic() >= until:
                raise FaultError(TOO_OLD, serious=False)
            reason = f'an inference takes longer than {limit * 1e3:.0f} ms'
            with self._lock:
                self.problem, self._late = reason, True
            self._log(reason, True)
            raise FaultError(reason)
        return self._judge(thread, job, images)

    def _await(self, job: Job, until: float) -> bool:
        """Wait for a job until ``time.monotonic()`` is ``until``; return whether it is done."""
        while not job.wait(min(until - time.monotonic(), _LOOK_SECONDS)):
            if self.cancelled:
                raise FaultError('the node is being deactivated', serious=False)
            if time.monotonic() >= until:
                return False
        return True

    def _judge(
        self, thread: EngineThread, job: Job, images: np.ndarray
    ) -> tuple[Derained, float]:
        if job.error is not None:
            reason = _engine_words(job.error)
        else:
            reason = find_implausible(images, job.result)
            if reason and self._sound(thread, job, images.shape):
                raise FaultError(f'{reason}; the engine works, so the frame is the cause',
                                 serious=False)
        with self._lock:
            if not reason:
                if thread is self._thread:
                    self._recovered()
                return job.result, job.seconds
            self._replace(thread, reason)
        raise FaultError(reason)

    def _sound(self, thread: EngineThread, job: Job, shape: tuple[int, ...]) -> bool:
        """Return whether the engine gives a plausible result for a known harmless image."""
        picture = harmless_picture(shape)
        try:
            again = thread.submit(lambda engine: engine.infer(picture), limit=job.limit)
        except ClosedError:
            return False
        return (self._await(again, time.monotonic() + job.limit) and again.error is None
                and not find_implausible(picture, again.result))

    def why_not(self) -> str:
        """Return why no inference can begin now."""
        state = self.state()
        if state in ('warming up', 'ready'):
            return f'the engine is {self.activity or "about to warm up for a new size"}'
        if state == 'stuck':
            return self.problem or 'the engine is stuck: an inference does not return'
        return f'the engine is being recreated: {self.problem}'

    def _warm_up(
        self, thread: EngineThread, engine: Engine, shapes: Sequence[tuple[int, ...]]
    ) -> None:
        begun = time.monotonic()
        for shape in shapes:
            try:
                start = time.monotonic()
                engine.warm_up(*shape[1:3], batch=shape[0])
                compiled = time.monotonic()
                engine.warm_up(*shape[1:3], batch=shape[0])
                again = time.monotonic() - compiled
            except Exception as error:
                self._refuse(thread, engine, shape, _engine_words(error))
                if thread is self._thread:
                    continue  # the engine is sound
                return
            with self._lock:
                if thread is not self._thread:
                    return
                self._shapes.warm(shape, again)
            self._log(f'ready for {shape[2]}x{shape[1]} after {compiled - start:.2f} s of '
                      'warm-up', False)
        now = time.monotonic()
        self._rest_until = now + min(REST * (now - begun), LONGEST_REST)

    def _refuse(
        self, thread: EngineThread, engine: Engine, shape: tuple[int, ...], reason: str
    ) -> None:
        """Refuse a shape for a while if the engine works on another; else replace the engine."""
        with self._lock:
            picture = harmless_picture(self._shapes.last_used())
        try:
            sound = not find_implausible(picture, engine.infer(picture))
        except Exception:
            sound = False
        with self._lock:
            if sound:
                reason = f'{shape[2]}x{shape[1]}: {reason}'
                self._shapes.refuse(shape, reason)
                self._log(f'{reason}; such frames are not derained for {REFUSED_FOR:g} s', True)
            else:
                self._replace(thread, reason)

    # Failure and recovery, under the lock

    def _start(self, delay: float) -> None:
        self._shapes.new_engine()
        self._late = False
        if not self._closed:
            self._thread = EngineThread(self._make, delay, self._line.delay)

    def _replace(self, thread: EngineThread, reason: str) -> None:
        if thread is self._thread:
            self._note(reason)
            thread.abandon()
            self._ending.append(thread)
            self._start(self._line.delay())

    def _make(self) -> Engine:
        """Create an engine; called in the thread that will run it."""
        with self._lock:
            names = self._line.next_names()
        try:
            engine = self._create(names)
        except Exception as error:
            reason = _engine_words(error)
            with self._lock:
                self._note(reason)
            raise EngineError(reason) from error
        with self._lock:
            self._line.created(engine.info.engine)
            if self.problem:
                self._log(f'{engine.info.engine} was recreated', False)
        return engine

    def _note(self, reason: str) -> None:
        self.problem = reason
        self._line.failed()
        if not self._closed and not self._opening:
            self._log(f'{reason}; the next attempt follows in {self._line.delay():g} s', True)

    def _recovered(self) -> None:
        if self.problem:
            self._log('the engine works again', False)
        self.problem = ''
        self._line.worked()


def _hangs(thread: EngineThread) -> bool:
    job = thread.job
    return job is not None and job.overdue(GIVE_UP)


def _engine_words(error: BaseException) -> str:
    if isinstance(error, EngineError):
        return str(error)
    return f'{type(error).__name__}: {error}'
