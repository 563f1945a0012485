"""Figures of one picture, and of many."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from derain_ros.evaluation.rain_metrics import MaskCounts


@dataclass(frozen=True)
class ImageScore:
    """Figures of one model on one pair; definitions in ``metrics`` and ``rain_metrics``.

    ``input_…`` are of the rainy picture, ``clean_…`` of the model's result on the clean one;
    PSNR is in dB, PERFECT_DB at most; flicker is None where no frame came before.
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

    @property
    def streak_energy_left(self) -> float | None:
        """Share of the streak energy that is left; None where there was none."""
        return streak_share(self.streak_energy, self.input_streak_energy)

    def figures(self) -> dict:
        """Return the figures for JSON, with stable names."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        mask, left = _mask_figures(found.pop('mask')), self.streak_energy_left
        del found['input_streak_energy'], found['streak_energy']
        return {**found, **mask, 'streak_energy_left': left}


def summarise(scores: Sequence[ImageScore]) -> dict:
    """Sum up the figures of one model, of one picture at least.

    PSNR, SSIM, mask coverage and flicker are means over pictures. Those of the mask are
    taken over all pixels of all pictures, and the streak energy left is the sum after over
    the sum before, so that a picture with little rain does not weigh as much as a downpour.
    ``worst_…_image`` names a picture; a figure that is not defined (no rain, no clip) is None.
    """
    steps = [score for score in scores if score.flicker is not None]

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
        **_mask_figures(sum((score.mask for score in scores), MaskCounts())),
        'streak_energy_left': streak_share(
            sum(score.streak_energy for score in scores),
            sum(score.input_streak_energy for score in scores)),
        'input_flicker': mean('input_flicker', steps),
        'flicker': mean('flicker', steps),
    }


def streak_share(left: float, before: float) -> float | None:
    """Return ``left / before``; None where there were no streaks."""
    return left / before if before > 0 else None


def _mask_figures(mask: MaskCounts) -> dict:
    return {f'mask_{name}': getattr(mask, name) for name in ('precision', 'recall', 'f1', 'iou')}
