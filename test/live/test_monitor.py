"""``derain top``: the picture of given statuses, and as a process in a terminal beside a node."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import contextmanager

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.context import Context
from rclpy.node import Node
from rich.console import Console
from ros_fixtures import (
    NodeProcess,
    Peer,
    image,
    new_domain,
    output,
    process_ended,
    ros_environment,
    wait_for,
)
from sensor_msgs.msg import Image
from std_msgs.msg import Float32

from derain_ros.live.monitor import FORGET_SECONDS, NodeReport, Reports, nothing_heard, render

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
CAMERA = {
    'received': 320, 'published': 300, 'dropped': 12, 'failed': 3, 'idle': 0, 'derained': 280,
    'bypassed': 15, 'passed_through': 5, 'fps': 29.8, 'gate': 'wet', 'rain_intensity': 0.0841,
    'image_topic': '/front/image_raw', 'size': '1920x1080', 'encoding': 'rgb8',
    'sync_group': 'stereo', 'age_p50_ms': 31.4, 'age_p95_ms': 55.6, 'age_p99_ms': 66.0,
    'wait_p50_ms': 0.31, 'decode_p50_ms': 2.14, 'infer_p50_ms': 24.2, 'encode_p50_ms': 1.03,
    'publish_p50_ms': 2.4,
}
ENGINE = {'engine': 'openvino', 'device': 'a CPU', 'model': 'nano', 'precision': 'bf16',
          'state': 'ready', 'failures': 1, 'node': '/derain'}


def row(lines, head, camera='front'):
    """Return a camera's line below the first line that begins with ``head``."""
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    return next(line for line in lines[start + 1:] if line.startswith(camera)).split()


def status(name, level=OK, message='', values=CAMERA, **changed):
    return DiagnosticStatus(
        name=f'{changed.get("node", "/derain")}: {name}', level=level, message=message,
        values=[KeyValue(key=key, value=str(value))
                for key, value in {**values, **changed}.items()])


def picture(*nodes, width=80):
    """Return the lines of a picture without colours, none too long."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(nodes, '12:34:56'))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def test_a_line_of_each_table_says_what_the_status_says():
    before = {'/derain: front': {'derained': '252', 'bypassed': '14', 'passed_through': '5',
                                'dropped': '10', 'failed': '3'}}
    node = NodeReport('/derain', [
        status('engine', values=ENGINE, gpu_temperature_c=55, gpu_utilisation_percent=40),
        status('front')], before, seconds=2.0)
    lines = picture(node)
    assert lines[0] == '/derain  1 camera  12:34:56'
    assert ' '.join(lines[1:3]) == (
        'engine  OK  ready, openvino on a CPU, nano, bf16, 1 failure, 55 °C, 40 % GPU ')
    state, fps, gate, _bar, rain, *rates = row(lines, 'camera')[1:]
    assert (state, fps, gate, rain) == ('OK', '29.8', 'wet', '0.084')
    assert rates == ['14.0', '0.5', '0.0', '1.0', '0.0']  # a second, over two
    assert row(lines, 'ms')[1:] == ['31', '56', '66', '0.3', '2.1', '24.2', '1.0', '2.4']
    assert row(lines, 'input')[1:] == ['/front/image_raw', '1920x1080', 'rgb8', 'stereo']


def test_many_cameras_fit_a_terminal_of_80_by_24():
    names = ('front_stereo_left', 'front_stereo_right', 'rear', 'left')
    lines = picture(NodeReport('/derain', [
        status('engine', values=ENGINE), *map(status, names)]))
    assert len(lines) <= 24
    assert len({row(lines, 'camera', name[:4])[0] for name in names}) == 3
    text = '\n'.join(lines)
    assert 'front…_left' in text and 'front…right' in text  # their ends tell them apart
    assert len(picture(NodeReport('/derain', [*map(status, names)]), width=200)) < len(lines)


def test_what_is_missing_or_no_number_is_a_dash():
    empty = status('front', values={'fps': 'nan', 'age_p50_ms': 'soon', 'rain_intensity': ''})
    lines = picture(NodeReport('/derain', [empty]))
    assert row(lines, 'camera') == ['front', 'OK', *'--------']
    assert row(lines, 'ms') == ['front', *'--------']
    assert row(lines, 'input') == ['front', *'----']
    # Counts begin anew after a reset.
    before = {'/derain: front': dict.fromkeys(CAMERA, '9999')}
    lines = picture(NodeReport('/derain', [status('front')], before, 1.0))
    assert row(lines, 'camera')[-5:] == [*'-----']


def test_problems_are_told_now_and_later():
    bad = status('rear', WARN, 'no publisher on /rear/image_raw')
    node = NodeReport('/derain', [
        status('engine', ERROR, 'out of memory', ENGINE), status('front', message='idle: none'),
        bad], last_problems={
            '/derain: rear': ('12:00:00', bad),
            '/derain: front': ('11:59:58', status('front', ERROR, 'step is 3'))})
    lines = picture(node)
    assert 'ERROR engine: out of memory' in lines
    assert 'WARN rear: no publisher on /rear/image_raw' in lines
    assert 'front: idle: none' in lines
    assert '11:59:58 ERROR front: step is 3 (over)' in lines
    assert sum('no publisher' in line for line in lines) == 1
    assert row(lines, 'camera', 'rear')[1] == 'WARN'
    assert row(lines, 'camera', 'front')[1] == 'OK'


def test_a_node_that_went_silent_does_not_look_well():
    lines = picture(NodeReport('/derain', [
        status('engine', values=ENGINE), status('front')], silent_seconds=12.4))
    assert lines[1].startswith('no report for 12 s')
    assert row(lines, 'camera')[1] == 'GONE' and not any('OK' in line for line in lines)


def test_foreign_text_cannot_steer_the_terminal():
    evil = '\x1b[2J\x1b]0;owned\x07\n\r[red]\u202e' + 'x' * 10_000
    lines = picture(NodeReport(evil, [
        status(evil, ERROR, evil, image_topic=evil, gate=evil, size=evil)]))
    text = ''.join(lines)
    assert text.isprintable() and '[red]' in text
    assert len(lines) < 24


# Reports

def array(*statuses):
    return DiagnosticArray(status=list(statuses))


def report(*cameras, node='/derain'):
    """Return a message of a node with its engine."""
    return array(status('engine', values=ENGINE, node=node), *cameras)


def test_nodes_are_kept_apart_filtered_and_forgotten():
    every, named, last = Reports(), Reports('/b/derain'), Reports('derain')
    for reports in (every, named, last):
        for node in ('/b/derain', '/a/derain', '/c/other'):
            reports.add(report(status('front', node=node), node=node), 10.0, '')
        reports.add(array(DiagnosticStatus(name='battery')), 10.0, '')
    assert [node.name for node in every.nodes(10)] == ['/a/derain', '/b/derain', '/c/other']
    assert [node.name for node in named.nodes(10)] == ['/b/derain']
    assert [node.name for node in last.nodes(10)] == ['/a/derain', '/b/derain']
    assert named.others == {'/a/derain', '/c/other'} and every.foreign == 1
    assert not every.nodes(10.1 + FORGET_SECONDS)


def test_the_last_problem_is_remembered():
    reports = Reports()
    reports.add(report(status('front', ERROR, 'first')), 1.0, '10:00')
    reports.add(report(status('front', WARN, 'second')), 2.0, '10:01')
    reports.add(report(status('front')), 3.0, '10:02')
    (when, problem), = reports.nodes(3.0)[0].last_problems.values()
    assert (when, problem.message) == ('10:01', 'second')


@pytest.mark.parametrize(('messages', 'publishers', 'said'), [
    ([], 0, 'no publisher; start derain_node'), ([], 2, 'nothing arrives'),
    ([array(DiagnosticStatus(name='battery'))], 1, 'only other nodes report'),
    ([array(status('engine', values=ENGINE))], 1,
     'mine is not among the derain nodes heard: /derain'),
])
def test_silence_is_explained(messages, publishers, said, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '17')
    reports = Reports('mine')
    for message in messages:
        reports.add(message, 1.0, '')
    text = nothing_heard(reports, 5.0, publishers)
    assert said in text and ('ROS_DOMAIN_ID is 17' in text) == (not reports.others)


REPORT, OTHER_REPORT = (
    DiagnosticArray(status=[
        DiagnosticStatus(name=f'{node}: engine', values=[KeyValue(key='node', value=node)]),
        DiagnosticStatus(name=f'{node}: lens', values=[KeyValue(key='fps', value='29.8')])])
    for node in ('/car/derain', '/van/derain'))


def lines_of(text):
    """Return lines without what Fast DDS prints of ports that others left behind."""
    return [line for line in text.splitlines() if 'RTPS_' not in line]


def test_once_shows_a_running_node(tmp_path):
    domain = new_domain()
    # On a busy machine it takes longer than the five seconds after which the gate closes.
    parameters = {'cameras': ['front', 'rear'], 'rain_gate_dry_after': 600.0}
    with NodeProcess(tmp_path, domain, parameters) as node, Peer(domain) as peer:
        peer.wait_for_state('active', node)
        camera = peer.publisher(Image, '/front/image_raw')
        peer.matched(camera)
        peer.listen(Image, output('front'))
        numbers = iter(range(1, 10**6))

        def send():
            message = image(next(numbers))
            message.header.stamp = peer.get_clock().now().to_msg()
            camera.publish(message)
            time.sleep(0.05)

        def derained():
            send()
            return int(peer.values('front').get('derained', 0))

        wait_for(derained, 'derained frame in /diagnostics')
        process = subprocess.Popen(
            [sys.executable, '-m', 'derain_ros.cli', 'top', '--once', '--node', 'derain'],
            stdout=subprocess.PIPE, text=True, env=ros_environment(domain) | {'COLUMNS': '80'})
        while process.poll() is None:
            send()
        lines = lines_of(process.communicate()[0])
    assert process.returncode == 0
    assert max(map(len, lines)) <= 80
    assert '2 cameras' in lines[0]
    assert lines[1].startswith('engine  OK  ready, openvino on')
    name, state, fps, gate = row(lines, 'camera')[:4]
    assert (name, state, gate) == ('front', 'OK', 'wet')
    assert 5 < float(fps) < 40
    assert 5 < float(row(lines, 'camera')[-5]) < 40
    assert all(float(figure) >= 0 for figure in row(lines, 'ms')[1:])
    assert row(lines, 'input')[1:4] == ['/front/image_raw', '64x48', 'bgr8']
    assert row(lines, 'camera', 'rear')[1] == 'WARN'
    assert any(line.startswith('WARN rear: no publisher on /rear/image_raw') for line in lines)


@contextmanager
def reporting(domain, name, namespace):
    """Yield the publisher of a node that tells the rain intensity, as derain_node does."""
    context = Context()
    context.init(domain_id=domain)
    node = Node(name, namespace=namespace, context=context)
    node.create_publisher(Float32, '~/rain_intensity', 10)
    try:
        yield node.create_publisher(DiagnosticArray, '/diagnostics', 10)
    finally:
        context.try_shutdown()


def test_once_waits_for_every_node_that_is_there_and_names_one_that_stays_silent(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    domain = new_domain()
    late_report = DiagnosticArray(status=[*OTHER_REPORT.status, DiagnosticStatus(
        name='/van/derain: old', values=[
            KeyValue(key='published', value='7'), KeyValue(key='age_p50_ms', value='nan')])])
    with (
        reporting(domain, 'derain', '/car') as first, reporting(domain, 'derain', '/van') as late,
        reporting(domain, 'derain', '/bus'),
    ):
        process = subprocess.Popen(
            [sys.executable, '-m', 'derain_ros.cli', 'top', '--once', '--wait', '6'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=ros_environment(domain) | {'COLUMNS': '80', 'PYTHONIOENCODING': 'utf-8'})
        wait_for(lambda: first.get_subscription_count() and late.get_subscription_count(),
                 'subscription of derain top', 60.0)
        begin = time.monotonic()
        while process.poll() is None:
            first.publish(REPORT)
            if time.monotonic() > begin + 2.5:
                late.publish(late_report)
            time.sleep(0.2)
        found, errors = process.communicate()
    assert process.returncode == 0
    assert '/car/derain' in found and '/van/derain' in found
    assert found.count('its stamps are missing') == 1 and 'old: its stamps are missing' in found
    assert '/bus/derain is there, but has not reported for 6 s' in errors


def test_once_without_a_node_says_so_and_fails():
    domain = new_domain()
    found = subprocess.run(
        [sys.executable, '-m', 'derain_ros.cli', 'top', '--once', '--wait', '1'],
        capture_output=True, text=True, timeout=60, check=False, env=ros_environment(domain))
    assert (found.returncode, lines_of(found.stdout)) == (1, [])
    line, = lines_of(found.stderr)
    assert f'ROS_DOMAIN_ID is {domain} here' in line


def test_live_view_needs_a_terminal(derain):
    assert '--once' in derain('top', status=2).err


@contextmanager
def live(domain):
    """Run ``derain top`` in a terminal of its own; yields the process, its end, and a reader."""
    end, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    process = subprocess.Popen(
        [sys.executable, '-m', 'derain_ros.cli', 'top'], stdin=terminal, stdout=terminal,
        stderr=subprocess.STDOUT, start_new_session=True,
        env=ros_environment(domain) | {'TERM': 'xterm-256color', 'COLUMNS': '80', 'LINES': '24'})
    shown = bytearray()

    def read():
        while select.select([end], [], [], 0)[0]:
            shown.extend(os.read(end, 65536))
        return shown.decode(errors='replace')

    try:
        yield process, end, read
        wait_for(lambda: read() and process.poll() is not None, 'end of derain top', 10.0)
        assert termios.tcgetattr(terminal) == before, 'the terminal must be as it was'
        assert '\x1b[?1049l' in read(), 'the screen must be as it was'
        assert 'Traceback' not in read()
    finally:
        process.kill()
        process.wait()
        os.close(end)
        os.close(terminal)


def test_live_view_follows_a_node_until_q():
    domain = new_domain()
    with Peer(domain) as peer, live(domain) as (process, end, read):
        wait_for(lambda: 'no derain node heard' in read(), 'word of silence')
        publisher = peer.create_publisher(DiagnosticArray, '/diagnostics', 10)

        def shown():
            publisher.publish(REPORT)
            time.sleep(0.1)
            return '/car/derain' in read() and 'lens' in read()

        wait_for(shown, 'picture of the node')
        assert process.poll() is None
        os.write(end, b'q')
    assert process.returncode == 0


@pytest.mark.parametrize('number', [
    signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_live_view_ends_by_signal(number):
    with live(new_domain()) as (process, _end, read):
        wait_for(lambda: 'q quits' in read(), 'picture')
        status, seconds = process_ended(process, number)
    assert (status, seconds < 3) == (0, True)
