"""Gradient clipping that follows the usual size of the gradients."""

import statistics
from collections import deque
from collections.abc import Iterable

LARGER_THAN_USUAL = 1.5
"""A gradient is cut at so many times the median norm of the last ones."""

REMEMBERED = 200
FEWEST = 50
"""Norms that the median is taken of, and before which only the fixed limit holds."""


class Clipping:
    """Says how long a gradient may be.

    A fixed limit is a compromise: norms fall by an order of magnitude in the course of a run,
    and a batch of ten times the usual one, rare as it is, can throw a deep network off for
    good. After Seetharaman et al., *AutoClip: Adaptive Gradient Clipping for Source Separation
    Networks*, MLSP 2020, the limit follows the norms seen; here their median, and the fixed
    limit stays the largest.

    Parameters
    ----------
    largest
        The fixed limit.

    """

    def __init__(self, largest: float):
        self._largest = largest
        self._norms: deque[float] = deque(maxlen=REMEMBERED)

    def limit(self) -> float:
        """Return the largest norm that the next gradient may have."""
        if len(self._norms) < FEWEST:
            return self._largest
        return min(self._largest, LARGER_THAN_USUAL * statistics.median(self._norms))

    def add(self, norm: float) -> None:
        """Take in the norm, finite, that a gradient had before it was cut."""
        self._norms.append(norm)

    def norms(self) -> list[float]:
        """Return what is remembered, for a checkpoint."""
        return list(self._norms)

    def load(self, norms: Iterable[float]) -> None:
        """Remember what a checkpoint says."""
        self._norms.clear()
        self._norms.extend(norms)
