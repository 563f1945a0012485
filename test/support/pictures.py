"""Frames for the tests of engines."""

import cv2
import numpy as np

from derain_ros.rain import render, sample_shower


def frames(height=96, width=128, batch=1):
    """Make rainy frames, uint8, N×H×W×3."""
    rng = np.random.default_rng(7)
    scene = cv2.resize(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8), (width, height))
    return np.stack([add_rain(scene, 0.5, rng).image for _ in range(batch)])


def add_rain(scene, intensity, rng, **kind):
    """Render a random shower over a picture."""
    return render(scene, sample_shower(intensity, rng, **kind), rng)
