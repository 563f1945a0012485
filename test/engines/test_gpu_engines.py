"""Engines on an NVIDIA GPU; skipped where there is none. The rest of the tests needs no GPU.

Needs neither OpenVINO nor ROS: borrowed machines with a GPU have neither.
"""

import functools
import gc
import json
import logging
import re
import statistics

import numpy as np
import pytest
from pictures import frames

from derain_ros.engines import ENGINES, EngineError, auto_engines, create_engine, engine_report
from derain_ros.engines.models import find_model
from derain_ros.engines.reference import Reference
from derain_ros.engines.tensorrt.cuda_runtime import ask, cuda, find_gpu
from derain_ros.evaluation.metrics import psnr

AVAILABLE = {status.engine: status for status in engine_report()}
GPU_ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(
        not (AVAILABLE[name].available and find_gpu().name),
        reason=f'{name} has no GPU here: {find_gpu().missing or AVAILABLE[name].detail}'))
    for name in ('tensorrt', 'torch')]
NO_GPU = pytest.mark.skipif(bool(find_gpu().name), reason='this machine has a GPU')
CYCLES = 50
MOST_GROWTH_MIB = 5


@pytest.fixture(params=GPU_ENGINES)
def name(request, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return request.param


@functools.cache
def expected(size, batch):
    return Reference(find_model('nano')).infer(frames(*size, batch))


@pytest.mark.parametrize('precision', ['f32', 'f16'])
@pytest.mark.parametrize('size', [(32, 32), (96, 128), (61, 45), (480, 640)])
@pytest.mark.parametrize('batch', [1, 2])
def test_the_gpu_sees_what_the_cpu_sees(name, precision, size, batch):
    images = frames(*size, batch)
    engine = create_engine(name, precision=precision)
    found = engine.infer(images)
    assert found.image.shape == images.shape
    assert found.rain_mask.shape == images.shape[:3]
    assert psnr(found.image, expected(size, batch).image) > (50 if precision == 'f32' else 45)
    engine.close()


def test_results_are_the_callers_and_the_same_each_time(name):
    images = frames()
    engine = create_engine(name)
    first = engine.infer(images)
    kept = first.image.copy()
    engine.infer(255 - images)
    assert np.array_equal(first.image, kept)
    assert np.array_equal(engine.infer(images).image, kept)
    engine.infer(frames(64, 96))
    assert np.array_equal(engine.infer(images).image, kept)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match='closed'):
        engine.infer(images)


def test_a_compiled_engine_is_found_again(name, tmp_path):
    if name != 'tensorrt':
        pytest.skip('torch compiles nothing')
    create_engine(name).infer(frames())
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.engine')}
    assert len(made) == 1
    create_engine(name).infer(frames())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.engine')} == made


def test_an_engine_that_was_only_built_is_verified_at_its_first_use(name, tmp_path, caplog):
    if name != 'tensorrt':
        pytest.skip('torch compiles nothing')

    def verified():
        caplog.clear()
        engine = create_engine(name)
        engine.infer(frames())
        assert engine.activity == ''
        engine.close()
        return 'in f32 to' in caplog.text

    with caplog.at_level(logging.INFO):
        assert verified()
        assert not verified()
        file, = tmp_path.rglob('*.engine.json')
        facts = json.loads(file.read_text())
        del facts['verified']  # as `derain build-engine` leaves it, which runs nothing
        file.write_text(json.dumps(facts))
        assert verified()
        assert not verified()


def test_what_the_layers_compute_in_is_told(name, caplog):
    if name != 'tensorrt':
        pytest.skip('torch has no inspector')
    engine = create_engine(name, precision='f16')
    with caplog.at_level(logging.INFO):
        engine.infer(frames())
    assert 'TensorRT does not report' not in caplog.text
    assert re.search(r'at 128x96 \d+ layers?: .*\d+ % f16', engine.info.reason)
    engine.infer(frames(64, 96))
    assert engine.info.reason.count('layer') == 1
    engine.close()


def test_fifty_engines_one_after_the_other_leave_no_memory_of_the_gpu_behind(name):
    images = frames(64, 96)
    used = []
    for _ in range(CYCLES):
        engine = create_engine(name, precision='f16')
        engine.infer(images)
        engine.close()
        del engine
        gc.collect()
        free, total = _memory()
        used.append((total - free) / 2**20)
    # The first ones also load the libraries.
    early, late = statistics.median(used[5:10]), statistics.median(used[-5:])
    assert late - early < MOST_GROWTH_MIB, used


def _memory():
    """Return free and all memory of the GPU in bytes."""
    error, *amounts = cuda().cudaMemGetInfo()
    ask((error,))
    return amounts


@NO_GPU
def test_without_a_gpu_tensorrt_says_why():
    with pytest.raises(EngineError, match='engine tensorrt: no NVIDIA GPU can be used'):
        create_engine('tensorrt')


@pytest.mark.skipif(
    find_gpu().compute_capability != '9.0', reason='needs a GPU that TensorRT for RTX lacks')
def test_a_gpu_that_the_library_does_not_know_is_told():
    pytest.importorskip('tensorrt_rtx', reason='the extra `tensorrt` is not installed')
    if AVAILABLE['tensorrt'].available:
        pytest.skip('tensorrt itself is installed and knows it')
    with pytest.raises(EngineError, match=r'compute capability 9\.0, and tensorrt_rtx lists'):
        create_engine('tensorrt')


def test_what_has_never_run_is_not_taken_by_itself():
    assert 'tensorrt' in ENGINES
    assert auto_engines() == ['openvino', 'torch']


def test_openvino_refuses_f16():
    pytest.importorskip('openvino', reason='needs OpenVINO')
    with pytest.raises(EngineError, match='f32 or bf16'):
        create_engine('openvino', precision='f16')


@NO_GPU
def test_torch_computes_in_f16_on_a_cpu_too():
    pytest.importorskip('torch', reason='the torch engine needs the extra `train`')
    images = frames()
    half, full = create_engine('torch', precision='f16'), create_engine('torch')
    assert (half.info.precision, full.info.precision) == ('f16', 'f32')
    assert psnr(half.infer(images).image, full.infer(images).image) > 45
    half.close()
    full.close()
