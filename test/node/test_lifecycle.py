"""Life of ``derain_node`` as a process: bad starts, transitions, shipped files, signals."""

import signal
import statistics

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.utilities import get_rmw_implementation_identifier
from rig import Rig
from ros_fixtures import (
    PICTURE,
    PROFILE,
    ROOT,
    NodeProcess,
    Peer,
    image,
    new_domain,
    output,
    process_ended,
    send_until,
    shared_segments,
    wait_for,
)
from sensor_msgs.msg import Image

from derain_ros.bench.measures import process_figures


def test_a_failed_start_can_be_put_right_step_by_step(tmp_path):
    domain = new_domain()
    parameters = {'model': 'nope', 'strength': 1, 'cameras': 'front', 'strenght': 0.5,
                  'front': '/front/image', 'batch_wait_ms': 5.0}
    with NodeProcess(tmp_path, domain, parameters) as node, Peer(domain) as peer:
        wait_for(lambda: 'autostart failed' in node.log(), 'autostart')
        assert peer.state() == 'unconfigured'
        assert "'nope'" in node.log()
        assert 'nano' in node.log()
        assert 'did you mean strength?' in node.log()
        assert 'did you mean front.image_topic?' in node.log()
        assert 'batch_wait_ms is no longer a parameter' in node.log()
        assert 'batch_wait_ms is no longer a parameter' in peer.set('batch_wait_ms', 5.0)
        wait_for(lambda: peer.status('engine'), 'status of the engine')
        assert peer.level('engine') == DiagnosticStatus.ERROR
        assert 'nope' in peer.says('engine')
        assert not peer.change_state('configure')
        assert not peer.change_state('activate')
        assert peer.state() == 'unconfigured'

        reason = peer.set_together(
            model='nano', cameras=['front', 'rear'], rear__output_namespace='/front/derained')
        assert 'rear.output_namespace' in reason
        assert peer.get('model', 'cameras') == ['nope', 'front']
        assert peer.set_together(
            model='nano', cameras=['front', 'rear'], rear__image_topic='/tail/image') == ''
        assert peer.change_state('configure')
        assert peer.state() == 'inactive'
        wait_for(lambda: peer.level('engine') == DiagnosticStatus.OK, 'engine')
        wait_for(lambda: peer.count_publishers(output('rear')) == 1, 'publisher')
        assert peer.count_subscribers('/tail/image') == 0
        assert peer.change_state('activate')
        assert not peer.change_state('activate')
        wait_for(lambda: peer.count_subscribers('/tail/image') == 1, 'subscription')

        images = peer.publisher(Image, '/tail/image')
        peer.listen(Image, output('rear'))
        for _ in range(2):
            peer.received[output('rear')].clear()
            peer.matched(images)
            send_until(images, image, lambda: peer.received[output('rear')], 'image')
            assert peer.change_state('deactivate')
            wait_for(lambda: images.get_subscription_count() == 0, 'end of the subscription')
            assert peer.change_state('cleanup')
            wait_for(lambda: peer.count_publishers(output('rear')) == 0, 'end of the outputs')
            assert peer.change_state('configure')
            assert peer.change_state('activate')
        status, seconds = process_ended(node.process, signal.SIGTERM)
        assert (status, 'Traceback' in node.log()) == (0, False), node.log()
        assert seconds < 5


def test_vehicle_config_in_a_namespace_and_simulated_time_until_sigint(tmp_path):
    domain = new_domain()
    before = shared_segments()
    arguments = ('--params-file', str(ROOT / 'config' / 'vehicle.yaml'),
                 '-r', '__ns:=/car', '-p', 'use_sim_time:=true')
    with NodeProcess(tmp_path, domain, None, arguments, PROFILE) as node, \
            Peer(domain, '/car/derain') as peer:
        peer.wait_for_state('active', node)
        assert peer.get('cameras', 'model') == [['front', 'rear', 'left', 'right'], 'nano']
        images = peer.publisher(Image, '/rear/image_raw')
        peer.matched(images)
        peer.listen(Image, output('rear'))
        # No /clock, and no stamps: ages cannot be told, and everything else goes on.
        send_until(images, lambda _: image(0), lambda: peer.received[output('rear')], 'image')
        wait_for(lambda: int(peer.values('rear').get('published', 0)), 'count')
        assert peer.values('rear')['age_p50_ms'] == 'nan'
        if 'fastrtps' in get_rmw_implementation_identifier():
            segments = shared_segments() - before
            assert max(segment.stat().st_size for segment in segments) >= 64 << 20
        status, seconds = process_ended(node.process, signal.SIGINT)
        assert (status, 'Traceback' in node.log()) == (0, False), node.log()
        assert seconds < 5


def test_values_that_ros_itself_refuses_leave_the_node_up(tmp_path):
    parameters = {'cameras': [], 'strength': 2.0, 'model': 5}
    with NodeProcess(tmp_path, new_domain(), parameters) as node:
        wait_for(lambda: 'autostart failed' in node.log(), 'autostart')
        for part in ('cameras is empty', 'strength is 2.0', 'model is 5'):
            assert part in node.log()
        assert node.process.poll() is None
        assert process_ended(node.process, signal.SIGINT)[0] == 0


def test_a_camera_that_is_removed_takes_its_refused_values_along(tmp_path):
    parameters = {'cameras': ['front', 'rear'], 'rear': {'sync_group': 3}}
    with Rig(tmp_path, parameters) as rig:
        wait_for(lambda: 'autostart failed' in rig.node.log(), 'autostart')
        assert 'rear.sync_group is 3' in rig.node.log()
        assert rig.peer.set('cameras', ['front']) == ''
        assert rig.peer.change_state('configure'), rig.node.log()


@pytest.mark.slow  # one to five minutes
def test_fifty_cycles_leave_no_memory_threads_or_files_behind(tmp_path):
    domain = new_domain()
    parameters = {'engine': 'openvino', 'rain_gate': False, 'autostart': False}
    after = []
    with NodeProcess(tmp_path, domain, parameters) as node, Peer(domain) as peer:
        images = peer.publisher(Image, '/camera/image_raw')
        for _ in range(50):
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
    assert growth(after, 'anonymous') < 5, [stats.anonymous for stats in after]
    assert growth(after, 'threads') <= 0, [stats.threads for stats in after]
    assert growth(after, 'descriptors') <= 0, [stats.descriptors for stats in after]


def growth(after, name):
    """Median of the last five less that of five after the first eight, in which pools fill."""
    values = [getattr(stats, name) for stats in after]
    return statistics.median(values[-5:]) - statistics.median(values[8:13])


def derained(peer):
    """Whether an image came that is not the one sent: the network has worked on it."""
    return any(bytes(found.data) != PICTURE.tobytes() for found in peer.received[output('camera')])
