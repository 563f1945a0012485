"""A frame on its way through the node: its message, and the messages published for it.

Image messages are read and written in place, or with the classes of sensor_msgs; both ways put the
same bytes on the wire. The parameter ``fast_path`` chooses between them.
"""

import math
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from derain_ros.images import cdr
from derain_ros.images.compressed import is_colour_jpeg
from derain_ros.images.message_fields import ImageFormatError
from derain_ros.images.pipeline import Frame
from derain_ros.node.camera import Camera
from derain_ros.node.mailbox import Outcome, Taken
from derain_ros.node.parameters import COMPRESSED, LiveSettings
from derain_ros.node.reporter import status
from derain_ros.node.supervisor import FaultError

_SAID = {
    Outcome.DERAINED: 'derained', Outcome.BYPASSED: 'bypassed', Outcome.PASSED_THROUGH: 'fault',
    Outcome.DROPPED: 'dropped',
}
JPEG_FORMAT = 'bgr8; jpeg compressed bgr8'  # ``format`` as image_transport writes it


@dataclass(eq=False)
class Work:
    """The processing state of one frame.

    ``frame`` holds its message, a :data:`derain_ros.images.cdr.View`, once that is read.
    ``reason`` says why the frame bypasses the engine, ``fault`` why the engine has no result for
    it; ``infer_seconds`` is the time of the inference, of a recurrent model with its memory;
    ``outcome`` is set once processing is finished.
    """

    camera: Camera
    taken: Taken
    live: LiveSettings
    wanted: set[str] = field(default_factory=set)
    frame: Frame | None = None
    needs_engine: bool = False
    reason: str = ''
    infer_seconds: float | None = None
    fault: FaultError | None = None
    outcome: Outcome | None = None

    @property
    def header(self) -> Header:
        """The header of the received message."""
        return header_message(self.frame.message)

    @property
    def way(self) -> Outcome:
        """How the frame is published: derained, bypassed or passed through."""
        if self.frame.derained is not None:
            return Outcome.DERAINED
        return Outcome.BYPASSED if self.fault is None else Outcome.PASSED_THROUGH


class Outputs:
    """Reads and writes the messages of a frame.

    With ``in_place``, received bytes are read through views and pixels are copied only once when
    written; ``encoding`` is the parameter output_encoding, ``node`` the full name of the node.
    """

    def __init__(self, *, in_place: bool, encoding: str = 'same', node: str = ''):
        self._in_place = in_place
        self._node = node
        self._encoding = encoding

    def receive(self, data: bytes, *, compressed: bool) -> cdr.View:
        """Read a serialized message; raises ImageFormatError if it is not one of its type."""
        if self._in_place:
            with suppress(cdr.CdrUnsupportedError):  # rclpy may be able to read it
                return cdr.read_compressed_image(data) if compressed else cdr.read_image(data)
        message_type = CompressedImage if compressed else Image
        try:
            message = deserialize_message(data, message_type)
        except Exception as error:
            raise ImageFormatError(
                f'the message of {len(data)} bytes is not a {message_type.__name__} ({error}); '
                'check the publisher') from error
        stamp, frame_id = message.header.stamp, message.header.frame_id
        header = (cdr.encode_header(stamp.sec, stamp.nanosec, frame_id),
                  stamp.sec * 10**9 + stamp.nanosec, frame_id)
        pixels = memoryview(message.data)
        if compressed:
            return cdr.CompressedImageView(*header, message.format, pixels)
        return cdr.ImageView(*header, message.height, message.width, message.encoding,
                             message.is_bigendian, message.step, pixels)

    def image(self, received: cdr.View, pixels: np.ndarray, width: int, encoding: str) -> Any:
        """Return an ``Image`` of uint8 pixels, contiguous, rows first, with a received header."""
        fields = {'height': len(pixels), 'width': width, 'encoding': encoding, 'is_bigendian': 0,
                  'step': pixels.nbytes // len(pixels)}
        if self._in_place:
            return cdr.write_image(received.header, **fields, data=pixels)
        # The constructor copies all bytes at once; on Humble an assignment checks each one.
        return Image(header=header_message(received), **fields, data=pixels.tobytes())

    def jpeg(self, received: cdr.View, data: np.ndarray) -> Any:
        """Return a ``sensor_msgs/CompressedImage`` of JPEG ``data`` with a received header."""
        if self._in_place:
            return cdr.write_compressed_image(received.header, format=JPEG_FORMAT, data=data)
        return CompressedImage(
            header=header_message(received), format=JPEG_FORMAT, data=data.tobytes())

    def read(self, work: Work) -> None:
        """Read the message of a frame into ``work.frame``; raises ImageFormatError."""
        compressed = work.taken.compressed
        work.frame = Frame(
            self.receive(work.taken.data, compressed=compressed), compressed=compressed)

    def need_pixels(self, work: Work) -> bool:
        """Return whether the wanted outputs need decoded pixels even without deraining."""
        without = {'status', 'camera_info', 'rain_mask'}
        if work.frame.repeats(0, self._encoding):
            without.add('image')
        return bool(work.wanted - without)

    def write(self, work: Work) -> dict[str, Any]:
        """Return the wanted image messages, by output."""
        found = {}
        frame, wanted, strength = work.frame, work.wanted, work.live.strength
        if 'image' in wanted:
            if frame.repeats(strength, self._encoding):
                found['image'] = work.taken.data
            else:
                found['image'] = self._message(work, *frame.image(strength, self._encoding))
        if COMPRESSED in wanted:
            # A grey one or a mosaic would become bgr8 only when it rains.
            if frame.untouched(strength) and frame.compressed and is_colour_jpeg(frame.message):
                found[COMPRESSED] = work.taken.data
            else:
                found[COMPRESSED] = self.jpeg(
                    frame.message, frame.jpeg(strength, work.live.jpeg_quality))
        if 'rain_mask' in wanted:
            found['rain_mask'] = self._message(work, frame.mask(), 'mono8')
        if 'overlay' in wanted:
            found['overlay'] = self._message(work, frame.overlay(), 'bgr8')
        return found

    def _message(self, work: Work, pixels: np.ndarray, encoding: str) -> Any:
        return self.image(work.frame.message, pixels, work.frame.size[1], encoding)

    def status(self, work: Work, age: float | None) -> DiagnosticArray:
        """Return the status of a frame, with its own header; ``age`` is in seconds."""
        fault = work.fault
        level = DiagnosticStatus.OK
        if fault is not None:
            level = DiagnosticStatus.ERROR if fault.serious else DiagnosticStatus.WARN
        said = _SAID[work.outcome or work.way]
        values = {
            'reason': str(fault) if fault is not None else work.reason,
            'infer_ms': _milliseconds(work.infer_seconds),
            'age_ms': _milliseconds(age),
            'rain_intensity': _number(work.camera.record.rain_intensity),
        }
        return DiagnosticArray(header=work.header, status=[status(
            f'{self._node}: {work.camera.name}', level, said, work.camera.image_topic, values)])


def header_message(received: cdr.View) -> Header:
    """Return the header of a received message as a ``std_msgs/Header``."""
    # Not from the stamp in nanoseconds: a nanosec of a second or more must be preserved.
    sec, nanosec = struct.unpack_from('<iI', received.header)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=received.frame_id)


def _milliseconds(seconds: float | None) -> str:
    return '' if seconds is None else f'{seconds * 1e3:.2f}'


def _number(value: float) -> str:
    return '' if math.isnan(value) else f'{value:.4f}'
