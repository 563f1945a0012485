"""Files beside the engines, by the real builder of TensorRT for RTX where there is one."""

import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from cache_entries import CONTENT, KEY

from derain_ros.engines import EngineError
from derain_ros.engines.models import find_model
from derain_ros.engines.tensorrt.engine_cache import KERNELS, EngineCache
from derain_ros.engines.tensorrt.gpu_identity import GpuIdentity
from derain_ros.engines.tensorrt.side_file import SideFile
from derain_ros.engines.tensorrt.tensorrt_build import BuildRequest, build_engine
from derain_ros.engines.tensorrt.tensorrt_library import LogBook, find_library
from derain_ros.engines.tensorrt.timing_cache import TimingCache, timings_for

GPU = GpuIdentity('Orin', '8.7', '12.6')
# TensorRT for RTX says that its timing cache, which it makes and writes nonetheless, is of no use.
pytestmark = pytest.mark.filterwarnings('ignore:Use Deprecated in TensorRT-RTX')


@pytest.fixture
def library():
    pytest.importorskip('tensorrt_rtx', reason='the extra `tensorrt` is not installed')
    return find_library('tensorrt_rtx')


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / 'engines')


def side_file(cache, log):
    return SideFile(cache, 'a.timing', log.append)


def test_what_was_written_is_read(cache):
    log = []
    file = side_file(cache, log)
    assert file.read() == b''
    for content in (b'one', b'', bytes(1 << 20)):
        file.write(content)
        assert side_file(cache, log).read() == content
    assert log == []
    assert [path.name for path in cache.directory.iterdir()] == ['a.timing']
    assert cache.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize('damage', [
    lambda content: b'', lambda content: content[:20], lambda content: content[:-1],
    lambda content: content + b'x', lambda content: content[:40] + b'\0' + content[41:],
    lambda content: os.urandom(5000)])
def test_a_damaged_file_counts_as_empty_and_is_written_anew(cache, damage):
    log = []
    file = side_file(cache, log)
    file.write(b'measured times of kernels')
    path = cache.directory / 'a.timing'
    path.write_bytes(damage(path.read_bytes()))
    assert file.read() == b''
    assert 'a.timing is damaged' in log[0]
    file.write(b'new')
    assert file.read() == b'new'


def test_a_folder_that_others_may_write_is_not_used(cache):
    log = []
    file = side_file(cache, log)
    file.write(b'x')
    cache.directory.chmod(0o777)
    assert file.read() == b''
    file.write(b'y')
    cache.directory.chmod(0o700)
    assert file.read() == b'x'
    assert len(log) == 2
    assert all('others may write there' in text for text in log)


def test_a_place_that_cannot_be_written_is_told_and_not_fatal(tmp_path):
    (tmp_path / 'file').touch()
    log = []
    file = SideFile(EngineCache(tmp_path / 'file' / 'engines'), 'a.timing', log.append)
    file.write(b'x')
    assert file.read() == b''
    assert 'is not kept' in log[0]


def test_writers_at_once_leave_one_whole_file(cache):
    log = []
    contents = [bytes([number]) * 200_000 for number in range(8)]
    threads = [threading.Thread(target=side_file(cache, log).write, args=(content,))
               for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert side_file(cache, log).read() in contents
    assert log == []
    assert [path.name for path in cache.directory.iterdir()] == ['a.timing']


def test_a_writer_that_is_killed_leaves_the_old_content(cache):
    log = []
    side_file(cache, log).write(b'old')
    code = ('import sys, pathlib\n'
            'from derain_ros.engines.tensorrt.engine_cache import EngineCache\n'
            'from derain_ros.engines.tensorrt.side_file import SideFile\n'
            'file = SideFile(EngineCache(pathlib.Path(sys.argv[1])), "a.timing", print)\n'
            'print("ready", flush=True)\n'
            'while True: file.write(bytes(4_000_000))\n')
    with subprocess.Popen([sys.executable, '-c', code, str(cache.directory)],
                          stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()
    assert side_file(cache, log).read() in (b'old', bytes(4_000_000))
    assert log == []


def test_kernels_go_with_their_engine(cache):
    kernels = cache.directory / f'{KEY.digest()}{KERNELS}'
    cache.store(KEY, CONTENT)
    SideFile(cache, kernels.name, print).write(bytes(1000))
    cache.discard(KEY)
    assert cache.load(KEY) is None
    assert not kernels.exists()
    cache.store(KEY, CONTENT)
    SideFile(cache, kernels.name, print).write(bytes(1000))
    # Each engine fits alone; that of the kernels which go with it does not.
    small = EngineCache(cache.directory, limit=2 * len(CONTENT) + 500)
    small.store(replace(KEY, version='10.4.0'), CONTENT)
    assert cache.load(KEY) is None
    assert not kernels.exists()


# With TensorRT


def build(library, timings, precision='fp16'):
    wanted = BuildRequest(find_model('nano'), precision, ((96, 128),))
    return build_engine(wanted, wanted.read(), library, timings=timings)


def timing_file(cache):
    path, = cache.directory.glob('*.timing')
    return path


def test_a_build_writes_a_timing_cache_that_the_next_one_reads(library, cache, caplog):
    assert build(library, TimingCache(cache, library, GPU))
    first = timing_file(cache).read_bytes()
    assert len(first) > 100
    assert build(library, TimingCache(cache, library, GPU), 'fp32')
    assert len(timing_file(cache).read_bytes()) >= len(first)
    # Whether TensorRT takes it is up to it: without a GPU it does not.
    assert not re.search('damaged|not kept|not used:|no timing cache', caplog.text)


def test_a_damaged_timing_cache_is_ignored_and_written_anew(library, cache, caplog):
    build(library, TimingCache(cache, library, GPU))
    whole = timing_file(cache).read_bytes()
    timing_file(cache).write_bytes(whole[:50])
    with caplog.at_level(logging.WARNING):
        assert build(library, TimingCache(cache, library, GPU))
    assert 'damaged' in caplog.text
    assert timing_file(cache).read_bytes() == whole


def test_what_tensorrt_itself_refuses_is_written_anew(library, cache):
    """Sound bytes that are no timing cache: only TensorRT can tell."""
    timings = TimingCache(cache, library, GPU)
    timings._file.write(b'of another format' * 20)
    assert build(library, timings)
    assert b'of another format' not in timing_file(cache).read_bytes()


def test_a_full_disk_costs_the_timing_cache_and_not_the_engine(library, tmp_path, caplog):
    (tmp_path / 'file').touch()
    cache = EngineCache(tmp_path / 'file' / 'engines')
    assert build(library, TimingCache(cache, library, GPU))
    assert 'is not kept' in caplog.text


def test_each_gpu_and_driver_has_its_own(library, cache):
    for gpu in (GPU, GpuIdentity('Orin', '8.7', '12.8'), GpuIdentity('Thor', '11.0', '12.6')):
        TimingCache(cache, library, gpu)._file.write(b'x')
    assert len(list(cache.directory.glob('*.timing'))) == 3


def test_it_is_used_where_it_is_of_use(library, cache):
    assert timings_for(cache, library, GPU) is None  # RTX
    other = replace(library, flavour='tensorrt', needs_gpu=True)
    assert timings_for(cache, other, GPU) is not None
    assert timings_for(cache, other, GpuIdentity(missing='none')) is None


def test_a_null_pointer_becomes_an_error_in_the_words_of_tensorrt(library):
    book = LogBook()
    logger = book.logger(library)
    runtime = book.made(library.module.Runtime, logger, what='no runtime')
    with pytest.raises(EngineError, match=r'no engine: \S+'):
        book.made(runtime.deserialize_cuda_engine, b'no engine' * 100, what='no engine')
