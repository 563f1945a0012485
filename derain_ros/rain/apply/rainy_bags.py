"""Rain in a recorded rosbag2: on the topics that a detector listens to, truth beside them.

Rain is a function of seed, camera and stamp alone. So all cameras of a bag stand in one
shower and one wind, each sees drops of its own, and the raw and the compressed topic of
one camera show the same drops.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionMode, Writer
from rosbags.serde import SerdeError

from derain_ros.bags.copies import (
    TopicCopier,
    check_destination,
    check_storage,
    new_bag,
)
from derain_ros.bags.damage import BagError, Damage
from derain_ros.bags.recording import Recording
from derain_ros.bags.topics import (
    COMPRESSED_IMAGE,
    IMAGE,
    dry_topic,
    find_image_topic,
    image_topics,
    message_types,
)
from derain_ros.rain import RainClip
from derain_ros.rain.apply.rainy_messages import (
    rain_on_compressed,
    rain_on_image,
    why_not_compressed,
    why_not_image,
)

_COMPRESSED = '/compressed'
_KEPT_REASONS = 1000
_RAIN_ON = {IMAGE: rain_on_image, COMPRESSED_IMAGE: rain_on_compressed}
_WHY_NOT = {IMAGE: why_not_image, COMPRESSED_IMAGE: why_not_compressed}


@dataclass(frozen=True)
class RainyBagPlan:
    """What :func:`rain_bag` is going to do.

    Attributes
    ----------
    source, destination
        The bag to read, and the folder to write.
    topics
        Image topics to put rain on.
    left_alone
        Image topics that were asked for and cannot be, and why.
    storage
        ``mcap`` or ``sqlite3``.
    compression
        How the bag to be written is compressed.
    message_count
        Messages in the source.

    """

    source: Path
    destination: Path
    topics: tuple[str, ...]
    left_alone: dict[str, str]
    storage: str
    compression: CompressionMode
    message_count: int


@dataclass(frozen=True)
class UnchangedFrame:
    """An image message that was kept without rain: where, when (ns), and why."""

    topic: str
    time: int
    reason: str


@dataclass
class RainyBagSummary:
    """What :func:`rain_bag` did.

    Attributes
    ----------
    messages
        Messages of the source, all of which were kept.
    rainy, unchanged
        Frames with rain, and frames that cannot be read, by image topic.
    unchanged_frames
        The first of the latter, with reasons.
    undefined_types
        Message types whose definition the source does not hold.
    damages
        Where the source is damaged; what cannot be read there is not in the new bag.

    """

    messages: int = 0
    rainy: Counter = field(default_factory=Counter)
    unchanged: Counter = field(default_factory=Counter)
    unchanged_frames: list[UnchangedFrame] = field(default_factory=list)
    undefined_types: list[str] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)


def plan_rainy_bag(
    source: Path, destination: Path, *, topics: Sequence[str] | None = None
) -> RainyBagPlan:
    """Check a request before any work is done.

    Parameters
    ----------
    source
        A rosbag2 folder, or a bare ``.mcap`` or ``.db3`` file.
    destination
        Folder to make; it must not exist.
    topics
        Image topics to put rain on, with or without ``/compressed`` and the leading slash;
        None takes all.

    Raises
    ------
    BagError
        The source cannot be read, the destination exists, or the topics do not fit.

    """
    check_destination(destination)
    with Recording(source) as reader:
        storage = reader.storage
        check_storage(destination, storage)
        chosen = _choose(reader.connections, topics)
        left_alone = {}
        for topic in chosen:
            reason = _why_not(reader, topic)
            if reason is not None:
                left_alone[topic] = reason
        rainy = tuple(topic for topic in chosen if topic not in left_alone)
        if not rainy:
            reasons = '; '.join(f'{topic}: {why}' for topic, why in left_alone.items())
            raise BagError(f'{source}: no image topic can be given rain ({reasons})')
        return RainyBagPlan(
            source=source,
            destination=destination,
            topics=rainy,
            left_alone=left_alone,
            storage=storage,
            compression=reader.compression,
            message_count=reader.message_count,
        )


def rain_bag(
    plan: RainyBagPlan, clip: RainClip, *, progress: Callable[[int], Any] = lambda count: None
) -> RainyBagSummary:
    """Write the bag that ``plan`` describes.

    Every message of the source is kept byte for byte, on its topic or, where that is an
    image topic of the plan, on its :func:`dry_topic`. The image topic itself gets the rainy
    message, of the same type, encoding, header and time. A frame that cannot be read stays
    on both as it is. The destination appears at the end, whole, or not at all.

    Parameters
    ----------
    plan
        From :func:`plan_rainy_bag`.
    clip
        The rain.
    progress
        Called with the number of source messages done since the last call.

    Raises
    ------
    BagError
        The source turns out damaged, or the destination cannot be written.

    """
    with (
        Recording(plan.source) as reader,
        new_bag(plan.destination, plan.storage, plan.compression) as writer,
    ):
        return _Shower(plan, reader, writer).run(clip, progress)


class _Shower:
    """One pass over a bag: the topics of both sides and what was counted."""

    def __init__(self, plan: RainyBagPlan, reader: Recording, writer: Writer):
        self._plan = plan
        self._reader = reader
        self._writer = writer
        self._types = message_types()
        self._summary = RainyBagSummary()
        copier = TopicCopier(writer)
        self._kept = {
            connection.id: copier.copy(connection) for connection in reader.connections
        }
        self._dry = {
            connection.id: copier.copy(connection, dry_topic(connection.topic))
            for connection in reader.connections
            if connection.topic in plan.topics and connection.msgtype in _RAIN_ON
        }
        self._summary.undefined_types = copier.undefined_types

    def run(self, clip: RainClip, progress: Callable[[int], Any]) -> RainyBagSummary:
        summary = self._summary
        read: Counter = Counter()
        for connection, time, data in self._reader.read():
            read[connection.id] += 1
            shown = data
            if connection.id in self._dry:
                self._writer.write(self._dry[connection.id], time, data)
                try:
                    shown = self._rain_on(connection, time, data, clip)
                    summary.rainy[connection.topic] += 1
                except (SerdeError, ValueError) as error:
                    summary.unchanged[connection.topic] += 1
                    if len(summary.unchanged_frames) < _KEPT_REASONS:
                        frame = UnchangedFrame(connection.topic, time, str(error))
                        summary.unchanged_frames.append(frame)
            self._writer.write(self._kept[connection.id], time, shown)
            progress(1)
        summary.messages = read.total()
        summary.damages = self._reader.damages
        missing = None if summary.damages else self._reader.missing(read)
        summary.damages += [missing] if missing else []
        return summary

    def _rain_on(
        self, connection: Connection, time: int, data: bytes, clip: RainClip
    ) -> memoryview:
        """Return a message with rain on it, serialized."""
        message = self._types.deserialize_cdr(data, connection.msgtype)
        instant = _instant(message.header, time)
        index = _frame_index(connection.topic, instant)

        def render(dry: np.ndarray) -> np.ndarray:
            return clip.render(dry, index, instant / 1e9).image

        rainy = _RAIN_ON[connection.msgtype](message, render)
        return self._types.serialize_cdr(rainy, connection.msgtype)


def _instant(header: Any, time: int) -> int:
    """When a frame was taken, ns; drivers that set no stamp leave the time of recording."""
    stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
    return stamp if stamp > 0 else time


def _frame_index(topic: str, instant: int) -> int:
    """Tell frames of all cameras and times apart, the same on every run."""
    camera = zlib.crc32(topic.removesuffix(_COMPRESSED).encode())
    return camera << 64 | instant


def _choose(connections: Iterable[Connection], topics: Sequence[str] | None) -> list[str]:
    listed = [(connection.topic, connection.msgtype) for connection in connections]
    names = {name for name, _ in listed}
    images = image_topics(listed)
    chosen = images
    if topics is not None:
        chosen = list(dict.fromkeys(find_image_topic(topic, images) for topic in topics))
    for topic in chosen:
        if dry_topic(topic) in names:
            raise BagError(
                f'{topic}: the bag has {dry_topic(topic)} already; start from the bag as it '
                'was recorded, or choose other topics with --topics')
    return chosen


def _why_not(reader: Recording, topic: str) -> str | None:
    """Judge a topic by its first message; one that is torn says nothing about the others."""
    try:
        connection, _, data = next(reader.read(topic))
        message = message_types().deserialize_cdr(data, connection.msgtype)
    except StopIteration:
        return 'it has no messages'
    except Exception:
        # Whatever is damaged is told with its time when the bag is copied.
        return None
    return _WHY_NOT[connection.msgtype](message)
