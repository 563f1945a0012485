"""``derain bag`` interrupted anywhere: the same command goes on, to the same bytes."""

import fcntl
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from bag_files import STORAGES, long_drive, read_bag, tree, write_bag

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.cli import main
from derain_ros.engines import create_engine

ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}

# Ends the process with SIGKILL before or after the n-th call of a function.
KILLED = """
import importlib, os, signal, sys
module, name, when, count = sys.argv[1:5]
owner = importlib.import_module(f'derain_ros.{module}')
*path, last = name.split('.')
for part in path:
    owner = getattr(owner, part)
real, calls = getattr(owner, last), []
def deadly(*args, **kwargs):
    calls.append(1)
    if when == 'before' and len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*args, **kwargs)
    if when == 'after' and len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, last, deadly)
from derain_ros.cli import main
if __name__ == '__main__':
    sys.exit(main(sys.argv[5:]))
"""


both = pytest.mark.parametrize('whole', STORAGES, indirect=True)


@pytest.fixture(scope='module')
def engine():
    with closing(create_engine('auto', 'nano', precision='f32')) as engine:
        yield engine


@pytest.fixture(scope='module')
def whole(request, engine, tmp_path_factory):
    """Return a bag, and what becomes of it without an interruption."""
    folder = tmp_path_factory.mktemp('whole')
    source = write_bag(folder / 'in', long_drive(), getattr(request, 'param', 'mcap'))
    summary = derain_bag(plan_bag(source, folder / 'out'), engine)
    assert summary.segments >= 12
    return source, tree(folder / 'out')


@pytest.fixture
def go_on(engine):
    """Return a function that does what the command does, with an engine that is there."""
    return lambda source, out: derain_bag(plan_bag(source, out), engine)


def _command(source, out, *options):
    return ['bag', str(source), '-o', str(out), '--precision', 'f32', *options]


def _start(source, out, *options, **more):
    return subprocess.Popen(
        [sys.executable, '-m', 'derain_ros.cli', *_command(source, out, *options)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def _wait_for(process, condition):
    end = time.monotonic() + 60
    while process.poll() is None and not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize('module, name, when, count', [
    ('bags.segments', 'Workplace.claim', 'before', 1),
    ('bags.segments', 'Workplace.claim', 'after', 1),
    ('bags.chunks', 'SegmentRecord.save', 'before', 1),
    ('bags.chunks', 'SegmentRecord.save', 'after', 5),
    ('bags.derain', 'metadata_text', 'after', 1),
    ('bags.segments', 'Workplace.publish', 'before', 1),
    ('bags.segments', 'Workplace.publish', 'after', 1),
])
@both
def test_killed_at_a_certain_point(module, name, when, count, whole, go_on, tmp_path):
    source, expected = whole
    out = tmp_path / 'out'
    killed = subprocess.run(
        [sys.executable, '-c', KILLED, module, name, when, str(count), *_command(source, out)],
        env=ENVIRONMENT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    go_on(source, out)
    assert tree(out) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out']


@pytest.mark.parametrize('module, name, count', [
    ('bags.segments', 'Workplace.set_damaged', 1), ('bags.chunks', 'SegmentRecord.save', 11)])
def test_killed_after_damage_was_met(module, name, count, go_on, tmp_path):
    source = write_bag(tmp_path / 'in', long_drive(90))
    file = source / 'in.mcap'
    content = bytearray(file.read_bytes())
    content[len(content) // 2:len(content) // 2 + 60_000] = bytes(60_000)
    file.write_bytes(content)
    summary = go_on(source, tmp_path / 'once' / 'out')
    out = tmp_path / 'out'
    killed = subprocess.run(
        [sys.executable, '-c', KILLED, module, name, 'after', str(count),
         *_command(source, out)], env=ENVIRONMENT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / 'out.partial' / 'damage.json').exists()
    resumed = go_on(source, out)
    assert resumed.damages == summary.damages and resumed.damages
    assert tree(out) == tree(tmp_path / 'once' / 'out')


@both
def test_killed_at_random_moments(whole, go_on, tmp_path):
    source, expected = whole
    out, moments = tmp_path / 'out', random.Random(3)
    records = tmp_path / 'out.partial' / 'done'
    for kind in (signal.SIGKILL, signal.SIGINT):
        before = len(list(records.glob('*.json')))
        process = _start(source, out)
        _wait_for(process, lambda least=before + 2: len(list(records.glob('*.json'))) >= least)
        time.sleep(moments.uniform(0, 0.03))
        process.send_signal(kind)
        output, _ = process.communicate()
        assert 'Traceback' not in output
    if not out.exists():
        go_on(source, out)
    assert tree(out) == expected
    assert [path.name for path in tmp_path.iterdir()] == ['out']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(number, whole, go_on, tmp_path):
    source, expected = whole
    out = tmp_path / 'out'
    partial = tmp_path / 'out.partial'
    process = _start(source, out, '--workers', '2', start_new_session=True)
    _wait_for(process, lambda: (partial / 'done' / '000001.json').exists())
    children = _children(process.pid)
    assert len(children) >= 2
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert 'Traceback' not in output
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert 'the same command goes on' in output
    end = time.monotonic() + 10
    while any(Path(f'/proc/{child}').exists() for child in children):
        assert time.monotonic() < end
        time.sleep(0.01)
    # What two have begun, one can end.
    go_on(source, out)
    assert tree(out) == expected


def _children(parent):
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            if int(stat.read_text().rpartition(')')[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def test_a_segment_that_was_taken_over_and_not_deleted_is_not_waited_for(
        whole, go_on, tmp_path):
    source, expected = whole
    out = tmp_path / 'out'
    killed = subprocess.run(
        [sys.executable, '-c', KILLED, 'bags.chunks', 'SegmentRecord.save', 'after', '3',
         *_command(source, out)], env=ENVIRONMENT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    partial = tmp_path / 'out.partial'
    # As a run with workers leaves it that is killed between taking a segment over and deleting it.
    (partial / 'segments').mkdir(exist_ok=True)
    shutil.copy(partial / 'done' / '000001.json', partial / 'segments')
    (partial / 'segments' / '000001.body').write_bytes(b'')
    go_on(source, out)
    assert tree(out) == expected


def test_a_worker_that_dies_is_named(whole, tmp_path):
    source, expected = whole
    out = tmp_path / 'out'
    process = _start(source, out, '--workers', '2')
    _wait_for(process, lambda: (tmp_path / 'out.partial' / 'done' / '000000.json').exists())
    workers = [child for child in _children(process.pid)
               if b'spawn_main' in Path(f'/proc/{child}/cmdline').read_bytes()]
    os.kill(workers[-1], signal.SIGKILL)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f'(process {workers[-1]}) died (signal SIGKILL' in output
    assert main(_command(source, out, '--workers', '2')) == 0
    assert tree(out) == expected


@both
def test_workers_write_the_same_bytes(whole, tmp_path):
    source, expected = whole
    assert main(_command(source, tmp_path / 'out', '--workers', '2')) == 0
    assert tree(tmp_path / 'out') == expected


def test_another_work_is_not_gone_on_with(whole, engine, go_on, tmp_path, capsys):
    source, expected = whole
    out = tmp_path / 'out'
    _interrupt(source, out, engine)
    assert main(_command(source, out, '--strength', '0.5')) == 1
    error = capsys.readouterr().err
    assert '--strength: 1.0 then, 0.5 now' in error and 'Delete the folder' in error
    go_on(source, out)
    assert tree(out) == expected


def test_the_work_of_another_run_is_left_alone(whole, engine, tmp_path, capsys):
    source, _ = whole
    out = tmp_path / 'out'
    _interrupt(source, out, engine)
    before = tree(tmp_path)
    with (tmp_path / 'out.partial' / 'lock').open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(_command(source, out)) == 1
    assert 'another run is at work' in capsys.readouterr().err
    assert tree(tmp_path) == before


def _interrupt(source, out, engine):
    counts = []

    def interrupt(count):
        counts.append(count)
        if len(counts) == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        derain_bag(plan_bag(source, out), engine, progress=interrupt)


@pytest.mark.parametrize('workers', ['1', '2'])
@both
def test_a_full_disk_is_told_and_gone_on_from(workers, whole, go_on, tmp_path):
    source, expected = whole
    out = tmp_path / 'out'
    limit = max(map(len, expected.values())) // 2
    process = _start(
        source, out, '--workers', workers,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert 'Traceback' not in output
    assert 'out: cannot be written' in output
    assert not out.exists()
    go_on(source, out)
    assert tree(out) == expected


def test_the_figures_are_those_of_a_run_in_one_go(whole, engine, tmp_path):
    source, _ = whole
    runs = []
    for name in ('once', 'resumed'):
        out = tmp_path / name / 'out'
        out.parent.mkdir()
        if name == 'resumed':
            _interrupt(source, out, engine)
        file = tmp_path / f'{name}.json'
        assert main(_command(source, out, '--json', str(file))) == 0
        runs.append(json.loads(file.read_text()))
    assert runs[0]['resumed_segments'] == 0 < runs[1]['resumed_segments']
    for run in runs:
        for key in ('seconds', 'frames_per_second', 'workers', 'resumed_segments', 'host'):
            del run[key]
        del run['output']['path']
    assert runs[0] == runs[1]
    camera = runs[0]['cameras'][0]
    assert camera['derained'] == 48 == len(camera['frames']['rain_intensity'])
    assert camera['frames']['time'] == [
        row.time for row in read_bag(source) if row.topic == camera['source']]
