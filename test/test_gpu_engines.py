"""Engines on an NVIDIA GPU; skipped where there is none. The rest of the tests needs no GPU."""

import numpy as np
import pytest
from test_engines import frames, psnr

from derain_ros.engines import (
    ENGINES,
    EngineError,
    auto_engines,
    create_engine,
    engine_report,
)
from derain_ros.engines.gpu_identity import find_gpu

AVAILABLE = {status.engine: status for status in engine_report()}
GPU_ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(
        not (AVAILABLE[name].available and find_gpu().name),
        reason=f'{name} has no GPU here: {find_gpu().missing or AVAILABLE[name].detail}'))
    for name in ('tensorrt', 'torch')]
NO_GPU = pytest.mark.skipif(bool(find_gpu().name), reason='this machine has a GPU')


@pytest.fixture(params=GPU_ENGINES)
def name(request, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return request.param


@pytest.mark.parametrize('precision', ['f32', 'f16'])
@pytest.mark.parametrize('size', [(32, 32), (96, 128), (61, 45), (480, 640)])
@pytest.mark.parametrize('batch', [1, 2])
def test_the_gpu_sees_what_the_cpu_sees(name, precision, size, batch):
    images = frames(*size, batch)
    reference = create_engine('openvino', precision='f32')
    engine = create_engine(name, precision=precision)
    found, expected = engine.infer(images), reference.infer(images)
    assert found.image.shape == images.shape
    assert found.rain_mask.shape == images.shape[:3]
    assert psnr(found.image, expected.image) > (50 if precision == 'f32' else 45)
    for one in (engine, reference):
        one.close()


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


@NO_GPU
def test_without_a_gpu_tensorrt_says_why():
    with pytest.raises(EngineError, match=r'engine tensorrt: no NVIDIA GPU|no Python module cuda'):
        create_engine('tensorrt')


def test_what_has_never_run_is_not_taken_by_itself():
    assert 'tensorrt' in ENGINES
    assert auto_engines() == ['openvino', 'torch']


def test_openvino_refuses_f16():
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
