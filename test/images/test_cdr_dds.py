"""Serialized image messages over DDS, to and from a plain rclpy node of another process."""

import json
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from cdr_messages import READERS, values
from rclpy.executors import ExternalShutdownException
from ros_fixtures import Peer, new_domain, ros_environment, wait_for
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from derain_ros.images.cdr import (
    encode_header,
    write_compressed_image,
    write_image,
)


def plain_node():
    """Tell what arrives as messages of rclpy's, and send it back as such."""
    rclpy.init()
    node = rclpy.create_node('plain')
    seen = node.create_publisher(String, 'seen', 10)

    def relay(publisher, message):
        report = values(message)
        report[-1] = report[-1].hex()
        seen.publish(String(data=json.dumps(report)))
        publisher.publish(message)

    for message_type in READERS:
        name = message_type.__name__
        back = node.create_publisher(message_type, f'{name}/back', 10)
        node.create_subscription(
            message_type, name, lambda message, back=back: relay(back, message), 10)
    with suppress(ExternalShutdownException):
        rclpy.spin(node)


@pytest.fixture(scope='module')
def peer():
    domain = new_domain()
    with subprocess.Popen([sys.executable, __file__], env=ros_environment(domain)) as process:
        try:
            with Peer(domain) as peer:
                yield peer
        finally:
            process.kill()


def send(peer, message_type, messages, expected):
    """Send serialized messages to the plain node; check what it sees and what comes back."""
    name = message_type.__name__
    back = []
    peer.create_subscription(message_type, f'{name}/back', back.append, 10, raw=True)
    peer.listen(String, 'seen')
    publisher = peer.publisher(message_type, name)
    peer.matched(publisher)
    wait_for(lambda: peer.count_publishers(f'{name}/back'), 'publisher of the plain node')
    for message, sent in zip(messages, expected, strict=True):
        seen = peer.received['seen']
        seen.clear()
        back.clear()
        publisher.publish(message)
        wait_for(lambda: seen and back, f'answer to {sent[:-1]}')  # noqa: B023
        assert json.loads(seen[0].data) == [*sent[:-1], sent[-1].hex()]
        assert isinstance(back[0], bytes)
        assert values(READERS[message_type](back[0])) == sent
        assert READERS[message_type](back[0]).header == READERS[message_type](message).header
    peer.ignore('seen')


def test_images_over_dds(peer):
    # Small ones arrive padded; the last one is too large for one datagram.
    sizes = [(1, width) for width in range(1, 6)] + [(480, 640)]
    frame_ids = ['', 'a', 'ab', 'abc', 'nez à pluie', 'front_left/optical_frame']
    messages, expected = [], []
    for number, ((height, width), frame_id) in enumerate(zip(sizes, frame_ids, strict=True)):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width), np.uint8)
        messages.append(write_image(
            encode_header(number - 2, number, frame_id), height=height, width=width,
            encoding='mono8', step=width, data=pixels))
        expected.append([(number - 2) * 10**9 + number, frame_id, height, width, 'mono8', 0,
                         width, pixels.tobytes()])
    send(peer, Image, messages, expected)


def test_compressed_images_over_dds(peer):
    messages, expected = [], []
    for count in (0, 1, 2, 3, 100_001):
        data = np.random.default_rng(count).bytes(count)
        announced = 'bgr8; jpeg compressed bgr8'[count % 4:]
        messages.append(write_compressed_image(
            encode_header(7, count, 'lens'), format=announced, data=data))
        expected.append([7 * 10**9 + count, 'lens', announced, data])
    send(peer, CompressedImage, messages, expected)


if __name__ == '__main__':
    plain_node()
