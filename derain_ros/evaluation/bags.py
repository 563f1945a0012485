"""Derain a recorded rosbag2: the same bag, with derained images and rain masks added.

The bag is read and written through ``rosbags``, in recorded order and without a clock, so
that two runs give the same result. What the storage says beside the messages is carried
over as far as that package knows it: topic, type, definition, QoS and the time of
recording; the publish time of an MCAP file is set to the time of recording.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionMode, Reader, Writer
from rosbags.serde import SerdeError

from derain_ros.engines import Engine
from derain_ros.evaluation.bag_copy import (
    TopicCopier,
    check_complete,
    check_destination,
    check_storage,
    new_bag,
    recorded_compression,
)
from derain_ros.evaluation.bag_source import open_bag, read_messages, storage_of
from derain_ros.evaluation.bag_topics import (
    COMPRESSED_IMAGE,
    IMAGE,
    CameraTopics,
    choose_cameras,
    image_definition,
    image_qos,
    message_types,
)
from derain_ros.image_codec import (
    decode_compressed,
    decode_image,
    encode_image,
    encode_mono8,
    extract_alpha,
    output_encoding,
)
from derain_ros.overlay import blend

_KEPT_REASONS = 1000


@dataclass(frozen=True)
class BagPlan:
    """What :func:`derain_bag` is going to do.

    Attributes
    ----------
    source, destination
        The bag to read, and the folder to write.
    cameras
        Image topics to derain.
    storage
        ``mcap`` or ``sqlite3``.
    compression
        How the bag to be written is compressed.
    message_count
        Messages in the source.

    """

    source: Path
    destination: Path
    cameras: tuple[CameraTopics, ...]
    storage: str
    compression: CompressionMode
    message_count: int


@dataclass(frozen=True)
class BadFrame:
    """An image message that could not be derained: where, when (ns), and why."""

    topic: str
    time: int
    reason: str


@dataclass
class BagSummary:
    """What :func:`derain_bag` did.

    Attributes
    ----------
    messages
        Messages of the source that were kept.
    derained
        Frames derained, by image topic.
    failed
        Frames that could not be, by image topic.
    bad_frames
        The first of those, with reasons.
    undefined_types
        Message types whose definition the source does not hold.

    """

    messages: int = 0
    derained: Counter = field(default_factory=Counter)
    failed: Counter = field(default_factory=Counter)
    bad_frames: list[BadFrame] = field(default_factory=list)
    undefined_types: list[str] = field(default_factory=list)


def plan_bag(
    source: Path,
    destination: Path,
    *,
    topics: list[str] | None = None,
    storage: str | None = None,
    compress: bool = False,
) -> BagPlan:
    """Check a request before any work is done.

    Parameters
    ----------
    source
        A rosbag2 folder, or a bare ``.mcap`` or ``.db3`` file.
    destination
        Folder to make; it must not exist.
    topics
        Image topics to derain, with or without ``/compressed``; None takes all.
    storage
        ``mcap`` or ``sqlite3``; None takes the source's.
    compress
        Write zstd: the chunks of mcap, the messages of sqlite3. Without it whole files or
        messages are compressed if they are so in the source.

    Raises
    ------
    BagError
        The source cannot be read, the destination exists, or the topics do not fit.

    """
    check_destination(destination)
    with open_bag(source) as reader:
        chosen = storage or storage_of(source)
        check_storage(destination, chosen)
        compression = recorded_compression(reader)
        if compress:
            compression = CompressionMode.STORAGE
            if chosen == 'sqlite3':
                compression = CompressionMode.MESSAGE
        return BagPlan(
            source=source,
            destination=destination,
            cameras=choose_cameras(
                [(connection.topic, connection.msgtype) for connection in reader.connections],
                topics,
            ),
            storage=chosen,
            compression=compression,
            message_count=reader.message_count,
        )


def derain_bag(
    plan: BagPlan,
    engine: Engine,
    *,
    mask: bool = True,
    strength: float = 1.0,
    progress: Callable[[int], Any] = lambda count: None,
) -> BagSummary:
    """Write the bag that ``plan`` describes.

    Every message of the source is kept as it is. Each image that can be derained is
    followed, at the same bag time and with its own header, by ``<namespace>/image`` and,
    if ``mask``, ``<namespace>/rain_mask``. One that cannot be is counted and left out.
    The destination appears at the end, whole, or not at all.

    Parameters
    ----------
    plan
        From :func:`plan_bag`.
    engine
        The derainer.
    mask
        Add the rain masks.
    strength
        Share of the derained image in the result, 0–1.
    progress
        Called with the number of source messages done since the last call.

    Raises
    ------
    BagError
        The source turns out damaged, or the destination cannot be written.

    """
    with (
        open_bag(plan.source) as reader,
        new_bag(plan.destination, plan.storage, plan.compression) as writer,
    ):
        return _Copy(plan, reader, writer, mask).run(engine, strength, progress)


class _Copy:
    """One pass over a bag: the topics of both sides and what was counted."""

    def __init__(self, plan: BagPlan, reader: Reader, writer: Writer, mask: bool):
        self._plan = plan
        self._reader = reader
        self._writer = writer
        self._types = message_types()
        self._summary = BagSummary()
        copier = TopicCopier(writer)
        self._kept = {
            connection.id: copier.copy(connection) for connection in reader.connections
        }
        self._summary.undefined_types = copier.undefined_types
        self._added = self._add_topics(mask)

    def _add_topics(self, mask: bool) -> dict[str, list[Connection]]:
        definition, digest = image_definition(self._reader.connections)
        added = {}
        for camera in self._plan.cameras:
            names = [camera.image] + ([camera.rain_mask] if mask else [])
            added[camera.source] = [
                self._writer.add_connection(
                    name,
                    IMAGE,
                    msgdef=definition,
                    rihs01=digest,
                    offered_qos_profiles=[image_qos()],
                )
                for name in names
            ]
        return added

    def run(
        self, engine: Engine, strength: float, progress: Callable[[int], Any]
    ) -> BagSummary:
        read: Counter = Counter()
        for connection, time, data in read_messages(self._plan.source, self._reader):
            self._writer.write(self._kept[connection.id], time, data)
            read[connection.id] += 1
            outputs = self._added.get(connection.topic)
            if outputs and connection.msgtype in (IMAGE, COMPRESSED_IMAGE):
                try:
                    images = self._derain(connection.msgtype, data, engine, strength)
                except (SerdeError, ValueError) as error:
                    self._summary.failed[connection.topic] += 1
                    if len(self._summary.bad_frames) < _KEPT_REASONS:
                        bad = BadFrame(connection.topic, time, str(error))
                        self._summary.bad_frames.append(bad)
                else:
                    for output, image in zip(outputs, images, strict=False):
                        self._writer.write(output, time, image)
                    self._summary.derained[connection.topic] += 1
            progress(1)
        self._summary.messages = read.total()
        check_complete(self._plan.source, self._reader, read)
        return self._summary

    def _derain(
        self, msgtype: str, data: bytes, engine: Engine, strength: float
    ) -> tuple[memoryview, memoryview]:
        """Return the derained image and the mask of one message, serialized."""
        message = self._types.deserialize_cdr(data, msgtype)
        if msgtype == COMPRESSED_IMAGE:
            rainy = decode_compressed(message)
            encoding, alpha = output_encoding('bgr8', 'same'), None
        else:
            rainy = decode_image(message)
            encoding, alpha = output_encoding(message.encoding, 'same'), extract_alpha(message)
        derained = engine.infer(np.ascontiguousarray(rainy)[np.newaxis])
        image = encode_image(blend(rainy, derained.image[0], strength), encoding, alpha=alpha)
        return (
            self._serialize(message.header, image),
            self._serialize(message.header, encode_mono8(derained.rain_mask[0])),
        )

    def _serialize(self, header: Any, image: Any) -> memoryview:
        message = self._types.types[IMAGE](
            header=header,
            height=image.height,
            width=image.width,
            encoding=image.encoding,
            is_bigendian=int(image.is_bigendian),
            step=image.step,
            data=np.frombuffer(image.data, np.uint8),
        )
        return self._types.serialize_cdr(message, IMAGE)
