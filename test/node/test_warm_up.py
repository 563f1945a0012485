"""The engine made ready before the first frame: sizes by parameter, waiting, building alone."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from ros_fixtures import NodeProcess, Peer, image, new_domain, output, wait_for
from sensor_msgs.msg import Image

from derain_ros.engines.tensorrt.cuda_runtime import find_gpu


@pytest.mark.parametrize('wait', [True, False])
def test_the_first_frame_of_a_known_size_is_derained(tmp_path, wait):
    domain = new_domain()
    parameters = {'warm_up_sizes': '64x48 96x64', 'wait_for_warm_up': wait, 'rain_gate': False}
    with NodeProcess(tmp_path, domain, parameters) as node, Peer(domain) as peer:
        wait_for(lambda: node.log().count('of warm-up') == 2, 'warm-up', 60)
        wait_for(lambda: peer.state() == 'active', 'active', 60)
        if wait:
            log = node.log()
            assert log.index('ready for 96x64') < log.index('-> /camera/derained/image')
        images = peer.publisher(Image, '/camera/image_raw')
        peer.listen(Image, output('camera'))
        peer.matched(images)
        images.publish(image(1))
        wait_for(lambda: peer.received[output('camera')], 'frame')
        wait_for(lambda: peer.values('camera').get('published') == '1', 'count')
        values = peer.values('camera')
        assert (values['derained'], values['passed_through']) == ('1', '0')
        assert peer.values('engine')['activity'] == ''
        assert peer.set('warm_up_sizes', '20x20') != ''


def test_building_alone_ends_by_itself(tmp_path):
    parameters = {'build_only': True, 'warm_up_sizes': '64x48'}
    with NodeProcess(tmp_path, new_domain(), parameters) as node:
        assert node.process.wait(60) == 0, node.log()
        assert 'ready for 64x48' in node.log()
        assert 'ending, as build_only is set' in node.log()


@pytest.mark.parametrize(('parameters', 'reason'), [
    ({'build_only': True}, 'build_only needs warm_up_sizes'),
    pytest.param(
        {'build_only': True, 'warm_up_sizes': '64x48', 'engine': 'tensorrt'}, 'engine tensorrt: ',
        marks=pytest.mark.skipif(bool(find_gpu().name), reason='this machine has a GPU')),
])
def test_a_build_that_fails_ends_with_a_status(tmp_path, parameters, reason):
    with NodeProcess(tmp_path, new_domain(), parameters) as node:
        assert node.process.wait(60) == 1, node.log()
        assert reason in node.log()
        assert 'Traceback' not in node.log()
