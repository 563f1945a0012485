"""What the node puts on the wire with ``fast_path`` and without: the same bytes.

Apart from the padding between fields, which rclpy leaves as it finds it in memory. Two nodes
in two domains get the same frames. What a typed subscriber reads of the fast path is asserted
by every other test of the node, for which it is the default.
"""

from contextlib import ExitStack

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from cdr_messages import without_padding
from rclpy.qos import QoSProfile
from rig import Rig
from ros_fixtures import image, output, wait_for
from sensor_msgs.msg import CompressedImage, Image

OUTPUTS = {'image': Image, 'rain_mask': Image, 'overlay': Image,
           'image/compressed': CompressedImage}
PICTURE = np.random.default_rng(8).integers(0, 256, (48, 64, 4), np.uint8)
FRAMES = [
    image(1), image(2, frame_id=''), image(3, PICTURE, 'rgba8', 'ä lens'),
    image(4, PICTURE[..., 0], 'mono8'), image(5, PICTURE[..., :2], 'yuv422_yuy2'),
    image(6, PICTURE[..., 0], 'bayer_rggb8'),
]


def published(rig):
    """Return the serialized outputs of each frame, by output and number."""
    found = {name: {} for name in OUTPUTS}
    peer = rig.active().peer
    images = peer.publisher(Image, '/camera/image_raw')
    for name, kind in OUTPUTS.items():
        def keep(data, name=name):
            # The stamp, whose seconds are the number of the frame, begins every message.
            found[name][int.from_bytes(data[4:8], 'little')] = data
        peer.create_subscription(kind, output('camera', name), keep, QoSProfile(depth=50),
                                 raw=True)
    peer.matched(images)

    def warm():
        images.publish(image(1000))
        return int(peer.values('camera').get('derained', 0)) > 0 and all(found.values())
    wait_for(warm, 'derained frame')
    for number, frame in enumerate(FRAMES, 1):
        images.publish(frame)
        wait_for(lambda number=number: all(number in found[name] for name in OUTPUTS),
                 f'outputs of frame {number}')
    return {name: {number: data for number, data in by_number.items() if number < 1000}
            for name, by_number in found.items()}


def test_the_fast_path_and_the_ordinary_one_publish_the_same_bytes(tmp_path):
    with ExitStack() as stack:
        fast, ordinary = (published(rig) for rig in [
            stack.enter_context(Rig(tmp_path / str(way), {
                'fast_path': way, 'publish_overlay': True, 'publish_compressed': True,
                'watchdog_ms': 5000.0}))
            for way in (True, False)])
    for name in OUTPUTS:
        assert list(fast[name]) == list(range(1, len(FRAMES) + 1))
        for number, data in fast[name].items():
            expected = without_padding(ordinary[name][number], OUTPUTS[name])
            assert without_padding(data, OUTPUTS[name]) == expected, f'{name} of frame {number}'
    assert fast['image'][1] != fast['image'][2]
