"""``derain top`` as a process: beside a running node, and in a terminal."""

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

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('rich', reason='needs rich')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.context import Context
from rclpy.node import Node
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
from status_tables import row
from std_msgs.msg import Float32

from derain_ros.cli import main

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
    with NodeProcess(tmp_path, domain, {'cameras': ['front', 'rear']}) as node, \
            Peer(domain) as peer:
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
        name='/van/derain: old', values=[KeyValue(key='age_p50_ms', value='95880430281.0')])])
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
    assert '/car/derain' in found and '/van/derain' in found and '95880430281' not in found
    assert any(line.split()[:4] == ['old', '>', '1', 'h'] for line in lines_of(found))
    assert 'old: its images are stamped 26,633 h before the clock of the node' in found
    assert '/bus/derain is there, but has not reported for 6 s' in errors


def test_once_without_a_node_says_so_and_fails():
    domain = new_domain()
    found = subprocess.run(
        [sys.executable, '-m', 'derain_ros.cli', 'top', '--once', '--wait', '1'],
        capture_output=True, text=True, timeout=60, check=False, env=ros_environment(domain))
    assert (found.returncode, lines_of(found.stdout)) == (1, [])
    line, = lines_of(found.stderr)
    assert f'ROS_DOMAIN_ID is {domain} here' in line


def test_live_view_needs_a_terminal(capsys):
    assert main(['top']) == 2
    assert '--once' in capsys.readouterr().err


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
