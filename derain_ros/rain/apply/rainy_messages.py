"""Rain on camera messages, with everything but the pixels kept.

What rain changes in the picture, as 8-bit BGR, is added to the samples of the message in
their own encoding. So a sample that no rain meets keeps its value to the last bit, also
where the encoding has more bits than the picture, is a Bayer mosaic or YUV.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from derain_ros.bags.frames import why_not
from derain_ros.images.codec import (
    decode_compressed,
    decode_image,
)
from derain_ros.images.message_fields import ImageFormatError

JPEG_QUALITY = 95

_JPEG_START = b'\xff\xd8\xff'
# Columns of B, G, R for samples that are stored in this order.
_COLOUR_ORDERS = {
    'bgr8': (0, 1, 2), '8UC3': (0, 1, 2), 'bgra8': (0, 1, 2), 'bgr16': (0, 1, 2),
    'bgra16': (0, 1, 2),
    'rgb8': (2, 1, 0), 'rgba8': (2, 1, 0), 'rgb16': (2, 1, 0), 'rgba16': (2, 1, 0),
}
_GREY = ('mono8', '8UC1', 'mono16')
_BAYER = 'bayer_'
# Offset of Y, Cb, Cr in the four bytes of two pixels.
_PACKED_YUV = {
    'uyvy': (1, 0, 2), 'yuv422': (1, 0, 2), 'yuyv': (0, 1, 3), 'yuv422_yuy2': (0, 1, 3),
}
# Offset of Cb, Cr in the two bytes of a chroma sample.
_PLANAR_YUV = {'nv12': (0, 1), 'nv21': (1, 0)}
_LUMA_BGR = np.array([0.114, 0.587, 0.299])
# Limited-range BT.601, rows Y, Cb, Cr, columns B, G, R.
_YUV_BGR = np.array([
    [0.098, 0.504, 0.257],
    [0.439, -0.291, -0.148],
    [-0.071, -0.368, 0.439],
])

Renderer = Callable[[np.ndarray], np.ndarray]
"""Puts rain into a picture: uint8, H×W×3, BGR, in and out."""


def rain_on_image(message: Any, render: Renderer) -> Any:
    """Put rain into a ``sensor_msgs/Image``.

    Parameters
    ----------
    message
        Message of rosbags in one of :data:`derain_ros.images.codec.SUPPORTED_ENCODINGS`.
    render
        What puts rain into its picture.

    Returns
    -------
    Any
        The message with other ``data``; size, encoding, byte order, padding, alpha and
        header are the same.

    Raises
    ------
    ImageFormatError
        The message cannot be read, see :func:`derain_ros.images.codec.decode_image`.

    """
    reason = why_not(message)
    if reason is not None:
        raise ImageFormatError(reason)
    change = _change(decode_image(message), render)
    data = np.array(message.data, np.uint8)
    encoding = message.encoding
    height, width = change.shape[:2]
    depth = np.dtype(np.uint8)
    if encoding.endswith('16'):
        depth = np.dtype(np.uint16).newbyteorder('>' if message.is_bigendian else '<')
    if encoding in _PACKED_YUV:
        pixels = _samples(data, (height, width // 2, 4), message.step)
        _add_packed_yuv(pixels, change, _PACKED_YUV[encoding])
    elif encoding in _PLANAR_YUV:
        pixels = _samples(data, (height * 3 // 2, width), message.step)
        _add_planar_yuv(pixels, change, _PLANAR_YUV[encoding])
    elif encoding in _COLOUR_ORDERS:
        channels = 4 if encoding[3] == 'a' else 3
        pixels = _samples(data, (height, width, channels), message.step, depth)
        _add(pixels[..., :3], change[..., _COLOUR_ORDERS[encoding]])
    else:
        pixels = _samples(data, (height, width), message.step, depth)
        _add(pixels, _grey(change) if encoding in _GREY else _mosaic(change, encoding))
    return dataclasses.replace(message, data=data)


def rain_on_compressed(message: Any, render: Renderer) -> Any:
    """Put rain into a ``sensor_msgs/CompressedImage``.

    Parameters
    ----------
    message
        Message of rosbags that holds a JPEG or PNG.
    render
        What puts rain into its picture.

    Returns
    -------
    Any
        The message with other ``data``: PNG as PNG of the same channels and bits, JPEG as
        JPEG of quality :data:`JPEG_QUALITY`.

    Raises
    ------
    ImageFormatError
        The message cannot be read, see :func:`derain_ros.images.codec.decode_compressed`.

    """
    reason = why_not(message)
    if reason is not None:
        raise ImageFormatError(reason)
    change = _change(decode_compressed(message), render)
    data = np.ascontiguousarray(message.data)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != change.shape[:2]:
        raise ImageFormatError('data is a picture that OpenCV reads in colour only')
    encoding, _, target = message.format.partition(';')
    if pixels.ndim == 3:
        order = 'rgb8' if 'compressed rgb' in target else 'bgr8'
        _add(pixels[..., :3], change[..., _COLOUR_ORDERS[order]])
    else:
        mosaic = encoding.startswith(_BAYER)
        _add(pixels, _mosaic(change, encoding) if mosaic else _grey(change))
    if data[:3].tobytes() == _JPEG_START:
        done, data = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    else:
        done, data = cv2.imencode('.png', pixels)
    if not done:
        raise ImageFormatError('the rainy picture cannot be compressed; record it raw')
    return dataclasses.replace(message, data=data.ravel())


def _change(dry: np.ndarray, render: Renderer) -> np.ndarray:
    """Return what rain adds: int32, H×W×3, BGR."""
    return render(dry).astype(np.int32) - dry


def _samples(
    data: np.ndarray, shape: tuple[int, ...], step: int, depth: Any = np.uint8
) -> np.ndarray:
    """View a message's bytes as rows of ``step`` bytes; decoding has checked that they fit."""
    depth = np.dtype(depth)
    inner = [depth.itemsize] if len(shape) == 2 else [shape[2] * depth.itemsize, depth.itemsize]
    return np.ndarray(shape, depth, data, strides=(step, *inner))


def _add(samples: np.ndarray, change: np.ndarray) -> None:
    """Add to unsigned samples in place, clipped; 16 bits are 257 times what 8 bits are."""
    bits = 8 * samples.dtype.itemsize
    total = samples + change * (257 if bits == 16 else 1)
    samples[...] = np.clip(total, 0, 2**bits - 1)


def _grey(change: np.ndarray) -> np.ndarray:
    return _rounded(change @ _LUMA_BGR)


def _mosaic(change: np.ndarray, encoding: str) -> np.ndarray:
    """Take at each pixel the channel that a Bayer filter lets through there."""
    pattern = encoding.removeprefix(_BAYER)[:4]
    mosaic = np.empty(change.shape[:2], np.int32)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = change[row::2, column::2, 'bgr'.index(colour)]
    return mosaic


def _add_packed_yuv(
    pixels: np.ndarray, change: np.ndarray, offsets: tuple[int, int, int]
) -> None:
    luma, *chroma = offsets
    yuv = change @ _YUV_BGR.T
    for column in range(2):
        _add(pixels[..., luma + 2 * column], _rounded(yuv[:, column::2, 0]))
    pairs = (yuv[:, 0::2] + yuv[:, 1::2]) / 2
    for channel, offset in enumerate(chroma, 1):
        _add(pixels[..., offset], _rounded(pairs[..., channel]))


def _add_planar_yuv(
    rows: np.ndarray, change: np.ndarray, offsets: tuple[int, int]
) -> None:
    height, width = change.shape[:2]
    yuv = change @ _YUV_BGR.T
    _add(rows[:height], _rounded(yuv[..., 0]))
    squares = yuv.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    for channel, offset in enumerate(offsets, 1):
        _add(rows[height:, offset::2], _rounded(squares[..., channel]))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int32)
