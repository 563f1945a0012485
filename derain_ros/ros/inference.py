"""The engine under supervision: an engine that fails or hangs costs frames, never the node."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from derain_ros.engines import Derained, Engine, EngineError, EngineInfo
from derain_ros.engines.contract import forget_shapes
from derain_ros.engines.plausibility import find_implausible
from derain_ros.ros.engine_thread import ClosedError, EngineThread, Job

LEAST_LIMIT = 0.2
"""Shortest automatic limit for an inference, seconds."""

SLOWER_THAN_USUAL = 4.0
"""The automatic limit is so many times the slowest of the last inferences of that size."""

FIRST_LIMIT = 60.0
"""Limit for the first inference of a size, which compiles; frames do not wait for it."""

GIVE_UP = 5.0
"""After this many limits a stuck inference is abandoned, and the engine created anew."""

FAILURES_PER_ENGINE = 3
"""Failures in a row after which the next engine in line is tried."""

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before an engine is created anew; doubled with each failure in a row."""


OUT_OF_ORDER = (
    'two inferences hang, and no frame is derained until one of them returns; restart the node')

_REMEMBERED = 100


class FaultError(Exception):
    """No result for a frame, and why; ``serious`` unless it is a matter of waiting."""

    def __init__(self, reason: str, *, serious: bool = True):
        super().__init__(reason)
        self.serious = serious


class Supervisor:
    """Runs inferences in a thread of their own and judges how they go.

    :meth:`infer` is for one caller at a time; the other methods may be called from any thread.

    Parameters
    ----------
    line
        Names of engines in the order in which they are tried.
    create
        Makes the first engine of a list of names that works; raises EngineError.
    log
        Gets a sentence about each change for the worse (True) or the better (False).

    """

    def __init__(
        self, line: Sequence[str], create: Callable[[list[str]], Engine],
        log: Callable[[str, bool], None],
    ):
        self._line = list(line)
        self._create = create
        self._log = log
        self._lock = threading.RLock()
        self._thread: EngineThread | None = None
        self._abandoned: EngineThread | None = None
        self._ending: list[EngineThread] = []
        self._closed = False
        self._opening = True
        self._problem = ''
        self._failures = 0
        self._in_a_row = 0
        self._current = 0
        self._seconds: OrderedDict[tuple, deque] = OrderedDict()

    # What there is

    @property
    def info(self) -> EngineInfo | None:
        """The engine in use; None while there is none."""
        thread = self._thread
        return None if thread is None else thread.info

    @property
    def gains_by_batches(self) -> bool:
        """Whether the engine in use takes less time for a batch than for its frames."""
        thread = self._thread
        return thread is not None and thread.gains_by_batches

    @property
    def failures(self) -> int:
        """Failures since the start or the last reset."""
        return self._failures

    @property
    def problem(self) -> str:
        """What the engine failed with; empty while it works."""
        return self._problem

    @property
    def broken(self) -> bool:
        """Whether the engine has failed or is stuck."""
        return self.state() in ('stuck', 'failed', 'none')

    def state(self) -> str:
        """Return ``ready``, ``warming up``, ``stuck``, ``failed`` or ``none``."""
        with self._lock:
            if self._thread is None:
                return 'none'
            job = self._thread.job
            if job is not None and job.overdue():
                return 'stuck'
            if job is not None and job.preparing:
                return 'warming up'
            return 'ready' if self._thread.info is not None else 'failed'

    # Life

    def open(self, stop: threading.Event) -> None:
        """Create the first engine in line that works.

        Raises
        ------
        EngineError
            None works, or ``stop`` was set meanwhile.

        """
        with self._lock:
            self._start(0.0)
            thread = self._thread
        while not thread.attempted.wait(0.05):
            if stop.is_set():
                self.close()
                raise EngineError('the node was told to end while the engine was being created')
        if thread.info is None:
            self.close()
            raise EngineError(thread.failure)
        self._opening = False

    def close(self, timeout: float = 0.0) -> bool:
        """Let the engine go; returns whether no thread of it is left after ``timeout`` seconds.

        An inference in work is not interrupted: its thread closes the engine afterwards.
        """
        with self._lock:
            self._closed = True
            self._ending += [
                one for one in (self._thread, self._abandoned) if one is not None]
            self._thread = self._abandoned = None
        for thread in self._ending:
            thread.abandon()
        deadline = time.monotonic() + timeout
        left = [thread for thread in self._ending
                if not thread.ended(max(0.0, deadline - time.monotonic()))]
        return not left

    def reset(self) -> None:
        """Forget failures, and create a failed engine anew at once."""
        with self._lock:
            self._failures = self._in_a_row = 0
            if self._thread is not None:
                self._thread.hurry()

    def tend(self) -> None:
        """Abandon an inference that hangs; to be called now and then."""
        with self._lock:
            if self._closed:
                return
            if self._abandoned is not None and self._abandoned.ended(0.0):
                self._abandoned = None
            thread = self._thread
            job = None if thread is None else thread.job
            if job is None or not job.overdue(GIVE_UP):
                return
            if self._abandoned is not None:
                # One abandoned thread is enough: the next one that hangs is waited for.
                self._give_up()
                return
            self._note(f'an inference has been stuck for {job.elapsed():.1f} s')
            thread.abandon()
            self._abandoned = thread
            self._start(self._delay())

    # Work

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> bool:
        """Return whether the engine is warm for these shapes; if not, begin to warm it up."""
        with self._lock:
            missing = [shape for shape in dict.fromkeys(shapes) if shape not in self._seconds]
            if not missing:
                for shape in shapes:
                    self._seconds.move_to_end(shape)
                return True
            thread = self._thread
            if thread is not None and thread.job is None:
                with suppress(ClosedError):
                    thread.submit(lambda engine: self._warm_up(thread, engine, missing),
                                  limit=FIRST_LIMIT * len(missing), preparing=True)
            return False

    def infer(
        self, images: np.ndarray, *, limit: float = 0.0, until: float = float('inf')
    ) -> tuple[Derained, float]:
        """Derain a batch of a shape that :meth:`prepare` has accepted.

        Parameters
        ----------
        images
            As for :meth:`derain_ros.engines.Engine.infer`.
        limit
            Seconds after which the inference counts as stuck; 0 goes by the last ones.
        until
            Moment of ``time.monotonic`` after which the result is of no use.

        Returns
        -------
        tuple of Derained and float
            Result, and seconds that the engine took.

        Raises
        ------
        FaultError
            There is no result, or it is implausible.

        """
        self.tend()
        thread = self._thread
        if thread is None or thread.info is None:
            raise FaultError(self.why_not())
        busy = thread.job
        if busy is not None and (busy.preparing or busy.overdue()):
            raise FaultError(self.why_not(), serious=not busy.preparing)
        limit = limit or self._limit(images.shape)
        try:
            if busy is not None and not busy.wait(min(until, time.monotonic() + limit)):
                raise FaultError('the engine is still busy with an earlier frame',
                                 serious=busy.overdue())
            job = thread.submit(lambda engine: engine.infer(images), limit=limit)
        except ClosedError:
            raise FaultError(self.why_not()) from None
        if not job.wait(min(until, time.monotonic() + limit)):
            if time.monotonic() < until:
                self._problem = f'an inference takes longer than {limit * 1e3:.0f} ms'
                self._log(self._problem, True)
                raise FaultError(self._problem)
            raise FaultError('the frame grew older than max_age_ms before it was derained',
                             serious=False)
        return self._judge(thread, job, images)

    def _judge(
        self, thread: EngineThread, job: Job, images: np.ndarray
    ) -> tuple[Derained, float]:
        if job.error is not None:
            reason = _engine_words(job.error)
        else:
            reason = find_implausible(images, job.result)
            if reason and self._sound(thread, job, images.shape):
                raise FaultError(f'{reason}; the engine is sound, so it is the frame',
                                 serious=False)
        with self._lock:
            if not reason:
                self._recovered()
                self._seconds.setdefault(images.shape, deque(maxlen=_REMEMBERED)).append(
                    job.seconds)
                return job.result, job.seconds
            if thread is self._thread:
                self._note(reason)
                thread.abandon()
                self._start(self._delay())
        raise FaultError(reason)

    def _sound(self, thread: EngineThread, job: Job, shape: tuple[int, ...]) -> bool:
        """Tell whether the engine does well on a picture that is known to be harmless."""
        ramp = np.linspace(0, 255, shape[2]).astype(np.uint8)
        picture = np.ascontiguousarray(np.broadcast_to(ramp[:, np.newaxis], shape))
        try:
            again = thread.submit(lambda engine: engine.infer(picture), limit=job.limit)
        except ClosedError:
            return False
        return (again.wait(time.monotonic() + job.limit) and again.error is None
                and not find_implausible(picture, again.result))

    def _limit(self, shape: tuple[int, ...]) -> float:
        with self._lock:
            return max(LEAST_LIMIT, SLOWER_THAN_USUAL * max(self._seconds.get(shape, [0.0])))

    def why_not(self) -> str:
        """Say why no inference can begin now."""
        state = self.state()
        if state in ('warming up', 'ready'):
            return 'the engine is warming up for this size'
        if state == 'stuck':
            return self._problem or 'the engine is stuck: an inference does not return'
        return f'the engine is being created anew: {self._problem}'

    def _warm_up(
        self, thread: EngineThread, engine: Engine, shapes: Sequence[tuple[int, ...]]
    ) -> None:
        try:
            for shape in shapes:
                start = time.monotonic()
                engine.warm_up(*shape[1:3], batch=shape[0])
                compiled = time.monotonic()
                engine.warm_up(*shape[1:3], batch=shape[0])
                again = time.monotonic() - compiled
                self._log(f'ready for {shape[2]}x{shape[1]} after {compiled - start:.2f} s of '
                          'warm-up', False)
                with self._lock:
                    self._seconds[shape] = deque([again], maxlen=_REMEMBERED)
                    forget_shapes(self._seconds)
        except Exception as error:
            with self._lock:
                if thread is self._thread:
                    self._note(_engine_words(error))
                    thread.abandon()
                    self._start(self._delay())

    # Failure and recovery, under the lock

    def _start(self, delay: float) -> None:
        self._seconds.clear()
        if not self._closed:
            self._thread = EngineThread(self._make, delay)

    def _make(self) -> Engine:
        """Create an engine, in the thread that is to run it."""
        with self._lock:
            if self._next_is_due():
                self._current = (self._current + 1) % len(self._line)
            names = self._line[self._current:] + self._line[:self._current]
        try:
            engine = self._create(names)
        except Exception as error:
            reason = _engine_words(error)
            with self._lock:
                self._note(reason)
            raise EngineError(reason) from error
        with self._lock:
            if engine.info.engine in self._line:
                self._current = self._line.index(engine.info.engine)
            if self._problem:
                self._log(f'{engine.info.engine} was created anew', False)
        return engine

    def _note(self, reason: str) -> None:
        self._problem = reason
        self._failures += 1
        self._in_a_row += 1
        if not self._closed and not self._opening:
            self._log(f'{reason}; the next attempt follows in {self._delay():g} s', True)

    def _next_is_due(self) -> bool:
        return self._in_a_row > 0 and self._in_a_row % FAILURES_PER_ENGINE == 0

    def _give_up(self) -> None:
        if self._problem != OUT_OF_ORDER:
            self._problem = OUT_OF_ORDER
            self._log(OUT_OF_ORDER, True)

    def _recovered(self) -> None:
        if self._problem:
            self._log('the engine works again', False)
        self._problem = ''
        self._in_a_row = 0

    def _delay(self) -> float:
        if self._next_is_due() and len(self._line) > 1:
            return 0.0  # the waits are for the engine that failed
        return min(LONGEST_DELAY, FIRST_DELAY * 2 ** max(0, self._in_a_row - 1))


def _engine_words(error: BaseException) -> str:
    if isinstance(error, EngineError):
        return str(error)
    return f'{type(error).__name__}: {error}'
