"""Whether a result can be that of a frame at all."""

import numpy as np

from derain_ros.engines.contract import Derained

_STRIDE = 8
_LEAST_CONTRAST = 8
_FAR_APART = 100.0


def find_implausible(images: np.ndarray, result: Derained) -> str:
    """Say what is wrong with a result, looking at each eighth row and column.

    Rain adds light to some pixels. A flat picture (what becomes of NaN in a network) or one
    that is :data:`_FAR_APART` grey levels away on average was not made by taking rain out.

    Parameters
    ----------
    images
        What went in, uint8, N×H×W×3.
    result
        What came out.

    Returns
    -------
    str
        One sentence; empty if nothing is wrong.

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
        # A flat wall stays one, and a dark patch with a streak in it may well become one.
        if np.ptp(after) == 0 and np.ptp(before) > _LEAST_CONTRAST and (
                abs(after.flat[0] - np.median(before)) > _LEAST_CONTRAST):
            return f'the derained picture is flat, {after.flat[0]} everywhere'
        if np.abs(after - before).mean() > _FAR_APART:
            return 'the derained picture has nothing to do with the frame'
    return ''


def harmless_picture(shape: tuple[int, ...]) -> np.ndarray:
    """Return a batch of pictures, uint8, N×H×W×3, that no engine has trouble with: a ramp."""
    ramp = np.linspace(0, 255, shape[2]).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(ramp[:, np.newaxis], shape))
