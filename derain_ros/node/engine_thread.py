"""A thread that owns an engine and runs one job at a time on it."""

import threading
import time
from collections.abc import Callable
from typing import Any

from derain_ros.engines import Engine, EngineInfo


class ClosedError(RuntimeError):
    """The thread accepts no job now."""


class Job:
    """A piece of work for an engine, which counts as stuck after ``limit`` seconds.

    ``preparing`` has the sizes of a warm-up as text, empty for an inference; ``result``,
    ``error`` and ``seconds`` are valid once :meth:`wait` has returned True.
    """

    def __init__(self, work: Callable[[Engine], Any], limit: float, preparing: str):
        self.limit = limit
        self.preparing = preparing
        self.result: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self._work = work
        self._start = time.monotonic()
        self._done = threading.Event()

    def run(self, engine: Engine) -> None:
        """Do the work; an exception is stored in ``error``, not raised."""
        start = time.perf_counter()
        try:
            self.result = self._work(engine)
        except BaseException as error:  # also MemoryError and exceptions of bindings
            self.error = error
        self.seconds = time.perf_counter() - start

    def finish(self) -> None:
        """Wake up the threads in :meth:`wait`."""
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the job, at most ``seconds``; return whether it is done."""
        return self._done.wait(seconds)

    def elapsed(self) -> float:
        """Return the seconds since the job was submitted."""
        return time.monotonic() - self._start

    def overdue(self, times: float = 1.0) -> bool:
        """Return whether the job is unfinished after ``times`` times its limit."""
        return not self._done.is_set() and self.elapsed() > times * self.limit


class EngineThread:
    """Creates an engine, runs jobs on it and closes it; a daemon thread, as an engine may hang.

    It calls ``make`` after ``delay`` seconds; if that fails, it tries again, each time after the
    seconds that ``again`` returns. ``engine`` and its ``info`` are None before creation and after
    closing, ``job`` unless one is running; ``attempted`` is set after the first attempt.
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
        self, work: Callable[[Engine], Any], limit: float, *, preparing: str = ''
    ) -> Job:
        """Start a job on the engine; raises ClosedError if there is no engine or it is busy."""
        with self._changed:
            if self._abandoned or self.info is None or self.job is not None:
                raise ClosedError('the engine is not at hand')
            self.job = job = Job(work, limit, preparing)
            self._changed.notify_all()
            return job

    def abandon(self) -> None:
        """Accept no more jobs; the engine is closed as soon as the current job is done."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            engine = self.engine
        if engine is not None:
            engine.cancel()

    def hurry(self) -> None:
        """Make the next attempt to create the engine at once."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def ended(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the thread; return whether it has ended."""
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
                    self.job = None  # before finish(), so that a waiter can submit
                    self.info = engine.info  # may be complete only after compiling a size
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
        """Wait, unless hurried; return False if abandoned."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._hurried, seconds)
            self._hurried = False
            return not self._abandoned

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self.job is not None)
            return None if self._abandoned else self.job
