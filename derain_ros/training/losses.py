"""The loss that training minimises."""

import torch
from torch import Tensor
from torch.nn import functional

from derain_ros.network.dual_stage import Restoration

VISIBLE = 8 / 255
"""Brightness, 0–1, at which a streak counts as rain in the mask."""

WEIGHTS = {
    'restored': 1.0,
    'coarse': 0.3,
    'veil': 0.3,
    'structure': 0.05,
    'mask': 0.04,
    'streaks': 0.01,
}
"""Weights of the terms of :func:`restoration_loss`."""


def charbonnier(restored: Tensor, truth: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of √(d² + ε²), a smooth L1 (Charbonnier et al., ICIP 1994)."""
    return torch.sqrt((restored - truth).square() + epsilon**2).mean()


def veil_error(restored: Tensor, truth: Tensor, cell: int = 8) -> Tensor:
    """Charbonnier loss of the means over cells of ``cell``×``cell`` pixels.

    An error of one sign over an area, such as the veil that dense streaks leave, then
    counts for more than in the mean over pixels.
    """
    pool = functional.avg_pool2d
    return charbonnier(pool(restored, cell), pool(truth, cell))


def structure_error(restored: Tensor, truth: Tensor) -> Tensor:
    """One minus the mean structural similarity (SSIM) of the luma of images in 0–1.

    Wang et al., *Image quality assessment: from error visibility to structural
    similarity*, IEEE TIP 13(4), 2004; here over uniform windows of 8×8 pixels, 4 apart,
    at a sixteenth of the cost of a window at every pixel.
    """
    x, y = (
        0.114 * image[:, :1] + 0.587 * image[:, 1:2] + 0.299 * image[:, 2:]
        for image in (restored, truth))
    means = functional.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y], 1), 8, 4)
    mean_x, mean_y, xx, yy, xy = means.unbind(1)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    luminance = (2 * product + 1e-4) / (squares + 1e-4)
    structure = (2 * (xy - product) + 9e-4) / (xx + yy - squares + 9e-4)
    return 1 - (luminance * structure).mean()


def mask_truth(streaks: Tensor) -> Tensor:
    """Soft rain mask of a streak layer: 0 without rain, ½ at :data:`VISIBLE`, 1 at twice that."""
    return (streaks / (2 * VISIBLE)).clamp(0, 1)


def restoration_loss(
    output: Restoration, truth: Tensor, streaks: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss, with deep supervision of both stages and of both masks.

    ``output`` is what the network returned, float32, ``truth`` the dry image, 0–1, N×3×H×W,
    ``streaks`` the true streak layer, 0–1, N×1×H×W. Returns the sum of the terms weighted by
    :data:`WEIGHTS`, a scalar, and the terms by name, unweighted: Charbonnier loss of the result
    (``restored``) and of the coarse background (``coarse``), ``veil`` (of both, the latter times
    0.3), ``structure`` of the result, cross-entropy of the rain mask (``mask``) and of the mask
    that steers attention (``streaks``).
    """
    rain = mask_truth(streaks)
    cross_entropy = functional.binary_cross_entropy_with_logits
    terms = {
        'restored': charbonnier(output.restored, truth),
        'coarse': charbonnier(output.coarse, truth),
        'veil': veil_error(output.restored, truth) + 0.3 * veil_error(output.coarse, truth),
        'structure': structure_error(output.restored, truth),
        'mask': cross_entropy(output.mask_logits, rain),
        'streaks': cross_entropy(output.streak_logits, rain),
    }
    loss = sum(WEIGHTS[name] * term for name, term in terms.items())
    return loss, {name: term.detach() for name, term in terms.items()}
