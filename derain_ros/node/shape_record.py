"""Which frame sizes the engine is warm for, how long it takes for each, and which it refuses."""

import time
from collections import OrderedDict, deque
from collections.abc import Iterable

from derain_ros.engines.contract import forget_shapes

LEAST_LIMIT = 0.2
"""Shortest automatic limit for an inference, seconds."""

SLOWER_THAN_USUAL = 4.0
"""The automatic limit is so many times the slowest of the last inferences of that size."""

REFUSED_FOR = 60.0
"""Seconds for which a size is not tried again."""

SMALL_SHAPE = (1, 64, 64, 3)
"""What an engine is tried with that has done nothing yet."""

_REMEMBERED = 100

Shape = tuple[int, ...]
"""Batch, height, width, channels."""


class ShapeRecord:
    """What is known of an engine by the shape of its input; not safe between threads."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[Shape, deque] = OrderedDict()
        self._refused: dict[Shape, tuple[str, float]] = {}

    def new_engine(self) -> None:
        """Forget what it is warm for; what was refused stays so."""
        self._seconds.clear()

    def missing(self, shapes: Iterable[Shape]) -> list[Shape]:
        """Return those that it is not warm for, each once; the others count as used now."""
        missing = []
        for shape in dict.fromkeys(shapes):
            if shape in self._seconds:
                self._seconds.move_to_end(shape)
            else:
                missing.append(shape)
        return missing

    def warm(self, shape: Shape, seconds: float) -> None:
        """Note that it is warm for a shape, and how long an inference of it took."""
        self._seconds[shape] = deque([seconds], maxlen=_REMEMBERED)
        forget_shapes(self._seconds)

    def took(self, shape: Shape, seconds: float) -> None:
        """Note how long an inference took."""
        self._seconds.setdefault(shape, deque(maxlen=_REMEMBERED)).append(seconds)

    def limit(self, shape: Shape) -> float:
        """Return the seconds after which an inference of a shape counts as stuck."""
        return max(LEAST_LIMIT, SLOWER_THAN_USUAL * max(self._seconds.get(shape, [0.0])))

    def last_used(self) -> Shape:
        """Return the shape used last, or a small one."""
        return next(reversed(self._seconds), SMALL_SHAPE)

    def refuse(self, shape: Shape, reason: str) -> None:
        """Do without a shape for :data:`REFUSED_FOR` seconds."""
        self._refused[shape] = reason, time.monotonic() + REFUSED_FOR

    def why_refused(self, shapes: Iterable[Shape]) -> str:
        """Say why one of the shapes is refused now; empty if none is."""
        for shape in shapes:
            reason, until = self._refused.get(shape, ('', 0.0))
            if time.monotonic() < until:
                return reason
        return ''

    def accept_all(self) -> None:
        """Refuse none any more."""
        self._refused.clear()
