"""As many steps as a given time has room for."""

import time
from collections.abc import Callable

from derain_ros.training.config import ConfigError

_FIRST, _LAST = 20, 300
_FEWEST = 100
# What the end takes, and by how much the speed may fall.
_RESERVE_SECONDS, _RESERVE_SHARE = 8.0, 0.02


class Fit:
    """Finds out, in the warm-up of a run, how many steps its time has room for.

    Within the warm-up the learning rate does not depend on the number of steps yet.

    Parameters
    ----------
    minutes
        What the run may take from now on.
    warm_up
        Its steps of warm-up.
    clock
        Seconds, of any origin.

    Raises
    ------
    ConfigError
        The warm-up is too short to measure in.

    """

    def __init__(
        self, minutes: float, warm_up: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if warm_up < _FEWEST:
            raise ConfigError(
                f'warm_up: {warm_up} steps are too few to measure the speed in, as --fit does; '
                f'set at least {_FEWEST}')
        self._clock = clock
        self._end = clock() + 60 * minutes
        self._last = min(_LAST, warm_up)
        self._began = 0.0

    def steps(self, step: int) -> int | None:
        """Return the steps of the whole run, once, when it is known; None before and after.

        Parameters
        ----------
        step
            Steps taken.

        """
        if step == _FIRST:
            self._began = self._clock()
        if step != self._last:
            return None
        now = self._clock()
        left = (self._end - now - _RESERVE_SECONDS) * (1 - _RESERVE_SHARE)
        return step + max(1, int(left * (self._last - _FIRST) / (now - self._began)))
