"""Publish a recorded bag as the cameras did: ``python -m derain_ros.bench.replay.player``.

Messages go out as they were recorded, byte for byte, but for the stamp, which becomes the time of
sending. What to do comes in lines on the standard input, what was done goes out on the standard
output; see :func:`_obey`.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from derain_ros.bags.damage import BagError
from derain_ros.bags.topics import COMPRESSED_IMAGE
from derain_ros.bench.replay.pacing import Pacer, Stamps, restamped
from derain_ros.bench.replay.played_bag import PlayedBag, read_recording, repeated
from derain_ros.bench.replay.read_ahead import ReadAhead

_FILL_SECONDS = 10.0
_SETTLE_SECONDS = 0.5
_ACKNOWLEDGE_SECONDS = 2


class Player(Node):
    """Publishes what was recorded on image topics and the camera_info beside them.

    Parameters
    ----------
    recording
        What to play.

    """

    def __init__(self, recording: PlayedBag):
        super().__init__('bag_replay')
        self._recording = recording
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
        self._images = {
            camera.topic: self.create_publisher(
                CompressedImage if camera.msgtype == COMPRESSED_IMAGE else Image,
                camera.topic, qos)
            for camera in recording.cameras}
        infos = {camera.info_topic for camera in recording.cameras if camera.has_info}
        self._infos = {
            topic: self.create_publisher(CameraInfo, topic, qos) for topic in sorted(infos)}
        self._stamps = Stamps()

    def wait_for_subscriber(self, timeout: float) -> bool:
        """Wait until someone listens to every topic; False after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        publishers = [*self._images.values(), *self._infos.values()]
        while not all(publisher.get_subscription_count() for publisher in publishers):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        # The other side may not have found us yet.
        time.sleep(_SETTLE_SECONDS)
        return True

    def send_sample(self, number: int) -> None:
        """Send a frame of the size of a number on every camera, and its camera_info ahead."""
        for topic, data in self._recording.infos.items():
            self._send(topic, data)
        for topic, samples in self._recording.samples.items():
            self._send(topic, samples[min(number, len(samples) - 1)])

    def play(self, factor: float, seconds: float) -> dict:
        """Play the recording from its start.

        Parameters
        ----------
        factor
            How much faster than recorded.
        seconds
            How long; the recording is repeated or cut.

        Returns
        -------
        dict
            ``sent``: stamp (null where the message is too short for one) and time of handing
            over to the middleware of each frame, ns since the epoch, by topic; ``seconds``;
            ``late_ns``: how late each message was; ``starved``: messages that the disk had
            not given in time.

        """
        sent: dict[str, list[tuple[int | None, int]]] = {topic: [] for topic in self._images}
        starved = 0
        messages = repeated(self._recording, seconds * factor * 1e9)
        with ReadAhead(messages) as ahead:
            ahead.wait_until_full(_FILL_SECONDS)
            print('playing', flush=True)
            pacer = Pacer(factor)
            while True:
                message, waited = ahead.take()
                if message is None:
                    break
                offset, topic, data = message
                pacer.wait(offset)
                starved += waited and pacer.late[-1] > 0
                frame = self._send(topic, data)
                if topic in sent:
                    sent[topic].append(frame)
        print('played', flush=True)
        return {'sent': sent, 'seconds': pacer.elapsed(), 'late_ns': pacer.late,
                'starved': starved}

    def finish(self) -> None:
        """Wait until every subscriber has what was sent."""
        for publisher in self._images.values():
            publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_SECONDS))

    def _send(self, topic: str, data: bytes) -> tuple[int | None, int]:
        publisher = self._images.get(topic) or self._infos[topic]
        stamp = self._stamps.next(topic)
        message = restamped(data, stamp)
        handed_over = time.time_ns()
        if message is None:
            publisher.publish(data)
            return None, handed_over
        publisher.publish(message)
        return stamp, handed_over


def _obey(player: Player, report: Path) -> None:
    """Do what the lines of the standard input say, until its end.

    ``frame N`` sends the N-th sample of each camera. ``play FACTOR SECONDS`` plays, writes
    what :meth:`Player.play` returns to ``report`` as JSON and prints ``playing``, ``played``
    and ``reported`` as it goes.
    """
    for line in sys.stdin:
        command, *values = line.split()
        if command == 'frame':
            player.send_sample(int(values[0]))
        elif command == 'play':
            played = player.play(*map(float, values))
            player.finish()
            report.write_text(json.dumps(played))
            print('reported', flush=True)
        else:
            raise ValueError(f'{command!r} is no command; there are frame and play')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the player; 1 if nobody listens or the bag cannot be read."""
    args = _parser().parse_args(argv)
    recording = read_recording(args.recording)
    rclpy.init()
    try:
        player = Player(recording)
        if not player.wait_for_subscriber(args.timeout):
            print('player: error: nobody subscribed to '
                  f'{", ".join(camera.topic for camera in recording.cameras)} and the '
                  f'camera_info beside it within {args.timeout:g} s', file=sys.stderr)
            return 1
        _obey(player, args.report)
        player.destroy_node()
    except BagError as error:
        print(f'player: error: {error}', file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='player', description=__doc__)
    parser.add_argument('recording', type=Path, help='what to play, of Recording.write()')
    parser.add_argument('--report', type=Path, required=True, help='JSON file to write')
    parser.add_argument('--timeout', type=float, default=30.0,
                        help='seconds to wait for a subscriber')
    return parser


if __name__ == '__main__':
    sys.exit(main())
