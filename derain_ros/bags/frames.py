"""Decode frames of rosbag2 image topics, and look them up by header stamp."""

import logging
from collections import Counter
from contextlib import suppress
from typing import Any

import numpy as np
from rosbags.interfaces import Connection

from derain_ros.bags.damage import BagError
from derain_ros.bags.recording import Recording
from derain_ros.bags.topics import COMPRESSED_IMAGE
from derain_ros.images import cdr
from derain_ros.images.codec import (
    DEPTH_ENCODINGS,
    ONE_OF_THEM,
    SET_THE_DRIVER,
    SUPPORTED_ENCODINGS,
    decode_image,
)
from derain_ros.images.compressed import decode_compressed, is_compressed_supported
from derain_ros.images.message_fields import shown
from derain_ros.images.pixel_formats import Bits, bits_in_use
from derain_ros.text import printable

BITS_FRAMES = 8
"""Frames sampled to find how many bits a topic uses; the first one alone may be dark."""

MOST_WAITING = 32
"""Frames of a topic that may wait for their partners; more means the topics are out of order."""


def header_stamp(data: bytes) -> int | None:
    """Return header.stamp in ns; None if it is zero (no stamp), or the message is truncated."""
    return cdr.read_stamp(data) or None


def read_message(msgtype: str, data: bytes | memoryview) -> cdr.View:
    """Read an Image or CompressedImage without copying; raises ValueError if it is truncated."""
    return (cdr.read_compressed_image if msgtype == COMPRESSED_IMAGE else cdr.read_image)(data)


def decode_frame(connection: Connection, data: bytes, bits: Bits = 16) -> np.ndarray:
    """Decode an image message to uint8, H×W×3, BGR, C-contiguous.

    ``bits`` is how many bits of 16-bit samples are used. Raises ValueError if the message is
    truncated, inconsistent, of an unsupported encoding or format, or a damaged JPEG.
    """
    message = read_message(connection.msgtype, data)
    if connection.msgtype == COMPRESSED_IMAGE:
        return decode_compressed(message, bits, whole=True)
    return np.ascontiguousarray(decode_image(message, bits))


def why_no_picture(recording: Recording, topic: str, *, empty: str | None = None) -> str | None:
    """Return why an image topic holds no camera images; None if it does or cannot be judged.

    The topic is judged by its name and its first message, and not by one that is truncated. A
    topic without messages returns ``empty``.
    """
    if topic.endswith('/rain_mask'):
        return 'it holds rain masks'
    for connection, _, data in recording.read(topic):
        try:
            return why_not(read_message(connection.msgtype, data))
        except ValueError:
            return None
    return empty


def bits_of(recording: Recording, topic: str) -> int:
    """Return how many bits the 16-bit samples of a topic use; 16 if they are 8-bit.

    Like the node, it estimates this from the largest sample, here of a few frames spread over the
    recording. A result below 16 is logged.
    """
    largest: list[int] = []

    def look(samples: np.ndarray) -> int:
        largest.append(int(samples.max()))
        return 16

    start, span = recording.start_time, recording.end_time - recording.start_time
    for number in range(BITS_FRAMES):
        for connection, _, data in recording.read(
                topic, start=start + span * number // BITS_FRAMES):
            with suppress(ValueError):
                decode_frame(connection, data, look)
                if not largest:  # the samples are 8-bit
                    return 16
            break
    bits = bits_in_use(max(largest, default=2**16 - 1))
    if bits < 16:
        logging.getLogger(__name__).warning('%s', printable(
            f'{topic}: {bits} of the 16 bits of a sample are assumed to be used, from the largest '
            f'sample of {BITS_FRAMES} frames'))
    return bits


def why_not(message: Any) -> str | None:
    """Return why a message is no camera image, by its encoding or format; None if it is one."""
    if not hasattr(message, 'format'):
        if message.encoding in SUPPORTED_ENCODINGS:
            return None
        known = '' if message.encoding in DEPTH_ENCODINGS else (
            f' (expected {ONE_OF_THEM}; {SET_THE_DRIVER} and record again)')
        return f'encoding {shown(message.encoding)} is not of a camera picture{known}'
    if is_compressed_supported(message.format):  # whatever the encoding was before
        return None
    return f'format {shown(message.format)} is not of a camera picture'


def count_stamps(recording: Recording, *topics: str) -> dict[str, Counter]:
    """Count the frames of each topic by header stamp in ns; the key None means no stamp."""
    stamps: dict[str, Counter] = {topic: Counter() for topic in topics}
    for connection, _, data in recording.read(*topics):
        stamps[connection.topic][header_stamp(data)] += 1
    return stamps


class PartnerFrames:
    """Finds the frames of a topic whose stamps are ``wanted``, in one pass over the topic.

    The stamps are in nearly the same order on all topics, so only a few frames need to be
    buffered; they stay serialized.
    """

    def __init__(self, recording: Recording, topic: str, wanted: set[int]):
        self._bag, self._topic, self._wanted = recording.source, topic, wanted
        self._messages = recording.read(topic)
        self._waiting: dict[int, tuple[Connection, bytes]] = {}

    def take(self, stamp: int) -> tuple[Connection, bytes]:
        """Return the message with a stamp (ns), and remove it from the buffer.

        Raises BagError if the bag has changed, or its frames are too far out of order.
        """
        while stamp not in self._waiting:
            connection, _, data = next(self._messages, (None, None, None))
            if connection is None:
                raise BagError(f'{self._bag}: has changed while it was read')
            found = header_stamp(data)
            if found in self._wanted:
                self._waiting[found] = connection, data
            if len(self._waiting) > MOST_WAITING:
                raise BagError(
                    f'{self._bag}: frames on {self._topic} are in another order than those they '
                    f'belong to, by more than {MOST_WAITING} frames; record the bag again')
        return self._waiting.pop(stamp)
