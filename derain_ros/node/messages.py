"""Image messages on their way in and out: in place, or through rclpy's own classes.

Both ways put the same bytes on the wire. ``fast_path`` chooses between them.
"""

import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from derain_ros.images import cdr
from derain_ros.images.codec import ImageFormatError


@dataclass(frozen=True, slots=True)
class Received:
    """An image message that came in.

    Attributes
    ----------
    data
        The whole message, serialized.
    compressed
        It is a ``sensor_msgs/CompressedImage``.
    fields
        Has the fields of the message; those of the header are below.
    header
        The header, serialized; see :func:`derain_ros.images.cdr.encode_header`.
    stamp
        Nanoseconds since the epoch.
    frame_id
        Of the header.

    """

    data: bytes
    compressed: bool
    fields: Any
    header: bytes
    stamp: int
    frame_id: str

    def header_message(self) -> Header:
        """Return the header as a message."""
        # Not from the sum of both: nanoseconds beyond a second have to stay what they are.
        sec, nanosec = struct.unpack_from('<iI', self.header)
        return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=self.frame_id)


JPEG_FORMAT = 'bgr8; jpeg compressed bgr8'
"""``format`` as image_transport writes it."""


class Messages:
    """Reads and writes image messages; what is written is for ``Publisher.publish``.

    Parameters
    ----------
    in_place
        Use views into the received bytes, and one copy of the pixels on the way out; else the
        classes of the message packages, with the conversions of rclpy.

    """

    def __init__(self, *, in_place: bool):
        self._in_place = in_place

    def read(self, data: bytes, *, compressed: bool) -> Received:
        """Read a serialized message; raises ImageFormatError if it is none."""
        if self._in_place:
            with suppress(cdr.CdrUnsupportedError):  # rclpy may be able to read it
                view = cdr.read_compressed_image(data) if compressed else cdr.read_image(data)
                return Received(data, compressed, view, view.header, view.stamp, view.frame_id)
        message_type = CompressedImage if compressed else Image
        try:
            message = deserialize_message(data, message_type)
        except Exception as error:
            raise ImageFormatError(
                f'the message of {len(data)} bytes is no {message_type.__name__} ({error});'
                ' check the publisher') from error
        stamp, frame_id = message.header.stamp, message.header.frame_id
        return Received(
            data, compressed, message, cdr.encode_header(stamp.sec, stamp.nanosec, frame_id),
            stamp.sec * 10**9 + stamp.nanosec, frame_id)

    def same(self, received: Received) -> Any:
        """Return the message that came in."""
        return received.data if self._in_place else received.fields

    def image(self, received: Received, pixels: np.ndarray, width: int, encoding: str) -> Any:
        """Return a ``sensor_msgs/Image`` with the header of a received one.

        ``pixels`` are uint8 and C-contiguous, rows first.
        """
        fields = {'height': len(pixels), 'width': width, 'encoding': encoding, 'is_bigendian': 0,
                  'step': pixels.nbytes // len(pixels)}
        if self._in_place:
            return cdr.write_image(received.header, **fields, data=pixels)
        # The constructor copies the bytes at once; assigning them checks each one on Humble.
        return Image(header=received.header_message(), **fields, data=pixels.tobytes())

    def jpeg(self, received: Received, data: np.ndarray) -> Any:
        """Return a ``sensor_msgs/CompressedImage`` with the header of a received message."""
        if self._in_place:
            return cdr.write_compressed_image(received.header, format=JPEG_FORMAT, data=data)
        return CompressedImage(
            header=received.header_message(), format=JPEG_FORMAT, data=data.tobytes())
