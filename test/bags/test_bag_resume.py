"""``derain bag`` interrupted anywhere: the same command goes on, to the same bytes."""

import errno
import fcntl
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from bag_files import STORAGES, long_drive, read_bag, tree, write_bag

from derain_ros.bags.damage import BagError
from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.cli import main

ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}

@pytest.fixture(scope='module')
def whole(request, engine, tmp_path_factory):
    """Return a bag, and what becomes of it without an interruption."""
    folder = tmp_path_factory.mktemp('whole')
    source = write_bag(folder / 'in', long_drive(24), getattr(request, 'param', 'mcap'))
    summary = derain_bag(plan_bag(source, folder / 'out'), engine)
    assert summary.segments == 6
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


class _KilledError(BaseException):
    """The process ends here."""


def _kill_at(monkeypatch, place, when, count):
    """Raise before or after the n-th call of a function of derain_ros.bags."""
    module, _, path = place.partition(':')
    owner = importlib.import_module(f'derain_ros.bags.{module}')
    *path, last = path.split('.')
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, last), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if when == 'before' and len(calls) == count:
            raise _KilledError
        result = real(*args, **kwargs)
        if when == 'after' and len(calls) == count:
            raise _KilledError
        return result

    monkeypatch.setattr(owner, last, deadly)


@pytest.mark.parametrize('place, when, count, whole', [
    ('workplace:Workplace.claim', 'after', 1, 'mcap'),
    ('chunks:SegmentRecord.save', 'before', 1, 'mcap'),
    ('chunks:SegmentRecord.save', 'after', 3, 'mcap'),
    ('making:metadata_text', 'after', 1, 'mcap'),
    ('workplace:Workplace.publish', 'after', 1, 'mcap'),
    ('chunks:SegmentRecord.save', 'after', 3, 'sqlite3'),
    ('workplace:Workplace.publish', 'before', 1, 'sqlite3'),
], indirect=['whole'])
def test_ended_at_a_certain_point(place, when, count, whole, go_on, tmp_path, monkeypatch):
    source, expected = whole
    with monkeypatch.context() as patch, pytest.raises(_KilledError):
        _kill_at(patch, place, when, count)
        go_on(source, tmp_path / 'out')
    go_on(source, tmp_path / 'out')
    assert tree(tmp_path / 'out') == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out']


def test_damage_is_told_also_of_what_was_done_before(go_on, tmp_path, monkeypatch):
    source = write_bag(tmp_path / 'in', long_drive(40))
    file = source / 'in.mcap'
    content = bytearray(file.read_bytes())
    content[len(content) // 3:len(content) // 3 + 30_000] = bytes(30_000)
    file.write_bytes(content)
    summary = go_on(source, tmp_path / 'once' / 'out')
    with monkeypatch.context() as patch, pytest.raises(_KilledError):
        _kill_at(patch, 'chunks:SegmentRecord.save', 'after', 6)
        go_on(source, tmp_path / 'out')
    resumed = go_on(source, tmp_path / 'out')
    assert resumed.damages == summary.damages and resumed.damages
    assert tree(tmp_path / 'out') == tree(tmp_path / 'once' / 'out')


@pytest.mark.parametrize('number, whole', [
    (signal.SIGKILL, 'mcap'), (signal.SIGINT, 'sqlite3')], indirect=['whole'])
def test_killed_at_some_moment(number, whole, go_on, tmp_path):
    source, expected = whole
    out, records = tmp_path / 'out', tmp_path / 'out.partial' / 'done'
    process = _start(source, out)
    end = time.monotonic() + 120
    while process.poll() is None and len(list(records.glob('*.json'))) < 2:
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(number)
    output, _ = process.communicate()
    assert 'Traceback' not in output
    if number == signal.SIGINT and not out.exists():
        assert process.returncode == 130 and 'run the same command again' in output
    if not out.exists():
        go_on(source, out)
    assert tree(out) == expected
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_a_segment_that_was_taken_over_and_not_deleted_is_not_waited_for(
        whole, go_on, tmp_path, monkeypatch):
    source, expected = whole
    with monkeypatch.context() as patch, pytest.raises(_KilledError):
        _kill_at(patch, 'chunks:SegmentRecord.save', 'after', 3)
        go_on(source, tmp_path / 'out')
    # As a run with workers leaves it that is killed between taking a segment over and deleting it.
    partial = tmp_path / 'out.partial'
    bodies, = partial.glob('segments-*')
    shutil.copy(partial / 'done' / '000001.json', bodies)
    (bodies / '000001.body').write_bytes(b'')
    go_on(source, tmp_path / 'out')
    assert tree(tmp_path / 'out') == expected


def test_another_work_is_not_gone_on_with(whole, engine, go_on, tmp_path):
    source, expected = whole
    out = tmp_path / 'out'
    _interrupt(source, out, engine)
    with pytest.raises(BagError, match=r'--strength: 1.0 then, 0.5 now.*Delete the folder'):
        derain_bag(plan_bag(source, out), engine, strength=0.5)
    go_on(source, out)
    assert tree(out) == expected


def test_the_work_of_another_run_is_left_alone(whole, engine, go_on, tmp_path):
    source, _ = whole
    out = tmp_path / 'out'
    _interrupt(source, out, engine)
    before = tree(tmp_path)
    with (tmp_path / 'out.partial' / 'lock').open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BagError, match='another run is working'):
            go_on(source, out)
    assert tree(tmp_path) == before


@pytest.mark.parametrize('compression, folder, status', [
    ('none', 'out.partial', 1), ('file', 'out.partial/source', 2)])
def test_a_disk_without_locks_is_told_as_such(
        compression, folder, status, derain, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    source = write_bag(tmp_path / 'in', long_drive(12), compression=compression)
    monkeypatch.setattr(fcntl, 'flock', flock)
    error = derain(*_command(source, tmp_path / 'out'), status=status).err
    assert f'{tmp_path / folder}: files cannot be locked there (No locks available); use' in error


def _interrupt(source, out, engine):
    counts = []

    def interrupt(count):
        counts.append(count)
        if len(counts) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        derain_bag(plan_bag(source, out), engine, progress=interrupt)


@pytest.mark.parametrize('whole', STORAGES, indirect=True)
def test_a_full_disk_is_told_and_gone_on_from(whole, go_on, tmp_path):
    source, expected = whole
    out = tmp_path / 'out'
    limit = max(map(len, expected.values())) // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(BagError, match='out: cannot be written'):
            go_on(source, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not out.exists()
    go_on(source, out)
    assert tree(out) == expected


def test_the_figures_are_those_of_a_run_in_one_go(whole, engine, quick_commands, tmp_path):
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
    assert camera['derained'] == 24 == len(camera['frames']['rain_intensity'])
    assert camera['frames']['time'] == [
        row.time for row in read_bag(source) if row.topic == camera['source']]
