"""Names, files and questions that a node meets when it starts, with real processes over DDS."""

import signal
import threading
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rig import NODE, PARAMETERS, Rig, active_rig
from ros_fixtures import NodeProcess, Peer, image, new_domain, process_ended, send_until, wait_for
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from derain_ros.node.parameter_store import other_nodes, unheard


def test_two_robots_in_namespaces_keep_to_their_topics(tmp_path):
    with Rig(tmp_path / 'one', arguments=('-r', '__ns:=/robot1')) as one:
        second = NodeProcess(tmp_path / 'two', one.domain, PARAMETERS, ('-r', '__ns:=/robot2'),
                             one.engine.environment, NODE)
        with second, Peer(one.domain, '/robot2/derain') as peer:
            peer.wait_for_state('active', second)
            robots = ['/robot1/camera', '/robot2/camera']
            cameras = [peer.publisher(Image, f'{robot}/image_raw') for robot in robots]
            for robot in robots:
                peer.listen(Image, f'{robot}/derained/image')
            peer.matched(*cameras)
            topics = [name for name, _ in peer.get_topic_names_and_types()]
            assert not [name for name in topics if name.startswith('/camera/')]
            send_until(cameras[0], image, lambda: peer.received['/robot1/camera/derained/image'],
                       'image of the first robot')
            assert not peer.received['/robot2/camera/derained/image']
            names = set()
            peer.create_subscription(
                DiagnosticArray, '/diagnostics',
                lambda message: names.update(status.name for status in message.status), 10)
            wait_for(lambda: names >= {
                f'/robot{number}/derain: {what}' for number in (1, 2)
                for what in ('engine', 'camera')}, 'statuses of both')


@pytest.mark.parametrize(('key', 'fits'), [
    ('derain', True), ('/derain', True), ('/**', True), ('/**/derain', True), ('/*', True),
    ('/**/**', True), ('derain_node', False), ('/robot1/derain', False), ('/*/derain', False)])
def test_a_parameter_file_names_the_node_in_every_way_that_ros_knows(tmp_path, key, fits):
    file = tmp_path / 'mine.yaml'
    file.write_text(f'{key}:\n  ros__parameters:\n    strength: 0.5\n')
    names = [key if key.startswith('/') else f'/{key}']
    assert other_nodes(file, '/derain') == ([] if fits else names)
    told = unheard(['--ros-args', '--params-file', str(file)], '/derain')
    assert len(told) == (not fits)
    assert all(f'{file} has no parameters for the node /derain (nodes in it: {names[0]})' in text
               for text in told)


def test_what_does_not_reach_the_node_is_told_of(tmp_path):
    stranger, fitting = tmp_path / 'stranger.yaml', tmp_path / 'fitting.yaml'
    stranger.write_text('/robot1/derain:\n  ros__parameters:\n    strength: 0.2\n')
    fitting.write_text('/*: {ros__parameters: {strength: 0.5, wagon: {image_topic: /x}}}')
    override = 'qos_overrides./camera/image_raw.subscription.reliabilty'
    files = ('--params-file', str(stranger), '--params-file', str(fitting),
             '-p', f'{override}:=reliable')
    with Rig(tmp_path, arguments=files, words=('model:=nano',)) as rig:
        wait_for(lambda: f'{stranger} has no parameters for the node' in rig.node.log(), 'warning')
        assert '--ros-args -p model:=nano' in rig.node.log()
        wait_for(lambda: f'{override} is not used: reliabilty is not a policy' in rig.node.log(),
                 'warning')
        assert rig.active().peer.get('strength') == [0.5]
        assert str(fitting) not in rig.node.log()
        assert 'cameras is not given: name wagon in it' in rig.node.log()


@pytest.mark.parametrize(('text', 'part'), [
    (None, '; there is no such file, or you may not read it\n'),
    ('derain:\n  model: nano\n', 'config/derain.yaml'),
    pytest.param('/**/derain:\n\tros__parameters:\n\t\tmodel: nano\n', 'ros__parameters',
                 marks=pytest.mark.slow),
    pytest.param('/**: {ros__parameters: {cameras: [front, 5]}}', 'cannot start',
                 marks=pytest.mark.slow)])
def test_a_file_that_ros_cannot_read_gets_a_pointer(tmp_path, text, part):
    file = tmp_path / 'bad.yaml'
    if text is not None:
        file.write_text(text)
    with NodeProcess(tmp_path, new_domain(), arguments=('--params-file', str(file))) as node:
        assert node.process.wait(120) == 1
        assert part in node.log() and 'Traceback' not in node.log()


def test_a_log_that_cannot_be_written_gets_a_remedy(tmp_path):
    with NodeProcess(tmp_path, new_domain(), environment={'ROS_LOG_DIR': '/proc/log'}) as node:
        assert node.process.wait(120) == 1
        assert '; set ROS_LOG_DIR to a folder' in node.log() and 'Traceback' not in node.log()


rig = active_rig()


def test_what_is_switched_off_is_logged_and_shown(rig):
    peer = rig.peer
    camera = peer.publisher(Image, '/camera/image_raw')
    peer.listen(Image, '/camera/derained/image')
    peer.matched(camera)
    assert peer.set_enabled(False)
    wait_for(lambda: 'enabled is false now' in rig.node.log(), 'word in the log')
    send_until(camera, image,
               lambda: 'switched off (enabled is false)' in peer.says('camera'), 'word')
    assert peer.set_together(enabled=True, strength=0.0) == ''
    wait_for(lambda: 'strength is 0.0 now' in rig.node.log(), 'word in the log')
    send_until(camera, image,
               lambda: 'switched off (strength is 0)' in peer.says('camera'), 'word')


def test_refusals_of_parameters_and_transitions_say_what_to_do(rig):
    peer = rig.peer
    assert 'did you mean publish_overlay?' in peer.set('publish_overlays', True)
    assert 'camera.image_topic?' in peer.set('camera.image_topik', '/x')
    assert 'wagon is not among cameras (camera)' in peer.set('wagon.image_topic', '/x')
    assert not peer.change_state('configure')
    wait_for(lambda: "'configure' refused" in rig.node.log(), 'reason')
    assert 'autostart to false' in rig.node.log()
    for name, value in (('model', 'base'), ('output_encoding', 'rgb8'), ('cameras', ['left']),
                        ('camera.image_topic', '/other')):
        reason = peer.set(name, value)
        assert name in reason and (
            'set /derain deactivate", then "ros2 lifecycle set /derain cleanup"' in reason)
    assert peer.set('model', 'nano') == ''  # as it is
    assert 'autostart' in peer.set('autostart', False)
    before = peer.get('enabled', 'strength')
    assert 'strength is 7' in peer.set_together(enabled=False, strength=7)
    assert peer.get('enabled', 'strength') == before and before[0]
    assert peer.change_state('deactivate')
    wait_for(lambda: 'inactive now' in rig.node.log(), 'word in the log')
    reason = peer.set('model', 'base')
    assert 'set /derain cleanup"' in reason and 'deactivate' not in reason
    assert peer.change_state('cleanup')
    assert peer.set('model', 'base') == ''
    assert peer.change_state('shutdown')
    assert not peer.change_state('configure')
    wait_for(lambda: 'the node is finalized; start it again' in rig.node.log(), 'reason')


def test_the_state_is_told_while_configuring_warms_up(tmp_path):
    parameters = {'warm_up_sizes': '64x48', 'wait_for_warm_up': True, 'autostart': False}
    with Rig(tmp_path, parameters) as rig:
        rig.engine.command(mode='hang')
        rig.peer.wait_for_state('unconfigured', rig.node)
        answers = []
        asker = threading.Thread(
            target=lambda: answers.append(rig.peer.change_state('configure')))
        asker.start()
        for _ in range(3):
            wait_for(lambda: rig.peer.state(5.0) == 'configuring', 'word of it')
        rig.engine.command()
        asker.join()
        assert answers == [True]
        assert rig.peer.state() == 'inactive'
        assert rig.peer.change_state('activate')


def test_simulated_time_that_does_not_pass_is_told_of(tmp_path):
    with Rig(tmp_path, {'use_sim_time': True}) as rig:
        peer = rig.active().peer
        wait_for(lambda: 'nothing publishes /clock' in peer.says('camera'), 'word')
        assert 'nothing publishes /clock' in rig.node.log()
        clock = peer.publisher(Clock, '/clock')
        now = Clock()
        now.clock.sec = 7

        def still():
            clock.publish(now)
            time.sleep(0.1)
            return 'stood still' in peer.says('camera')
        wait_for(still, 'word of a clock that stands still')

        def passes():
            now.clock.sec += 1
            clock.publish(now)
            time.sleep(0.1)
            return 'stood still' not in peer.says('camera')
        wait_for(passes, 'end of it')


@pytest.mark.parametrize('delay', [0.0, *(
    pytest.param(delay, marks=pytest.mark.slow) for delay in (0.3, 0.7, 1.5))])
def test_an_end_in_the_first_moments_is_quiet(tmp_path, delay):
    with NodeProcess(tmp_path, new_domain()) as node:
        def started():
            """Tell whether the program, which holds SIGINT back at first, runs in Python."""
            blocked = int(node.status('SigBlk'), 16)
            return blocked >> signal.SIGINT - 1 & 1 or node.log()

        wait_for(started, 'start', 20)
        time.sleep(delay)
        code, _ = process_ended(node.process, signal.SIGINT)
        assert code == 0, node.log()
        assert 'Traceback' not in node.log()
