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
        if found.dtype != np.uint8 or found.shape != shape:
            return f'the {name} is {found.dtype} of shape {found.shape}, expected uint8 {shape}'
    for rainy, derained in zip(images, result.image, strict=True):
        before = rainy[::_STRIDE, ::_STRIDE].astype(np.int16)
        after = derained[::_STRIDE, ::_STRIDE].astype(np.int16)
        if np.ptp(after) == 0 and np.ptp(before) > _LEAST_CONTRAST:
            return f'the derained picture is flat, {after.flat[0]} everywhere'
        if np.abs(after - before).mean() > _FAR_APART:
            return 'the derained picture has nothing to do with the frame'
    return ''
