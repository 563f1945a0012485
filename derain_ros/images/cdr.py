"""Serialized image messages, read in place and written with one copy of the pixels.

A serialized message starts with four bytes of encapsulation (its kind and two bytes of
options), then the fields in the order of the ``.msg`` file. Kinds 0 and 1 are plain CDR,
big-endian and little-endian (OMG DDS-XTypes, XCDR version 1): numbers are aligned to their own
size, counted from the end of the encapsulation; a string or sequence is a uint32 count followed
by that many bytes, which for a string include a NUL at the end.

The reader accepts what rclpy accepts: strings without a NUL or of no bytes at all, text after
a NUL (ignored), bytes that are not UTF-8 (replaced by U+FFFD), and bytes after the end of the
message, as Fast DDS pads small ones to a multiple of four. The padding between fields, which
rclpy leaves uninitialized, is written as zeros.
"""

import struct
from dataclasses import dataclass
from typing import Any

from derain_ros.images.message_fields import refuse

_ENCAPSULATION_BYTES = 4
_LITTLE_ENDIAN = b'\0\1\0\0'
_BYTE_ORDERS = {b'\0\0': '>', b'\0\1': '<'}
_LARGEST_COUNT = 2**32 - 1


class CdrUnsupportedError(ValueError):
    """The encapsulation is not plain CDR; rclpy may still be able to read it."""


@dataclass(frozen=True, slots=True)
class ImageView:
    """A ``sensor_msgs/Image`` whose pixels are not copied out of the serialized message.

    ``header`` is as :func:`encode_header` writes it, ``stamp`` in nanoseconds since the epoch;
    ``data`` is a read-only view into the message, which it keeps alive.
    """

    header: bytes
    stamp: int
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class CompressedImageView:
    """A ``sensor_msgs/CompressedImage`` whose data are not copied, as in :class:`ImageView`."""

    header: bytes
    stamp: int
    frame_id: str
    format: str
    data: memoryview


View = ImageView | CompressedImageView
"""A received image message."""


def read_stamp(message: bytes | memoryview) -> int | None:
    """Return ``header.stamp`` of any message that starts with a header, ns; may be negative.

    Returns None for a message that is too short or not plain CDR.
    """
    order = _BYTE_ORDERS.get(bytes(message[:2]))
    if order is None or len(message) < _ENCAPSULATION_BYTES + 8:
        return None
    sec, nanosec = struct.unpack_from(f'{order}iI', message, _ENCAPSULATION_BYTES)
    return sec * 10**9 + nanosec


def restamped(message: bytes, stamp: int) -> bytes | None:
    """Return a message that starts with a header with its stamp set, in ns since the epoch.

    Only the eight bytes of the stamp are changed. Returns None if the message is too short.
    """
    end = _ENCAPSULATION_BYTES + 8
    if len(message) < end:
        return None
    view = memoryview(message)
    packed = struct.pack('<iI' if message[1] & 1 else '>iI', *divmod(stamp, 10**9))
    return b''.join((view[:_ENCAPSULATION_BYTES], packed, view[end:]))


def read_image(message: bytes | memoryview) -> ImageView:
    """Read a serialized ``sensor_msgs/Image`` without copying its pixels.

    Whether size, encoding, step and data are consistent is checked by
    :func:`derain_ros.images.codec.decode_image`. Raises ImageFormatError if the message is
    truncated, and CdrUnsupportedError if its encapsulation is not plain CDR.
    """
    reader = _Reader(message, 'sensor_msgs/Image')
    header, stamp, frame_id = reader.header()
    height, width = reader.unpack('II', 'height and width')
    encoding = reader.text('encoding')
    is_bigendian, = reader.unpack('B', 'is_bigendian')
    step, = reader.unpack('I', 'step')
    return ImageView(
        header, stamp, frame_id, height, width, encoding, is_bigendian, step,
        reader.sequence('data'))


def read_compressed_image(message: bytes | memoryview) -> CompressedImageView:
    """Read a serialized ``sensor_msgs/CompressedImage`` as :func:`read_image` does an Image."""
    reader = _Reader(message, 'sensor_msgs/CompressedImage')
    header, stamp, frame_id = reader.header()
    announced = reader.text('format')
    return CompressedImageView(header, stamp, frame_id, announced, reader.sequence('data'))


@dataclass(frozen=True, slots=True)
class CameraInfoView:
    """What a ``sensor_msgs/CameraInfo`` says about the images that it belongs to.

    ``sizes`` are the possible heights and widths of the images in pixels: of the full resolution
    or the region of interest, binned or not; empty if the message gives no size.
    """

    frame_id: str
    sizes: frozenset[tuple[int, int]]


def read_camera_info(message: bytes) -> CameraInfoView:
    """Read a serialized ``sensor_msgs/CameraInfo``, and check that all its fields are there.

    If rclpy tried instead, the middleware would print a line on stderr for each damaged message.
    Raises the errors of :func:`read_image`.
    """
    reader = _Reader(message, 'sensor_msgs/CameraInfo')
    _, _, frame_id = reader.header()
    whole = reader.unpack('II', 'height and width')
    reader.text('distortion_model')
    count, = reader.unpack('I', 'd')
    reader.unpack(f'{count}d', 'd')
    reader.unpack('30d', 'k, r and p')
    binning_x, binning_y, _, _, *region = reader.unpack('6I', 'binning and roi')
    reader.unpack('B', 'roi.do_rectify')
    sizes = {
        (-(-height // by_y), -(-width // by_x))
        for height, width in (whole, region) if height and width
        for by_y, by_x in ((1, 1), (max(1, binning_y), max(1, binning_x)))}
    return CameraInfoView(frame_id, frozenset(sizes))


def encode_header(sec: int, nanosec: int, frame_id: str) -> bytes:
    """Serialize a ``std_msgs/Header``.

    The result is little-endian CDR, without encapsulation and without padding at the end. As
    with rclpy, ``frame_id`` ends at its first NUL. Raises struct.error for a number out of
    range, UnicodeEncodeError for a lone surrogate.
    """
    return struct.pack('<iI', sec, nanosec) + _encode_text(frame_id)


def write_image(
    header: bytes, *, height: int, width: int, encoding: str, is_bigendian: int = 0, step: int,
    data: Any,
) -> bytes:
    """Serialize a ``sensor_msgs/Image`` to little-endian CDR, copying its pixels once.

    ``header`` is from :func:`encode_header` or a view, ``data`` any object with the buffer
    protocol, of any shape; the other fields are as in the message and are not checked for
    consistency. The result is ready for ``Publisher.publish``. Raises struct.error for a number
    that does not fit its field, and ValueError for data that are not C-contiguous or are too long
    for a message.
    """
    message = bytearray(_LITTLE_ENDIAN + header)
    _align(message)
    message += struct.pack('<II', height, width)
    message += _encode_text(encoding)
    message += struct.pack('<B', is_bigendian)
    _align(message)
    message += struct.pack('<I', step)
    return _with_sequence(message, data)


def write_compressed_image(header: bytes, *, format: str, data: Any) -> bytes:  # noqa: A002
    """Serialize a ``sensor_msgs/CompressedImage`` as :func:`write_image` does an Image."""
    message = bytearray(_LITTLE_ENDIAN + header)
    _align(message)
    message += _encode_text(format)
    return _with_sequence(message, data)


class _Reader:
    """Reads the fields of a message one after the other."""

    def __init__(self, message: bytes | memoryview, message_type: str):
        self._message = message
        self._type = message_type
        if len(message) < _ENCAPSULATION_BYTES:
            self._too_short('encapsulation')
        self._order = _BYTE_ORDERS.get(bytes(message[:2]))
        if self._order is None:
            raise CdrUnsupportedError(
                f'the encapsulation of a {message_type} is {message[:2].hex(" ")}, expected '
                'plain CDR (00 00 or 00 01); set the publisher to XCDR1')
        self._at = _ENCAPSULATION_BYTES

    def header(self) -> tuple[bytes, int, str]:
        """Return a header in little-endian CDR, its stamp in nanoseconds and its frame_id."""
        sec, nanosec = self.unpack('iI', 'header.stamp')
        frame_id = self.text('header.frame_id')
        return encode_header(sec, nanosec, frame_id), sec * 10**9 + nanosec, frame_id

    def unpack(self, kinds: str, field: str) -> tuple[Any, ...]:
        """Read numbers of one size, given by their :mod:`struct` format characters."""
        kinds = self._order + kinds
        start = self._at + (_ENCAPSULATION_BYTES - self._at) % struct.calcsize(kinds[-1])
        self._at = start + struct.calcsize(kinds)
        if self._at > len(self._message):
            self._too_short(field)
        return struct.unpack_from(kinds, self._message, start)

    def text(self, field: str) -> str:
        """Read a string as rclpy does."""
        start = self._skip_sequence(field)
        text = bytes(self._message[start:self._at]).partition(b'\0')[0]
        return text.decode('utf-8', 'replace')

    def sequence(self, field: str) -> memoryview:
        """Return a view of a sequence of bytes."""
        start = self._skip_sequence(field)
        return memoryview(self._message)[start:self._at]

    def _skip_sequence(self, field: str) -> int:
        count, = self.unpack('I', field)
        start = self._at
        self._at += count
        if self._at > len(self._message):
            self._too_short(field)
        return start

    def _too_short(self, field: str) -> None:
        refuse(
            field, f'cut off at the end of a message of {len(self._message)} bytes',
            f'a whole {self._type}', 'check the publisher and the link')


def _encode_text(text: str) -> bytes:
    encoded = text.partition('\0')[0].encode()
    return struct.pack('<I', len(encoded) + 1) + encoded + b'\0'


def _align(message: bytearray) -> None:
    """Pad to a multiple of four bytes; the encapsulation, of four bytes, keeps the alignment."""
    message += bytes(-len(message) % 4)


def _with_sequence(message: bytearray, data: Any) -> bytes:
    """Return the message with a sequence of bytes appended."""
    view = memoryview(data)
    if not view.c_contiguous or view.nbytes > _LARGEST_COUNT:
        raise ValueError(
            f'data are {view.nbytes} bytes, contiguous: {view.c_contiguous}; expected at most '
            f'{_LARGEST_COUNT} in C order, so pass them through numpy.ascontiguousarray')
    _align(message)
    message += struct.pack('<I', view.nbytes)
    return b''.join((message, view))
