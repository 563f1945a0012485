"""When a run is to end before its last step: a signal, or its time is up."""

import signal
import threading
import time


class StopRequest:
    """Context in which SIGINT and SIGTERM ask for an orderly end.

    The first signal only sets :attr:`signal`, for the loop to save and leave; a second
    SIGINT raises KeyboardInterrupt at once. Outside the main thread signals are left
    alone.

    ``minutes``: time from the entry after which :meth:`due` is true, or None.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.minutes = minutes
        self.signal: int | None = None
        self._before: dict[int, object] = {}
        self._end: float | None = None

    def __enter__(self) -> 'StopRequest':
        """Take the signals."""
        if self.minutes is not None:
            self._end = time.monotonic() + 60 * self.minutes
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_error) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def due(self) -> bool:
        """Return whether a signal came or the time is up."""
        return self.signal is not None or (
            self._end is not None and time.monotonic() >= self._end)

    def _take(self, number: int, _frame) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number


def leave_signals_to_parent(_worker: int) -> None:
    """Ignore SIGINT and SIGTERM in a process that renders rain.

    A terminal sends them to the whole group; a worker that dies of them would take the
    run down before it has saved.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
