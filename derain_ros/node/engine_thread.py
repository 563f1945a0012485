"""A thread that owns an engine and runs one job at a time on it."""

import threading
import time
from collections.abc import Callable
from typing import Any

from derain_ros.engines import Engine, EngineInfo


class ClosedError(RuntimeError):
    """The thread takes no jobs any more."""


class Job:
    """A piece of work for an engine, which counts as stuck after ``limit`` seconds.

    ``preparing`` tells whether it prepares the engine for frames; ``result``, ``error`` and
    ``seconds`` are known once :meth:`wait` has returned True.
    """

    def __init__(self, work: Callable[[Engine], Any], limit: float, preparing: bool):
        self.limit = limit
        self.preparing = preparing
        self.result: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self._work = work
        self._start = time.monotonic()
        self._done = threading.Event()

    def run(self, engine: Engine) -> None:
        """Do the work; errors are kept for the one who asked for it."""
        start = time.perf_counter()
        try:
            self.result = self._work(engine)
        except BaseException as error:  # MemoryError and what bindings raise, too
            self.error = error
        self.seconds = time.perf_counter() - start

    def finish(self) -> None:
        """Let go who waits for it."""
        self._done.set()

    def wait(self, until: float) -> bool:
        """Wait until it is done; False at a moment of ``time.monotonic``."""
        left = until - time.monotonic()
        # An infinite wait has no number that Event.wait takes.
        return self._done.wait(min(max(left, 0.0), threading.TIMEOUT_MAX))

    def elapsed(self) -> float:
        """Return the seconds since it was given."""
        return time.monotonic() - self._start

    def overdue(self, times: float = 1.0) -> bool:
        """Tell whether it is not done after so many times its limit."""
        return not self._done.is_set() and self.elapsed() > times * self.limit


class EngineThread:
    """Creates an engine, runs jobs on it, closes it; daemonic, as an engine may hang.

    If ``make`` cannot create the engine the thread tries again: first after ``delay`` seconds,
    then after those that ``again`` returns. ``engine`` and its ``info`` are there between the two,
    ``job`` while one is in work; ``attempted`` is set once creation has worked or failed.
    """

    def __init__(
        self, make: Callable[[], Engine], delay: float, again: Callable[[], float]
    ):
        self.engine: Engine | None = None
        self.info: EngineInfo | None = None
        self.job: Job | None = None
        self.failure = ''
        self.attempted = threading.Event()
        self._make = make
        self._delay = delay
        self._again = again
        self._changed = threading.Condition()
        self._hurried = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name='derain engine', daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[Engine], Any], limit: float, *, preparing: bool = False
    ) -> Job:
        """Give the engine something to do; raises ClosedError if it takes nothing now."""
        with self._changed:
            if self._abandoned or self.info is None or self.job is not None:
                raise ClosedError('the engine is not at hand')
            self.job = job = Job(work, limit, preparing)
            self._changed.notify_all()
            return job

    def abandon(self) -> None:
        """Take no jobs any more; the engine is closed as soon as the one in work is done."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            engine = self.engine
        if engine is not None:
            engine.cancel()

    def hurry(self) -> None:
        """Make the next attempt at once."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def ended(self, timeout: float) -> bool:
        """Wait for the end; False after ``timeout`` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        engine = self._create()
        if engine is None:
            return
        try:
            while (job := self._next()) is not None:
                job.run(engine)
                with self._changed:
                    self.job = None  # first, so that who waited may give the next
                    self.info = engine.info  # which may know more once a size is compiled
                job.finish()
        finally:
            self.info = self.engine = None
            engine.close()

    def _create(self) -> Engine | None:
        delay = self._delay
        while self._pause(delay):
            try:
                engine = self._make()
            except Exception as error:
                self.failure = str(error)
                self.attempted.set()
                delay = self._again()
                continue
            self.engine, self.info = engine, engine.info
            self.attempted.set()
            return engine
        return None

    def _pause(self, seconds: float) -> bool:
        """Wait, unless hurried; False once abandoned."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._hurried, seconds)
            self._hurried = False
            return not self._abandoned

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self.job is not None)
            return None if self._abandoned else self.job
