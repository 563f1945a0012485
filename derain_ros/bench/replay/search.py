"""The search for the highest rate that a node keeps up with: binary, then linear."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

LOWEST, HIGHEST = 1 / 64, 64.0
"""Factors beyond which nothing is tried."""

LINEAR_STEP = 1.05
"""Factor from one step of the linear search to the next."""

_BINARY_RATIO = 1.1
_CONFIRMATIONS = 5


class Trial(NamedTuple):
    """A factor that was tried.

    ``loss`` is the share of the frames sent that did not come back (0–1; None if none was sent),
    ``sustained`` that it was within the limit and the player kept the pace.
    """

    factor: float
    loss: float | None
    sustained: bool


def search(measure: Callable[[float], Trial], first: Trial) -> list[Trial]:
    """Find the highest factor that is sustained; returns all trials in order, ``first`` included.

    From a first trial the factor is doubled until one fails (or halved until one holds), then
    the gap is halved until its ends are within 10 %, then the best one is raised in steps of
    5 %: what ros2_benchmark's binary and linear searches do.
    """
    tried = [first]

    def sustained(factor: float) -> bool:
        tried.append(measure(round(factor, 4)))
        return tried[-1].sustained

    good, bad = (first.factor, None) if first.sustained else (None, first.factor)
    while bad is None and good * 2 <= HIGHEST:
        good, bad = (good * 2, None) if sustained(good * 2) else (good, good * 2)
    while good is None and bad / 2 >= LOWEST:
        good, bad = (bad / 2, bad) if sustained(bad / 2) else (None, bad / 2)
    if good is None or bad is None:
        return tried
    while bad / good > _BINARY_RATIO + 1e-9:
        middle = (good + bad) / 2
        good, bad = (middle, bad) if sustained(middle) else (good, middle)
    while good * LINEAR_STEP < bad and sustained(good * LINEAR_STEP):
        good *= LINEAR_STEP
    return tried


def best(tried: list[Trial]) -> float | None:
    """Return the highest factor that was sustained."""
    return max((one.factor for one in tried if one.sustained), default=None)


def to_confirm(tried: list[Trial], known: float) -> Iterator[float]:
    """Yield the factors to play in full, until one holds: the best one, and steps below.

    ``known`` was played in full already; none below it is worth it if it held.
    """
    factor = best(tried) or 0.0
    lowest = known if any(one.sustained and one.factor == known for one in tried) else 0.0
    for _ in range(_CONFIRMATIONS):
        if factor <= lowest:
            return
        yield round(factor, 4)
        factor /= LINEAR_STEP
