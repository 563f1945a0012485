"""The soak: its judgement, its plot, and a few seconds of the real thing."""

import csv
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from derain_ros.bench.setting import Setting
from derain_ros.bench.soak_run import judge, plot, run_soak, warm_up_seconds
from derain_ros.text import UserError

SAMPLE = {
    'seconds': 0.0, 'rss': 300.0, 'pss': 250.0, 'anonymous': 150.0, 'threads': 20,
    'descriptors': 23, 'cpu': 150.0, 'fps': 29.0, 'age_p50': 35.0, 'age_p95': 50.0,
    'age_p99': 60.0, 'received': 100.0, 'published': 50.0, 'dropped': 50.0, 'failed': 0.0,
    'idle': 0.0}


def _samples(minutes, **courses):
    """Make a sample every five seconds; a course is a function of the seconds."""
    return [SAMPLE | {'seconds': float(seconds)} | {
                name: course(seconds) for name, course in courses.items()}
            for seconds in range(0, 60 * minutes + 1, 5)]


def _figures(samples):
    result = judge('soak', samples, warm_up_seconds(samples))
    return {figure.name: figure for figure in result.figures}


def test_what_grows_in_the_first_minute_is_forgiven():
    figures = _figures(_samples(10, rss=lambda time: 300 + min(time, 59)))
    assert figures['memory growth (RSS), end less beginning'].value == 0
    assert figures['memory growth (RSS), end less beginning'].verdict == 'met'


def test_a_leak_is_measured_and_missed():
    # 1 MiB a minute for 9 minutes after the first. Medians of the first and of the last tenth,
    # 10 of 109 samples each: 22.5 s inside both ends of the 540 s.
    figures = _figures(_samples(10, rss=lambda time: 300 + time / 60))
    growth = figures['memory growth (RSS), end less beginning']
    assert growth.value == pytest.approx((540 - 45) / 60)
    assert growth.verdict == 'missed'
    assert figures['memory slope (RSS)'].value == pytest.approx(60)


def test_a_thread_that_stays_is_missed_and_one_that_goes_is_not():
    stays = _figures(_samples(5, threads=lambda time: 20 + (time > 150)))
    assert stays['thread growth'].value == 1
    assert stays['thread growth'].verdict == 'missed'
    passing = _figures(_samples(5, descriptors=lambda time: 23 + (time == 150)))
    assert passing['descriptor growth'].verdict == 'met'


def test_a_short_soak_is_judged_from_its_middle():
    assert warm_up_seconds(_samples(1)) == 30
    assert warm_up_seconds(_samples(10)) == 60


def test_the_plot_is_svg_with_a_line_per_series():
    samples = _samples(5)
    samples[10] = samples[10] | {'age_p50': float('nan')}
    root = ElementTree.fromstring(plot('soak <1>', samples, 60))
    space = '{http://www.w3.org/2000/svg}'
    assert root.find(f'{space}title').text == 'soak <1>'
    words = [text.text for text in root.iter(f'{space}text')]
    assert {'RSS, 300 at the end', 'p95', 'minutes', 'judged from here on'} <= set(words)
    lines = {group.get('id'): group.find(f'{space}path').get('d')
             for group in root.iter(f'{space}g') if (group.get('id') or '').startswith('line: ')}
    assert len(lines) == 8
    assert lines['line: p50'].count('M') == 2 and lines['line: p95'].count('M') == 1


def test_too_few_samples_are_told_before_the_work(tmp_path):
    setting = Setting(bag=tmp_path, folder=tmp_path, topic='/none', parameters={})
    with pytest.raises(UserError, match='no two samples'):
        run_soak(setting, tmp_path, size=(64, 48), rate=1.0, seconds=9.0, every=5.0)


def test_a_few_seconds_of_soak(tmp_path):
    out = tmp_path / 'soak'
    done = subprocess.run(
        [sys.executable, '-m', 'derain_ros.cli', 'soak', '--minutes', '0.2', '--every', '0.5',
         '--size', '320x240', '-o', str(out)],
        capture_output=True, text=True, timeout=150, check=False)
    figures = {figure['name']: figure
               for figure in json.loads((out / 'soak.json').read_text())['figures']}
    missed = [figure for figure in figures.values() if figure['verdict'] not in ('', 'met')]
    assert done.returncode == (1 if missed else 0), done.stderr
    assert 'memory growth' in done.stdout
    with (out / 'soak.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 3
    seconds = [float(row['seconds']) for row in rows]
    assert seconds == sorted(seconds)
    assert all(float(row['rss']) > 50 and int(row['threads']) > 1 for row in rows)
    assert sum(float(row['fps']) for row in rows) > 0
    assert sum(float(row['cpu']) for row in rows) > 0
    assert figures['thread growth']['verdict'] == 'met'
    assert figures['descriptor growth']['verdict'] == 'met'
    ElementTree.parse(out / 'soak.svg')
    assert (out / 'node.log').is_file()
