"""``derain replay-bench``: its arithmetic, and real runs of bags through a real node.

What is not asserted: how fast the node is.
"""

import json
import math
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_files import COMPRESSED, IMAGE, START, TYPES, compressed, image, write_bag
from lens import Lens
from played_drives import played_drive
from ros_fixtures import PROFILE, ROOT, NodeProcess, Peer, new_domain
from started_commands import started

from derain_ros.bench import replay_runs
from derain_ros.bench.measures import ProcessFigures
from derain_ros.bench.replay_runs import (
    Trial,
    best,
    measure,
    notes,
    run_table,
    search,
    search_note,
    to_confirm,
)
from derain_ros.live.listener import Told
from derain_ros.live.played import Played, PlayedCamera, PlayedFrame
from derain_ros.live.processes import ALLOCATOR

CLIP = ROOT / 'test' / 'data' / 'driving_rain'
MILLI = 10**6
COUNT_KEYS = {'received', 'published', 'dropped', 'failed', 'idle', 'derained', 'bypassed',
              'passed_through'}
SHARES = {'p50', 'p90', 'p95', 'p99', 'max'}


@pytest.fixture(name='command')
def _command():
    yield from started()


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
    assert best(tried) == 2.625


def test_the_search_goes_down_where_the_recorded_rate_is_too_much():
    # 0.5, then between 0.25 and 0.5: 0.375 fails, 0.3125, 0.34375; 0.328125 after 5 %.
    tried = _tried(0.33)
    assert [one.factor for one in tried] == [
        1, 0.5, 0.25, 0.375, 0.3125, 0.3438, 0.3281]
    assert best(tried) == 0.3281


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


def _measured(loss, **options):
    """Play a bag of 4 s into a node whose loss is a function of the runs so far and the factor."""
    played, told = [], []

    def play(factor, seconds):
        played.append((factor, seconds))
        return {'factor': factor, 'loss': loss(len(played), factor), 'fps': 10 * factor,
                'pacing': {'kept': True}}

    runs, found = measure(
        play, 4.0, loss_limit=0.01, told=lambda kind, _: told.append(kind), **options)
    return played, told, runs, found


def test_runs_in_full_and_trials_have_their_lengths_and_only_what_held_is_the_highest():
    # Trials of 2 s hold up to 2, runs in full (4 s of the bag, 2 s at least) up to 1.95.
    played, told, runs, found = _measured(
        lambda count, factor: 0.0 if factor <= (2 if count < 5 else 1.95) else 0.02,
        factor=1.0, seconds=None, trial_seconds=2.0)
    # 1 in full; 2 holds, 4, 3, 2.5, 2.25, 2.125 fail; 2.1 fails; 2 in full fails, 1.9048 holds.
    assert [factor for factor, _ in played] == [
        1, 2, 4, 3, 2.5, 2.25, 2.125, 2.1, 2, 1.9048]
    assert [seconds for _, seconds in played] == [
        4, *[2] * 7, 2, pytest.approx(4 / 1.9048)]
    assert told == ['run', *['trial'] * 7, 'run', 'run']
    assert [run['factor'] for run in runs] == [1, 1.9048]
    assert found['highest_factor'] == 1.9048 and found['highest_fps'] == pytest.approx(19.048)
    assert found['loss_limit'] == 0.01 and len(found['tried']) == 10
    assert search_note(found) == 'sustained up to 1.9048x: 19.0 fps (1 % loss)'
    none = {'loss_limit': 0.01, 'highest_factor': None, 'tried': [{'factor': 0.01}]}
    assert search_note(none) == 'not sustained at any factor tried, down to 0.01x (1 % loss)'


# Figures

def test_percentiles_of_what_is_known():
    assert replay_runs.percentiles([10, 20, math.nan, 30, 40, 50]) == {
        'p50': 30, 'p90': 46, 'p95': 48, 'p99': pytest.approx(49.6), 'max': 50}
    assert replay_runs.percentiles([math.nan]) == dict.fromkeys(SHARES)


def _played(frames, before=None, after=None, late=(0,), seconds=1.0):
    return Played(frames, before or {}, after or {}, {}, seconds, late, 0)


def _sample(seconds, cpu, rss):
    return ProcessFigures(round(seconds * 1e9), cpu, rss)


def test_no_share_of_the_processor_is_of_a_moment():
    samples = [_sample(time, cpu, 100.0) for time, cpu in (
        (0, 0.0), (0.5, 0.25), (1.0, 0.5), (1.05, 0.5))]
    played = _played({})
    found = replay_runs.run_figures(1.0, 1.0, played, samples, [])['samples']
    assert found['time_s'] == [0.5, 1.05]
    assert found['cpu_percent'] == [50.0, pytest.approx(45.5)]
    # A last step of usual length stays.
    found = replay_runs.run_figures(1.0, 1.0, played, samples[:3], [])['samples']
    assert found['time_s'] == [0.5, 1.0]


def test_a_player_has_kept_pace_if_it_was_in_time_at_the_end():
    assert replay_runs.kept_pace([0] * 99 + [MILLI], 10)
    assert replay_runs.kept_pace([900 * MILLI] * 50 + [0] * 50, 10)
    assert not replay_runs.kept_pace([n * 10 * MILLI for n in range(100)], 10)
    assert not replay_runs.kept_pace([], 10)


def _status(**counts):
    return {key: str(counts.get(key, 0)) for key in COUNT_KEYS}


def test_the_figures_of_a_run():
    camera = PlayedCamera(
        'front', '/front/image_raw', IMAGE, '/front/camera_info', False, '/front')
    rear = replace(camera, name='rear', topic='/rear/image_raw', namespace='/rear')
    # Every 100 ms: one with 20 ms, one lost, one that was too short for a stamp, one with 40 ms.
    sent = [1000, 1100, 1200, 1300]
    frames = [
        PlayedFrame(999 * MILLI, 1000 * MILLI, 1020 * MILLI, Told(
            'derained', {'infer_ms': '15.5', 'rain_intensity': '0.25'})),
        PlayedFrame(1099 * MILLI, 1100 * MILLI, None, Told(
            'dropped', {'infer_ms': '', 'rain_intensity': '0.25'})),
        PlayedFrame(None, 1200 * MILLI),
        PlayedFrame(1299 * MILLI, 1300 * MILLI, 1340 * MILLI, Told('bypassed', {}))]
    played = _played(
        {'/front': frames, '/rear': []},
        {'/front': _status(received=5, published=5, derained=5), '/rear': _status()},
        {'/front': _status(received=8, published=7, derained=6, bypassed=1, dropped=1),
         '/rear': _status()}, [0, MILLI, 0, 3 * MILLI], 0.3)
    run = replay_runs.run_figures(
        2.0, 0.4, played,
        [_sample(5.0, 1.0, 100.0), _sample(5.2, 1.1, 110.0), _sample(5.4, 1.3, 130.0)],
        [camera, rear])
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


# The command

@pytest.mark.parametrize(('arguments', 'said'), [
    (['/nowhere/drive'], '/nowhere/drive: no such bag'),
    ([CLIP, '--param', 'rain_gat:=false'], 'did you mean rain_gate?'),
    ([CLIP, '--param', 'rain_gate=false'], 'expected NAME:=VALUE'),
    ([CLIP, '--param', 'camera.image_topic:=/a'], 'is set by replay-bench itself'),
    ([CLIP, '--param', 'front.sync_group:=a'], 'the cameras of this bag are camera'),
    ([CLIP, '--json', '/proc/a/b.json'], '/proc/a'),
    ([CLIP, '--topics', '/none'], '/none is not an image topic'),
])
def test_wrong_arguments_are_told_before_anything_starts(derain, arguments, said):
    assert said in derain('replay-bench', *arguments, status=2).err


def test_a_recorded_drive_is_measured(command, tmp_path):
    file = tmp_path / 'replay.json'
    status, output, errors = command.finished(
        'replay-bench', CLIP, '--topics', '/camera/image_raw', '--rate', '0.5', '--seconds', '3',
        '--json', file, '--param', 'rain_gate:=false', '--param', 'watchdog_ms:=30000')
    assert status == 0, errors
    assert 'nano on ' in output and 'camera' in output and 'RSS' in output
    assert [line for line in re.split('[\\r\\n]+', errors)
            if line.strip() and not line.startswith('derain: ')] == []
    found = json.loads(file.read_text())
    assert set(found) == {'format', 'kind', 'versions', 'host', 'model', 'bag', 'parameters',
                          'mask', 'runs', 'search'}
    assert (found['kind'], found['search'], found['mask']) == ('replay', None, True)
    assert found['parameters'] == {
        'model': 'nano', 'engine': 'auto', 'rain_gate': 'false', 'watchdog_ms': '30000'}
    assert set(found['model']) == {'model', 'file', 'sha256', 'engine', 'device', 'precision'}
    assert all(found['model'].values())
    assert [one['name'] for one in found['bag']['files']] == ['driving_rain.mcap']
    run, = found['runs']
    assert run['factor'] == 0.5 and run['seconds'] >= 2.7
    assert run['sent'] == 15 >= run['received'] > 0
    assert run['loss'] == pytest.approx(1 - run['received'] / 15, abs=1e-5)
    assert run['pacing']['starved'] == 0
    assert 0 < run['cpu_percent'] < 400 and run['cpu_ms_per_frame'] > 1
    assert 50 < run['rss_mib']['median'] <= run['rss_mib']['max'] < 4000
    samples = run['samples']
    assert len(samples['time_s']) == len(samples['cpu_percent']) == len(samples['rss_mib']) >= 4
    assert samples['time_s'] == sorted(samples['time_s'])
    camera, = run['cameras']
    assert (camera['topic'], camera['camera']) == ('/camera/image_raw/compressed', 'camera')
    assert camera['offered_fps'] == pytest.approx(5, rel=0.3)
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


def test_a_compressed_topic_of_any_name_is_measured_best_effort_too(command, tmp_path):
    # YAML takes the name of its camera, off, for a boolean.
    bag = write_bag(tmp_path / 'bag', [
        ('/off/image_rect_compressed', COMPRESSED, START + number * 10**8,
         compressed(number, START + number * 10**8)) for number in range(10)])
    file = tmp_path / 'replay.json'
    status, _, errors = command.finished(
        'replay-bench', bag, '--topics', '/off/image_rect_compressed', '--no-mask',
        '--seconds', '1', '--json', file, '--param', 'watchdog_ms:=30000',
        '--param', 'output_reliability:=best_effort')
    assert status == 0, errors
    camera, = json.loads(file.read_text())['runs'][0]['cameras']
    assert camera['topic'] == '/off/image_rect_compressed'
    assert 0 < camera['received'] <= camera['counts']['published']


@pytest.mark.slow
def test_cameras_of_two_rates_and_a_torn_topic_of_a_damaged_bag(command, tmp_path):
    torn = bytes(TYPES.serialize_cdr(image(0, START), IMAGE))
    extra = [(START + number * 250_000_000, '/torn/image_raw', IMAGE, torn[:cut])
             for number, cut in enumerate([12, len(torn) - 50, 90, 40])]
    # No stamp fits into these.
    extra.append((START + 900_000_000, '/torn/image_raw', IMAGE, torn[:7]))
    bag = played_drive(tmp_path / 'drive', extra)
    storage, = bag.glob('*.mcap')
    os.truncate(storage, storage.stat().st_size - 9)  # only its end is lost
    file = tmp_path / 'replay.json'
    status, output, errors = command.finished(
        'replay-bench', bag, '--seconds', '3', '--json', file, '--param', 'rain_gate:=false')
    assert status == 1 and f'derain: error: {bag}: damaged: drive.mcap' in errors, errors
    run, = json.loads(file.read_text())['runs']
    front, rear, broken = sorted(run['cameras'], key=lambda camera: camera['camera'])
    assert [one['camera'] for one in (front, rear, broken)] == ['front', 'rear', 'torn']
    assert (front['sent'], rear['sent'], broken['sent']) == (60, 24, 10)
    assert front['offered_fps'] == pytest.approx(20, rel=0.3)
    assert rear['offered_fps'] == pytest.approx(8, rel=0.3)
    for camera in (front, rear):
        assert camera['received'] > 0
        assert camera['counts']['failed'] == 0
        assert camera['received'] == camera['counts']['published']
    assert broken['received'] == 0 and broken['loss'] == 1
    assert broken['counts']['failed'] == broken['counts']['received'] > 0
    assert broken['latency_ms'] == dict.fromkeys(SHARES) and broken['infer_ms'] is None
    assert run['sent'] == 94
    assert run['loss'] == pytest.approx(1 - run['received'] / 94, abs=1e-5)
    assert f'could not read or derain {broken["counts"]["failed"]} frames of /torn' in output


def _times(latencies, inferences):
    """Return the medians in ms of latencies, and of latencies less the inference of each frame."""
    known = [(latency, latency - infer) for latency, infer in zip(
        latencies, inferences, strict=True) if None not in (latency, infer)]
    assert len(known) > 10
    return np.median(known, axis=0)


@pytest.mark.slow
def test_a_camera_of_the_tests_finds_the_same_latency(command, tmp_path):
    """It shares no code with replay-bench, and publishes frames of the same size.

    Two things are compared, as closely as the camera agrees with itself from round to round: the
    latency, and what is left of it without the inference that the node tells of each frame, which
    is what a wrong clock, a wrong match of frames or a slow listener would show in.
    """
    size = {'height': 240, 'width': 320, 'step': 960}
    pixels = np.random.default_rng(1).integers(0, 256, 240 * 960, np.uint8)
    bag = write_bag(tmp_path / 'bag', [
        ('/camera/image_raw', IMAGE, START + number * 10**8, image(0, START, **size, data=pixels))
        for number in range(10)])
    parameters = {'rain_gate': False, 'watchdog_ms': 20_000.0}  # a busy machine is no fault
    options = [f'--param={name}:={str(value).lower()}' for name, value in parameters.items()]
    found, benched = [], []
    for number in range(3):  # in turns, so that what else runs here is shared
        domain = new_domain()
        with NodeProcess(tmp_path / str(number), domain, parameters,
                         environment=PROFILE | ALLOCATOR) as node, Peer(domain) as peer:
            peer.wait_for_state('active', node)
            lens = Lens(peer, 'camera', (320, 240))
            lens.derains(150)
            answers = lens.play(70)[10:]
        found.append(_times([1e3 * one.seconds for one in answers],
                            [float(one.values['infer_ms'] or 'nan') for one in answers]))
        file = tmp_path / f'{number}.json'
        status, _, errors = command.finished(
            'replay-bench', bag, '--seconds', '6', '--no-mask', *options, '--json', file)
        assert status == 0, errors
        camera, = json.loads(file.read_text())['runs'][0]['cameras']
        benched.append(_times(camera['frames']['latency_ms'], camera['frames']['infer_ms']))
    print('camera:', found, 'replay-bench:', benched)
    apart = np.abs(np.median(benched, axis=0) - np.median(found, axis=0))
    assert (apart <= np.maximum(3.0, np.ptp(found, axis=0))).all()


@pytest.mark.slow
def test_a_node_that_does_not_start_is_told_with_its_reason(command):
    status, output, errors = command.finished('replay-bench', CLIP, '--model', 'nope')
    assert status == 1 and output == ''
    assert 'derain: error: ' in errors and "unknown model 'nope'" in errors


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'expected'), [
    (signal.SIGTERM, 143), (signal.SIGINT, 130), ('node', 1)])
def test_no_process_is_left_behind(command, number, expected):
    process = command.start(
        'replay-bench', CLIP, '--topics', '/camera/image_raw', '--seconds', '60')
    try:
        line = process.stdout.readline()  # the engine is ready, and playing begins
        assert 'nano on ' in line, process.stderr.read()
        time.sleep(1.0)
        running = {line: pid for pid, line in command.family().items()}
        node, = (pid for line, pid in running.items() if 'derain_ros.node.main' in line)
        assert any('live.player' in line for line in running)
        if number == 'node':
            os.kill(node, signal.SIGKILL)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == expected, errors
    assert not command.family()
    assert 'Traceback' not in errors
    if number == 'node':
        assert 'the node ended with status -9' in errors
        log = Path(errors.rpartition('(whole log: ')[2].partition(')')[0])
        assert log.stat().st_size > 0
        shutil.rmtree(log.parent)
