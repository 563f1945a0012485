"""The size that each frame is derained at, which limits how often engines are compiled."""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence

from derain_ros.engines.contract import FEW_SIZES, KEPT_PIXELS, KEPT_SIZES
from derain_ros.node.supervisor import FaultError

MOST_SIZES = KEPT_SIZES // 2
"""Most sizes in use at once: the rain gate may need another shape for each of them."""
MOST_PIXELS = KEPT_PIXELS - 1_000_000
"""Most pixels of all sizes in use together; leaves room for the rain gate's shapes."""

OWN_SIZES = 4  # a camera with more recent sizes has its frames padded to shared sizes
MEMORY_SECONDS = 60.0  # how long a size counts as recent for a camera
IDLE_SECONDS = 30.0  # a size that no camera has used for so long is dropped
MOST_PADDED = 2.5  # a frame is padded to a size in use with at most so many times its pixels
MOST_MERGED = 1.8
"""Sizes in use are merged into a ladder step with at most this many times their pixels."""

Size = tuple[int, int]
"""Height and width in pixels."""


class FrameSizes:
    """Chooses the input sizes of the engine; not thread-safe.

    A size is kept for as long as a camera uses it. A frame of a new size is derained at that
    size while the engine can keep all sizes in use; otherwise it is padded to a step of
    :func:`ladder_step` or to a size in use, and refused if none fits.
    """

    def __init__(self) -> None:
        self._seen: dict[str, OrderedDict[Size, float]] = defaultdict(OrderedDict)
        self._used: OrderedDict[Size, float] = OrderedDict()
        self._merged: dict[Size, Size] = {}

    def choose(self, camera: str, size: Size, now: float) -> Size:
        """Return the size to derain a frame at, at least its own; ``now`` is monotonic seconds.

        Raises FaultError if no suitable size fits beside those in use.
        """
        seen = self._seen[camera]
        _use(seen, size, now, MEMORY_SECONDS)
        size = self._merged.get(size, size)
        step = ladder_step(size[0]), ladder_step(size[1])
        few = len(seen) <= OWN_SIZES
        wanted = [size, step] if few else [step]
        found = next((one for one in wanted if one in self._used), None)
        if found is None:
            _forget(self._used, now, IDLE_SECONDS)
            new = next((one for one in wanted if can_serve([*self._used, one])), None)
            padded = min((one for one in self._used if _holds(one, size, MOST_PADDED)),
                         key=_pixels, default=None)
            found = (new or padded if few else padded or new) or self._merge(size, step)
        if found is None:
            used = ', '.join(f'{width}x{height}' for height, width in self._used)
            raise FaultError(
                f'{size[1]}x{size[0]} does not fit beside the sizes in use, {used}: the engine '
                f'keeps {MOST_SIZES} sizes, and {MOST_PIXELS / 1e6:g} million pixels in total if '
                f'there are more than {FEW_SIZES - 1}; set the cameras to fewer or smaller sizes',
                serious=False)
        _use(self._used, found, now, float('inf'))
        return found

    def is_uneven(self, camera: str) -> bool:
        """Return whether recent frames of a camera have had several sizes."""
        return len(self._seen[camera]) > 1

    def _merge(self, size: Size, step: Size) -> Size | None:
        """Merge sizes in use into a ladder step that holds the frame too; None if that fails."""
        near = [one for one in self._used if _holds(step, one, MOST_MERGED)]
        kept = [one for one in self._used if one not in near]
        if not near or not can_serve([*kept, step]):
            return None
        for one in (*near, size):
            self._used.pop(one, None)
            self._merged[one] = step
        return step


def ladder_step(side: int) -> int:
    """Return the smallest of 32, 48, 64, 96, 128, 192 … that is at least ``side``."""
    step = 32
    while step < side:
        step = step * 3 // 2 if step & (step - 1) == 0 else step * 4 // 3
    return step


def can_serve(sizes: Sequence[Size]) -> bool:
    """Return whether the engine can keep distinct sizes ready, and the rain gate's for them."""
    return len(sizes) <= MOST_SIZES and (
        len(sizes) < FEW_SIZES or sum(map(_pixels, sizes)) <= MOST_PIXELS)


def _holds(size: Size, frame: Size, most: float) -> bool:
    """Return whether a frame fits into a size of at most ``most`` times its pixels."""
    return (size[0] >= frame[0] and size[1] >= frame[1] and _pixels(size) <= most * _pixels(frame))


def _pixels(size: Size) -> int:
    return size[0] * size[1]


def _use(sizes: OrderedDict[Size, float], size: Size, now: float, memory: float) -> None:
    sizes[size] = now
    sizes.move_to_end(size)
    _forget(sizes, now, memory)


def _forget(sizes: OrderedDict[Size, float], now: float, seconds: float) -> None:
    while sizes and now - next(iter(sizes.values())) > seconds:
        sizes.popitem(last=False)
