"""Fifty lives of one node: what it takes when it configures, it gives back when it cleans up."""

import statistics

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from ros_fixtures import (
    PICTURE,
    NodeProcess,
    Peer,
    image,
    new_domain,
    output,
    send_until,
    wait_for,
)
from sensor_msgs.msg import Image

from derain_ros.bench.process_figures import process_figures

CYCLES = 50
WARM_UP = 8
"""Cycles at the beginning, in which libraries are loaded and pools fill."""
MOST_GROWTH_MIB = 5


@pytest.mark.slow  # one to five minutes
def test_fifty_cycles_leave_no_memory_threads_or_files_behind(tmp_path):
    domain = new_domain()
    parameters = {'engine': 'openvino', 'rain_gate': False, 'autostart': False}
    after = []
    with NodeProcess(tmp_path, domain, parameters) as node, Peer(domain) as peer:
        images = peer.publisher(Image, '/camera/image_raw')
        for _ in range(CYCLES):
            assert peer.change_state('configure')
            assert peer.change_state('activate')
            peer.matched(images)
            peer.listen(Image, output('camera'))
            send_until(images, image, lambda: derained(peer), 'derained image')
            peer.ignore(output('camera'))
            peer.received[output('camera')].clear()
            assert peer.change_state('deactivate')
            assert peer.change_state('cleanup')
            wait_for(lambda: not peer.count_publishers(output('camera')), 'end of the outputs')
            after.append(process_figures(node.process.pid))
    assert growth(after, 'anonymous') < MOST_GROWTH_MIB, [stats.anonymous for stats in after]
    assert growth(after, 'threads') <= 0, [stats.threads for stats in after]
    assert growth(after, 'descriptors') <= 0, [stats.descriptors for stats in after]


def growth(after, name):
    """Median of the last five less that of the first five after the warm-up."""
    values = [getattr(stats, name) for stats in after]
    return statistics.median(values[-5:]) - statistics.median(values[WARM_UP:WARM_UP + 5])


def derained(peer):
    """Whether an image came that is not the one sent: the network has worked on it."""
    return any(bytes(found.data) != PICTURE.tobytes() for found in peer.received[output('camera')])
