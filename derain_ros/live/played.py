"""The source that is played into a node, a clip or a bag, and the results."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rclpy.exceptions import InvalidTopicNameException
from rclpy.serialization import serialize_message
from rclpy.validate_full_topic_name import validate_full_topic_name
from rosbags.interfaces import Connection
from sensor_msgs.msg import CameraInfo

from derain_ros.bags.damage import BagError
from derain_ros.bags.frames import read_message, why_no_picture
from derain_ros.bags.recording import Recording
from derain_ros.bags.topics import (
    COMPRESSED_IMAGE,
    IMAGE,
    choose_cameras,
    dry_topic,
    output_namespace,
)
from derain_ros.files.clip_sources import BagClip
from derain_ros.files.pairs import BadPair
from derain_ros.images.cdr import encode_header, write_image
from derain_ros.images.compressed import decode_compressed
from derain_ros.live.listener import COUNTS, Told, number
from derain_ros.node.parameters import cameras_problems
from derain_ros.text import printable

CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
FRAME_ID = 'camera_optical_frame'

Read = tuple[Connection, int, bytes]
"""Connection, time (ns) and serialized message, as read from a bag."""

_MOST_SIZES = 10  # the node keeps its engine ready for at most so many frame sizes
_LONE_FRAME = 10**8  # nanoseconds assumed as the duration of a camera's only frame


@dataclass(frozen=True)
class PlayedCamera:
    """An image topic, its camera_info topic, and the camera that the node makes of them.

    The outputs are in ``<namespace>/derained``.
    """

    name: str
    topic: str
    msgtype: str
    info_topic: str
    has_info: bool
    namespace: str

    def parameters(self) -> dict[str, str]:
        """Return the node's parameters for this camera."""
        compressed = self.msgtype == COMPRESSED_IMAGE
        base = self.topic.removesuffix('/compressed') if compressed else self.topic
        return {
            f'{self.name}.image_topic': base,
            f'{self.name}.transport': 'compressed' if compressed else 'raw',
            f'{self.name}.camera_info_topic': self.info_topic,
            f'{self.name}.output_namespace': f'{self.namespace}/derained'}


Plan = Sequence[tuple[int, float]]
"""Index of a frame, and seconds from the start, for each frame to send."""


@dataclass(frozen=True)
class PlayedClip:
    """Frames of a .npy file, uint8, N×H×W×3, BGR, sent raw by a plan and serialized beforehand.

    Cameras of these ``names`` publish them as ``/<name>/image_raw``; with ``infos`` each frame
    is accompanied by an uncalibrated camera_info.
    """

    path: Path
    plan: Plan
    names: tuple[str, ...] = ('camera',)
    infos: bool = True

    @property
    def cameras(self) -> tuple[PlayedCamera, ...]:
        """One camera for each name."""
        return tuple(PlayedCamera(name, f'/{name}/image_raw', IMAGE, f'/{name}/camera_info',
                                  self.infos, f'/{name}') for name in self.names)

    @cached_property
    def _frames(self) -> dict[int, bytes]:
        frames = np.load(self.path, mmap_mode='r')
        _, height, width, _ = frames.shape
        return {index: write_image(
            encode_header(0, 0, FRAME_ID), height=height, width=width, encoding='bgr8',
            step=3 * width, data=np.ascontiguousarray(frames[index]))
            for index in {index for index, _ in self.plan}}

    @cached_property
    def _info(self) -> bytes:
        _, height, width, _ = np.load(self.path, mmap_mode='r').shape
        info = CameraInfo(height=height, width=width)
        info.header.frame_id = FRAME_ID
        return serialize_message(info)

    @property
    def samples(self) -> dict[str, list[bytes]]:
        """The first message of each topic."""
        return {topic: [data] for topic, data in self._messages(self.plan[0][0])}

    def messages(self, end: float) -> Iterator[tuple[int, str, bytes]]:
        """Yield time from the start (ns), topic and serialized message, ``end`` ns long."""
        for index, offset in self.plan:
            if offset * 1e9 >= end:
                return
            for topic, data in self._messages(index):
                yield round(offset * 1e9), topic, data

    def _messages(self, index: int) -> Iterator[tuple[str, bytes]]:
        for camera in self.cameras:
            if self.infos:
                yield camera.info_topic, self._info
            yield camera.topic, self._frames[index]


@dataclass
class PlayedBag:
    """The part of a bag that is played in a loop; times in nanoseconds.

    ``start`` is when the first played message was recorded, ``period`` the time from a
    message to its repetition. ``counts`` are the numbers of frames by image topic; ``samples`` has
    the first camera_info and the first message of each frame size, by topic; ``damages`` describe
    where the bag is damaged: whatever can be read is played.
    """

    bag: Path
    cameras: tuple[PlayedCamera, ...]
    start: int = 0
    period: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[bytes]] = field(default_factory=dict)
    damages: tuple[str, ...] = ()

    def messages(self, end: float) -> Iterator[tuple[int, str, bytes]]:
        """Yield time from the start (ns), topic and serialized message, ``end`` ns long."""
        offset = -self.start
        while True:
            with Recording(self.bag) as reader:
                for topic, time, data in _played(reader.read(), self.cameras):
                    if time + offset >= end:
                        return
                    yield time + offset, topic, data
            offset += self.period


PlayedSource = PlayedClip | PlayedBag
"""What the player publishes; can be pickled.

``samples`` are serialized messages for the warm-up by topic, camera_infos first, with one for each
frame size of an image topic.
"""


def scan(
    bag: Path, topics: Sequence[str] | None,
    watch: Callable[[Iterable[Read], int], Iterable[Read]] = lambda messages, total: messages,
) -> PlayedBag:
    """Read through a bag, and find its cameras, its timing and a frame of every size.

    ``topics`` are image topics; None selects all except the ground truth of rainy ones and those
    without a frame. ``watch`` gets the messages of the bag and how many it lists, and passes them
    on. Raises BagError if the bag cannot be read or a topic cannot be played.
    """
    with Recording(bag) as reader:
        cameras = _cameras(reader, topics)
        recording = PlayedBag(bag, cameras)
        images = {camera.topic: camera for camera in cameras}
        times: dict[str, list[int]] = {}
        infos: dict[str, list[bytes]] = {}
        sizes: dict[str, set[tuple[int, int] | None]] = {}
        messages = watch(reader.read(), reader.message_count)
        for topic, time, data in _played(messages, cameras):
            times.setdefault(topic, []).append(time)
            if topic not in images:
                infos.setdefault(topic, [data])
                continue
            recording.counts[topic] = recording.counts.get(topic, 0) + 1
            known = sizes.setdefault(topic, set())
            if images[topic].msgtype == COMPRESSED_IMAGE and known - {None}:
                continue  # checking each one would mean decoding it
            size = _size(images[topic].msgtype, data)
            if size not in known and len(known) < _MOST_SIZES:
                known.add(size)
                recording.samples.setdefault(topic, []).append(data)
        recording.damages = tuple(map(str, reader.damages))
    empty = [camera.topic for camera in cameras if camera.topic not in recording.counts]
    if empty:
        raise BagError(
            f'{printable(empty[0])} has no message in {bag}; choose others with --topics')
    recording.samples = infos | recording.samples
    recording.start = min(found[0] for found in times.values())
    recording.period = loop_period(list(times.values()), recording.start)
    return recording


def load_frames(bag: Path, topic: str) -> list[np.ndarray]:
    """Return the frames of an image topic, uint8, H×W×3, BGR; raises BagError for a bad one."""
    frames = list(BagClip(bag, topic).read())
    for frame in frames:
        if isinstance(frame, BadPair):
            raise BagError(f'{bag}: {topic}: {frame.reason}')
    return [frame.rainy for frame in frames]


def loop_period(times: Sequence[Sequence[int]], start: int) -> int:
    """Return the ns after which a recording may repeat without a higher rate on any topic.

    That is the maximum over the topics of the time from first to last message plus one mean
    interval, and at least long enough to keep all messages in order. ``times`` of each topic
    ascend, ``start`` is the earliest.
    """
    natural = [
        (found[-1] - found[0]) * len(found) // (len(found) - 1) if len(found) > 1 else _LONE_FRAME
        for found in times]
    return max(*natural, max(found[-1] for found in times) - start + 1)


def _played(
    messages: Iterable[Read], cameras: Sequence[PlayedCamera]
) -> Iterator[tuple[str, int, bytes]]:
    wanted = {(camera.topic, camera.msgtype) for camera in cameras}
    wanted |= {(camera.info_topic, CAMERA_INFO) for camera in cameras}
    for connection, time, data in messages:
        if (connection.topic, connection.msgtype) in wanted:
            yield connection.topic, time, bytes(data)


def _cameras(reader: Recording, topics: Sequence[str] | None) -> tuple[PlayedCamera, ...]:
    listed = reader.topics
    counts = {found.topic: found.msgcount for found in reader.connections}
    selection = topics
    if topics is None:
        images = [topic for topic, msgtype in listed if msgtype in (IMAGE, COMPRESSED_IMAGE)]
        truths = {dry_topic(topic) for topic in images}
        # If none is left, choose_cameras() reports which topics there are.
        why = {topic: why_no_picture(reader, topic) for topic in images
               if topic not in truths and counts[topic]}
        told = [printable(f'{topic}: {reason}; it is not played')
                for topic, reason in why.items() if reason]
        selection = [topic for topic, reason in why.items() if not reason] or None
        if told and not selection:
            raise BagError('; '.join(told))
        for line in told:
            logging.getLogger(__name__).warning('%s', line)
    infos = {topic for topic, msgtype in listed if msgtype == CAMERA_INFO}
    cameras: list[PlayedCamera] = []
    for camera in choose_cameras(listed, selection, reader.source):
        try:
            for name in (camera.source, camera.image):
                validate_full_topic_name(name)
        except InvalidTopicNameException as error:
            reason = str(error).splitlines()[0]
            raise BagError(f'{printable(camera.source)} cannot be published: '
                           f'{printable(reason)}; choose others with --topics') from error
        namespace = camera.image.removesuffix('/derained/image')
        info = output_namespace(camera.source).removesuffix('derained') + 'camera_info'
        cameras.append(PlayedCamera(
            name=camera_name(namespace, [one.name for one in cameras]), topic=camera.source,
            msgtype=dict(listed)[camera.source], info_topic=info, has_info=info in infos,
            namespace=namespace))
    return tuple(cameras)


def camera_name(namespace: str, taken: Sequence[str] = ()) -> str:
    """Return a name for a camera that the node accepts and that is not ``taken``.

    >>> camera_name('/front/left'), camera_name(''), camera_name('/front', ['front'])
    ('front_left', 'camera', 'front_2')
    """
    words = re.findall('[A-Za-z0-9]+', namespace)
    name = '_'.join(words) or 'camera'
    if not name[0].isalpha() or cameras_problems([name]):
        name = f'camera_{name}'
    found, number = name, 2
    while found in taken:
        found, number = f'{name}_{number}', number + 1
    return found


def _size(msgtype: str, data: bytes) -> tuple[int, int] | None:
    """Return height and width of a frame; None where it cannot be read."""
    with suppress(ValueError):
        message = read_message(msgtype, data)
        return ((message.height, message.width) if msgtype == IMAGE
                else decode_compressed(message).shape[:2])
    return None


# Results

class PlayedFrame(NamedTuple):
    """A frame from end to end; times in nanoseconds since the epoch.

    ``stamp`` is that of its header (None if the message is too short to have one);
    ``handed_over`` is when the message was passed to the middleware, after the stamp was written;
    ``arrival`` is when its derained image was received and ``told`` the node's status of it, each
    None if there was none; ``data`` is that image, serialized, empty if it was not kept.
    """

    stamp: int | None
    handed_over: int
    arrival: int | None = None
    told: Told | None = None
    data: bytes = b''

    @property
    def outcome(self) -> str | None:
        """``derained``, ``bypassed``, ``fault`` or ``dropped``; None without a status."""
        return None if self.told is None else self.told.message

    @property
    def infer_ms(self) -> float:
        """Time of the inference in ms; NaN if the network did not run or there is no status."""
        return float('nan') if self.told is None else number(self.told.values, 'infer_ms')

    @property
    def latency_ms(self) -> float:
        """Milliseconds from ``handed_over`` to arrival; NaN if the image did not arrive."""
        return float('nan') if self.arrival is None else (self.arrival - self.handed_over) / 1e6

    @property
    def age_ms(self) -> float:
        """Milliseconds from the stamp to arrival; NaN if the image did not arrive."""
        return float('nan') if self.arrival is None else (self.arrival - self.stamp) / 1e6


@dataclass(frozen=True)
class Played:
    """The frames sent to the node and the results, by the namespaces of the cameras.

    ``frames`` are in the order of sending; ``before`` and ``after`` are all values of each camera
    in /diagnostics before the first frame and after the last, ``reports`` those of every message
    on /diagnostics in between. Playback took ``seconds``; ``late_ns`` is the delay of each message
    after its due time, ``starved`` the number of messages that were not read from disk in time.
    """

    frames: Mapping[str, Sequence[PlayedFrame]]
    before: Mapping[str, Mapping[str, str]]
    after: Mapping[str, Mapping[str, str]]
    reports: Mapping[str, Sequence[Mapping[str, str]]]
    seconds: float
    late_ns: Sequence[int]
    starved: int

    def arrived(self, camera: str) -> list[PlayedFrame]:
        """Return the frames whose derained image arrived, in order of arrival."""
        return sorted((frame for frame in self.frames[camera] if frame.arrival is not None),
                      key=lambda frame: frame.arrival)

    def counts(self, camera: str, keys: Sequence[str] = COUNTS) -> dict[str, int]:
        """Return how many of the frames the node has counted under each key."""
        before, after = self.before[camera], self.after[camera]
        return {key: int(after[key]) - int(before[key]) for key in keys}
