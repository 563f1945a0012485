"""Figures of one picture, and of many."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from derain_ros.evaluation.rain_metrics import MaskCounts


@dataclass(frozen=True)
class ImageScore:
    """Figures of one model on one pair; definitions in ``metrics`` and ``rain_metrics``.

    Attributes
    ----------
    name, width, height
        The pair and its size in pixels.
    input_psnr, input_ssim
        The rainy picture against the clean one; PSNR in dB, at most PERFECT_DB.
    psnr, ssim
        The derained picture against the clean one.
    mask
        Pixels of the mask that are right and wrong.
    input_streak_energy, streak_energy
        Energy of thin upright errors, before and after.
    clean_psnr, clean_ssim
        The model's result on the clean picture against that picture itself.
    clean_mask_coverage
        Share of the clean picture, 0–1, that the mask calls rain.
    input_flicker, flicker
        Change of the error since the frame before, in levels of 255; None without one.

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
        return {
            'name': self.name,
            'width': self.width,
            'height': self.height,
            'input_psnr': self.input_psnr,
            'psnr': self.psnr,
            'input_ssim': self.input_ssim,
            'ssim': self.ssim,
            **_mask_figures(self.mask),
            'streak_energy_left': self.streak_energy_left,
            'clean_psnr': self.clean_psnr,
            'clean_ssim': self.clean_ssim,
            'clean_mask_coverage': self.clean_mask_coverage,
            'input_flicker': self.input_flicker,
            'flicker': self.flicker,
        }


def summarise(scores: Sequence[ImageScore]) -> dict:
    """Sum up the figures of one model.

    PSNR, SSIM, mask coverage and flicker are means over pictures. Those of the mask are
    taken over all pixels of all pictures, and the streak energy left is the sum after over
    the sum before, so that a picture with little rain does not weigh as much as a downpour.

    Parameters
    ----------
    scores
        At least one.

    Returns
    -------
    dict
        Figures by name; ``worst_…`` with the name of the picture; None where a figure is
        not defined (no rain at all, no clip).

    """
    worst_psnr = min(scores, key=lambda score: score.psnr)
    worst_ssim = min(scores, key=lambda score: score.ssim)
    worst_clean = min(scores, key=lambda score: score.clean_psnr)
    steps = [score for score in scores if score.flicker is not None]
    return {
        'pairs': len(scores),
        'input_psnr': _mean(score.input_psnr for score in scores),
        'psnr': _mean(score.psnr for score in scores),
        'worst_psnr': worst_psnr.psnr,
        'worst_psnr_image': worst_psnr.name,
        'input_ssim': _mean(score.input_ssim for score in scores),
        'ssim': _mean(score.ssim for score in scores),
        'worst_ssim': worst_ssim.ssim,
        'worst_ssim_image': worst_ssim.name,
        'made_worse': sum(score.psnr < score.input_psnr for score in scores),
        **_mask_figures(sum((score.mask for score in scores), MaskCounts())),
        'streak_energy_left': streak_share(
            sum(score.streak_energy for score in scores),
            sum(score.input_streak_energy for score in scores)),
        'clean_psnr': _mean(score.clean_psnr for score in scores),
        'worst_clean_psnr': worst_clean.clean_psnr,
        'worst_clean_psnr_image': worst_clean.name,
        'clean_ssim': _mean(score.clean_ssim for score in scores),
        'clean_mask_coverage': _mean(score.clean_mask_coverage for score in scores),
        'flicker_steps': len(steps),
        'input_flicker': _mean(score.input_flicker for score in steps),
        'flicker': _mean(score.flicker for score in steps),
    }


def streak_share(left: float, before: float) -> float | None:
    """Return ``left / before``; None where there were no streaks."""
    return left / before if before > 0 else None


def _mask_figures(mask: MaskCounts) -> dict:
    return {
        'mask_precision': mask.precision,
        'mask_recall': mask.recall,
        'mask_f1': mask.f1,
        'mask_iou': mask.iou,
    }


def _mean(values) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None
