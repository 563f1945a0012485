"""Publish the images of a bag as a live camera would.

``python -m derain_ros.ros.replay BAG`` sends one image topic of a rosbag2, decoded to
``bgr8``, with the camera_info beside it, each stamped with the time it is sent.
"""

import argparse
import json
import sys
import time
from array import array
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, Image

from derain_ros.evaluation.bag_topics import COMPRESSED_IMAGE, message_types
from derain_ros.image_codec import decode_compressed, decode_image

_SETTLE_SECONDS = 0.5


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
        Calibration of the camera; uncalibrated where the bag has none.

    """

    frames: list[np.ndarray]
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


def schedule(clip: Clip, *, rate: float | None, seconds: float | None) -> list[tuple[int, float]]:
    """Plan which frame is sent when.

    Parameters
    ----------
    clip
        The frames.
    rate
        Frames per second; None keeps the intervals of the bag.
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


class Replay(Node):
    """Publishes frames of a clip on ``<camera>/image_raw`` and ``<camera>/camera_info``."""

    def __init__(self, camera: str, clip: Clip):
        super().__init__('replay')
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
        self._images = self.create_publisher(Image, f'{camera}/image_raw', qos)
        self._infos = self.create_publisher(CameraInfo, f'{camera}/camera_info', qos)
        self._info = clip.camera_info
        self._messages = [self._message(frame) for frame in clip.frames]

    def _message(self, frame: np.ndarray) -> Image:
        message = Image(
            height=frame.shape[0], width=frame.shape[1], encoding='bgr8', step=frame.shape[1] * 3
        )
        message.header.frame_id = self._info.header.frame_id
        message.data = array('B', np.ascontiguousarray(frame).tobytes())
        return message

    def wait_for_subscriber(self, timeout: float) -> bool:
        """Wait until someone listens to both topics; False after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._images.get_subscription_count() and self._infos.get_subscription_count():
                # The other side may not have found us yet; a calibration
                # sent ahead is there for the first frame.
                time.sleep(_SETTLE_SECONDS)
                self._infos.publish(self._info)
                time.sleep(_SETTLE_SECONDS)
                return True
            time.sleep(0.05)
        return False

    def send(self, index: int) -> int:
        """Publish a frame, stamped now; returns the stamp in nanoseconds."""
        now = self.get_clock().now()
        message = self._messages[index]
        message.header.stamp = self._info.header.stamp = now.to_msg()
        self._infos.publish(self._info)
        self._images.publish(message)
        return now.nanoseconds

    def finish(self) -> None:
        """Wait until every subscriber has what was sent."""
        self._images.wait_for_all_acked(Duration(seconds=2))


def main(argv: list[str] | None = None) -> int:
    """Run the replay; 1 if nobody listens or the bag does not fit."""
    parser = argparse.ArgumentParser(prog='replay', description=__doc__)
    parser.add_argument('bag', type=Path)
    parser.add_argument('--topic', default='/camera/image_raw/compressed',
                        help='image topic of the bag')
    parser.add_argument('--camera', default='/camera', help='namespace to publish in')
    parser.add_argument('--rate', type=float, help='frames per second (default: as recorded)')
    parser.add_argument('--seconds', type=float, help='repeat the clip for this long')
    parser.add_argument('--size', type=int, nargs=2, metavar=('WIDTH', 'HEIGHT'),
                        help='resize the frames')
    parser.add_argument('--frame-ahead', action='store_true',
                        help='send the first frame, then wait for the end of the standard '
                             'input; that frame is not counted')
    parser.add_argument('--report', type=Path, help='write JSON there: what was sent, when')
    parser.add_argument('--timeout', type=float, default=30.0,
                        help='seconds to wait for a subscriber')
    args = parser.parse_args(argv)
    try:
        clip = load_clip(args.bag, args.topic)
    except (ValueError, OSError) as error:
        print(f'replay: error: {error}', file=sys.stderr)
        return 1
    if args.size:
        clip = clip.resized(*args.size)
    rclpy.init()
    try:
        node = Replay(args.camera, clip)
        if not node.wait_for_subscriber(args.timeout):
            print(f'replay: error: nobody subscribed to {args.camera}/image_raw and '
                  f'{args.camera}/camera_info within {args.timeout:g} s', file=sys.stderr)
            return 1
        if args.frame_ahead:
            node.send(0)
            sys.stdin.read()
        sent = []
        start = time.monotonic()
        for index, offset in schedule(clip, rate=args.rate, seconds=args.seconds):
            time.sleep(max(0.0, start + offset - time.monotonic()))
            sent.append((index, node.send(index)))
        elapsed = time.monotonic() - start
        node.finish()
        if args.report:
            args.report.write_text(json.dumps({'sent': sent, 'seconds': elapsed}))
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
