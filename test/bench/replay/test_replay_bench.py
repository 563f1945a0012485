"""``derain replay-bench``: its arithmetic, and real runs of bags through a real node.

What is not asserted: how fast the node is. That its figures are right is for
test_replay_bench_probe.py to tell, beside a probe of another make.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from bag_files import COMPRESSED, IMAGE, START, TYPES, compressed, header, image, write_bag
from rclpy.serialization import deserialize_message, serialize_message
from ros_fixtures import ROOT
from sensor_msgs.msg import CameraInfo

from derain_ros.bags.damage import BagError
from derain_ros.bench.replay import played_bag, run_figures, session
from derain_ros.bench.replay.pacing import Pacer, Stamps, restamped
from derain_ros.bench.replay.played_bag import PlayedCamera
from derain_ros.bench.replay.read_ahead import ReadAhead
from derain_ros.bench.replay.run_figures import ProcessSample, ReplayedFrame
from derain_ros.bench.replay.run_tables import notes, run_table
from derain_ros.bench.replay.search import Trial, best, search, to_confirm
from derain_ros.cli import main
from derain_ros.files.run_files import read_run

CLIP = ROOT / 'test' / 'data' / 'driving_rain'
MILLI = 10**6
INFO = 'sensor_msgs/msg/CameraInfo'
COUNT_KEYS = {'received', 'published', 'dropped', 'failed', 'idle', 'derained', 'bypassed',
              'passed_through'}
SHARES = {'p50', 'p90', 'p95', 'p99', 'max'}


# The search, on loss curves worked out by hand

def _tried(limit, start=1.0):
    """Search where up to a limit nothing is lost, and half above it."""
    def measure(factor):
        return Trial(factor, 0.0 if factor <= limit else 0.5, factor <= limit)

    return search(measure, measure(start))


def test_the_search_doubles_then_halves_the_gap_then_steps_up():
    tried = _tried(2.7)
    # 2.75 / 2.5 is 1.1; 2.5 * 1.05 = 2.625 holds; 2.625 * 1.05 is beyond 2.75, which failed.
    assert [one.factor for one in tried] == [1, 2, 4, 3, 2.5, 2.75, 2.625]
    assert best(tried).factor == 2.625


def test_the_search_goes_down_where_the_recorded_rate_is_too_much():
    # 0.5, then between 0.25 and 0.5: 0.375 fails, 0.3125, 0.34375; 0.328125 after 5 %.
    tried = _tried(0.33)
    assert [one.factor for one in tried] == [
        1, 0.5, 0.25, 0.375, 0.3125, 0.3438, 0.3281]
    assert best(tried).factor == 0.3281


def test_the_search_ends_where_all_or_nothing_is_sustained():
    assert [one.factor for one in _tried(1000)] == [1, 2, 4, 8, 16, 32, 64]
    tried = _tried(0)
    assert tried[-1].factor == 1 / 64 or tried[-1].factor == 0.0156
    assert best(tried) is None and list(to_confirm(tried, 1.0)) == []


def test_the_best_factor_is_confirmed_in_full_and_lower_ones_if_it_does_not_hold():
    tried = _tried(2.7)
    assert list(to_confirm(tried, 1.0)) == [2.625, 2.5, 2.381, 2.2676, 2.1596]
    tried = _tried(1.07)
    # Up from 1.0625, 1.1156 fails below 1.125, which failed before.
    assert [one.factor for one in tried] == [1, 2, 1.5, 1.25, 1.125, 1.0625, 1.1156]
    # The recorded rate itself was played in full already.
    assert list(to_confirm(tried, 1.0)) == [1.0625, 1.0119]
    assert list(to_confirm([Trial(1.0, 0.0, True)], 1.0)) == []


class _Curve:
    """A node whose loss is a function of the factor, in place of a ReplayBench."""

    def __init__(self, loss):
        self.recording = played_bag.PlayedBag(Path('drive'), (), period=4 * 10**9)
        self.loss = loss
        self.played = []

    def play(self, factor, seconds):
        self.played.append((factor, seconds))
        return {'factor': factor, 'loss': self.loss(factor, seconds), 'fps': 10 * factor,
                'pacing': {'kept': True}}


def test_runs_in_full_and_trials_have_their_lengths_and_only_what_held_is_the_highest():
    # Trials of 2 s hold up to 2, runs in full (4 s of the bag, 2 s at least) up to 1.95.
    curve = _Curve(lambda factor, seconds: 0.0 if factor <= (
        2 if len(curve.played) < 5 else 1.95) else 0.02)
    told = []
    runs, found = session.measure(
        curve, factor=1.0, seconds=None, loss_limit=0.01, trial_seconds=2.0,
        told=lambda kind, _: told.append(kind))
    # 1 in full; 2 holds, 4, 3, 2.5, 2.25, 2.125 fail; 2.1 fails; 2 in full fails, 1.9048 holds.
    assert [factor for factor, _ in curve.played] == [
        1, 2, 4, 3, 2.5, 2.25, 2.125, 2.1, 2, 1.9048]
    assert [seconds for _, seconds in curve.played] == [
        4, *[2] * 7, 2, pytest.approx(4 / 1.9048)]
    assert told == ['run', *['trial'] * 7, 'run', 'run']
    assert [run['factor'] for run in runs] == [1, 1.9048]
    assert found['highest_factor'] == 1.9048 and found['highest_fps'] == pytest.approx(19.048)
    assert found['loss_limit'] == 0.01 and len(found['tried']) == 10
    assert session.search_note(found) == 'sustained up to 1.9048x: 19.0 fps (1 % loss)'


def test_without_a_search_there_is_one_run_and_nothing_found():
    curve = _Curve(lambda *_: 0.5)
    runs, found = session.measure(
        curve, factor=2.0, seconds=7.0, loss_limit=0.01, trial_seconds=None,
        told=lambda *_: None)
    assert curve.played == [(2.0, 7.0)] and len(runs) == 1 and found is None


# Figures

def test_percentiles_and_rates_of_what_is_known():
    assert run_figures.percentiles([10, 20, None, 30, 40, 50]) == {
        'p50': 30, 'p90': 46, 'p95': 48, 'p99': pytest.approx(49.6), 'max': 50}
    assert run_figures.percentiles([None]) == dict.fromkeys(SHARES)
    assert run_figures.rate([0, 100 * MILLI, 200 * MILLI, 400 * MILLI]) == pytest.approx(7.5)
    assert run_figures.rate([5]) == 0 and run_figures.rate([5, 5]) == 0


def test_no_share_of_the_processor_is_of_a_moment():
    samples = [ProcessSample(time, cpu, 100.0) for time, cpu in (
        (0, 0.0), (0.5, 0.25), (1.0, 0.5), (1.05, 0.5))]
    played = {'seconds': 1.0, 'late_ns': [0], 'starved': 0}
    found = run_figures.run_figures(1.0, 1.0, played, samples, [], {}, {})['samples']
    assert found['time_s'] == [0.5, 1.05]
    assert found['cpu_percent'] == [50.0, pytest.approx(45.5)]
    # A last step of usual length stays.
    found = run_figures.run_figures(1.0, 1.0, played, samples[:3], [], {}, {})['samples']
    assert found['time_s'] == [0.5, 1.0]


def test_a_player_has_kept_pace_if_it_was_in_time_at_the_end():
    assert run_figures.kept_pace([0] * 99 + [MILLI], 10)
    assert run_figures.kept_pace([900 * MILLI] * 50 + [0] * 50, 10)
    assert not run_figures.kept_pace([n * 10 * MILLI for n in range(100)], 10)
    assert not run_figures.kept_pace([], 10)


def _status(**counts):
    return {key: str(counts.get(key, 0)) for key in COUNT_KEYS}


def test_the_figures_of_a_run():
    camera = PlayedCamera('front', '/front/image_raw', IMAGE, '/front/camera_info', False)
    rear = replace(camera, name='rear', topic='/rear/image_raw')
    # Every 100 ms: one with 20 ms, one lost, one that was too short for a stamp, one with 40 ms.
    sent = [1000, 1100, 1200, 1300]
    frames = [
        ReplayedFrame(999 * MILLI, 1000 * MILLI, 1020 * MILLI, 'derained', 15.5, 0.25),
        ReplayedFrame(1099 * MILLI, 1100 * MILLI, None, 'dropped', None, 0.25),
        ReplayedFrame(None, 1200 * MILLI, None),
        ReplayedFrame(1299 * MILLI, 1300 * MILLI, 1340 * MILLI, 'bypassed', None, None)]
    run = run_figures.run_figures(
        2.0, 0.4,
        {'late_ns': [0, MILLI, 0, 3 * MILLI], 'seconds': 0.3, 'starved': 0},
        [ProcessSample(5.0, 1.0, 100.0), ProcessSample(5.2, 1.1, 110.0),
         ProcessSample(5.4, 1.3, 130.0)],
        [camera, rear], {camera.topic: frames, rear.topic: []},
        {camera.topic: (_status(received=5, published=5, derained=5),
                        _status(received=8, published=7, derained=6, bypassed=1, dropped=1)),
         rear.topic: (_status(), _status())})
    assert (run['sent'], run['received'], run['loss'], run['fps']) == (4, 2, 0.5, 5.0)
    assert (run['cpu_percent'], run['cpu_ms_per_frame']) == (75.0, 150.0)
    assert run['rss_mib'] == {'median': 110.0, 'max': 130.0}
    assert run['samples'] == {
        'time_s': [0.2, 0.4], 'cpu_percent': [50.0, 100.0], 'rss_mib': [110.0, 130.0]}
    assert run['pacing']['kept'] and run['pacing']['late_ms']['max'] == 3
    front, silent = run['cameras']
    assert (front['sent'], front['received'], front['loss']) == (4, 2, 0.5)
    assert (front['offered_fps'], front['fps']) == (10.0, 5.0)
    assert front['counts'] == {
        'received': 3, 'published': 2, 'dropped': 1, 'failed': 0, 'idle': 0, 'derained': 1,
        'bypassed': 1, 'passed_through': 0}
    assert front['latency_ms']['p50'] == 30 and front['age_ms']['p50'] == 31
    assert front['infer_ms'] == dict.fromkeys(SHARES, 15.5)
    assert front['frames'] == {
        'sent_s': [(time - sent[0]) / 1000 for time in sent],
        'latency_ms': [20, None, None, 40], 'age_ms': [21, None, None, 41],
        'infer_ms': [15.5, None, None, None],
        'outcome': ['derained', 'dropped', None, 'bypassed'],
        'rain_intensity': [0.25, 0.25, None, None]}
    assert (silent['sent'], silent['loss'], silent['infer_ms']) == (0, None, None)
    json.dumps(run, allow_nan=False)
    found = notes(run)
    assert any('1 of 2 frames were bypassed' in note for note in found)
    assert any('1 frames did not reach the node' in note for note in found)
    assert '50.0 %' in run_table(run)


# Pacing

@pytest.mark.parametrize('order', ['little', 'big'])
def test_a_message_keeps_every_byte_but_those_of_its_stamp(order):
    message = TYPES.types[INFO.replace('CameraInfo', 'CompressedImage')](
        header=header(START), format='jpeg', data=np.arange(9, dtype=np.uint8))
    data = bytes(TYPES.serialize_cdr(message, COMPRESSED, little_endian=order == 'little'))
    stamp = 1_800_000_000_123_456_789
    found = restamped(data, stamp)
    assert found[:4] + found[12:] == data[:4] + data[12:]
    read = TYPES.deserialize_cdr(found, COMPRESSED)
    assert (read.header.stamp.sec, read.header.stamp.nanosec) == divmod(stamp, 10**9)
    assert [restamped(data[:length], stamp) for length in (0, 3, 11)] == [None] * 3
    assert restamped(data[:12], stamp) == found[:12]


def test_stamps_of_a_topic_are_all_different():
    stamps = Stamps(clock=lambda: 7)
    assert [stamps.next('/a') for _ in range(3)] == [7, 8, 9]
    assert stamps.next('/b') == 7


def test_messages_wait_until_they_are_due_and_lateness_is_not_handed_on():
    now = [0]

    def sleep(seconds):
        now[0] += round(seconds * 1e9)

    pacer = Pacer(2.0, clock=lambda: now[0], sleep=sleep)
    let_go = []
    for offset in (0, 100, 200, 300, 400):
        pacer.wait(offset * MILLI)
        let_go.append(now[0] // MILLI)
        if offset == 100:
            now[0] += 70 * MILLI  # publishing took long
    assert let_go == [0, 50, 120, 150, 200]
    assert pacer.late == [0, 0, 20 * MILLI, 0, 0]


def test_a_recording_begins_again_when_its_slowest_camera_is_due():
    ten_hertz, four_hertz = [0, 100, 200, 300], [50, 300]
    assert played_bag.loop_period([ten_hertz], 0) == 400
    # The second camera has an interval of 250: its next frame is due at 550.
    assert played_bag.loop_period([ten_hertz, four_hertz], 0) == 500
    assert played_bag.loop_period([[0], [5 * 10**9]], 0) == 5 * 10**9 + 1


def test_reading_ahead_is_bounded_in_bytes_and_keeps_order_and_errors():
    given = []

    def source():
        for number in range(20):
            given.append(number)
            yield number, '/a', bytes(100)
        raise BagError('torn')

    with ReadAhead(source(), limit=500) as ahead:
        ahead.wait_until_full(5)
        time.sleep(0.1)
        # Five in the buffer, one in the hand.
        assert len(given) == 6
        found = []
        with pytest.raises(BagError, match='torn'):
            while True:
                found.append(ahead.take()[0][0])
        assert found == list(range(20))
    with ReadAhead(iter([(0, '/a', bytes(10**6))]), limit=10) as ahead:
        assert ahead.take()[0][2] == bytes(10**6)
        assert ahead.take() == (None, False)


def test_waiting_for_the_disk_is_noticed():
    def slow():
        for number in range(3):
            time.sleep(0.05)
            yield number, '/a', b'x'

    with ReadAhead(slow()) as ahead:
        assert [ahead.take()[1] for _ in range(3)] == [True] * 3


def test_leaving_early_stops_the_reading():
    def endless():
        while True:
            yield 0, '/a', bytes(1000)

    with ReadAhead(endless(), limit=5000) as ahead:
        ahead.take()
    assert not ahead._thread.is_alive()


# What is played of a bag

def _drive(tmp_path, extra=(), name='drive'):
    """Two cameras, 20 Hz raw with camera_info and 8 Hz compressed, for a second and a half."""
    rows = []
    for number in range(30):
        rows.append((START + number * 50_000_000, '/front/image_raw', IMAGE,
                     image(number, START - 5)))
        info = CameraInfo(height=64, width=96)
        info.header.frame_id = 'cam_frame'
        rows.append((START + number * 50_000_000 + 1, '/front/camera_info', INFO,
                     serialize_message(info)))
    for number in range(12):
        rows.append((START + number * 125_000_000 + 10_000_000, '/rear/image_raw/compressed',
                     COMPRESSED, compressed(number, START - 5)))
    rows += extra
    rows.sort(key=lambda row: row[0])
    return write_bag(tmp_path / name, [
        (topic, msgtype, when, message) for when, topic, msgtype, message in rows])


def test_what_a_bag_is_found_to_hold_survives_the_way_to_the_player(tmp_path):
    truths = [(START, '/front/image_raw/dry', IMAGE, image(0, START))]
    found = played_bag.scan(_drive(tmp_path, truths), None)
    assert [camera.name for camera in found.cameras] == ['front', 'rear']
    assert found.counts == {'/front/image_raw': 30, '/rear/image_raw/compressed': 12}
    assert found.start == START and found.period == 1_500_000_000
    assert [camera.has_info for camera in found.cameras] == [True, False]
    assert found.cameras[1].parameters() == {
        'rear.image_topic': '/rear/image_raw', 'rear.transport': 'compressed',
        'rear.camera_info_topic': '/rear/camera_info',
        'rear.output_namespace': '/rear/derained'}
    assert {topic: len(samples) for topic, samples in found.samples.items()} == {
        '/front/image_raw': 1, '/rear/image_raw/compressed': 1}
    found.write(tmp_path / 'play.json')
    again = played_bag.read_recording(tmp_path / 'play.json')
    assert again == replace(found, bag=found.bag.absolute())
    named = played_bag.scan(tmp_path / 'drive', ['/front/image_raw/dry'])
    assert [camera.topic for camera in named.cameras] == ['/front/image_raw/dry']


def test_frames_of_every_size_are_found_for_the_warm_up(tmp_path):
    def sized(number, height, width):
        return image(number, START, height=height, width=width, step=3 * width,
                     data=np.zeros(3 * height * width, np.uint8))

    rows = [('/cam/image_raw', IMAGE, START + number, sized(number, *size))
            for number, size in enumerate([(64, 96), (64, 96), (48, 80), (64, 96)])]
    found = played_bag.scan(write_bag(tmp_path / 'bag', rows), None)
    assert len(found.samples['/cam/image_raw']) == 2


def test_a_bag_is_repeated_with_times_that_go_on_and_cut_where_told(tmp_path):
    found = played_bag.scan(_drive(tmp_path), ['rear/image_raw'])
    messages = list(played_bag.repeated(found, 4e9))
    assert len(messages) == 32
    times = [offset for offset, _, _ in messages]
    assert times[:2] == [0, 125_000_000] and set(np.diff(times)) == {125_000_000}
    assert messages[0][2] == messages[12][2]
    assert len(list(played_bag.repeated(found, 125e6))) == 1


@pytest.mark.parametrize(('rows', 'topics', 'said'), [
    ([('/a', IMAGE, START, image(0, START))], ['/b'], '/b is not an image topic'),
    ([('/a', INFO, START, serialize_message(CameraInfo()))], None, 'no Image or Compressed'),
    ([('/bad name/image', IMAGE, START, image(0, START))], None, 'cannot be published'),
    ([('/a/image', IMAGE, START, image(0, START)),
      ('/a/image/compressed', COMPRESSED, START, compressed(0, START))], None, '--topics'),
])
def test_what_cannot_be_played_is_refused(tmp_path, rows, topics, said):
    bag = write_bag(tmp_path / 'bag', rows)
    with pytest.raises(BagError, match=said):
        played_bag.scan(bag, topics)


def test_names_of_cameras_are_such_as_the_node_takes():
    assert played_bag.camera_name('/4k/left__eye') == 'camera_4k_left_eye'
    assert played_bag.camera_name('/model') == 'camera_model'
    assert played_bag.camera_name('', ['camera']) == 'camera_2'


# The command

@pytest.mark.parametrize(('arguments', 'said'), [
    (['/nowhere'], '/nowhere: no such bag'),
    ([CLIP, '--param', 'rain_gat:=false'], 'did you mean rain_gate?'),
    ([CLIP, '--param', 'rain_gate=false'], 'expected NAME:=VALUE'),
    ([CLIP, '--param', 'camera.image_topic:=/a'], 'is set by replay-bench itself'),
    ([CLIP, '--param', 'front.sync_group:=a'], 'the cameras of this bag are camera'),
    ([CLIP, '--rate', '0'], 'not a positive number'),
    ([CLIP, '--loss', '100'], 'not a percentage'),
    ([CLIP, '--json', '/proc/a/b.json'], '/proc/a'),
    ([CLIP, '--topics', '/none'], '/none is not an image topic'),
])
def test_wrong_arguments_are_told_before_anything_starts(capsys, arguments, said):
    try:
        status = main(['replay-bench', *map(str, arguments)])
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert said in capsys.readouterr().err


def _processes_of(folder):
    """Return the processes whose environment names a folder."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if f'REPLAY_TEST={folder}'.encode() in (process / 'environ').read_bytes():
                found.append((process / 'cmdline').read_bytes().replace(b'\0', b' ').decode())
        except OSError:
            continue
    return found


def _bench(folder, *arguments):
    """Start the command."""
    environment = os.environ | {
        'REPLAY_TEST': str(folder), 'PYTHONUNBUFFERED': '1', 'PYTHONPATH': os.pathsep.join(
            [str(ROOT), os.environ.get('PYTHONPATH', '')])}
    return subprocess.Popen(
        [sys.executable, '-m', 'derain_ros.cli', 'replay-bench', *map(str, arguments)],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)


def _finished(folder, *arguments):
    process = _bench(folder, *arguments)
    try:
        output, errors = process.communicate(timeout=150)
    finally:
        process.kill()
    assert not _processes_of(folder)
    return process.returncode, output, errors


def test_a_recorded_drive_is_measured(tmp_path):
    file = tmp_path / 'replay.json'
    status, output, errors = _finished(
        tmp_path, CLIP, '--topics', '/camera/image_raw', '--rate', '0.5', '--seconds', '3',
        '--json', file, '--param', 'rain_gate:=false')
    assert status == 0, errors
    assert 'nano on ' in output and 'camera' in output and 'RSS' in output
    assert [line for line in errors.splitlines() if not line.startswith('derain: ')] == []
    found = read_run(file)
    assert set(found) == {'format', 'kind', 'versions', 'host', 'model', 'bag', 'parameters',
                          'mask', 'runs', 'search'}
    assert (found['kind'], found['search'], found['mask']) == ('replay', None, True)
    assert found['parameters'] == {'model': 'nano', 'engine': 'auto', 'rain_gate': 'false'}
    assert set(found['model']) == {'model', 'file', 'sha256', 'engine', 'device', 'precision'}
    assert all(found['model'].values())
    assert [one['name'] for one in found['bag']['files']] == ['driving_rain.mcap']
    run, = found['runs']
    assert run['factor'] == 0.5 and 2.7 <= run['seconds'] < 3.5
    assert run['sent'] == 15 >= run['received'] >= 12
    assert run['loss'] == pytest.approx(1 - run['received'] / 15, abs=1e-5)
    assert run['pacing']['starved'] == 0
    assert 0 < run['cpu_percent'] < 400 and run['cpu_ms_per_frame'] > 1
    assert 50 < run['rss_mib']['median'] <= run['rss_mib']['max'] < 4000
    samples = run['samples']
    assert len(samples['time_s']) == len(samples['cpu_percent']) == len(samples['rss_mib']) >= 4
    assert samples['time_s'] == sorted(samples['time_s'])
    camera, = run['cameras']
    assert (camera['topic'], camera['camera']) == ('/camera/image_raw/compressed', 'camera')
    assert camera['offered_fps'] == pytest.approx(5, rel=0.1)
    assert camera['fps'] == pytest.approx(camera['offered_fps'] * run['received'] / 15, abs=0.01)
    counts = camera['counts']
    assert set(counts) == COUNT_KEYS
    assert counts['received'] == 15 and counts['bypassed'] == counts['failed'] == 0
    assert counts['published'] == run['received'] == counts['derained'] + counts['passed_through']
    frames = camera['frames']
    assert {len(column) for column in frames.values()} == {15}
    assert sum(time is not None for time in frames['latency_ms']) == run['received']
    for name in ('latency_ms', 'age_ms', 'infer_ms'):
        assert set(camera[name]) == SHARES
        known = [time for time in frames[name] if time is not None]
        assert camera[name]['max'] == pytest.approx(max(known), abs=0.002)
        assert camera[name]['p50'] == pytest.approx(float(np.median(known)), abs=0.002)
    for latency, age, infer, outcome, rain in zip(
            frames['latency_ms'], frames['age_ms'], frames['infer_ms'], frames['outcome'],
            frames['rain_intensity'], strict=True):
        if outcome == 'derained':
            assert infer < latency <= age < latency + 50
            assert 0 < rain < 1
    assert frames['outcome'].count('derained') == counts['derained']


def test_cameras_of_two_rates_and_a_torn_topic(tmp_path):
    torn = bytes(TYPES.serialize_cdr(image(0, START), IMAGE))
    extra = [(START + number * 250_000_000, '/torn/image_raw', IMAGE, torn[:cut])
             for number, cut in enumerate([12, len(torn) - 50, 90, 40])]
    # No stamp fits into these.
    extra.append((START + 900_000_000, '/torn/image_raw', IMAGE, torn[:7]))
    bag = _drive(tmp_path, extra)
    file = tmp_path / 'replay.json'
    status, output, errors = _finished(
        tmp_path, bag, '--seconds', '3', '--json', file, '--param', 'rain_gate:=false')
    assert status == 0, errors
    run, = read_run(file)['runs']
    front, rear, broken = sorted(run['cameras'], key=lambda camera: camera['camera'])
    assert [one['camera'] for one in (front, rear, broken)] == ['front', 'rear', 'torn']
    assert (front['sent'], rear['sent'], broken['sent']) == (60, 24, 10)
    assert front['offered_fps'] == pytest.approx(20, rel=0.1)
    assert rear['offered_fps'] == pytest.approx(8, rel=0.1)
    for camera in (front, rear):
        assert camera['received'] >= 0.7 * camera['sent']
        assert camera['counts']['failed'] == 0
        assert camera['received'] == camera['counts']['published']
    assert broken['received'] == 0 and broken['loss'] == 1
    assert broken['counts']['failed'] == broken['counts']['received'] > 0
    assert broken['latency_ms'] == dict.fromkeys(SHARES) and broken['infer_ms'] is None
    assert run['sent'] == 94
    assert run['loss'] == pytest.approx(1 - run['received'] / 94, abs=1e-5)
    assert f'could not read or derain {broken["counts"]["failed"]} frames of /torn' in output


def test_a_node_that_does_not_start_is_told_with_its_reason(tmp_path):
    status, output, errors = _finished(tmp_path, CLIP, '--model', 'nope')
    assert status == 1 and output == ''
    assert 'derain: error: ' in errors and "unknown model 'nope'" in errors
    assert 'Traceback' not in errors


@pytest.mark.parametrize(('number', 'expected'), [
    (signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ('node', 1)])
def test_no_process_is_left_behind(tmp_path, number, expected):
    process = _bench(tmp_path, CLIP, '--topics', '/camera/image_raw', '--seconds', '60')
    try:
        line = process.stdout.readline()  # the engine is ready, and playing begins
        assert 'nano on ' in line, process.stderr.read()
        time.sleep(1.0)
        running = _processes_of(tmp_path)
        assert any('derain_ros.node.main' in command for command in running)
        assert any('bench.replay.player' in command for command in running)
        if number == 'node':
            _kill_node(tmp_path)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == expected, errors
    assert not _processes_of(tmp_path)
    assert 'Traceback' not in errors
    if number == 'node':
        assert 'the node ended with status -9' in errors


def _kill_node(folder):
    for process in Path('/proc').glob('[0-9]*'):
        try:
            environment = (process / 'environ').read_bytes()
            command = (process / 'cmdline').read_bytes()
        except OSError:
            continue
        if f'REPLAY_TEST={folder}'.encode() in environment and b'derain_ros.node.main' in command:
            os.kill(int(process.name), signal.SIGKILL)


def test_the_messages_of_the_warm_up_are_real_ones(tmp_path):
    found = played_bag.scan(_drive(tmp_path), None)
    info = deserialize_message(found.infos['/front/camera_info'], CameraInfo)
    assert (info.width, info.header.frame_id) == (96, 'cam_frame')
