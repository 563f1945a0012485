"""Conversion of camera messages to BGR arrays and back, from the fields of the message alone.

It works with rclpy and rosbags messages. Arrays are uint8, H×W×3, BGR, 0–255.
16-bit samples are assumed to use the full range, unless another number of bits is given:
``value >> 8`` when reading, ``value * 257`` when writing. YUV is limited-range BT.601.
"""

import functools
from typing import Any

import cv2
import numpy as np

from derain_ros.images.message_fields import (
    MAXIMUM_SIDE,
    ImageFormatError,
    byte_view,
    integer_field,
    refuse,
    shown,
)
from derain_ros.images.pixel_formats import PIXEL_FORMATS, Bits, samples_16

SUPPORTED_ENCODINGS = frozenset(PIXEL_FORMATS)
"""Encodings of ``sensor_msgs/Image`` that can be read without cv_bridge."""

ONE_OF_THEM = f'one of {", ".join(sorted(SUPPORTED_ENCODINGS))}'
SET_THE_DRIVER = 'set the camera driver to one of these'

_WRITERS = {
    'bgr8': None,
    'rgb8': cv2.COLOR_BGR2RGB,
    'bgra8': cv2.COLOR_BGR2BGRA,
    'rgba8': cv2.COLOR_BGR2RGBA,
    'mono8': cv2.COLOR_BGR2GRAY,
    'mono16': cv2.COLOR_BGR2GRAY,
}
_KEPT_WITH_SAME = {name: name for name in _WRITERS} | {'8UC1': 'mono8'}

DEPTH_ENCODINGS = ('16UC1', '32FC1', '64FC1')

_CHECK_SIZE = 'check the size that the camera driver publishes'


def decode_image(msg: Any, bits: Bits = 16) -> np.ndarray:
    """Read a ``sensor_msgs/Image`` to uint8, H×W×3, BGR, C-contiguous.

    For ``bgr8`` without padding the result is a read-only view of ``data``, else a new array.
    ``data`` (any object with the buffer protocol) must hold exactly ``step * height`` bytes
    (``step * height * 3 / 2`` for nv12 and nv21, whose chroma plane follows the luma plane); only
    the padding of the last row may be missing. Encodings outside :data:`SUPPORTED_ENCODINGS` are
    read with cv_bridge if it is installed. ``bits`` applies to 16-bit encodings, see
    :data:`derain_ros.images.pixel_formats.Bits`. Raises ImageFormatError if the fields
    contradict each other, a side is 0 or above :data:`MAXIMUM_SIDE`, or the encoding is unknown.
    """
    rows = _rows(msg)
    if rows is None:
        return _decode_with_cv_bridge(msg)
    to_bgr = PIXEL_FORMATS[msg.encoding].to_bgr
    return np.ascontiguousarray(to_bgr(rows, bool(msg.is_bigendian), bits))


def check_image(msg: Any) -> None:
    """Raise ImageFormatError unless :func:`decode_image` can read the message."""
    if _rows(msg) is None:
        _decode_with_cv_bridge(msg)


def extract_samples(msg: Any) -> np.ndarray | None:
    """Return a copy of the samples of a 16-bit image, uint16, H rows; None for others.

    Raises ImageFormatError as :func:`decode_image` does.
    """
    rows = _rows(msg)
    if rows is None or not msg.encoding.endswith('16'):
        return None
    return samples_16(rows, bool(msg.is_bigendian))


def extract_alpha(msg: Any) -> np.ndarray | None:
    """Return the alpha channel (uint8, H×W, a copy) of a bgra8 or rgba8 image, else None.

    Raises ImageFormatError as :func:`decode_image` does.
    """
    rows = _rows(msg)
    return rows[:, 3::4].copy() if msg.encoding in ('bgra8', 'rgba8') else None


def output_encoding(input_encoding: str, choice: str) -> str:
    """Return the encoding of a derained image, one that :func:`arrange_pixels` can write.

    ``input_encoding`` is that of the received image, ``bgr8`` for a compressed one. ``choice`` is
    ``bgr8``, ``rgb8`` or ``same``, which keeps the input encoding if it can be written, and gives
    ``bgr8`` for Bayer, YUV and what cv_bridge has read. Raises ValueError for any other choice.
    """
    if choice in ('bgr8', 'rgb8'):
        return choice
    if choice != 'same':
        raise ValueError(f"output encoding is {choice!r}, expected 'same', 'bgr8' or 'rgb8'")
    return _KEPT_WITH_SAME.get(input_encoding, 'bgr8')


def arrange_pixels(
    bgr: np.ndarray, encoding: str, *, alpha: np.ndarray | None = None
) -> np.ndarray:
    """Return the pixels of an image in the memory layout of a ``sensor_msgs/Image``.

    They are uint8, C-contiguous, H rows; for ``bgr8`` the image itself if it is contiguous. The
    image is uint8, H×W×3, BGR; ``encoding`` is one of those that :func:`output_encoding` returns;
    ``alpha``, uint8, H×W, is for bgra8 and rgba8, where None means 255 everywhere. Raises
    ImageFormatError for any other array or encoding.
    """
    if encoding not in _WRITERS:
        refuse('encoding', shown(encoding), ', '.join(sorted(_WRITERS)), 'choose one of these')
    _check_array('image', bgr, (*bgr.shape[:2], 3))
    code = _WRITERS[encoding]
    pixels = bgr if code is None else cv2.cvtColor(bgr, code)
    if alpha is not None and encoding in ('bgra8', 'rgba8'):
        _check_array('alpha', alpha, bgr.shape[:2])
        pixels[..., 3] = alpha
    if encoding == 'mono16':
        # Both bytes of value * 257 equal value, whatever their order.
        pixels = cv2.merge((pixels, pixels))
    return np.ascontiguousarray(pixels)


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.dtype != np.uint8 or array.shape != shape or len(shape) < 2 or 0 in shape:
        raise ImageFormatError(
            f'{name} is {array.dtype} of shape {array.shape}, expected non-empty uint8 of shape '
            f'{shape}; convert it first')


def _rows(msg: Any) -> np.ndarray | None:
    """Return a read-only uint8 view of the image, rows×row bytes, without padding.

    Returns None if the encoding is not supported here, but may be by cv_bridge.
    """
    height, width = (integer_field(msg, field, 1, MAXIMUM_SIDE, _CHECK_SIZE)
                     for field in ('height', 'width'))
    encoding = msg.encoding
    if not isinstance(encoding, str):
        refuse('encoding', shown(encoding), 'a string', 'check the publisher')
    pixel_format = PIXEL_FORMATS.get(encoding)
    if pixel_format is None:
        return None
    for field, side, even in (
        ('height', height, pixel_format.even_height), ('width', width, pixel_format.even_width),
    ):
        if even and side % 2:
            refuse(field, f'{side}', f'an even number for {encoding}', 'crop it by one pixel')
        if side < pixel_format.smallest_side:
            refuse(
                field, f'{side}', f'at least {pixel_format.smallest_side} for {encoding}',
                _CHECK_SIZE)
    row_bytes = width * pixel_format.pixel_bytes
    step = integer_field(
        msg, 'step', row_bytes, 2**32 - 1,
        f'{width} pixels of {encoding} fill {row_bytes} bytes; check encoding, width and step')
    data = byte_view(msg)
    row_count = pixel_format.row_count(height)
    whole = step * row_count
    if len(data) not in (whole, whole - step + row_bytes):
        refuse(
            'data', f'{len(data)} bytes', f'{whole}',
            f'{row_count} rows of {encoding} have {step} bytes each; check height, step and data')
    return np.ndarray((row_count, row_bytes), np.uint8, data, strides=(step, 1))


@functools.cache
def _cv_bridge() -> Any:
    """Return a CvBridge, or a string that says how to get one."""
    try:
        from cv_bridge import CvBridge
    except ModuleNotFoundError:
        return 'install cv_bridge'
    except Exception as error:  # a build for another NumPy or OpenCV fails in many ways
        return f'install a cv_bridge that works here ({ascii(str(error))[:80]})'
    return CvBridge()


def _decode_with_cv_bridge(msg: Any) -> np.ndarray:
    height, width = msg.height, msg.width
    if msg.encoding in DEPTH_ENCODINGS:
        refuse('encoding', f'{shown(msg.encoding)}, that of a depth image', 'a colour or grey one',
               'name the topic of the colour images')
    bridge = _cv_bridge()
    if isinstance(bridge, str):
        refuse(
            'encoding', shown(msg.encoding), ONE_OF_THEM, f'{SET_THE_DRIVER}, or {bridge}')
    step = integer_field(msg, 'step', width, 2**32 - 1, 'check the publisher')
    length = len(byte_view(msg))
    if length < step * height:
        refuse('data', f'{length} bytes', f'{step * height}', 'check height, step and data')
    try:
        depth, channels = bridge.encoding_to_dtype_with_channels(msg.encoding)
        pixel_bytes = np.dtype(depth).itemsize * channels
        whole = step % pixel_bytes == 0  # else cv_bridge would shift each row by the remainder
        image = np.asarray(bridge.imgmsg_to_cv2(msg, 'bgr8')) if whole else None
    except Exception as error:
        raise ImageFormatError(
            f'encoding is {shown(msg.encoding)}, which cv_bridge cannot turn into bgr8 '
            f'({ascii(str(error))[:80]}), expected {ONE_OF_THEM}; {SET_THE_DRIVER}') from error
    if image is None:
        refuse('step', f'{step}', f'a multiple of the {pixel_bytes} bytes of a pixel of '
               f'{msg.encoding}', 'let the publisher pad its rows by whole pixels')
    _check_array('image from cv_bridge', image, (height, width, 3))
    return np.ascontiguousarray(image)
