"""Ends a run before its last step: on a signal, or when its time is up."""

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
        """Handle the signals, and start the time."""
        if self.minutes is not None:
            self._end = time.monotonic() + 60 * self.minutes
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_error) -> None:
        """Restore the previous signal handlers."""
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

    A terminal sends them to the whole process group; a worker that they end would take the
    run down before it has saved.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
