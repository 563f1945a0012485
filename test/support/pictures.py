"""Frames for the tests of engines, and the PSNR between pictures."""

import cv2
import numpy as np

from derain_ros.rain import add_rain


def frames(height=96, width=128, batch=1):
    """Make rainy frames, uint8, N×H×W×3."""
    rng = np.random.default_rng(7)
    scene = cv2.resize(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8), (width, height))
    return np.stack([add_rain(scene, 0.5, rng).image for _ in range(batch)])


def psnr(first, second):
    """Return the PSNR between two pictures in dB."""
    return 10 * np.log10(255**2 / max(1e-9, np.mean((first.astype(float) - second) ** 2)))
