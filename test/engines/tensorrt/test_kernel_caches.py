"""Files beside the engines, by the real builder of TensorRT for RTX where there is one."""

import re
from dataclasses import replace

import pytest

from derain_ros.engines import EngineError
from derain_ros.engines.models import find_model
from derain_ros.engines.tensorrt.cuda_runtime import GpuIdentity
from derain_ros.engines.tensorrt.engine_cache import EngineCache
from derain_ros.engines.tensorrt.tensorrt_build import (
    TIMING,
    BuildRequest,
    TimingCache,
    build_engine,
    timings_for,
)
from derain_ros.engines.tensorrt.tensorrt_library import LogBook, find_library

GPU = GpuIdentity('Orin', '8.7', '12.6')
# TensorRT for RTX says that its timing cache, which it makes and writes nonetheless, is of no use.
pytestmark = pytest.mark.filterwarnings('ignore:Use Deprecated in TensorRT-RTX')


@pytest.fixture
def library():
    pytest.importorskip('tensorrt_rtx', reason='the extra `tensorrt` is not installed')
    return find_library('tensorrt_rtx')


@pytest.fixture
def log():
    return []


@pytest.fixture
def cache(tmp_path, log):
    return EngineCache(tmp_path / 'engines', log=log.append)


def build(library, timings, precision='fp16'):
    wanted = BuildRequest(find_model('nano'), precision, (96, 128))
    return build_engine(wanted, wanted.read(), library, timings=timings)


def content(cache, timings):
    return cache.read(timings.key, TIMING)


def test_a_build_writes_a_timing_cache_that_the_next_one_reads(library, cache, log, caplog):
    timings = TimingCache(cache, library, GPU)
    assert build(library, timings)
    first = content(cache, timings)
    assert len(first) > 100
    assert build(library, TimingCache(cache, library, GPU), 'fp32')
    assert len(content(cache, timings)) >= len(first)
    # Whether TensorRT takes it is up to it: without a GPU it does not.
    assert not re.search('not kept|no timing cache', caplog.text)
    assert log == []


@pytest.mark.slow
def test_a_damaged_timing_cache_is_ignored_and_written_anew(library, cache, log):
    timings = TimingCache(cache, library, GPU)
    build(library, timings)
    whole = content(cache, timings)
    cache.path(timings.key, TIMING).write_bytes(whole[:50])
    assert build(library, timings)
    assert 'it has 50 bytes' in log[0]
    assert content(cache, timings) == whole


def test_what_tensorrt_itself_refuses_is_written_anew(library, cache):
    """Sound bytes that are no timing cache: only TensorRT can tell."""
    timings = TimingCache(cache, library, GPU)
    cache.write(timings.key, b'of another format' * 20, TIMING)
    assert build(library, timings)
    assert b'of another format' not in content(cache, timings)


@pytest.mark.slow
def test_a_full_disk_costs_the_timing_cache_and_not_the_engine(library, tmp_path, log):
    (tmp_path / 'file').touch()
    cache = EngineCache(tmp_path / 'file' / 'engines', log=log.append)
    assert build(library, TimingCache(cache, library, GPU))
    assert 'is not kept' in log[-1]


def test_each_gpu_and_driver_has_its_own(library, cache):
    gpus = (GPU, GpuIdentity('Orin', '8.7', '12.8'), GpuIdentity('Thor', '11.0', '12.6'))
    assert len({cache.path(TimingCache(cache, library, gpu).key, TIMING) for gpu in gpus}) == 3


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
