"""Checks of results: how well two engines agree, and whether a result is plausible."""

import cv2
import numpy as np

from derain_ros.engines.contract import Derained

LEAST_DB = 45.0
"""Minimum PSNR against the f32 reference for an engine to be used, in dB."""

LEAST_MASK_DB = 25.0
"""The same for rain masks, which are sensitive to rounding where rain is about as likely as not:
in f16 on an H100, masks reached 32 to 48 dB and images 50 to 67."""

MOST_DB = 99.0  # in dB; larger values, as of equal arrays, are cut to it

_STRIDE = 8
_LEAST_CONTRAST = 8
_FAR_APART = 100.0


def test_frame(height: int = 128, width: int = 192) -> np.ndarray:
    """Make a frame with gradients, edges and streaks, uint8, 1×H×W×3."""
    rows, columns = np.mgrid[:height, :width]
    frame = np.stack([columns * 192 // width, rows * 128 // height + 40,
                      255 - columns * 192 // width], -1)
    frame[height // 4:3 * height // 4, width // 3:2 * width // 3] += 60
    frame[:, ::13] += 90
    return np.clip(frame, 0, 255).astype(np.uint8)[None]


test_frame.__test__ = False  # otherwise pytest would collect it as a test


def state_for(frame: np.ndarray) -> np.ndarray:
    """Return a state that differs from a test frame, uint8, 1×H×W×4.

    The left third is static, the middle third has moved, the right third is unknown.
    """
    before = np.roll(frame, 3, 2)
    dryness = np.where(before[..., :1] > 120, 255, 224).astype(np.uint8)
    dryness[:, :, frame.shape[2] // 12 * 4:] -= 64
    dryness[:, :, frame.shape[2] * 2 // 3:] = 0
    return np.concatenate([before, dryness], -1)


def agreement(reference: Derained, found: Derained) -> float:
    """Return the PSNR of two results' images in dB, at most :data:`MOST_DB`."""
    return min(MOST_DB, cv2.PSNR(reference.image, found.image))


def mask_agreement(reference: Derained, found: Derained) -> float:
    """Return the PSNR of two results' rain masks in dB, at most :data:`MOST_DB`."""
    return min(MOST_DB, cv2.PSNR(reference.rain_mask, found.rain_mask))


def find_implausible(images: np.ndarray, result: Derained) -> str:
    """Say why ``result`` cannot be right for ``images``, uint8, N×H×W×3; empty if it can.

    Rain brightens some pixels, so removing it leaves neither a flat picture (which NaN in the
    network does) nor one that differs by more than :data:`_FAR_APART` grey levels on average.
    Only every eighth row and column is checked.
    """
    if not isinstance(result, Derained):
        return f'the result is {type(result).__name__}, expected Derained'
    for name, found, shape in (
        ('image', result.image, images.shape), ('rain mask', result.rain_mask, images.shape[:3]),
    ):
        if not isinstance(found, np.ndarray):
            return f'the {name} is {type(found).__name__}, expected an array'
        if found.dtype != np.uint8 or found.shape != shape:
            return f'the {name} is {found.dtype} of shape {found.shape}, expected uint8 {shape}'
    for rainy, derained in zip(images, result.image, strict=True):
        before = rainy[::_STRIDE, ::_STRIDE].astype(np.int16)
        after = derained[::_STRIDE, ::_STRIDE].astype(np.int16)
        # A flat wall stays flat, and a dark patch with a streak in it may become flat.
        if np.ptp(after) == 0 and np.ptp(before) > _LEAST_CONTRAST and (
                abs(after.flat[0] - np.median(before)) > _LEAST_CONTRAST):
            return f'the derained picture is flat, {after.flat[0]} everywhere'
        if np.abs(after - before).mean() > _FAR_APART:
            return 'the derained picture does not resemble the frame'
    return ''


def harmless_picture(shape: tuple[int, ...]) -> np.ndarray:
    """Return a batch of images, uint8, N×H×W×3, that any engine can process: a ramp."""
    ramp = np.linspace(0, 255, shape[2]).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(ramp[:, np.newaxis], shape))
