"""Frames of image topics of a rosbag2 by their header stamps."""

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from derain_ros.bags.source import BagError
from derain_ros.bags.topics import COMPRESSED_IMAGE, IMAGE, message_types
from derain_ros.images.codec import decode_compressed, decode_image

MOST_WAITING = 32
"""Most frames of a topic that wait for their partner on another; more is disorder."""


def topic_frames(
    bag: Path, reader: Reader, *topics: str, start: int | None = None, stop: int | None = None
) -> Iterator[tuple[Connection, int, bytes]]:
    """Yield topic, time (ns) and serialized message of image topics, in recorded order.

    Parameters
    ----------
    bag
        For messages.
    reader
        The open bag.
    topics
        Names as the bag has them.
    start, stop
        Times of recording, ns, from and before which to read.

    Raises
    ------
    BagError
        The bag is damaged.

    """
    connections = [
        connection for connection in reader.connections
        if connection.topic in topics and connection.msgtype in (IMAGE, COMPRESSED_IMAGE)]
    try:
        for connection, time, data in reader.messages(connections, start, stop):
            yield connection, time, bytes(data)
    except Exception as error:
        # rosbags lets errors of SQLite, zstd, struct and others through on a damaged bag.
        reason = str(error) or type(error).__name__
        raise BagError(f'{bag}: cannot be read to its end ({reason}); `ros2 bag reindex` or '
                       '`mcap recover` may mend it') from error


def find_image_topic(name: str, images: list[str]) -> str:
    """Return a topic, named with or without ``/compressed`` and the leading slash.

    Raises
    ------
    BagError
        It is none of ``images``.

    """
    base = '/' + name.lstrip('/')
    for candidate in (base, base + '/compressed'):
        if candidate in images:
            return candidate
    raise BagError(
        f'{name} is not an image topic of the bag; those are: {", ".join(images) or "none"}')


def header_stamp(data: bytes) -> int | None:
    """Return header.stamp in ns; it comes first in both types, after four bytes of CDR.

    None where it is zero, which stands for no stamp, or where the message is torn.
    """
    if len(data) < 12:
        return None
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return seconds * 10**9 + nanoseconds or None


def decode_frame(connection: Connection, data: bytes) -> np.ndarray:
    """Return the picture of a message, uint8, H×W×3, BGR, C-contiguous.

    Raises
    ------
    SerdeError
        The message is torn.
    ImageFormatError
        Its fields contradict each other, or it is of an unknown kind.

    """
    message = message_types().deserialize_cdr(data, connection.msgtype)
    if connection.msgtype == COMPRESSED_IMAGE:
        return decode_compressed(message)
    return np.ascontiguousarray(decode_image(message))


class StampIndex:
    """Which header stamps the frames of topics bear, found by reading a bag once.

    Attributes
    ----------
    frames
        Frames by topic.
    repeated
        Frames by topic that share their stamp with another of the topic, or have none.

    """

    def __init__(self, bag: Path, reader: Reader, *topics: str):
        stamps: dict[str, Counter] = {topic: Counter() for topic in topics}
        for connection, _, data in topic_frames(bag, reader, *topics):
            stamps[connection.topic][header_stamp(data)] += 1
        self.frames = {topic: counts.total() for topic, counts in stamps.items()}
        self._single = {
            topic: {stamp for stamp, count in counts.items() if count == 1 and stamp is not None}
            for topic, counts in stamps.items()}
        self.repeated = {
            topic: self.frames[topic] - len(single) for topic, single in self._single.items()}

    def common(self, *topics: str) -> set[int]:
        """Return the stamps that exactly one frame of each topic bears."""
        return set.intersection(*(self._single[topic] for topic in topics))

    def on(self, topic: str) -> set[int]:
        """Return the stamps that exactly one frame of a topic bears."""
        return self._single[topic]


class PartnerFrames:
    """Finds the frame of a topic with a stamp, in one pass over the topic.

    The order of the stamps is nearly the same on all topics, so that only a few frames wait,
    still serialized.

    Parameters
    ----------
    bag, reader, topic
        What to read; the reader must be of this object alone.
    wanted
        Stamps that will be asked for.

    """

    def __init__(self, bag: Path, reader: Reader, topic: str, wanted: set[int]):
        self._bag, self._topic, self._wanted = bag, topic, wanted
        self._messages = topic_frames(bag, reader, topic)
        self._waiting: dict[int, tuple[Connection, bytes]] = {}

    def take(self, stamp: int) -> tuple[Connection, bytes]:
        """Return the message with a stamp, once.

        Raises
        ------
        BagError
            The bag is damaged, or its frames are in disorder.

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
