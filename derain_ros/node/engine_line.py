"""Which engine is next, and how long to wait before it is created anew."""

from collections.abc import Sequence

FAILURES_PER_ENGINE = 3
"""Failures in a row after which the next engine in line is tried."""

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before an engine is created anew; doubled with each failure in a row."""


class EngineLine:
    """Engines in the order in which they are tried, and how they have done.

    Parameters
    ----------
    names
        Names of engines.

    Attributes
    ----------
    failures
        Failures since the start or the last :meth:`reset`.

    """

    def __init__(self, names: Sequence[str]):
        self._names = list(names)
        self._current = 0
        self._in_a_row = 0
        self.failures = 0

    def failed(self) -> None:
        """Count a failure."""
        self.failures += 1
        self._in_a_row += 1

    def worked(self) -> None:
        """End the row of failures."""
        self._in_a_row = 0

    def reset(self) -> None:
        """Forget all failures."""
        self.failures = self._in_a_row = 0

    def next_names(self) -> list[str]:
        """Return the names to try now, after too many failures without the last one first."""
        if self._next_is_due():
            self._current = (self._current + 1) % len(self._names)
        return self._names[self._current:] + self._names[:self._current]

    def created(self, name: str) -> None:
        """Note which one is in use."""
        if name in self._names:
            self._current = self._names.index(name)

    def delay(self) -> float:
        """Return the seconds to wait before the next attempt."""
        if self._next_is_due() and len(self._names) > 1:
            return 0.0  # the waits are for the engine that failed
        return min(LONGEST_DELAY, FIRST_DELAY * 2 ** max(0, self._in_a_row - 1))

    def _next_is_due(self) -> bool:
        return self._in_a_row > 0 and self._in_a_row % FAILURES_PER_ENGINE == 0
