"""Pixel layouts of ``sensor_msgs/Image`` and their conversion to 8-bit BGR."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

# OpenCV names a Bayer pattern by the second and third pixel of the second row, ROS by the
# first two pixels of the first two rows: the same mosaic is called RGGB there and BG here.
_BAYER_CODES = {
    'rggb': cv2.COLOR_BayerBG2BGR,
    'bggr': cv2.COLOR_BayerRG2BGR,
    'gbrg': cv2.COLOR_BayerGR2BGR,
    'grbg': cv2.COLOR_BayerGB2BGR,
}
BAYER_PATTERNS = tuple(_BAYER_CODES)

Bits = int | Callable[[np.ndarray], int]
"""Low-order bits in use of 16-bit samples: 8 to 16, or a function of the samples."""


@dataclass(frozen=True)
class PixelFormat:
    """Memory layout of one encoding.

    ``to_bgr`` converts the rows of a message (uint8, rows×row bytes, any row stride) to uint8
    H×W×3 BGR; its second argument says whether 16-bit samples are big-endian. ``pixel_bytes`` is
    the size of a pixel in a row (of the luma plane, if planes are separate). If chroma is
    shared by pairs of columns or rows, the width or height must be even; with
    ``half_height_chroma`` an interleaved chroma plane, of half the height, follows the luma plane.
    Sides shorter than ``smallest_side`` cannot be converted.
    """

    to_bgr: Callable[[np.ndarray, bool, Bits], np.ndarray]
    pixel_bytes: int
    even_width: bool = False
    even_height: bool = False
    half_height_chroma: bool = False
    smallest_side: int = 1

    def row_count(self, height: int) -> int:
        """Return how many rows of ``step`` bytes an image of this height fills."""
        return height * 3 // 2 if self.half_height_chroma else height


def demosaic(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """Demosaic a Bayer image, uint8, H×W, sides at least 2, bilinearly to uint8, H×W×3, BGR.

    ``pattern`` gives the colours of the top left 2×2 pixels, row by row, such as ``rggb``.
    """
    code = _BAYER_CODES[pattern]
    if min(mosaic.shape) > 2:
        return cv2.cvtColor(mosaic, code)
    # OpenCV leaves images of two rows or columns black; mirroring keeps the pattern's phase.
    mirrored = cv2.copyMakeBorder(mosaic, 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
    return cv2.cvtColor(mirrored, code)[2:-2, 2:-2]


def _high_bytes(rows: np.ndarray, big_endian: bool, bits: Bits) -> np.ndarray:
    if bits == 16:
        return np.ascontiguousarray(rows[:, 0 if big_endian else 1::2])
    return eight_bits(samples_16(rows, big_endian), bits)


def eight_bits(samples: np.ndarray, bits: Bits) -> np.ndarray:
    """Return the upper 8 of the bits in use of uint16 samples; larger samples become 255."""
    shifted = samples >> ((bits(samples) if callable(bits) else bits) - 8)
    return np.minimum(shifted, 255, out=shifted).astype(np.uint8)


def bits_in_use(largest: int) -> int:
    """Return the bits a camera uses, 8, 10, 12, 14 or 16, given its largest 16-bit sample."""
    return next(bits for bits in (8, 10, 12, 14, 16) if largest < 1 << bits)


def samples_16(rows: np.ndarray, big_endian: bool) -> np.ndarray:
    """Return the 16-bit samples of rows of bytes as a new uint16 array."""
    return np.ascontiguousarray(rows).view('>u2' if big_endian else '<u2').astype(np.uint16)


def _format(
    code: int | str | None, channels: int, *, deep: bool = False, **more: Any
) -> PixelFormat:
    """Return a format from an OpenCV conversion or a Bayer pattern; ``deep`` means 16 bits."""
    def to_bgr(rows: np.ndarray, big_endian: bool, bits: Bits) -> np.ndarray:
        pixels = _high_bytes(rows, big_endian, bits) if deep else rows
        pixels = pixels.reshape(len(rows), -1, channels)
        if isinstance(code, str):
            return demosaic(pixels[..., 0], code)
        return pixels if code is None else cv2.cvtColor(pixels, code)

    return PixelFormat(to_bgr, 2 * channels if deep else channels, **more)


def _formats() -> dict[str, PixelFormat]:
    semi_planar = {'even_width': True, 'even_height': True, 'half_height_chroma': True}
    formats = {
        'mono8': _format(cv2.COLOR_GRAY2BGR, 1),
        'mono16': _format(cv2.COLOR_GRAY2BGR, 1, deep=True),
        'uyvy': _format(cv2.COLOR_YUV2BGR_UYVY, 2, even_width=True),
        'yuyv': _format(cv2.COLOR_YUV2BGR_YUY2, 2, even_width=True),
        'nv12': _format(cv2.COLOR_YUV2BGR_NV12, 1, **semi_planar),
        'nv21': _format(cv2.COLOR_YUV2BGR_NV21, 1, **semi_planar),
    }
    for colours, code, channels in (
        ('bgr', None, 3), ('rgb', cv2.COLOR_RGB2BGR, 3), ('bgra', cv2.COLOR_BGRA2BGR, 4),
        ('rgba', cv2.COLOR_RGBA2BGR, 4), *((f'bayer_{name}', name, 1) for name in _BAYER_CODES),
    ):
        least = {'smallest_side': 2} if channels == 1 else {}
        formats[f'{colours}8'] = _format(code, channels, **least)
        formats[f'{colours}16'] = _format(code, channels, deep=True, **least)
    return formats | {
        '8UC1': formats['mono8'], '8UC3': formats['bgr8'], 'yuv422': formats['uyvy'],
        'yuv422_yuy2': formats['yuyv']}


PIXEL_FORMATS = _formats()
