"""The engine made ready before the first frame: sizes by parameter, waiting, building alone."""

import re

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from ros_fixtures import NodeProcess, Peer, image, new_domain, output, wait_for
from sensor_msgs.msg import Image

from derain_ros.engines.tensorrt.cuda_runtime import find_gpu
from derain_ros.node.warm_up import ActivityLog, read_sizes, shapes_of, sizes_problem


def test_sizes_are_read_as_width_by_height():
    assert sizes_problem('1280x720 640x480') is None
    assert read_sizes(' 1280x720  640x480 1280x720 ') == ((720, 1280), (480, 640))
    assert shapes_of(read_sizes('640x480')) == [(1, 480, 640, 3)]
    assert sizes_problem('') is None
    assert read_sizes('') == ()


@pytest.mark.parametrize(('value', 'reason'), [
    ('1280*720', "has '1280\\*720', expected sizes such as"),
    ('640x480,1280x720', 'expected sizes such as'),
    ('0x480', 'expected sizes such as'),
    ('640x-480', 'expected sizes such as'),
    ('999999x480', 'expected sizes such as'),
    ('٣٢x480', 'expected sizes such as'),
    ('640x31', 'at least 32 pixels'),
    (640, 'in quotes'),
    (['640x480'], 'in quotes'),
])
def test_what_is_no_size_is_named(value, reason):
    found = sizes_problem(value)
    assert found.startswith('warm_up_sizes ')
    assert re.search(reason, found)


def test_the_activity_is_told_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr('derain_ros.node.warm_up.time.monotonic', lambda: now[0])
    told = []
    log = ActivityLog(told.append)
    for second in range(25):
        now[0] = float(second)
        log.look(f'building, {second} %')
    log.look('')
    log.look('building another one')
    assert told == ['building, 0 %', 'building, 10 %', 'building, 20 %', 'building another one']


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
