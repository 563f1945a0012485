"""The cache of compiled engines: nothing unsound comes out, whatever happened on the way in."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from cache_entries import CONTENT, KEY, build_slowly
from hypothesis import given, settings
from hypothesis import strategies as st

from derain_ros.engines.contract import default_cache
from derain_ros.engines.tensorrt.engine_cache import CancelledError, EngineCache

OTHERS = {
    'model_sha256': 'cd' * 32, 'flavour': 'tensorrt_rtx', 'version': '10.4.0', 'gpu': 'RTX 4090',
    'compute_capability': '8.9', 'driver': '12.8', 'shape': (2, 480, 640),
    'precision': 'fp32', 'options': {'workspace': '1024'}}


def make(tmp_path, **options):
    """A cache, and what it says."""
    log = []
    return EngineCache(tmp_path / 'engines', log=log.append, **options), log


def entry(cache, suffix):
    path, = cache.directory.glob(f'*{suffix}')
    return path


def forbidden():
    raise AssertionError('it is built though it is there')


def test_what_was_built_is_found_again(tmp_path):
    cache, log = make(tmp_path)
    assert cache.read(KEY) == b''
    assert cache.get_or_build(KEY, lambda: CONTENT) == (CONTENT, False)
    assert cache.get_or_build(KEY, forbidden) == (CONTENT, True)
    assert cache.read(KEY) == CONTENT
    assert log == []
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    assert sorted(path.suffix for path in cache.directory.iterdir()) == [
        '.engine', '.json', '.lock', '.lock']
    found = json.loads(entry(cache, '.json').read_text())
    assert (found['key']['gpu'], found['key']['shape']) == ('Orin', [1, 480, 640])
    assert found['bytes'] == len(CONTENT)
    # Other processes and later releases look for this name.
    assert KEY.digest().startswith('06409467accf1cfa')


@pytest.mark.parametrize('name', OTHERS)
def test_an_engine_for_something_else_is_another_one(tmp_path, name):
    cache, log = make(tmp_path)
    other = replace(KEY, **{name: OTHERS[name]})
    cache.write(KEY, CONTENT)
    assert other.digest() != KEY.digest()
    assert cache.read(other) == b''
    assert cache.read(KEY) == CONTENT
    for path in list(cache.directory.glob(f'{KEY.digest()}.*')):
        path.rename(path.with_name(path.name.replace(KEY.digest(), other.digest())))
    assert cache.get_or_build(other, lambda: b'new') == (b'new', False)
    assert 'made for something else' in log[0]
    assert cache.read(other) == b'new'


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_damaged_entry_comes_out(tmp_path_factory, data):
    cache, log = make(tmp_path_factory.mktemp('cache'))
    cache.write(KEY, CONTENT)
    victim = entry(cache, data.draw(st.sampled_from(['.engine', '.json'])))
    content = bytearray(victim.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        damaged = bytes(content[:place])
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        damaged = bytes(content)
    victim.write_bytes(damaged)
    found, cached = cache.get_or_build(KEY, lambda: CONTENT)
    assert found == CONTENT
    # A flipped bit in the white space of the JSON changes nothing.
    assert cached or 'built again' in log[0]
    assert cache.read(KEY) == CONTENT


@pytest.mark.parametrize('damaged', [b'', b'[]', b'{"verified": true}', b'\xff', b'[' * 100_000])
def test_a_damaged_json_is_no_proof(tmp_path, damaged):
    cache, log = make(tmp_path)
    cache.write(KEY, CONTENT)
    entry(cache, '.json').write_bytes(damaged)
    assert cache.read(KEY) == b''
    assert 'its JSON is damaged' in log[0]
    assert not cache.is_verified(KEY)


def test_those_used_longest_ago_go_first(tmp_path):
    cache, log = make(tmp_path, limit=3 * len(CONTENT) + 2000)
    keys = [replace(KEY, driver=str(number)) for number in range(4)]
    for number, key in enumerate(keys[:3]):
        cache.write(key, CONTENT)
        for path in cache.directory.glob(f'{key.digest()}.*'):
            os.utime(path, (number, number))
    assert cache.read(keys[0]) == CONTENT
    cache.write(keys[3], CONTENT)
    assert [bool(cache.read(key)) for key in keys] == [True, False, True, True]
    assert 'removed, as the cache has' in log[0]
    small, _ = make(tmp_path, limit=1)
    small.write(keys[1], CONTENT)
    assert [bool(small.read(key)) for key in keys] == [False, True, False, False]


def test_what_killed_processes_left_is_swept(tmp_path):
    cache, _ = make(tmp_path)
    cache.write(KEY, CONTENT)
    old, new = cache.directory / '.x.engine.ab.partial', cache.directory / '.y.engine.cd.partial'
    orphan = cache.directory / f'{"0" * 64}.engine'
    for path in (old, new, orphan):
        path.write_bytes(b'half')
    for path in (old, orphan):
        os.utime(path, (1, 1))
    cache.write(replace(KEY, driver='13'), CONTENT)
    assert [path.exists() for path in (old, new, orphan)] == [False, True, False]
    assert cache.read(KEY) == CONTENT


def test_a_file_in_place_of_the_folder_is_done_without(tmp_path):
    cache, log = make(tmp_path)
    cache.directory.write_text('a file')
    assert cache.get_or_build(KEY, lambda: CONTENT) == (CONTENT, False)
    assert 'name another folder; the engine is built without it' in log[0]
    cache.write(KEY, CONTENT)
    assert 'is not kept' in log[1]
    assert cache.read(KEY) == b''
    assert 'is not used' in log[2]
    assert all(str(cache.directory) in text for text in log)


def test_a_folder_that_others_may_write_is_not_trusted(tmp_path):
    cache, log = make(tmp_path)
    cache.write(KEY, CONTENT)
    cache.directory.chmod(0o777)
    assert cache.get_or_build(KEY, lambda: b'built') == (b'built', False)
    assert cache.read(KEY) == b''
    cache.write(KEY, b'other')
    assert len(log) == 3
    assert all('other users may write there; `chmod go-w`' in text for text in log)
    cache.directory.chmod(0o700)
    assert cache.read(KEY) == CONTENT


def test_an_engine_is_verified_until_it_is_replaced_or_removed(tmp_path):
    cache, log = make(tmp_path)
    other = replace(KEY, version='10.4.0')
    cache.mark_verified(KEY)
    assert not cache.is_verified(KEY)  # there is none
    for key in (KEY, other):
        cache.write(key, CONTENT)
    cache.mark_verified(KEY)
    assert (cache.is_verified(KEY), cache.is_verified(other)) == (True, False)
    assert cache.get_or_build(KEY, forbidden) == (CONTENT, True)
    cache.write(KEY, b'new')
    assert not cache.is_verified(KEY)
    cache.mark_verified(KEY)
    cache.discard(KEY)
    assert not cache.is_verified(KEY)
    assert (cache.read(KEY), cache.read(other)) == (b'', CONTENT)
    assert log == []


def test_what_belongs_to_an_engine_goes_with_it(tmp_path):
    cache, _ = make(tmp_path)
    cache.write(KEY, CONTENT)
    cache.write(KEY, b'compiled', '.kernels')
    assert cache.read(KEY, '.kernels') == b'compiled'
    cache.discard(KEY)
    assert (cache.read(KEY), cache.read(KEY, '.kernels')) == (b'', b'')
    cache.write(KEY, CONTENT)
    cache.write(KEY, bytes(2000), '.kernels')
    # Each engine fits alone; that of the kernels which go with it does not.
    small, _ = make(tmp_path, limit=2 * len(CONTENT) + 2000)
    small.write(replace(KEY, version='10.4.0'), CONTENT)
    assert (cache.read(KEY), cache.read(KEY, '.kernels')) == (b'', b'')


def test_a_build_that_fails_leaves_nothing(tmp_path):
    cache, _ = make(tmp_path)

    def fail():
        raise ValueError('no build')

    with pytest.raises(ValueError, match='no build'):
        cache.get_or_build(KEY, fail)
    assert cache.get_or_build(KEY, lambda: CONTENT) == (CONTENT, False)


def test_a_full_disk_costs_the_entry_only(tmp_path):
    """A limit on the size of files stands in for the disk: the same error of the same call."""
    code = (
        'import resource, signal, sys\n'
        'from pathlib import Path\n'
        'from cache_entries import KEY\n'
        'from derain_ros.engines.tensorrt.engine_cache import EngineCache\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n'
        'cache = EngineCache(Path(sys.argv[1]), log=lambda text: print(text))\n'
        'content, found = cache.get_or_build(KEY, lambda: bytes(100_000))\n'
        'print(len(content), found)\n')
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path / 'engines')], capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))})
    assert done.stderr == ''
    assert 'not kept' in done.stdout
    assert done.stdout.endswith('100000 False\n')
    cache, _ = make(tmp_path)
    assert cache.read(KEY) == b''
    assert list(cache.directory.glob('*.partial')) == []
    assert list(cache.directory.glob('.*')) == []


def test_of_many_at_once_one_builds(tmp_path):
    context = multiprocessing.get_context('spawn')
    started, built = context.Event(), context.Queue()
    crowd = [context.Process(target=build_slowly, args=(tmp_path / 'engines', started, built))
             for _ in range(2)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(30)
    assert [process.exitcode for process in crowd] == [0] * 2
    built.get(timeout=1)
    assert built.empty()


def test_a_killed_builder_lets_the_next_one_build(tmp_path):
    context = multiprocessing.get_context('spawn')
    started, built = context.Event(), context.Queue()
    process = context.Process(
        target=build_slowly, args=(tmp_path / 'engines', started, built))
    process.start()
    assert started.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    cache, log = make(tmp_path)
    assert cache.get_or_build(KEY, lambda: CONTENT) == (CONTENT, False)
    assert log == []


def test_a_wait_for_another_process_can_be_ended(tmp_path):
    cache, _ = make(tmp_path)
    building, go_on, stop, told = (threading.Event() for _ in range(4))

    def build():
        building.set()
        go_on.wait(10)
        return CONTENT

    first = threading.Thread(target=cache.get_or_build, args=(KEY, build))
    first.start()
    assert building.wait(5)
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(CancelledError):
        cache.get_or_build(KEY, forbidden, stop=stop, waiting=told.set)
    assert told.is_set()
    go_on.set()
    first.join()
    assert cache.read(KEY) == CONTENT


def test_the_default_folder_follows_the_xdg_specification(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    for value in ('', 'relative'):
        monkeypatch.setenv('XDG_CACHE_HOME', value)
        assert default_cache() == tmp_path / '.cache' / 'derain_ros' / 'engines'
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'x'))
    assert default_cache() == tmp_path / 'x' / 'derain_ros' / 'engines'
