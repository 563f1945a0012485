"""Render rain into camera messages; everything but the pixels is kept.

The change that rain makes to the picture, as 8-bit BGR, is added to the samples of the
message in their own encoding. So samples without rain keep their exact value, even if the
encoding has more bits than the picture, is a Bayer mosaic or YUV.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from derain_ros.bags.frames import why_not
from derain_ros.images.codec import decode_image
from derain_ros.images.compressed import decode_compressed
from derain_ros.images.message_fields import ImageFormatError

JPEG_QUALITY = 95

_JPEG_START = b'\xff\xd8\xff'
_GREY = ('mono8', '8UC1', 'mono16')
_BAYER = 'bayer_'
# Offset of the first Y, and of Cb, in the four bytes of two pixels; Cr is two behind Cb.
_PACKED_YUV = {'uyvy': (1, 0), 'yuv422': (1, 0), 'yuyv': (0, 1), 'yuv422_yuy2': (0, 1)}
# Offset of Cb, Cr in the two bytes of a chroma sample.
_PLANAR_YUV = {'nv12': (0, 1), 'nv21': (1, 0)}
_LUMA_BGR = np.array([0.114, 0.587, 0.299])
# Limited-range BT.601, rows Y, Cb, Cr, columns B, G, R.
_YUV_BGR = np.array([[0.098, 0.504, 0.257], [0.439, -0.291, -0.148], [-0.071, -0.368, 0.439]])

Renderer = Callable[[np.ndarray], np.ndarray]
"""Puts rain into a picture: uint8, H×W×3, BGR, in and out."""


def rain_on_image(message: Any, render: Renderer, bits: int = 16) -> Any:
    """Put rain into a ``sensor_msgs/Image``.

    ``message``, from rosbags, is in one of :data:`derain_ros.images.codec.SUPPORTED_ENCODINGS`;
    16-bit samples use ``bits`` bits; ``render`` puts rain into its picture. Returns the message
    with new ``data``; size, encoding, byte order, padding, alpha and header are the same. Raises
    ImageFormatError where it cannot be read, see :func:`derain_ros.images.codec.decode_image`.
    """
    _check(message)
    change = _change(decode_image(message, bits), render)
    data = np.array(message.data, np.uint8)
    encoding, height, width = message.encoding, *change.shape[:2]
    depth = np.dtype(np.uint8)
    if encoding.endswith('16'):
        depth = np.dtype(np.uint16).newbyteorder('>' if message.is_bigendian else '<')

    def samples(*shape: int) -> np.ndarray:
        """View the bytes as rows of ``step`` bytes; decoding has checked that they fit."""
        inner = np.cumprod([depth.itemsize, *shape[:1:-1]])[::-1]
        return np.ndarray(shape, depth, data, strides=(message.step, *inner))

    if encoding in _PACKED_YUV:
        luma, chroma = _PACKED_YUV[encoding]
        pixels, yuv = samples(height, width // 2, 4), change @ _YUV_BGR.T
        _add(pixels[..., luma::2], _rounded(yuv[..., 0]).reshape(height, -1, 2))
        _add(pixels[..., chroma::2], _rounded((yuv[:, 0::2, 1:] + yuv[:, 1::2, 1:]) / 2))
    elif encoding in _PLANAR_YUV:
        rows, yuv = samples(height * 3 // 2, width), change @ _YUV_BGR.T
        _add(rows[:height], _rounded(yuv[..., 0]))
        squares = yuv.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
        for channel, offset in enumerate(_PLANAR_YUV[encoding], 1):
            _add(rows[height:, offset::2], _rounded(squares[..., channel]))
    elif encoding in _GREY or encoding.startswith(_BAYER):
        _add(samples(height, width), _one_channel(change, encoding), bits)
    else:
        pixels = samples(height, width, 4 if encoding[3] == 'a' else 3)
        _add(pixels[..., :3], change[..., ::-1] if encoding[0] == 'r' else change, bits)
    return dataclasses.replace(message, data=data)


def rain_on_compressed(message: Any, render: Renderer, bits: int = 16) -> Any:
    """Put rain into a ``sensor_msgs/CompressedImage``, as :func:`rain_on_image` does.

    Returns the message with new ``data``: PNG as PNG of the same channels and bits, JPEG as JPEG
    of quality :data:`JPEG_QUALITY`. Raises ImageFormatError where it cannot be read, see
    :func:`derain_ros.images.codec.decode_compressed`.
    """
    _check(message)
    change = _change(decode_compressed(message, bits, whole=True), render)
    data = np.ascontiguousarray(message.data)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != change.shape[:2]:
        raise ImageFormatError('data is a picture that OpenCV reads in colour only')
    encoding, _, target = message.format.partition(';')
    if pixels.ndim == 2:
        _add(pixels, _one_channel(change, encoding), bits)
    else:
        _add(pixels[..., :3], change[..., ::-1] if 'compressed rgb' in target else change, bits)
    if data[:3].tobytes() == _JPEG_START:
        done, data = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    else:
        done, data = cv2.imencode('.png', pixels)
    if not done:
        raise ImageFormatError('the rainy picture cannot be compressed; record it raw')
    return dataclasses.replace(message, data=data.ravel())


def _check(message: Any) -> None:
    if reason := why_not(message):
        raise ImageFormatError(reason)


def _change(dry: np.ndarray, render: Renderer) -> np.ndarray:
    """Return what rain adds: int32, H×W×3, BGR."""
    return render(dry).astype(np.int32) - dry


def _add(samples: np.ndarray, change: np.ndarray, bits: int = 16) -> None:
    """Add to unsigned samples in place, clipped; a level of 8 bits is 257 of 16 bits."""
    most = 2**min(bits, 8 * samples.dtype.itemsize) - 1
    total = samples + change * (most // 255)
    # A sample beyond the bits in use keeps its value unless rain changes it.
    samples[...] = np.clip(total, 0, np.maximum(samples, most))


def _one_channel(change: np.ndarray, encoding: str) -> np.ndarray:
    """Return a change as grey, or as the Bayer filter at each pixel sees it."""
    if not encoding.startswith(_BAYER):
        return _rounded(change @ _LUMA_BGR)
    mosaic = np.empty(change.shape[:2], np.int32)
    for place, colour in enumerate(encoding.removeprefix(_BAYER)[:4]):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = change[row::2, column::2, 'bgr'.index(colour)]
    return mosaic


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int32)
