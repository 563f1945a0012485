"""The benchmarks: their arithmetic, and a short run of the real thing.

What is not asserted: that a bar is met. That depends on the machine and on what else it does.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import serialize_message

from derain_ros.bench import SCENARIOS, measures
from derain_ros.bench.measures import Figure, ProcessFigures, Result
from derain_ros.bench.plain_node import to_message
from derain_ros.bench.setting import ClipFile, has_bf16
from derain_ros.bench.stream_scenarios import closed_since, count_changed, onset_seconds
from derain_ros.bench.turn_scenarios import Side
from derain_ros.live.listener import Told
from derain_ros.live.played import PlayedFrame

CLIP = Path(__file__).parents[1] / 'data' / 'driving_rain'
MILLI = 10**6
NAN = float('nan')


def _frame(message='', sent=0, handed_over=None, arrival=None, **values):
    """Make a frame; times in milliseconds."""
    handed_over = sent if handed_over is None else handed_over
    return PlayedFrame(
        int(sent * MILLI), int(handed_over * MILLI),
        None if arrival is None else int(arrival * MILLI),
        Told(message, {key: str(value) for key, value in values.items()}))


# Arithmetic, against numbers worked out by hand

@pytest.mark.parametrize(('found', 'expected'), [
    (measures.percentile([1, 2, 3, 4, NAN], 50), 2.5),
    (measures.percentile([10, 20, 30, 40, 50], 95), 48),
    (measures.percentile([NAN], 50), NAN),
    (measures.percentile([], 50), NAN),
    (measures.rate([0, 100 * MILLI, 200 * MILLI, 400 * MILLI]), 7.5),
    (measures.rate([5]), 0),
    (measures.rate([5, 5]), 0),
    (measures.thirds([1, 1, 1, 9, 9, 9, 2, 3, 4]), (1, 3)),
    (measures.thirds([1, 5, 5, 2]), (1, 2)),
    (measures.thirds([1, 2]), (NAN, NAN)),
    (measures.ratio(3, 4), 0.75),
    (measures.ratio(3, 0), NAN),
    (measures.ratio(3, NAN), NAN),
    (measures.evenness([90, 100, 95]), 0.9),
    (measures.evenness([5, 0]), 0),
    (measures.evenness([0, 0]), 0),
    # Growth and slope are not led astray by an outlier.
    (measures.growth([10.0] * 10 + [500.0] + [12.0] * 9), 2),
    (measures.growth([1.0] * 5), NAN),
    (measures.slope([0, 1, 2, 3, 4], [0, 2, 4, 6, 8]), 2),
    (measures.slope([0, 1, 2, 3, 4, 5, 6], [0, 2, 4, 600, 8, 10, 12]), 2),
    (measures.slope([1], [1]), NAN),
    (measures.slope(range(10**6), range(10**6)), 1),
])
def test_arithmetic(found, expected):
    assert found == pytest.approx(expected, nan_ok=True)


def test_cpu_share_takes_the_samples_inside():
    samples = [ProcessFigures(number * 10**9, cpu, 1.0)
               for number, cpu in enumerate((0.0, 0.5, 0.7, 1.0, 9.0))]
    assert measures.cpu_share(samples, 10**9, 3 * 10**9) == pytest.approx(0.25)
    assert math.isnan(measures.cpu_share(samples, 10**9, 10**9 + 1))


def _report(received, published, dropped=0, **kinds):
    counts = {'received': received, 'published': published, 'dropped': dropped,
              'failed': 0, 'idle': 0, **kinds}
    return {key: str(value) for key, value in counts.items()}


def test_counts_that_do_not_add_up_are_named():
    good = [_report(3, 2), _report(5, 3, 2), _report(8, 4, 3, derained=3, bypassed=1,
                                                     passed_through=0)]
    assert measures.count_errors(good) == []
    lost, = measures.count_errors([_report(9, 4, 1)])
    assert '9 received, 5 accounted' in lost
    assert measures.count_errors([_report(3, 4)])
    assert measures.count_errors([_report(5, 5), _report(4, 4)])
    kind, = measures.count_errors([
        _report(4, 4, derained=2, bypassed=1, passed_through=0)])
    assert '4 published, but 3 derained' in kind


def test_overhead_is_sending_to_arrival_less_inference():
    side = Side(
        [_frame(sent=0, handed_over=1, arrival=31, infer_ms=20, age_ms=28.5),
         _frame(sent=100, handed_over=102, arrival=140, age_ms=NAN),
         _frame(sent=200)],
        {'infer_p50_ms': '25'})
    assert side.overheads_ms() == pytest.approx([10, 13])
    assert side.publication_ms()[0] == pytest.approx(8.5)
    assert math.isnan(side.publication_ms()[1])


# The gate

def test_the_gate_counts_as_closed_after_the_last_derained_frame():
    frames = [_frame('bypassed', 0), _frame('derained', 10), _frame('', 20),
              _frame('bypassed', 30), _frame('bypassed', 40)]
    assert closed_since(frames) == 30 * MILLI
    assert closed_since(frames[:2]) is None
    assert closed_since([_frame()]) is None


def test_onset_is_the_time_to_the_first_derained_frame():
    dry = [_frame('derained', 0), _frame('bypassed', 100)]
    rainy = [_frame('bypassed', 200, arrival=201), _frame('', 300), _frame('derained', 450)]
    assert onset_seconds(dry + rainy, 2) == (0.25, 1, '')
    assert onset_seconds(dry + rainy[:2], 2)[0] == float('inf')
    seconds, _, problem = onset_seconds([dry[0], *rainy], 1)
    assert math.isnan(seconds) and 'had not closed' in problem
    assert math.isnan(onset_seconds([_frame(), *rainy], 1)[0])


def test_a_changed_pixel_is_found(tmp_path):
    pictures = np.random.default_rng(3).integers(0, 256, (2, 8, 12, 3), np.uint8)
    np.save(tmp_path / 'clip.npy', pictures)
    clip = ClipFile(tmp_path / 'clip.npy', range(1), range(1, 2))

    def counted(*frames, since=0):
        found = [PlayedFrame(5, 5, 6, None, serialize_message(to_message(picture, 'bgr8')))
                 for _, picture in frames]
        return count_changed(found, [(index, 0.0) for index, _ in frames], clip, since)

    touched = pictures[1].copy()
    touched[7, 11, 2] ^= 1
    same = list(enumerate(pictures))
    assert counted(*same) == (2, 0)
    assert counted(*same, (1, touched), (0, pictures[1])) == (4, 2)
    assert counted((0, pictures[0][:, :8])) == (1, 1)
    assert counted(*same, since=6) == (0, 0)


# What is sent, and how processes are looked at

@pytest.mark.parametrize(('limit', 'narrow'), [
    ('AVX2', True), ('avx512_core', True), ('ALL', False)])
def test_the_bars_go_by_the_instructions_in_use(monkeypatch, limit, narrow):
    monkeypatch.delenv('ONEDNN_MAX_CPU_ISA', raising=False)
    there = has_bf16()
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', limit)
    assert has_bf16() == (there and not narrow)


# Figures

def test_a_figure_says_whether_its_bar_is_met():
    def verdict(value, bar):
        return Figure('rate', value, 'fps', bar).verdict

    assert verdict(29.0, '>= 29') == 'met'
    assert verdict(28.99, '>= 29') == 'missed'
    assert verdict(10.0, '< 10') == 'missed'
    assert verdict(0, '= 0') == 'met'
    assert verdict(NAN, '<= 1') == 'not measured'
    assert verdict(float('inf'), '<= 1') == 'missed'
    assert verdict(1.0, '') == ''


def test_a_scenario_without_figures_says_why():
    assert Result('engine', [], ['no engine can run here']).table() == (
        'engine\n  no engine can run here')


def test_a_missed_bar_is_printed():
    result = Result('title', [Figure('age', 70.04, 'ms', '<= 66'), Figure('rate', NAN)],
                    ['a note'])
    lines = result.table().splitlines()
    assert lines[0] == 'title'
    assert lines[1].split() == ['age', '70.0', 'ms', 'target', '<=', '66', 'ms', 'missed']
    assert lines[2].split() == ['rate', '-']
    assert lines[3].strip() == 'a note'
    figures = json.loads(json.dumps(result.as_json(), allow_nan=False))['figures']
    assert figures[0]['bar'] == '<= 66' and figures[1]['value'] is None


# The real thing

def _bench(tmp_path, *arguments, timeout):
    report = tmp_path / 'bench.json'
    done = subprocess.run(
        [sys.executable, '-m', 'derain_ros.cli', 'bench', '--bag', str(CLIP), '--json',
         str(report), *arguments],
        capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert found['failed'] == {}
    return done.stdout, found['scenarios']


def _values(scenario):
    return {figure['name']: figure['value'] for figure in scenario['figures']}


def test_a_quick_run_measures_the_node(tmp_path):
    table, scenarios = _bench(tmp_path, '--quick', '--only', 'vga', timeout=150)
    vga = scenarios['vga']
    values, counts = _values(vga), vga['details']['counts']
    assert vga['details']['sent'] == 60
    assert counts['received'] == sum(counts[key] for key in measures.DONE)
    assert counts['failed'] == 0
    assert counts['published'] == vga['details']['arrived'] > 0
    assert 0 < values['published'] <= 40
    assert 0 < values['inference p50'] <= values['age p50'] <= values['age p99']
    for figure in vga['figures'][:2]:
        assert figure['verdict'] in ('met', 'missed')
        assert f'target {figure["bar"]}' in table and figure['verdict'] in table


@pytest.mark.slow
def test_our_node_and_the_plain_one_take_turns(tmp_path):
    _, scenarios = _bench(tmp_path, '--quick', '--only', 'overhead', timeout=300)
    values = _values(scenarios['overhead'])
    ours, plain = [values[f'{side}, sent to received less inference']
                   for side in ('ours', 'plain')]
    assert values['overhead, ours / plain'] == pytest.approx(ours / plain)
    assert 0 < values['plain, inside the callback less inference'] < plain
    details = scenarios['overhead']['details']
    assert len(details['ours']['overhead_ms']) == len(details['plain']['overhead_ms']) == 6


@pytest.mark.slow
@pytest.mark.parametrize('scenario', sorted(SCENARIOS.keys() - {'vga', 'overhead'}))
def test_every_scenario_runs(tmp_path, scenario):
    table, scenarios = _bench(
        tmp_path, '--quick', '--only', scenario, '--engines', 'openvino', '--sizes', '320x240',
        timeout=300)
    figures = scenarios[scenario]['figures']
    assert figures and scenarios[scenario]['title'] in table
    for figure in figures:
        assert bool(figure['bar']) == bool(figure['verdict'])


def test_a_scenario_that_fails_is_named(derain):
    errors = derain('bench', '--only', 'engine', '--engines', 'openvino', '--sizes', '64x48',
                    '--model', 'mega', status=1).err
    assert 'derain: error: engine: ' in errors and 'mega' in errors
