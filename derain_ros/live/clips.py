"""Clips to publish: frames of one camera in memory, and when to send which."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo

from derain_ros.bags.topics import COMPRESSED_IMAGE, message_types
from derain_ros.images.codec import decode_compressed, decode_image

Plan = list[tuple[int, float]]
"""Index of a frame, and seconds from the start, for each frame to send."""


@dataclass(frozen=True)
class Clip:
    """Frames of one camera, in memory.

    Attributes
    ----------
    frames
        uint8, H×W×3, BGR.
    offsets
        Seconds from the first frame, one per frame.
    camera_info
        Calibration of the camera; uncalibrated where the source has none.

    """

    frames: Sequence[np.ndarray]
    offsets: list[float]
    camera_info: CameraInfo

    def resized(self, width: int, height: int) -> 'Clip':
        """Return the clip at another size in pixels, calibration included."""
        frames = [
            cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            for frame in self.frames
        ]
        old_height, old_width = self.frames[0].shape[:2]
        scale = np.array([[width / old_width], [height / old_height], [1.0]])
        info = self.camera_info
        resized = CameraInfo(
            header=info.header, height=height, width=width,
            distortion_model=info.distortion_model, d=info.d, r=info.r,
            k=(info.k.reshape(3, 3) * scale).ravel(), p=(info.p.reshape(3, 4) * scale).ravel(),
        )
        return Clip(frames, self.offsets, resized)


def load_clip(bag: Path, topic: str) -> Clip:
    """Read an image topic of a bag, and the camera_info beside it.

    Raises
    ------
    ValueError
        The bag has no such topic, or no message on it.

    """
    types = message_types()
    frames, times = [], []
    with Reader(bag) as reader:
        connections = [found for found in reader.connections if found.topic == topic]
        if not connections:
            listed = ', '.join(sorted(found.topic for found in reader.connections))
            raise ValueError(f'{bag}: no topic {topic} (topics: {listed})')
        for connection, bag_time, data in reader.messages(connections):
            message = types.deserialize_cdr(data, connection.msgtype)
            decode = (
                decode_compressed if connection.msgtype == COMPRESSED_IMAGE else decode_image
            )
            frames.append(decode(message))
            times.append(bag_time)
        if not frames:
            raise ValueError(f'{bag}: no frame on {topic}')
        height, width = frames[0].shape[:2]
        info = CameraInfo(height=height, width=width)
        info_topic = f'{topic.removesuffix("/compressed").rpartition("/")[0]}/camera_info'
        infos = [found for found in reader.connections if found.topic == info_topic]
        for _, _, data in reader.messages(infos) if infos else ():
            info = deserialize_message(bytes(data), CameraInfo)
            break
    return Clip(frames, [(bag_time - times[0]) / 1e9 for bag_time in times], info)


def load_frames(path: Path) -> Clip:
    """Read frames that :func:`numpy.save` has written, uint8, N×H×W×3, BGR, 30 a second.

    Raises
    ------
    ValueError
        The array has another type or shape.

    """
    frames = np.load(path, mmap_mode='r', allow_pickle=False)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(
            f'{path}: expected uint8 of shape (N, H, W, 3), got {frames.dtype} of shape '
            f'{frames.shape}; write it with numpy.save')
    info = CameraInfo(height=frames.shape[1], width=frames.shape[2])
    info.header.frame_id = 'camera_optical_frame'
    return Clip(frames, [number / 30 for number in range(len(frames))], info)


def schedule(clip: Clip, *, rate: float | None, seconds: float | None) -> Plan:
    """Plan which frame is sent when.

    Parameters
    ----------
    clip
        The frames.
    rate
        Frames per second; None keeps the intervals of the clip.
    seconds
        How long to send, the clip from its start again and again; None sends it once.

    Returns
    -------
    list of (int, float)
        Index of the frame, and seconds from the start.

    """
    count = len(clip.frames)
    if rate is not None:
        total = count if seconds is None else max(1, round(seconds * rate))
        return [(number % count, number / rate) for number in range(total)]
    if seconds is None:
        return list(enumerate(clip.offsets))
    last = clip.offsets[-1]
    period = last + (last / (count - 1) if count > 1 else 0.1)
    plan = []
    for number in range(round(seconds / period + 1) * count):
        offset = number // count * period + clip.offsets[number % count]
        if offset < seconds:
            plan.append((number % count, offset))
    return plan


def load_plan(path: Path, count: int) -> Plan:
    """Read a plan from JSON, a list of ``[index, seconds]`` for ``count`` frames.

    Raises
    ------
    ValueError
        It is no such list, or names a frame that there is not.

    """
    try:
        plan = [(int(index), float(offset)) for index, offset in json.loads(path.read_text())]
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path}: no JSON list of [index, seconds]: {error}') from error
    if not plan or not all(0 <= index < count for index, _ in plan):
        raise ValueError(f'{path}: a plan names frames from 0 to {count - 1}, at least one')
    return plan
