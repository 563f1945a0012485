"""A running ``derain_node`` seen from another process.

The node and the probe are two processes joined by DDS alone. Whether the rain is gone is not
asserted here: with a ``strength`` near 0 the colour that goes in has to come out, after the
whole way through decoder, engine and encoder.
"""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from probe import Plan, counters
from ros_fixtures import PROFILE, localhost, new_domain

ROOT = Path(__file__).resolve().parents[2]
BAYER = [f'bayer_{pattern}{bits}' for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')
         for bits in (8, 16)]
YUV = ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'nv12', 'nv21']
CAMERAS = ('warm', 'varied', 'steady', 'lossy', 'packed', 'attacked', 'alone')
KEPT = ['bgr8', 'rgb8', 'bgra8', 'rgba8', 'mono8', 'mono16']
COLOUR = (40, 90, 170)
LIVE = {'strength': 0.001, 'enabled': True}
GREY = 108  # 0.114 * 40 + 0.587 * 90 + 0.299 * 170 = 108.2
OUTPUT = {
    'rgb8': [170, 90, 40], 'bgra8': [40, 90, 170, 77], 'rgba8': [170, 90, 40, 77],
    'mono8': [GREY], 'mono16': [GREY, GREY],
}


class RunningNode:
    """The node as a process, and a way to run a probe against it."""

    def __init__(self, directory):
        self.directory = directory
        self.environment = os.environ | localhost() | PROFILE | {
            'ROS_DOMAIN_ID': str(new_domain()),
            'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
            'ROS_LOG_DIR': str(directory / 'log'),
        }
        parameters = directory / 'parameters.yaml'
        parameters.write_text(json.dumps({'derain': {'ros__parameters': {
            'cameras': list(CAMERAS),
            'rain_gate': False,
            'packed': {'transport': 'compressed'},
        }}}))
        self.log = directory / 'node.log'
        with self.log.open('wb') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-m', 'derain_ros.node.main',
                 '--ros-args', '--params-file', str(parameters)],
                env=self.environment, stdout=log, stderr=subprocess.STDOUT,
            )

    def probe(self, plan):
        """Run a probe process to its end and return its report."""
        plan_path = self.directory / f'{plan.camera}.json'
        report_path = self.directory / f'{plan.camera}_report.json'
        plan_path.write_text(json.dumps(asdict(plan)))
        report_path.unlink(missing_ok=True)
        result = subprocess.run(
            [sys.executable, str(ROOT / 'test' / 'support' / 'probe.py'), str(plan_path),
             str(report_path)],
            env=self.environment, timeout=90, capture_output=True, text=True,
        )
        assert report_path.exists(), f'the probe failed:\n{result.stdout}{result.stderr}'
        report = json.loads(report_path.read_text())
        assert 'error' not in report, f'{report["error"]}; log of the node:\n{self.log_tail()}'
        assert self.process.poll() is None, f'the node ended; its log:\n{self.log_tail()}'
        return report

    def log_tail(self):
        """Return the end of the node's log."""
        return self.log.read_text(errors='replace')[-3000:]


@pytest.fixture(scope='module')
def node(tmp_path_factory):
    running = RunningNode(tmp_path_factory.mktemp('node'))
    # Until the engine is warm for the size, frames pass through.
    for _ in range(20):
        report = running.probe(Plan('warm', ['bgr8'], 5))
        if report['diagnostics'][-1]['/derain: warm']['derained'] != '0':
            break
    yield running
    running.process.send_signal(signal.SIGINT)
    try:
        code = running.process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        running.process.kill()
        pytest.fail(f'the node does not end on SIGINT; its log:\n{running.log_tail()}')
    assert code == 0, f'the node ended with {code}; its log:\n{running.log_tail()}'


def key(note):
    """Return what has to be the same on all outputs of a frame."""
    return (*note['stamp'], note['frame_id'], note['height'], note['width'])


def final_counters(report):
    """Check that the counters add up in every diagnostic; return the last ones."""
    name = f'/derain: {report["plan"]["camera"]}'
    entries = [entry[name] for entry in report['diagnostics'] if name in entry]
    for entry in entries:
        count = counters(entry)
        in_flight = count['received'] - sum(
            count[reason] for reason in ('published', 'dropped', 'failed', 'idle'))
        assert in_flight in (0, 1), count
    assert in_flight == 0, count
    return count


def check_outputs(report):
    """Check stamps, sizes and layout of all outputs; return the counters."""
    plan = report['plan']
    sent = {(*frame['stamp'], frame['frame_id'], plan['height'], plan['width']): frame
            for frame in report['sent']}
    images = [key(note) for note in report['image']]
    assert len(images) == len(set(images)) and set(images) <= set(sent)
    assert images == sorted(images), 'the order of the frames was changed'
    assert sorted(key(note) for note in report['rain_mask']) == images
    assert sorted(key(note) for note in report['camera_info']) == images
    for note in report['camera_info']:
        assert note['k'] == [500.5, 0.0, 320.0, 0.0, 501.5, 240.0, 0.0, 0.0, 1.0]
    for mask in report['rain_mask']:
        assert mask['encoding'] == 'mono8' and mask['step'] == plan['width']
        assert mask['length'] == plan['width'] * plan['height']
    for note in report['image']:
        encoding = sent[key(note)]['encoding']
        assert note['encoding'] == (encoding if encoding in KEPT else 'bgr8')
        assert note['length'] == note['step'] * note['height']
    count = final_counters(report)
    assert count['published'] == len(images)
    assert count['failed'] == 0 and count['idle'] == 0, count
    return count


def check_colours(report):
    """Check that the uniform colour that was sent came back."""
    encodings = {frame['frame_id']: frame['encoding'] for frame in report['sent']}
    for note in report['image']:
        encoding = encodings[note['frame_id']]
        expected = OUTPUT.get(encoding, list(COLOUR))
        assert note['mean'] == pytest.approx(expected, abs=2), encoding


def test_every_encoding(node):
    encodings = [*KEPT, *BAYER, *YUV]
    report = node.probe(Plan('varied', encodings, 2, COLOUR, parameters=LIVE, padding=12,
                             rate=50, wait_for_answer=True))
    assert report['parameters'] == [{'successful': True, 'reason': ''}] * 2
    count = check_outputs(report)
    check_colours(report)
    assert count['received'] == count['published'] == len(report['sent']) == 40
    status = report['diagnostics'][-1]['/derain: varied']
    for stage in ('decode', 'infer', 'publish', 'age'):
        latencies = [
            float(next(value for label, value in status.items()
                       if stage in label and percentile in label))
            for percentile in ('p50', 'p95', 'p99')
        ]
        assert latencies == sorted(latencies) and latencies[0] > 0 and latencies[2] < 20_000


# How many frames a slow machine drops is not judged, only that they are counted.
def test_reliable_stream(node):
    report = node.probe(Plan('steady', ['rgb8', 'yuyv'], 10, COLOUR, parameters=LIVE))
    count = check_outputs(report)
    check_colours(report)
    assert count['received'] == len(report['sent']) == 20
    assert len(report['image']) == 20 - count['dropped'] > 0


def test_best_effort_stream(node):
    report = node.probe(Plan('lossy', ['bgr8', 'nv12', 'bayer_grbg8', 'mono16'], 5, COLOUR,
                             reliability='best_effort', parameters=LIVE))
    count = check_outputs(report)
    check_colours(report)
    assert 18 <= count['received'] <= len(report['sent']) == 20
    assert len(report['image']) == count['received'] - count['dropped'] > 0


def test_compressed_stream_passes_through_a_disabled_node(node):
    report = node.probe(Plan('packed', ['jpeg', 'png'], 6, COLOUR,
                             parameters={'enabled': False, 'strength': 1.0}))
    assert all(answer['successful'] for answer in report['parameters'])
    count = check_outputs(report)
    check_colours(report)
    assert count['received'] == 12


def test_idle_frames_are_counted_and_the_diagnostics_are_complete(node):
    report = node.probe(Plan('alone', ['bgr8'], 6, listen=False))
    assert final_counters(report) == {
        'received': 6, 'published': 0, 'dropped': 0, 'failed': 0, 'idle': 6
    }
    last = report['diagnostics'][-1]
    assert set(last) == {'/derain: engine', *(f'/derain: {camera}' for camera in CAMERAS)}
    for name in ('engine', 'device', 'model', 'precision'):
        assert last['/derain: engine'][name]
    assert last['/derain: engine']['model'] == 'nano'


def test_a_good_frame_is_served_after_a_thousand_hostile_ones(node):
    report = node.probe(Plan('attacked', ['bgr8'], 1, COLOUR, hostile=1000, seed=2,
                             parameters=LIVE))
    (frame,) = report['sent']
    good = [note for note in report['image'] if note['frame_id'] == frame['frame_id']]
    assert len(good) == 1 and good[0]['stamp'] == frame['stamp']
    assert good[0]['mean'] == pytest.approx(COLOUR, abs=2)
    count = final_counters(report)
    assert count['failed'] > 100, count
    assert count['published'] == len(report['image'])
    log = node.log.read_text(errors='replace')
    assert '/attacked/image_raw' in log
    # The errors are throttled: a thousand wrong messages do not make a thousand lines.
    assert log.count('/attacked/image_raw') < 200
    assert re.search(r'/attacked/image_raw: \w+ is .*, expected .*; ', log)
