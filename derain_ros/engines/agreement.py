"""How well two engines agree: a test frame, and the PSNR between two results."""

import numpy as np

from derain_ros.engines.contract import Derained

LEAST_DB = 45.0
"""Least PSNR against the f32 reference for an engine to be used, in dB."""

LEAST_MASK_DB = 25.0
"""The same for rain masks. Odds of one to one tip over at little: masks in f16 on an H100 came to
32 to 48 dB where the images came to 50 to 67."""

MOST_DB = 99.0
"""What stands for equality, in dB."""


def test_frame(height: int = 128, width: int = 192) -> np.ndarray:
    """Make a frame with gradients, edges and streaks, uint8, 1×H×W×3."""
    rows, columns = np.mgrid[:height, :width]
    frame = np.stack([columns * 192 // width, rows * 128 // height + 40,
                      255 - columns * 192 // width], -1)
    frame[height // 4:3 * height // 4, width // 3:2 * width // 3] += 60
    frame[:, ::13] += 90
    return np.clip(frame, 0, 255).astype(np.uint8)[None]


test_frame.__test__ = False  # pytest takes it for a test otherwise


def agreement(reference: Derained, found: Derained) -> float:
    """Return the PSNR of two results' images in dB, at most :data:`MOST_DB`."""
    return _psnr(reference.image, found.image)


def mask_agreement(reference: Derained, found: Derained) -> float:
    """Return the PSNR of two results' rain masks in dB, at most :data:`MOST_DB`."""
    return _psnr(reference.rain_mask, found.rain_mask)


def _psnr(reference: np.ndarray, found: np.ndarray) -> float:
    difference = reference.astype(np.float64) - found
    return min(MOST_DB, 10 * np.log10(255**2 / max(np.mean(difference**2), 1e-9)))
