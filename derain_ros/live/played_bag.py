"""What of a bag is to be played: cameras, their names in the node, and the times."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_full_topic_name import validate_full_topic_name
from rosbags.interfaces import Connection

from derain_ros.bags.damage import BagError
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
from derain_ros.images.cdr import CdrUnsupportedError, read_compressed_image, read_image
from derain_ros.images.codec import decode_compressed
from derain_ros.images.message_fields import ImageFormatError
from derain_ros.live.played import CAMERA_INFO, PlayedCamera
from derain_ros.node.parameters import cameras_problems
from derain_ros.text import printable

Read = tuple[Connection, int, bytes]
"""Topic, time (ns) and serialized message, as a bag gives them."""

_MOST_SIZES = 10
"""The node keeps its engine ready for so many frame sizes."""
_LONE_FRAME = 10**8
"""Nanoseconds that the only frame of a camera stands for."""


@dataclass
class PlayedBag:
    """What is played of a bag, again and again; times in nanoseconds.

    Attributes
    ----------
    bag
        The bag.
    cameras
        What is played.
    start
        Time of recording of the first message that is played.
    period
        From a message to its repetition, where the bag is played again and again.
    counts
        Frames by image topic.
    samples
        The first camera_info, and the first message of each frame size, by topic.
    damages
        Where the bag is damaged; what can be read is played.

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


def scan(
    bag: Path, topics: Sequence[str] | None,
    watch: Callable[[Iterable[Read], int], Iterable[Read]] = lambda messages, total: messages,
) -> PlayedBag:
    """Read through a bag: which cameras there are, when they sent, and frames of every size.

    ``topics`` are image topics; None takes all but the ground truth of rainy ones, and those
    without a frame. ``watch`` takes the messages of the bag, and how many it lists, and gives
    them on. BagError says that the bag cannot be read, or a topic cannot be played.
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
                continue  # to look at each would be to decode it
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
    """Return the frames of an image topic, uint8, H×W×3, BGR; ValueError where one is bad."""
    frames = list(BagClip(bag, topic).read())
    for frame in frames:
        if isinstance(frame, BadPair):
            raise ValueError(f'{bag}: {topic}: {frame.reason}')
    return [frame.rainy for frame in frames]


def loop_period(times: Sequence[Sequence[int]], start: int) -> int:
    """Return after how long a recording may begin again, so that no topic becomes faster, ns.

    That is the longest, over the topics, of the time from first to last and one mean interval
    more; and long enough for the order of all messages to stay. ``times`` of each topic ascend,
    ``start`` is the earliest.
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
        # Without any left, choose_cameras() says what there is.
        selection = [topic for topic in images
                     if topic not in truths and counts[topic]] or None
    infos = {topic for topic, msgtype in listed if msgtype == CAMERA_INFO}
    cameras: list[PlayedCamera] = []
    for camera in choose_cameras(listed, selection, apart=True):
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
    """Return a name that the node takes for a camera.

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
    try:
        if msgtype == IMAGE:
            view = read_image(data)
            return view.height, view.width
        return decode_compressed(read_compressed_image(data)).shape[:2]
    except (ImageFormatError, CdrUnsupportedError):
        return None
