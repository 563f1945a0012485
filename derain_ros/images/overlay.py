"""Images made from a frame and its result: an overlay of the rain, and a blend of both."""

import cv2
import numpy as np

TINT_BGR = (255, 0, 255)
"""Colour of full rain: magenta, which is rare on roads and so easy to recognise."""

TINT_OPACITY = 0.75  # share of the tint in full rain; below 1 so that the streak stays visible

STRONGEST = 1.5
"""Largest strength of :func:`blend`."""

# Mask values below a quarter are not tinted, else a slightly unsure mask would tint everything.
_RAMP = np.clip((np.arange(256, dtype=np.float32) - 64) / 128, 0, 1) * TINT_OPACITY


def draw_overlay(bgr: np.ndarray, rain_mask: np.ndarray) -> np.ndarray:
    """Tint the rainy parts of a frame: not at all up to mask 64, fully from 192 on.

    The frame is uint8, H×W×3, BGR, its mask uint8, H×W, 0 = dry, 255 = rain. Returns a new image,
    whose dry pixels are those of the frame. Raises ValueError for other arrays.
    """
    _check_image('bgr', bgr)
    if rain_mask.dtype != np.uint8 or rain_mask.shape != bgr.shape[:2]:
        raise ValueError(
            f'rain_mask: expected uint8 of shape {bgr.shape[:2]}, '
            f'got {rain_mask.dtype} of shape {rain_mask.shape}')
    rain = cv2.LUT(rain_mask, _RAMP)
    tint = np.empty_like(bgr)
    tint[:] = TINT_BGR
    return cv2.blendLinear(bgr, tint, 1 - rain, rain)


def blend(rainy: np.ndarray, derained: np.ndarray, strength: float) -> np.ndarray:
    """Blend a frame with its derained version, both uint8, H×W×3, BGR, 0–255.

    ``strength`` is the share of the derained image, 0 to 1.5. Above 1 their difference is
    extrapolated, which removes more faint rain and more fine detail. At 1 ``derained`` itself is
    returned, at 0 ``rainy`` itself, without a copy. Raises ValueError for another strength or for
    arrays that do not match.
    """
    if not 0 <= strength <= STRONGEST:
        raise ValueError(f'strength: expected a number from 0 to {STRONGEST}, got {strength}')
    _check_image('rainy', rainy)
    _check_image('derained', derained)
    if rainy.shape != derained.shape:
        raise ValueError(f'rainy is {rainy.shape}, but derained is {derained.shape}')
    if strength == 1:
        return derained
    if strength == 0:
        return rainy
    return cv2.addWeighted(derained, strength, rainy, 1 - strength, 0)


def _check_image(name: str, image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f'{name}: expected uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}')
