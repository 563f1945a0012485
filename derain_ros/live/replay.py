"""Publish frames as live cameras would.

``python -m derain_ros.live.replay CLIP`` sends the images of a rosbag2, decoded to ``bgr8``,
or those of a NumPy file, each stamped with the time it is sent, and camera_info with them.
Messages are serialized before the start, so that publishing costs little beside the node.
"""

import argparse
import json
import struct
import sys
import time
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

from derain_ros.live.clips import Clip, Plan, load_clip, load_frames, load_plan, schedule

_SETTLE_SECONDS = 0.5
_STAMP = slice(4, 12)
"""Where the stamp of a header stands in a serialized message that begins with one."""


class Stamped:
    """A serialized message that begins with a header, to be sent under ever new stamps."""

    def __init__(self, message: Image | CameraInfo):
        data = serialize_message(message)
        self._head = data[:_STAMP.start]
        self._tail = data[_STAMP.stop:]
        self._stamp = struct.Struct(('<' if data[1] & 1 else '>') + 'iI')

    def at(self, nanoseconds: int) -> bytes:
        """Return the message with a stamp given in nanoseconds since the epoch."""
        stamp = self._stamp.pack(*divmod(nanoseconds, 10**9))
        return b''.join((self._head, stamp, self._tail))


class Replay(Node):
    """Publishes a clip on ``<camera>/image_raw`` and ``<camera>/camera_info`` of each camera.

    Parameters
    ----------
    cameras
        Namespaces to publish in; each gets the whole clip.
    clip
        The frames.
    infos
        Publish camera_info too.

    """

    def __init__(self, cameras: Iterable[str], clip: Clip, *, infos: bool = True):
        super().__init__('replay')
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
        self._images = {
            camera: self.create_publisher(Image, f'{camera}/image_raw', qos)
            for camera in cameras}
        self._infos = {
            camera: self.create_publisher(CameraInfo, f'{camera}/camera_info', qos)
            for camera in cameras if infos}
        self._info = Stamped(clip.camera_info)
        self._frames = [
            Stamped(_message(frame, clip.camera_info.header.frame_id)) for frame in clip.frames]
        self.sent: dict[str, list[tuple[int, int, int]]] = {camera: [] for camera in cameras}

    def wait_for_subscriber(self, timeout: float) -> bool:
        """Wait until someone listens to every topic; False after ``timeout`` seconds."""
        publishers = [*self._images.values(), *self._infos.values()]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if all(publisher.get_subscription_count() for publisher in publishers):
                # The other side may not have found us yet; a calibration
                # sent ahead is there for the first frame.
                time.sleep(_SETTLE_SECONDS)
                self._send_info(time.time_ns())
                time.sleep(_SETTLE_SECONDS)
                return True
            time.sleep(0.05)
        return False

    def send(self, index: int, *, counted: bool = True) -> None:
        """Publish a frame on every camera, stamped now.

        What is counted goes to ``sent``: index, stamp, and the time when the message was handed
        to the middleware, both in nanoseconds since the epoch.
        """
        for camera, images in self._images.items():
            stamp = time.time_ns()
            if camera in self._infos:
                self._infos[camera].publish(self._info.at(stamp))
            message = self._frames[index].at(stamp)
            handed_over = time.time_ns()
            images.publish(message)
            if counted:
                self.sent[camera].append((index, stamp, handed_over))

    def play(self, plan: Plan) -> float:
        """Send frames by a plan; returns the seconds that it took."""
        start = time.monotonic()
        for index, offset in plan:
            time.sleep(max(0.0, start + offset - time.monotonic()))
            self.send(index)
        return time.monotonic() - start

    def finish(self) -> None:
        """Wait until every subscriber has what was sent."""
        for publisher in self._images.values():
            publisher.wait_for_all_acked(Duration(seconds=2))

    def _send_info(self, stamp: int) -> None:
        for publisher in self._infos.values():
            publisher.publish(self._info.at(stamp))


def _message(frame: np.ndarray, frame_id: str) -> Image:
    message = Image(
        height=frame.shape[0], width=frame.shape[1], encoding='bgr8', step=frame.shape[1] * 3)
    message.header.frame_id = frame_id
    message.data = array('B', np.ascontiguousarray(frame).tobytes())
    return message


def _obey(node: Replay, plan: Plan) -> float:
    """Do what the lines of the standard input say, until its end; returns seconds of playing."""
    seconds = 0.0
    steps = 0
    for line in sys.stdin:
        command = line.strip()
        if command == 'frame':
            node.send(plan[0][0], counted=False)
        elif command == 'step':
            node.send(plan[steps % len(plan)][0])
            steps += 1
            print(json.dumps(next(iter(node.sent.values()))[-1]), flush=True)
        elif command == 'play':
            seconds += node.play(plan)
        else:
            raise ValueError(f'{command!r} is no command; there are frame, step and play')
    return seconds


def main(argv: list[str] | None = None) -> int:
    """Run the replay; 1 if nobody listens or the clip does not fit."""
    args = _parser().parse_args(argv)
    try:
        clip = load_frames(args.clip) if args.clip.suffix == '.npy' else (
            load_clip(args.clip, args.topic))
        if args.size:
            clip = clip.resized(*args.size)
        plan = load_plan(args.plan, len(clip.frames)) if args.plan else (
            schedule(clip, rate=args.rate, seconds=args.seconds))
    except (ValueError, OSError) as error:
        print(f'replay: error: {error}', file=sys.stderr)
        return 1
    rclpy.init()
    try:
        node = Replay(args.camera, clip, infos=not args.no_camera_info)
        if not node.wait_for_subscriber(args.timeout):
            topics = ', '.join(f'{camera}/image_raw' for camera in args.camera)
            print(f'replay: error: nobody subscribed to {topics} and camera_info beside it '
                  f'within {args.timeout:g} s', file=sys.stderr)
            return 1
        seconds = _obey(node, plan) if args.commands else node.play(plan)
        node.finish()
        if args.report:
            args.report.write_text(json.dumps({'sent': node.sent, 'seconds': seconds}))
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='replay', description=__doc__)
    parser.add_argument('clip', type=Path,
                        help='rosbag2, or .npy file of uint8 frames, N x H x W x 3, BGR')
    parser.add_argument('--topic', default='/camera/image_raw/compressed',
                        help='image topic of the bag')
    parser.add_argument('--camera', nargs='+', default=['/camera'], metavar='NAMESPACE',
                        help='namespaces to publish in, all frames in each')
    parser.add_argument('--no-camera-info', action='store_true', help='send images alone')
    parser.add_argument('--rate', type=float, help='frames per second (default: as recorded)')
    parser.add_argument('--seconds', type=float, help='repeat the clip for this long')
    parser.add_argument('--plan', type=Path,
                        help='JSON list of [index of the frame, seconds from the start], '
                             'instead of --rate and --seconds')
    parser.add_argument('--size', type=int, nargs=2, metavar=('WIDTH', 'HEIGHT'),
                        help='resize the frames')
    parser.add_argument('--commands', action='store_true',
                        help='wait for lines on the standard input: frame (send the first one, '
                             'not counted), step (send the next one, and print its line of the '
                             'report), play (send all by the plan); the end of the input ends '
                             'the replay')
    parser.add_argument('--report', type=Path,
                        help='write JSON there: index, stamp and time of sending of each frame')
    parser.add_argument('--timeout', type=float, default=30.0,
                        help='seconds to wait for a subscriber')
    return parser


if __name__ == '__main__':
    sys.exit(main())
