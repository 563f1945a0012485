"""Gradient clipping that follows the usual size of the gradients.

A fixed limit is a compromise: norms fall by an order of magnitude in the course of a run, and a
batch of ten times the usual one, rare as it is, can ruin a deep network for good. After
Seetharaman et al., *AutoClip: Adaptive Gradient Clipping for Source Separation Networks*, MLSP
2020, the limit follows the norms seen; here their median, and a fixed limit stays the largest.
"""

import statistics
from collections.abc import Collection

LARGER_THAN_USUAL = 1.5
"""Gradients are clipped at this multiple of the median norm of the last ones."""

REMEMBERED = 200
FEWEST = 50
"""Number of norms in the median; with fewer than FEWEST, only the fixed limit holds."""


def clipping_limit(largest: float, norms: Collection[float]) -> float:
    """Return the largest norm that the next gradient may have.

    ``largest``: the fixed limit. ``norms``: norms, finite, that the last :data:`REMEMBERED`
    gradients had before clipping.
    """
    if len(norms) < FEWEST:
        return largest
    return min(largest, LARGER_THAN_USUAL * statistics.median(norms))
