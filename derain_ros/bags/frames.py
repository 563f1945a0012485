"""Frames of image topics of a rosbag2 by their header stamps."""

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
    SUPPORTED_ENCODINGS,
    decode_compressed,
    decode_image,
    is_compressed_supported,
)
from derain_ros.images.message_fields import shown
from derain_ros.images.pixel_formats import Bits, bits_in_use
from derain_ros.text import printable

BITS_FRAMES = 8
"""Frames of a topic that tell how many bits its samples use; the first alone may be dark."""

MOST_WAITING = 32
"""Most frames of a topic that wait for their partner on another; more is disorder."""


def header_stamp(data: bytes) -> int | None:
    """Return header.stamp in ns; None where it is zero (no stamp), or the message is torn."""
    seconds, nanoseconds = cdr.read_stamp(data) or (0, 0)
    return seconds * 10**9 + nanoseconds or None


def read_message(msgtype: str, data: bytes | memoryview) -> cdr.View:
    """Read an Image or CompressedImage in place; raises ValueError where it is torn."""
    return (cdr.read_compressed_image if msgtype == COMPRESSED_IMAGE else cdr.read_image)(data)


def decode_frame(connection: Connection, data: bytes, bits: Bits = 16) -> np.ndarray:
    """Return the picture of a message, uint8, H×W×3, BGR, C-contiguous.

    ``bits`` are those of samples of 16 that are used. Raises ValueError where the message is torn,
    its fields contradict each other, it is of an unknown kind, or a damaged JPEG.
    """
    message = read_message(connection.msgtype, data)
    if connection.msgtype == COMPRESSED_IMAGE:
        return decode_compressed(message, bits, whole=True)
    return np.ascontiguousarray(decode_image(message, bits))


def why_no_picture(recording: Recording, topic: str, *, empty: str | None = None) -> str | None:
    """Say why an image topic holds no camera pictures; None if it does, or nothing is told.

    It is judged by its first message; one that is torn says nothing about the others. ``empty``
    is returned where there is none.
    """
    for connection, _, data in recording.read(topic):
        try:
            return why_not(read_message(connection.msgtype, data))
        except ValueError:
            return None
    return empty


def bits_of(recording: Recording, topic: str) -> int:
    """Tell how many of 16 bits the samples of a topic use, as the node does; 16 if they are of 8.

    It goes by the largest sample of a few frames, from all over the recording, and is logged where
    it is fewer than 16.
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
                if not largest:  # its samples are of 8 bits
                    return 16
            break
    bits = bits_in_use(max(largest, default=2**16 - 1))
    if bits < 16:
        logging.getLogger(__name__).warning('%s', printable(
            f'{topic}: {bits} of the 16 bits of a sample are taken to be used, by the largest '
            f'sample of {BITS_FRAMES} frames'))
    return bits


def why_not(message: Any) -> str | None:
    """Say why a message is no camera picture, by encoding or format; None if it is."""
    if not hasattr(message, 'format'):
        if message.encoding in SUPPORTED_ENCODINGS:
            return None
        return f'encoding {shown(message.encoding)} is not of a camera picture'
    encoding, separator, _ = message.format.partition(';')
    if is_compressed_supported(message.format) and (
            not separator or encoding.strip() in SUPPORTED_ENCODINGS):
        return None
    return f'format {shown(message.format)} is not of a camera picture'


def count_stamps(recording: Recording, *topics: str) -> dict[str, Counter]:
    """Count by topic the header stamps of its frames, None where there is none."""
    stamps: dict[str, Counter] = {topic: Counter() for topic in topics}
    for connection, _, data in recording.read(*topics):
        stamps[connection.topic][header_stamp(data)] += 1
    return stamps


class PartnerFrames:
    """Finds frames of a topic by those stamps that are ``wanted``, in one pass over the topic.

    The order of the stamps is nearly the same on all topics, so that only a few frames wait,
    still serialized.
    """

    def __init__(self, recording: Recording, topic: str, wanted: set[int]):
        self._bag, self._topic, self._wanted = recording.source, topic, wanted
        self._messages = recording.read(topic)
        self._waiting: dict[int, tuple[Connection, bytes]] = {}

    def take(self, stamp: int) -> tuple[Connection, bytes]:
        """Return the message with a stamp, once.

        Raises BagError where the bag has changed, or its frames are in disorder.
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
