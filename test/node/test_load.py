"""Floods, slow and dying neighbours, full disks, and rain that comes and goes.

Everything talks over DDS between processes. Not asserted: frame rates and latencies of the real
engine (`derain bench` measures these), memory over a long time (`make soak`), and how well the
rain gate tells rain from dry weather (its own tests and docs/rain_gate.md).
"""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lens import Lens, paced
from rig import NODE, PARAMETERS, Rig, active_rig
from ros_fixtures import (
    PROFILE,
    NodeProcess,
    Peer,
    new_domain,
    output,
    process_ended,
    ros_environment,
    shared_segments,
    wait_for,
)
from sensor_msgs.msg import Image

from derain_ros.live.demo_drive import CLEAN_TOPIC
from derain_ros.live.played import load_frames
from derain_ros.rain import RainClip

CLIP = Path(__file__).parents[1] / 'data' / 'driving_rain'
CAMERA = """
import sys, time, rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('camera')
publisher = node.create_publisher(Image, sys.argv[1], 10)
width, height, rate = map(int, sys.argv[2:5])
data = bytes(range(256)) * (width * height * 3 // 256)
start = time.monotonic()
for number in range(10**9):
    message = Image(width=width, height=height, encoding='bgr8', step=3 * width, data=data)
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)
    time.sleep(max(0, start + number / rate - time.monotonic()))
"""
LISTENER = """
import sys, rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('listener')
node.create_subscription(Image, sys.argv[1], lambda _: print('image', flush=True), 10)
rclpy.spin(node)
"""
rig = active_rig({'cameras': ['front', 'wide'], 'watchdog_ms': 5000.0})


@contextmanager
def process(domain, code, *arguments):
    """Run Python code as a process; it is killed at the end, its output a pipe."""
    running = subprocess.Popen(
        [sys.executable, '-c', code, *map(str, arguments)], env=ros_environment(domain),
        stdout=subprocess.PIPE, text=True)
    os.set_blocking(running.stdout.fileno(), False)
    try:
        yield running
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def memory(process):
    """Return the resident memory of a process in MB."""
    status = Path(f'/proc/{process.pid}/status').read_text()
    return int(status.split('VmRSS:')[1].split()[0]) / 1024


def test_cameras_and_listeners_may_be_killed_and_come_back(rig):
    rig.heal()
    received = rig.peer.received[output('front')]
    rig.peer.listen(Image, output('front'))
    threads = []
    for _ in range(2):
        with process(rig.domain, CAMERA, '/front/image_raw', 64, 48, 20) as camera, \
                process(rig.domain, LISTENER, output('front')) as listener:
            wait_for(listener.stdout.readline, 'image at the listener')
            received.clear()
            os.kill(listener.pid, signal.SIGKILL)
            wait_for(lambda: len(received) > 20, 'images for who is left')
            os.kill(camera.pid, signal.SIGKILL)
        threads.append(rig.threads())
    assert threads[1] <= threads[0]
    wait_for(lambda: rig.peer.level('front') == DiagnosticStatus.WARN, 'warning')
    assert rig.node.process.poll() is None
    rig.peer.ignore(output('front'))


@pytest.mark.slow
def test_a_flood_is_thinned_out_and_not_queued(rig):
    front = Lens(rig.peer, 'front')
    rig.heal(front)
    rig.engine.command(infer_ms=20)
    before = memory(rig.node.process)
    with process(rig.domain, CAMERA, '/front/image_raw', 64, 48, 200):
        wait_for(lambda: len(front.images) > 20, 'images')
        start = rig.peer.counts('front')
        time.sleep(10)
        end = rig.peer.counts('front')
        values = rig.peer.values('front')
    assert end['received'] - start['received'] > 1000
    assert end['dropped'] > start['dropped']
    assert end['published'] - start['published'] > 200
    # One frame in work, one that waits, and what a busy machine adds.
    assert float(values['age_p95_ms']) < 100
    wait_for(lambda: len(front.images) == rig.peer.counts('front')['published'], 'all images')
    counts = rig.peer.counts('front')
    assert counts['received'] == sum(
        counts[key] for key in ('published', 'dropped', 'failed', 'idle'))
    assert memory(rig.node.process) < before + 20


def test_a_listener_that_does_not_listen_holds_nobody_up(rig):
    # Small frames, as those that nobody takes fill the shared memory of Fast DDS: with 640x480 it
    # is full after a moment, and with Fast DDS 3 nobody hears of anything any more.
    wide = Lens(rig.peer, 'wide')
    rig.heal(wide)
    with process(rig.domain, LISTENER, output('wide')) as listener:
        def heard():
            wide.send()
            time.sleep(0.1)
            return listener.stdout.readline()
        wait_for(heard, 'image at the listener')
        before = np.median([answer.seconds for answer in wide.play(20, 20)])
        # While it reads, it would stop with a part of Fast DDS's shared memory in its hands, which
        # can stall the other listeners, whatever the node does.
        time.sleep(0.5)
        os.kill(listener.pid, signal.SIGSTOP)
        answers = wide.play(40, 20)
        assert all(answer.derained for answer in answers)
        # Waiting for it would take 0.1 s for each message.
        assert np.median([answer.seconds for answer in answers]) < 3 * before + 0.1


def test_no_space_for_logs_while_running(rig):
    front = Lens(rig.peer, 'front')
    rig.heal(front)
    pid = rig.node.process.pid
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
    try:
        log = rig.node.log()
        rig.engine.command(mode='raise')
        assert all(answer.word == 'fault' for answer in front.play(3))
        rig.heal(front)
        assert front.answer(front.send()).derained
        assert rig.node.log() == log
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    assert front.answer(front.send()).derained


@pytest.mark.slow
def test_no_space_for_logs_at_the_start(tmp_path):
    full = tmp_path / 'full'
    full.mkdir()
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=16k', 'none', str(full)], check=False,
        capture_output=True)
    if mounted.returncode:
        pytest.skip('mounting a small tmpfs needs root')
    try:
        with (full / 'filler').open('wb', buffering=0) as filler, pytest.raises(OSError):
            while True:
                filler.write(bytes(4096))
        with Rig(tmp_path / 'node', {'cameras': ['front']}, (),
                 {'ROS_LOG_DIR': str(full)}) as rig:
            front = Lens(rig.active().peer, 'front')
            front.derains()
            rig.ends(signal.SIGTERM)
    finally:
        subprocess.run(['umount', '--lazy', str(full)], check=True)


@pytest.mark.slow
def test_a_killed_node_starts_again_beside_what_it_left_in_shared_memory(tmp_path):
    with Rig(tmp_path / 'first', {'cameras': ['front']}, (), PROFILE) as rig:
        front = Lens(rig.active().peer, 'front')
        front.derains()
        before = shared_segments()
        os.kill(rig.node.process.pid, signal.SIGKILL)
        rig.node.process.wait()
        left = before & shared_segments()
        assert max(segment.stat().st_size for segment in left) >= 64 << 20
        with NodeProcess(
                tmp_path / 'second', rig.domain, PARAMETERS | {'cameras': ['front']}, (),
                rig.engine.environment | PROFILE, NODE) as node, \
                Peer(rig.domain) as peer:
            peer.wait_for_state('active', node)
            again = Lens(peer, 'front')
            again.derains()
            # The camera that was there all along is heard, and hears, too.
            front.derains()
            assert process_ended(node.process, signal.SIGINT)[0] == 0


def test_rain_is_removed_when_it_comes_and_dry_frames_are_left_alone(tmp_path):
    dry = [cv2.resize(frame, (320, 180), interpolation=cv2.INTER_AREA)
           for frame in load_frames(CLIP, CLEAN_TOPIC)]
    shower = RainClip(0.5, 3)
    wet = [shower.render(frame, number, number / 10).image for number, frame in enumerate(dry)]
    domain = new_domain()
    parameters = {'cameras': ['front'], 'rain_gate_dry_after': 1.0, 'watchdog_ms': 10_000.0}
    with NodeProcess(tmp_path, domain, parameters) as node, Peer(domain) as peer:
        peer.wait_for_state('active', node)
        front = Lens(peer, 'front')
        topics = peer.get_topic_names_and_types()
        answers = []

        def play(pictures, frames):
            """Send frames at 10 Hz at most, each to be answered before the next."""
            found = [front.answer(front.send(picture=pictures[number % len(pictures)]))
                     for number in paced(frames, 10)]
            answers.extend(found)
            return found
        wait_for(lambda: play(dry, 5)[-1].word == 'bypassed', 'word that it is dry', 240)
        for answer in play(dry, 10):
            assert answer.word == 'bypassed' and answer.identical
            assert answer.values['infer_ms'] == ''
        assert peer.values('front')['gate'] == 'dry'
        rainy = play(wet, 20)
        active = [answer for answer in rainy if answer.word == 'derained']
        assert len(active) > 10 and rainy[-len(active):] == active
        assert not any(answer.identical for answer in active)
        assert float(active[-1].values['rain_intensity']) > 0.02
        words = [word for word, _ in groupby(answer.word for answer in answers)]
        # The first frames pass through while the engine warms up.
        assert words in (['derained', 'bypassed', 'derained'],
                         ['fault', 'derained', 'bypassed', 'derained'])
        assert peer.get_topic_names_and_types() == topics
