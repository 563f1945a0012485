"""What training minimises."""

import torch
from torch import Tensor
from torch.nn import functional

from derain_ros.network.dual_stage import Restoration

VISIBLE = 8 / 255
"""Brightness, 0–1, at which a streak counts as rain in the mask."""


def charbonnier(restored: Tensor, truth: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of √(d² + ε²), a smooth L1 (Charbonnier et al., ICIP 1994)."""
    return torch.sqrt((restored - truth) ** 2 + epsilon**2).mean()


def mask_truth(streaks: Tensor) -> Tensor:
    """Soft rain mask of a streak layer: 0 without rain, ½ at :data:`VISIBLE`, 1 at twice that."""
    return (streaks / (2 * VISIBLE)).clamp(0, 1)


def restoration_loss(
    output: Restoration, truth: Tensor, streaks: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Deep supervision of both stages and of the mask.

    Parameters
    ----------
    output
        What the network returned.
    truth
        Dry image, 0–1, N×3×H×W.
    streaks
        True streak layer, 0–1, N×1×H×W.

    Returns
    -------
    loss : Tensor
        Scalar: Charbonnier loss of the result, 0.3 of that of the coarse
        background, 0.02 of the cross-entropy of the mask.
    parts : dict
        The terms by name, unweighted.

    """
    final = charbonnier(output.restored, truth)
    coarse = charbonnier(output.coarse, truth)
    mask = functional.binary_cross_entropy_with_logits(output.mask_logits, mask_truth(streaks))
    parts = {'restored': final.item(), 'coarse': coarse.item(), 'mask': mask.item()}
    return final + 0.3 * coarse + 0.02 * mask, parts
