"""What is played into a node, and what became of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo

from derain_ros.bags.topics import COMPRESSED_IMAGE, IMAGE
from derain_ros.images.cdr import encode_header, write_image
from derain_ros.live.listener import COUNTS, Told, number

CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
FRAME_ID = 'camera_optical_frame'


@dataclass(frozen=True)
class PlayedCamera:
    """An image topic, the camera of the node that it becomes, and the camera_info beside it.

    Its outputs are in ``<namespace>/derained``.
    """

    name: str
    topic: str
    msgtype: str
    info_topic: str
    has_info: bool
    namespace: str

    def parameters(self) -> dict[str, str]:
        """Return its parameters of the node."""
        compressed = self.msgtype == COMPRESSED_IMAGE
        base = self.topic.removesuffix('/compressed') if compressed else self.topic
        return {
            f'{self.name}.image_topic': base,
            f'{self.name}.transport': 'compressed' if compressed else 'raw',
            f'{self.name}.camera_info_topic': self.info_topic,
            f'{self.name}.output_namespace': f'{self.namespace}/derained'}


class PlayedSource(Protocol):
    """What the player publishes; can be pickled.

    ``samples`` are serialized messages for the warm-up by topic, camera_infos first: of an image
    topic one for each frame size.
    """

    cameras: tuple[PlayedCamera, ...]
    samples: Mapping[str, Sequence[bytes]]

    def messages(self, end: float) -> Iterator[tuple[int, str, bytes]]:
        """Yield time from the start (ns), topic and serialized message, ``end`` ns long."""


Plan = Sequence[tuple[int, float]]
"""Index of a frame, and seconds from the start, for each frame to send."""


@dataclass(frozen=True)
class PlayedClip:
    """Frames of a .npy file, sent raw by a plan on every camera; serialized before the start.

    Attributes
    ----------
    path
        Array of uint8, N×H×W×3, BGR, that :func:`numpy.save` has written.
    plan
        Which frames to send when.
    names
        Of the cameras, which publish ``/<name>/image_raw``, with ``infos`` an uncalibrated
        camera_info beside each frame.

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
        """The first messages of each topic."""
        return {topic: [data] for topic, data in self._messages(self.plan[0][0])}

    def messages(self, end: float) -> Iterator[tuple[int, str, bytes]]:
        """Yield the messages as :class:`PlayedSource` says."""
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


class PlayedFrame(NamedTuple):
    """A frame from end to end; times in nanoseconds since the epoch.

    ``stamp`` is that of its header (None where the message is too short to have one), and
    ``handed_over`` when the message was handed to the middleware, after the stamp was written;
    ``arrival`` when its derained image came in, ``told`` what the node said of it, None where that
    did not happen; ``data`` the image as it came in, serialized, empty where it was not kept.
    """

    stamp: int | None
    handed_over: int
    arrival: int | None = None
    told: Told | None = None
    data: bytes = b''

    @property
    def outcome(self) -> str | None:
        """``derained``, ``bypassed``, ``fault`` or ``dropped``, the node's word, if any."""
        return None if self.told is None else self.told.message

    @property
    def infer_ms(self) -> float:
        """Time of the inference in ms; NaN where the network did not run, or it is not told."""
        return float('nan') if self.told is None else number(self.told.values, 'infer_ms')

    @property
    def latency_ms(self) -> float:
        """Milliseconds from handing over to arrival; NaN if it did not arrive."""
        return float('nan') if self.arrival is None else (self.arrival - self.handed_over) / 1e6

    @property
    def age_ms(self) -> float:
        """Milliseconds from the stamp to arrival; NaN if it did not arrive."""
        return float('nan') if self.arrival is None else (self.arrival - self.stamp) / 1e6


@dataclass(frozen=True)
class Played:
    """What was sent into the node, and what came of it, by the namespaces of the cameras.

    Attributes
    ----------
    frames
        Every frame in the order of sending.
    before, after
        All values of each camera in /diagnostics, before the first frame and after the last.
    reports
        Values of each camera in every message on /diagnostics of the run.
    seconds
        How long it took.
    late_ns, starved
        How late each message was let go, and how many the disk had not given in time.

    """

    frames: Mapping[str, Sequence[PlayedFrame]]
    before: Mapping[str, Mapping[str, str]]
    after: Mapping[str, Mapping[str, str]]
    reports: Mapping[str, Sequence[Mapping[str, str]]]
    seconds: float
    late_ns: Sequence[int]
    starved: int

    def arrived(self, camera: str) -> list[PlayedFrame]:
        """Return the frames that came out, in order of arrival."""
        return sorted((frame for frame in self.frames[camera] if frame.arrival is not None),
                      key=lambda frame: frame.arrival)

    def counts(self, camera: str, keys: Sequence[str] = COUNTS) -> dict[str, int]:
        """Return how many of the frames the node counts under each key."""
        before, after = self.before[camera], self.after[camera]
        return {key: int(after[key]) - int(before[key]) for key in keys}
