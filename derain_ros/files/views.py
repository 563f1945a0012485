"""Show a rainy and a derained frame in one image: split, side by side, or with tinted rain."""

import math

import cv2
import numpy as np

from derain_ros.images.overlay import draw_overlay

VIEWS = ('split', 'side-by-side', 'derained', 'mask')
"""``split`` shows the rainy frame left of a divider and the derained one right of it, ``mask``
the rainy frame with the rain tinted."""

_WHITE = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def compose(
    view: str, rainy: np.ndarray, derained: np.ndarray, rain_mask: np.ndarray | None = None, *,
    divider: float = 0.5,
) -> np.ndarray:
    """Combine a rainy frame, uint8, H×W×3, BGR, and its derained version into one image.

    ``view`` is one of :data:`VIEWS`; ``rain_mask``, uint8, H×W, 255 = rain, is for ``mask`` only;
    ``divider`` is the position of the divider of ``split``, as a fraction of the width. Returns
    uint8, BGR, H×W×3, or H×2W×3 for ``side-by-side``; labels that would not fit are left out.
    """
    if view == 'derained':
        return derained
    if view == 'mask':
        return draw_overlay(rainy, rain_mask)
    left, right = _label(rainy, 'rainy', right=False), _label(derained, 'derained', right=True)
    if view == 'side-by-side':
        return np.hstack([left, right])
    width = rainy.shape[1]
    column = min(width, max(0, round(divider * width)))
    right[:, :column] = left[:, :column]
    half = _thickness(rainy) // 2
    right[:, max(0, column - half - 1):column + half + 1] = _WHITE
    return right


def swept_divider(seconds: float, period: float) -> float:
    """Return the divider position at a time: it moves from 0.1 to 0.9 and back in each period."""
    return 0.5 - 0.4 * math.cos(2 * math.pi * seconds / period)


def _label(image: np.ndarray, text: str, *, right: bool) -> np.ndarray:
    """Return a copy of an image with a white label in a lower corner, if it fits."""
    image = image.copy()
    height, width = image.shape[:2]
    scale, thickness = max(0.4, height / 900), _thickness(image)
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    margin = text_height
    if text_width + 2 * margin > width // 2 or 3 * text_height > height // 4:
        return image
    left = width - margin - text_width if right else margin
    # A darkened background keeps the label legible.
    plate = image[height - 2 * margin - text_height // 2:height - margin // 2,
                  left - margin // 2:left + text_width + margin // 2]
    plate[:] = plate // 4
    cv2.putText(image, text, (left, height - margin), _FONT, scale, _WHITE, thickness, cv2.LINE_AA)
    return image


def _thickness(image: np.ndarray) -> int:
    return max(1, round(image.shape[0] / 540))
