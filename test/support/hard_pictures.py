"""Dry pictures that no photograph of the training is like, drawn by rule, in every direction.

Fences, lattices, blinds, wires, kerbs, markings, spokes and letters answer to a streak filter as
rain does; checkers and noise are as far from photographs as pictures get.
"""

from itertools import product

import cv2
import numpy as np

SIZE = (192, 256)
ANGLES = (0, 22, 45, 67, 90, 112, 135, 157)


def bars(angle: float, period: float, thick: float, taper: float = 0.0) -> np.ndarray:
    """Draw parallel bars, H×W in 0–1, with soft edges of a pixel.

    ``angle`` is the direction across them, degrees from the row; ``period`` and ``thick`` are
    pixels; ``taper`` is the growth of both along the bars, per pixel, as in perspective.
    """
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] - np.reshape(SIZE, (2, 1, 1)) / 2
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    scale = np.maximum(0.3, 1 + taper * (rows * cosine - columns * sine))
    across = ((columns * cosine + rows * sine) / scale) % period
    return np.clip(np.minimum(across, thick - across) * scale + 0.5, 0, 1)


def lettering(turned: bool) -> np.ndarray:
    """Draw lines of capitals, H×W in 0–1."""
    page = np.zeros((max(SIZE), max(SIZE)), np.uint8)
    for row in range(16, max(SIZE), 22):
        cv2.putText(page, 'ILLUMINATION 1174 HILL', (2, row), cv2.FONT_HERSHEY_SIMPLEX, 0.55, 255,
                    1, cv2.LINE_AA)
    return (page.T if turned else page)[: SIZE[0], : SIZE[1]] / 255


def spokes() -> np.ndarray:
    """Draw 24 spokes about the middle, H×W in 0–1."""
    page = np.zeros(SIZE, np.uint8)
    for angle in np.arange(24) * np.pi / 12:
        end = (int(128 + 200 * np.cos(angle)), int(96 + 200 * np.sin(angle)))
        cv2.line(page, (128, 96), end, 255, 2, cv2.LINE_AA)
    return page / 255


def hard_pictures() -> dict[str, np.ndarray]:
    """Return pictures by name, uint8 H×W×3."""
    drawn = {}
    for angle in ANGLES:
        for period, share in product((4, 7, 12, 24), (0.3, 0.6)):
            drawn[f'fence, {period} px, {share:.0%}, {angle} degrees'] = bars(
                angle, period, share * period)
        for thick in (1.5, 3, 6):
            drawn[f'wires, {thick} px, {angle} degrees'] = bars(angle, 60, thick)
        drawn[f'rails, {angle} degrees'] = bars(angle, 40, 4, 0.006)
        drawn[f'crossing, {angle} degrees'] = bars(angle, 30, 15, 0.006)
        dashed = bars(angle, 64, 5, 0.004) * bars(angle + 90, 48, 24)
        drawn[f'markings, {angle} degrees'] = dashed
    for angle, period, share in product((0, 22, 45), (4, 7, 12, 24), (0.3, 0.6)):
        crossed = [bars(a, period, share * period) for a in (angle, angle + 90)]
        drawn[f'lattice, {period} px, {share:.0%}, {angle} degrees'] = np.maximum(*crossed)
    for turned in (False, True):
        drawn[f'letters{", turned" * turned}'] = lettering(turned)
    drawn['spokes'] = spokes()
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for side in (1, 2, 4):
        drawn[f'checkers, {side} px'] = ((rows // side + columns // side) % 2).astype(float)
    drawn['noise'] = np.random.default_rng(0).random(SIZE)
    pictures = {}
    for name, shown in drawn.items():
        grey = (20 + 215 * shown).astype(np.uint8)
        pictures[name] = np.repeat(grey[..., None], 3, 2)
    return pictures
