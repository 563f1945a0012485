"""Metrics beyond PSNR and SSIM: accuracy of the mask, remaining rain, flicker.

All of these work on differences of luma on the full scale,
``d(a, b) = (Y(a) − Y(b)) · 255 / 219``, −255 to 255, Y being :func:`metrics.to_y`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from derain_ros.evaluation.metrics import to_y
from derain_ros.rain_gate import MASK_THRESHOLD

TRUTH_THRESHOLD = 8.0
"""Luma, of 255, by which rain must brighten a pixel to count as rain in the ground truth."""

STREAK_WIDTH = 9
"""Width of the top-hat across a streak, in pixels; wider structures are not streaks."""

_FULL_RANGE = 255.0 / 219.0


@dataclass(frozen=True)
class MaskCounts:
    """Pixel counts of a predicted rain mask against the ground truth; they can be added.

    ``hits`` are rain in both, ``false_alarms`` in the mask alone, ``misses`` in the ground truth
    alone.
    """

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0

    def __add__(self, other: 'MaskCounts') -> 'MaskCounts':
        return MaskCounts(self.hits + other.hits, self.false_alarms + other.false_alarms,
                          self.misses + other.misses)

    @property
    def precision(self) -> float | None:
        """Hits / (hits + false alarms); None where the mask is empty."""
        return _ratio(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float | None:
        """Hits / (hits + misses); None where there is no rain."""
        return _ratio(self.hits, self.hits + self.misses)

    @property
    def f1(self) -> float | None:
        """2 · hits / (2 · hits + false alarms + misses); None where both are empty."""
        return _ratio(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)

    @property
    def iou(self) -> float | None:
        """Hits / (hits + false alarms + misses); None where both are empty."""
        return _ratio(self.hits, self.hits + self.false_alarms + self.misses)

    def figures(self) -> dict[str, float | None]:
        """Return all of these figures by name, for JSON."""
        return {f'mask_{name}': getattr(self, name)
                for name in ('precision', 'recall', 'f1', 'iou')}


def luma_error(image: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return ``d(image, clean)`` per pixel, float64, H×W, −255 to 255.

    Both images are uint8, H×W×3, BGR; raises ValueError if they are not, or sizes differ.
    """
    if image.shape != clean.shape:
        raise ValueError(f'images differ in shape: {image.shape} and {clean.shape}')
    return (to_y(image) - to_y(clean)) * _FULL_RANGE


def count_mask(mask: np.ndarray, rain_error: np.ndarray) -> MaskCounts:
    """Compare a rain mask, uint8, H×W, with :func:`luma_error` of the rainy picture.

    A pixel is rain in the ground truth if its error is above :data:`TRUTH_THRESHOLD`, and in the
    mask from :data:`MASK_THRESHOLD` on. Raises ValueError if the sizes differ.
    """
    if mask.shape != rain_error.shape:
        raise ValueError(f'mask is {mask.shape}, but the picture is {rain_error.shape}')
    found, true = mask >= MASK_THRESHOLD, rain_error > TRUTH_THRESHOLD
    return MaskCounts(
        int(np.count_nonzero(found & true)),
        int(np.count_nonzero(found & ~true)),
        int(np.count_nonzero(~found & true)))


def streak_energy(error: np.ndarray) -> float:
    """Energy of thin upright structures in a :func:`luma_error`: what is left of streaks.

    ``E = Σ T(|d|)²`` over all pixels, in squared levels of 255, with the white top-hat
    ``T(x) = x − opening(x)`` by a flat line of 1×:data:`STREAK_WIDTH` pixels. An error
    wider than the line, such as a change of brightness, has none. The share of streaks
    left is ``E(restored) / E(rainy)``: 0 all gone, 1 as many as before, more than 1 where
    thin errors were added.
    """
    line = np.ones((1, STREAK_WIDTH), np.uint8)
    thin = cv2.morphologyEx(np.abs(error), cv2.MORPH_TOPHAT, line)
    return float(np.sum(thin * thin))


def flicker(error: np.ndarray, previous: np.ndarray) -> float:
    """How much :func:`luma_error` changes from one frame of a clip to the next, in levels.

    ``F = √ mean((e(t) − e(t−1))²)`` over all pixels. Motion of the scene is in both
    pictures of a pair and cancels; a constant error does not flicker. Raises ValueError
    if the sizes differ.
    """
    if error.shape != previous.shape:
        raise ValueError(f'frames differ in shape: {error.shape} and {previous.shape}')
    change = error - previous
    return float(np.sqrt(np.mean(change * change)))


def moving_error(error: np.ndarray, moves: np.ndarray) -> float | None:
    """RMS of :func:`luma_error` where the scene moves, in levels; None where nothing does.

    ``moves``: bool, H×W: where the clean picture differs from the one before by more than
    :data:`TRUTH_THRESHOLD`. Ghosts that a model carries from frame to frame show here.
    """
    return float(np.sqrt(np.mean(np.square(error[moves])))) if moves.any() else None


@dataclass(frozen=True)
class ImageScore:
    """Figures of one model on one pair.

    ``input_…`` are of the rainy picture, ``clean_…`` of the model's result on the clean one;
    PSNR is in dB, PERFECT_DB at most; flicker is None if there is no previous frame, and so is
    the moving error, which is also None if nothing moves.
    """

    name: str
    width: int
    height: int
    input_psnr: float
    input_ssim: float
    psnr: float
    ssim: float
    mask: MaskCounts
    input_streak_energy: float
    streak_energy: float
    clean_psnr: float
    clean_ssim: float
    clean_mask_coverage: float
    input_flicker: float | None = None
    flicker: float | None = None
    input_moving_error: float | None = None
    moving_error: float | None = None

    @property
    def streak_energy_left(self) -> float | None:
        """Share of the streak energy that is left; None where there was none."""
        return _ratio(self.streak_energy, self.input_streak_energy)

    def figures(self) -> dict:
        """Return the figures for JSON; their names are stable."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        mask = found.pop('mask').figures()
        del found['input_streak_energy'], found['streak_energy']
        return {**found, **mask, 'streak_energy_left': self.streak_energy_left}


def summarise(scores: Sequence[ImageScore]) -> dict:
    """Summarise the figures of one model over at least one picture.

    PSNR, SSIM, mask coverage, flicker and moving error are means over pictures. Those of the
    mask are taken over all pixels of all pictures, and the streak energy left is the sum after
    over the sum before, so that a picture with little rain does not weigh as much as a downpour.
    ``worst_…_image`` names a picture; a figure that is not defined (no rain, no clip) is None.
    """
    steps = [score for score in scores if score.flicker is not None]
    moving = [score for score in scores if score.moving_error is not None]

    def mean(name: str, of: Sequence[ImageScore] = scores) -> float | None:
        return float(np.mean([getattr(score, name) for score in of])) if of else None

    found: dict = {'pairs': len(scores), 'flicker_steps': len(steps)}
    for name in ('input_psnr', 'psnr', 'input_ssim', 'ssim', 'clean_psnr', 'clean_ssim',
                 'clean_mask_coverage'):
        found[name] = mean(name)
    for name in ('psnr', 'ssim', 'clean_psnr'):
        worst = min(scores, key=lambda score: getattr(score, name))
        found |= {f'worst_{name}': getattr(worst, name), f'worst_{name}_image': worst.name}
    return {
        **found,
        'made_worse': sum(score.psnr < score.input_psnr for score in scores),
        **sum((score.mask for score in scores), MaskCounts()).figures(),
        'streak_energy_left': _ratio(
            sum(score.streak_energy for score in scores),
            sum(score.input_streak_energy for score in scores)),
        'input_flicker': mean('input_flicker', steps),
        'flicker': mean('flicker', steps),
        'input_moving_error': mean('input_moving_error', moving),
        'moving_error': mean('moving_error', moving),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
