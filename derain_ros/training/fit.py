"""The number of steps that fit into a given time."""

import time
from collections.abc import Callable

from derain_ros.training.batches import PREFETCHED
from derain_ros.training.config import ConfigError, TrainingConfig

_FIRST, _LAST = 20, 400
_FEWEST = 100
# Time that the end of a run takes, and by how much the speed may drop.
_RESERVE_SECONDS, _RESERVE_SHARE = 8.0, 0.02


class Fit:
    """Finds out, during the warm-up of a run, how many steps fit into its time.

    During the warm-up the learning rate does not depend on the number of steps yet.

    ``minutes``: time that the run may take from now on. ``config``: of the run. ``clock``: returns
    seconds from any origin. Raises ConfigError: the warm-up is too short to measure in.
    """

    def __init__(
        self, minutes: float, config: TrainingConfig,
        clock: Callable[[], float] = time.monotonic
    ) -> None:
        # Batches that workers have rendered in advance do not show how fast they are.
        self._first = _FIRST + config.workers * PREFETCHED * config.echo // config.accumulate
        fewest = self._first + _FEWEST
        if config.warm_up < fewest:
            raise ConfigError(
                f'warm_up: {config.warm_up} steps are too few to measure the speed in, as --fit '
                f'does; set at least {fewest}')
        self._clock = clock
        self._end = clock() + 60 * minutes
        self._last = min(max(_LAST, fewest), config.warm_up)
        self._began = 0.0

    def steps(self, step: int) -> int | None:
        """Return the steps of the whole run, once, when it is known; None before and after.

        ``step``: steps taken.
        """
        if step == self._first:
            self._began = self._clock()
        if step != self._last:
            return None
        now = self._clock()
        left = (self._end - now - _RESERVE_SECONDS) * (1 - _RESERVE_SHARE)
        return step + max(1, int(left * (self._last - self._first) / (now - self._began)))
