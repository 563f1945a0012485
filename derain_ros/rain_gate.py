"""Decides whether it rains, from the rain masks of the network.

While it is wet the network runs on every frame, and its mask shows whether the rain has
stopped. While it is dry the network is bypassed except for *probes*: a few times a second it
runs on one patch of the frame, whose mask shows whether rain has started. If the patch looks
like rain, a network with memory looks at it again in the next frame: rain has moved on by
then, whereas a fence has not.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

WET_ABOVE = 0.025
"""Default of :attr:`GateSettings.wet_above`; measured, see ``docs/rain_gate.md``."""

DRY_BELOW = 0.015
"""Default of :attr:`GateSettings.dry_below`."""

DRY_AFTER = 5.0
"""Default of :attr:`GateSettings.dry_after`, seconds."""

PROBE_SECONDS = 0.2
"""Interval between probes while it is dry."""

PROBE_SIDE = (192, 256)
"""Height and width of a probe's patch in pixels; a smaller frame is taken whole."""

FAST_SECONDS = 0.4
"""Time constant of the intensity: a lasting rise is seen in two or three probes."""

SLOW_SECONDS = 2.0
"""Time constant of the average that closes the gate: a passing tree does not hold it open."""

ONE_PROBE = 1.75
"""Upper limit of the response of a probe, in multiples of ``wet_above``.

Its weight after 0.2 s is 0.39: one patch with a fence in it does not open the gate, two with
rain do.
"""

SECOND_LOOK = 3.0
"""The same limit for a probe that a second look at the next frame has confirmed.

One patch with rain then opens the gate.
"""

LONGEST_STEP = 1.0
"""Most seconds that one frame adds to the dry time: a gap between frames proves nothing."""

FORGET_SECONDS = 30.0
"""Seconds without a mask after which the gate starts anew."""

MASK_THRESHOLD = 128
"""Lowest value of a rain mask that counts as rain."""

MASK_ODDS = 2.2
"""See :func:`derain_ros.network.dual_stage.shown_mask`."""

_CHANCE = np.arange(256) / (255 * MASK_ODDS - (MASK_ODDS - 1) * np.arange(256))
# Small chances of rain (below an eighth) count as 0: dry scenes are full of them.
_SURE = np.rint(np.clip(2 * _CHANCE - 0.25, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class GateSettings:
    """When the gate opens and closes.

    It rains above the rain intensity ``wet_above``, 0–1, and is dry below ``dry_below``; between
    the two the state is kept. The gate closes after ``dry_after`` dry seconds. Raises ValueError
    unless ``0 < dry_below <= wet_above <= 1`` and ``dry_after`` is finite and not negative.
    """

    wet_above: float = WET_ABOVE
    dry_below: float = DRY_BELOW
    dry_after: float = DRY_AFTER

    def __post_init__(self) -> None:
        if not 0 < self.wet_above <= 1:
            raise ValueError(
                f'wet_above is {self.wet_above}; set it above 0 and to 1 at most, '
                f'{WET_ABOVE} being the default')
        if not 0 < self.dry_below <= self.wet_above:
            raise ValueError(
                f'dry_below is {self.dry_below}; set it above 0 and to wet_above '
                f'({self.wet_above}) at most')
        if not 0 <= self.dry_after < math.inf:
            raise ValueError(
                f'dry_after is {self.dry_after}; set it to a number of seconds, 0 or more')


def mask_response(mask: np.ndarray) -> float:
    """Return how much of a mask, of a frame or of a patch, is rain, 0–1.

    That is the mean over the pixels of a uint8 H×W mask (0 = dry, 255 = rain), with a weight that
    rises from 0 at 61 to 1 at 201 with the chance of rain. Raises ValueError if the mask has
    another type or layout, or no pixels.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2 or mask.size == 0:
        raise ValueError(
            f'rain mask: expected uint8 of shape (H, W), got {mask.dtype} of shape {mask.shape}')
    return cv2.mean(cv2.LUT(mask, _SURE))[0] / 255


def mask_coverage(mask: np.ndarray) -> float:
    """Return the share of pixels, 0–1, that a uint8 H×W mask marks as rain."""
    return np.count_nonzero(mask >= MASK_THRESHOLD) / mask.size


class RainGate:
    """Decides whether it rains in front of one camera.

    It starts wet: frames are derained until proven dry. It opens (becomes wet) as soon as
    :attr:`intensity` is above ``wet_above``, and closes (becomes dry) when a slower average has
    been below ``dry_below`` for ``dry_after`` seconds and the intensity is below it too. One
    caller at a time; other threads may read the attributes. ``settings`` may be replaced, with
    effect from the next :meth:`update`.

    ``wet`` is true if it rains or is not yet known to be dry; ``intensity`` is 0–1:
    :func:`mask_response` smoothed over about :data:`FAST_SECONDS`, NaN before the first mask.
    While dry it is limited to :data:`SECOND_LOOK` × ``wet_above``. ``looks_again`` is true if the
    next probe is a second look.
    """

    def __init__(self, settings: GateSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget all masks; the gate is then wet, as at the start."""
        self.wet = True
        self.intensity = self._slow = math.nan
        self._time: float | None = None
        self._dry_for = 0.0
        self._due = self._seen = -math.inf
        self._gap = 0.0
        self._rare = False
        self._probe = 0
        self._place: tuple = (), ()
        self.looks_again = False

    def probe_due(self, now: float) -> bool:
        """Return whether to probe the frame that arrived at ``now``, in monotonic seconds.

        Call it for every frame. False while wet. While dry, true once in :data:`PROBE_SECONDS` on
        average, or for every frame if frames are rarer, and for a second look.
        """
        if self.wet:
            return False
        gap, self._seen = now - self._seen, now
        # One long gap is a pause, after which a look begins anew; two are rare frames.
        self._rare, self._gap = min(gap, self._gap) > PROBE_SECONDS, gap
        self.looks_again &= 0 <= gap <= PROBE_SECONDS
        return self.looks_again or now >= self._due or now < self._time

    def doubts(self, mask: np.ndarray) -> bool:
        """Return whether the mask of a probe needs a second look before any :meth:`update`.

        For a network with memory: the next probe is then of the same patch, in the next frame.
        False if frames are rarer than probes, as a second look would take too long.
        """
        if self.wet or self.looks_again or self._rare:
            return False
        self.looks_again = mask_response(mask) > self.settings.wet_above
        return self.looks_again

    def next_patch(self, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns to probe in a frame of ``height`` × ``width`` pixels.

        Patches have the size :data:`PROBE_SIDE`, or that of the frame where it is smaller.
        Successive ones are far apart, and the frame is covered in the fewest possible patches.
        A second look gets the previous patch.
        """
        size, patch = self._place
        if self.looks_again and size == (height, width):
            return patch
        self.looks_again = False
        tall, wide = min(height, PROBE_SIDE[0]), min(width, PROBE_SIDE[1])
        rows, columns = -(-height // tall), -(-width // wide)
        count = rows * columns
        row, column = divmod(self._probe * _stride(count) % count, columns)
        self._probe += 1
        top = (height - tall) * row // max(1, rows - 1)
        left = (width - wide) * column // max(1, columns - 1)
        patch = slice(top, top + tall), slice(left, left + wide)
        self._place = (height, width), patch
        return patch

    def update(self, mask: np.ndarray, now: float) -> bool:
        """Process a mask; returns :attr:`wet` from this frame on.

        ``mask`` is as for :func:`mask_response`: of the whole frame while wet, of the patch of a
        probe while dry. ``now`` is in monotonic seconds; time that does not advance gives the mask
        no weight. Raises ValueError as :func:`mask_response` does, without changing anything.
        """
        response = mask_response(mask)
        elapsed = 0.0 if self._time is None else max(0.0, now - self._time)
        if elapsed > FORGET_SECONDS:
            self.reset()
            elapsed = 0.0
        if self._time is None:
            self.intensity = self._slow = response
        self._smooth(response, elapsed)
        self._schedule(now)
        if self.wet:
            self._close_if_dry(min(elapsed, LONGEST_STEP))
        elif self.intensity > self.settings.wet_above:
            self.wet = True
            self._slow = self.intensity
            self._dry_for = 0.0
        return self.wet

    def _smooth(self, response: float, elapsed: float) -> None:
        if not self.wet:
            most = SECOND_LOOK if self.looks_again else ONE_PROBE
            response = min(response, most * self.settings.wet_above)
        self.looks_again = False
        self.intensity += -math.expm1(-elapsed / FAST_SECONDS) * (response - self.intensity)
        self._slow += -math.expm1(-elapsed / SLOW_SECONDS) * (response - self._slow)

    def _schedule(self, now: float) -> None:
        self._time = now
        # From when it was due, not from now; otherwise whole frame periods would be lost.
        self._due += PROBE_SECONDS
        if not now < self._due <= now + PROBE_SECONDS:
            self._due = now + PROBE_SECONDS

    def _close_if_dry(self, elapsed: float) -> None:
        if self._slow >= self.settings.dry_below:
            self._dry_for = 0.0
            return
        self._dry_for += elapsed
        # Rain that has just come back shows in the intensity first.
        if self._dry_for >= self.settings.dry_after and self.intensity < self.settings.dry_below:
            self.wet = False


def _stride(count: int) -> int:
    """Return the step near 0.4 × ``count`` that visits all of ``count`` places."""
    step = max(1, round(0.4 * count))
    while math.gcd(step, count) > 1:
        step += 1
    return step
