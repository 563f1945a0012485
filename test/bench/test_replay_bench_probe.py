"""The figures of ``derain replay-bench`` beside those of a probe that shares no code with it.

The probe is this file, run as a script: a plain rclpy node that publishes the same frames of the
bag at the same rate into a derain_node that the test has started, and takes the time itself.

The time of the inference depends on what else the machine does: on a busy one it differs by tens
of milliseconds from round to round, whoever measures. So two things are compared: the latency
less the inference that the node tells of each frame, which is what a wrong clock, a wrong match
of frames or a slow listener would show in; and the whole, as closely as the probe agrees with
itself.
"""

import json
import os
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from derain_ros.node.process_memory import profile_variable

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / 'test' / 'data' / 'driving_rain'
TOPIC = '/camera/image_raw/compressed'
SECONDS, RATE = 6.0, 10.0
ROUNDS = 5
# Both sides get what launch/derain.launch.py sets.
TUNED = {
    profile_variable(): str(ROOT / 'config' / 'fastdds.xml'),
    'MALLOC_MMAP_THRESHOLD_': str(32 << 20), 'MALLOC_TRIM_THRESHOLD_': str(256 << 20),
    'MALLOC_TOP_PAD_': str(16 << 20),
}


def probe(seconds, rate):
    """Publish and listen; returns frames a second and the median latency in ms."""
    from rosbags.rosbag2 import Reader
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_JAZZY)
    with Reader(CLIP) as reader:
        jpegs = [types.deserialize_cdr(data, connection.msgtype).data.tobytes()
                 for connection, _, data in reader.messages() if connection.topic == TOPIC]
    rclpy.init()
    node = rclpy.create_node('probe')
    reliable = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
    publisher = node.create_publisher(CompressedImage, TOPIC, reliable)
    arrived, inferred = {}, {}

    def on_status(message):
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        values = {pair.key: pair.value for pair in message.status[0].values}
        if values['infer_ms']:
            inferred[stamp] = float(values['infer_ms'])

    def on_image(data):
        arrived.setdefault(struct.unpack_from('<iI', data, 4), time.time())

    node.create_subscription(Image, '/camera/derained/image', on_image, reliable, raw=True)
    node.create_subscription(
        Image, '/camera/derained/rain_mask', lambda _: None, reliable, raw=True)
    node.create_subscription(
        DiagnosticArray, '/camera/derained/status', on_status, reliable)
    threading.Thread(target=rclpy.spin, args=(node,), daemon=True).start()

    def send(number):
        message = CompressedImage(format='jpeg', data=jpegs[number % len(jpegs)])
        message.header.stamp = node.get_clock().now().to_msg()
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        handed_over = time.time()
        publisher.publish(message)
        return stamp, handed_over

    def settled(sent):
        times = [arrived[stamp] - handed_over for stamp, handed_over in sent[-10:]
                 if stamp in arrived]
        return len(times) >= 8

    # Frames are passed through until the engine is ready; then it takes time for good.
    warm_up = []
    begin = time.monotonic()
    while time.monotonic() < begin + 8 or not settled(warm_up):
        assert time.monotonic() < begin + 90, 'the node does not answer'
        warm_up.append(send(len(warm_up)))
        time.sleep(0.15)
    time.sleep(1.0)
    sent = []
    begin = time.monotonic()
    for number in range(round(seconds * rate)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        sent.append(send(number))
    time.sleep(1.5)
    times = sorted(arrived[stamp] for stamp, _ in sent if stamp in arrived)
    latencies = {stamp: 1e3 * (arrived[stamp] - handed_over) for stamp, handed_over in sent
                 if stamp in arrived}
    rest = [latency - inferred[stamp] for stamp, latency in latencies.items()
            if stamp in inferred]
    return {'fps': (len(times) - 1) / (times[-1] - times[0]),
            'p50': statistics.median(latencies.values()), 'rest': statistics.median(rest),
            'arrived': len(times), 'sent': len(sent)}


def _probed(folder):
    """Start a node and the probe; returns what the probe found."""
    from ros_fixtures import NodeProcess, new_domain, process_ended, ros_environment

    domain = new_domain()
    with NodeProcess(folder, domain, {
            'rain_gate': False, 'camera.image_topic': TOPIC}, environment=TUNED) as node:
        answer = subprocess.run(
            [sys.executable, __file__], env=ros_environment(domain) | TUNED,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150)
        assert answer.returncode == 0, answer.stderr + node.log()
        process_ended(node.process, 2)
    return json.loads(answer.stdout.splitlines()[-1])


def _benched(folder):
    folder.mkdir()
    file = folder / 'replay.json'
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(
        [str(ROOT), os.environ.get('PYTHONPATH', '')])}
    answer = subprocess.run(
        [sys.executable, '-m', 'derain_ros.cli', 'replay-bench', str(CLIP), '--topics', TOPIC,
         '--seconds', f'{SECONDS:g}', '--param', 'rain_gate:=false', '--json', str(file)],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150)
    assert answer.returncode == 0, answer.stderr
    camera, = json.loads(file.read_text())['runs'][0]['cameras']
    frames = zip(camera['frames']['latency_ms'], camera['frames']['infer_ms'], strict=True)
    rest = [latency - infer for latency, infer in frames if None not in (latency, infer)]
    return {'fps': camera['fps'], 'p50': camera['latency_ms']['p50'],
            'rest': statistics.median(rest), 'arrived': camera['received'], 'sent': camera['sent']}


@pytest.mark.slow
def test_a_probe_of_another_make_finds_the_same(tmp_path):
    probed, benched = [], []
    for number in range(ROUNDS):  # in turns, so that what else runs here is shared
        probed.append(_probed(tmp_path / f'probe{number}'))
        benched.append(_benched(tmp_path / f'bench{number}'))
    print('probe:', *probed, 'replay-bench:', *benched, sep='\n')

    def median(found, name):
        return statistics.median(one[name] for one in found)

    assert {one['sent'] for one in probed + benched} == {round(SECONDS * RATE)}
    assert median(benched, 'fps') == pytest.approx(median(probed, 'fps'), rel=0.05)
    assert median(benched, 'rest') == pytest.approx(median(probed, 'rest'), abs=3.0)
    own = [one['p50'] for one in probed]
    assert median(benched, 'p50') == pytest.approx(
        median(probed, 'p50'), abs=max(3.0, max(own) - min(own)))


if __name__ == '__main__':
    print(json.dumps(probe(SECONDS, RATE)))
    sys.stdout.flush()
    os._exit(0)  # the spinning thread has nothing more to say
