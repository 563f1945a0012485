"""Engines: one contract, the same pixels."""

import subprocess
import sys
from collections import OrderedDict
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import add_rain, frames

pytest.importorskip('openvino', reason='needs OpenVINO')

from derain_ros.engines import EngineError, create_engine, engine_report
from derain_ros.engines.agreement import agreement, state_for, test_frame
from derain_ros.engines.contract import KEPT_SIZES, ready_for
from derain_ros.engines.models import model_names
from derain_ros.evaluation.metrics import psnr

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def openvino():
    engine = create_engine('openvino')
    yield engine
    engine.close()


@pytest.fixture(scope='module')
def exact():
    engine = create_engine('openvino', precision='f32')
    yield engine
    engine.close()


@pytest.fixture(scope='module')
def torch_engine():
    pytest.importorskip('torch', reason='the torch engine needs the extra `train`')
    engine = create_engine('torch')
    yield engine
    engine.close()


def test_auto_says_what_and_why():
    engine = create_engine()
    info = engine.info
    assert info.engine == 'openvino'
    assert info.model == 'nano'
    assert info.precision in ('f32', 'bf16')
    assert info.device
    assert 'first that works here' in info.reason
    assert 'bf16' in info.reason
    engine.close()


@pytest.mark.parametrize('model', model_names())
def test_auto_computes_in_bf16_wherever_the_cpu_does(model):
    with closing(create_engine('openvino', model)) as engine:
        reason = engine.info.reason
    if 'no bf16 arithmetic' in reason:
        pytest.skip(reason)
    assert 'bf16 agrees with f32 to' in reason


@pytest.mark.parametrize(('batch', 'size'), [
    (1, (32, 32)), (2, (61, 45))])
def test_engines_agree(exact, torch_engine, size, batch):
    images = frames(*size, batch)
    ours, reference = exact.infer(images), torch_engine.infer(images)
    assert ours.image.shape == images.shape
    assert ours.rain_mask.shape == images.shape[:3]
    assert ours.image.dtype == ours.rain_mask.dtype == np.uint8
    assert psnr(ours.image, reference.image) > 50
    assert psnr(ours.rain_mask, reference.rain_mask) > 45


def test_bf16_keeps_the_order_of_many_tokens_or_says_why_it_does_not_run(exact):
    # 4800 tokens: their places in a cluster are beyond what bf16 counts exactly.
    images = frames(480, 640)
    try:
        engine = create_engine('openvino', precision='bf16')
    except EngineError as error:
        assert 'bf16' in str(error) and 'f32' in str(error)
        pytest.skip(str(error))
    assert engine.info.precision == 'bf16'
    assert psnr(exact.infer(images).image, engine.infer(images).image) > 38
    engine.close()


def test_rain_is_removed_and_found(openvino):
    scene = cv2.resize(
        np.random.default_rng(2).integers(40, 200, (6, 8, 3), dtype=np.uint8), (256, 192)
    )
    rainy = add_rain(scene, 0.5, np.random.default_rng(4))
    out = openvino.infer(rainy.image[None])
    assert psnr(out.image[0], scene) > psnr(rainy.image, scene) + 3
    rain = rainy.streaks > 0.1
    assert out.rain_mask[0][rain].mean() > 2 * out.rain_mask[0][rainy.streaks == 0].mean()


def test_layers_are_timed_and_counted(exact):
    cpu, layers = exact.profile(frames(64, 64), 2)
    assert cpu > 0
    assert all(layer.ms >= 0 for layer in layers)
    one = next(layer for layer in layers if layer.kind == 'Convolution')
    assert one.kernel and one.size > 0
    # The deployed network has 15.7 kFLOP to a pixel; small pictures are padded more.
    assert 12e3 < sum(layer.flops for layer in layers) / 64**2 < 18e3


def test_results_are_the_callers_and_the_same_each_time(openvino):
    images = frames()
    first = openvino.infer(images)
    kept = first.image.copy(), first.rain_mask.copy()
    openvino.infer(255 - images)
    for again in (first, *(openvino.infer(images) for _ in range(3))):
        assert np.array_equal(again.image, kept[0])
        assert np.array_equal(again.rain_mask, kept[1])


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        (np.zeros((1, 64, 64, 3), np.float32), 'expected uint8'),
        (np.zeros((64, 64, 3), np.uint8), 'expected uint8'),
        (np.zeros((1, 64, 64, 4), np.uint8), 'expected uint8'),
        (np.zeros((0, 64, 64, 3), np.uint8), 'empty batch'),
        (np.zeros((1, 31, 64, 3), np.uint8), 'at least 32'),
    ],
)
def test_wrong_input_is_refused(openvino, torch_engine, images, message):
    for engine in (openvino, torch_engine):
        with pytest.raises(ValueError, match=message):
            engine.infer(images)


def test_shapes_are_kept_by_number_and_by_pixels():
    class Plan:
        closed = False

        def close(self):
            self.closed = True

    def kept(*shapes):
        found, made = OrderedDict(), {}
        for shape in shapes:
            made[shape] = ready_for(found, shape, Plan)
        assert {shape for shape in made if made[shape].closed} == made.keys() - found.keys()
        return list(found)

    small = [(1, 32, 32 + k, 3) for k in range(KEPT_SIZES + 3)]
    assert kept(*small) == small[3:]
    again = [*small[:KEPT_SIZES], small[0], small[KEPT_SIZES]]
    assert kept(*again) == again[2:]
    large = [(1, 2160 + k, 3840, 3) for k in range(6)]  # 8.3 million pixels
    patch = (1, 192, 256, 3)
    assert kept(*large) == large[2:]
    assert kept(large[0], *small[:4]) == [large[0], *small[:4]]
    assert kept(*large[:3], *small[:2]) == [*large[1:3], *small[:2]]
    # What one camera needs stays, however large it is.
    assert kept((1, 3648, 5472, 3), patch) == [(1, 3648, 5472, 3), patch]


def test_closed_engines_say_so():
    for name in ('openvino', 'torch'):
        if name == 'torch':
            pytest.importorskip('torch', reason='the torch engine needs the extra `train`')
        engine = create_engine(name)
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match='closed'):
            engine.infer(frames())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'engine': 'warp'}, "unknown engine 'warp'; known: auto, tensorrt, openvino, torch"),
        ({'model': 'mega'}, "unknown model 'mega'; known: .*nano"),
        ({'model': 'absent.onnx'}, 'no such file'),
        ({'precision': 'int4'}, "unknown precision 'int4'; known: auto, f32, f16, bf16"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(EngineError, match=message):
        create_engine(**arguments)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    file = tmp_path / 'noise.onnx'
    file.write_bytes(bytes(range(256)) * 9)
    with pytest.raises(EngineError, match=r'noise\.onnx'):
        create_engine('openvino', str(file))


def test_a_model_of_another_kind_is_refused(tmp_path):
    onnx = pytest.importorskip('onnx', reason='needs the extra `train`')
    value = [onnx.helper.make_tensor_value_info(n, 1, [1]) for n in ('x', 'y')]
    node = onnx.helper.make_node('Relu', ['x'], ['y'])
    graph = onnx.helper.make_graph([node], 'g', value[:1], value[1:])
    file = tmp_path / 'relu.onnx'
    opset = [onnx.helper.make_opsetid('', 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), file)
    with pytest.raises(EngineError, match="has the input 'image'"):
        create_engine('openvino', str(file))


def test_report_names_every_engine():
    report = {status.engine: status for status in engine_report()}
    assert list(report) == ['tensorrt', 'openvino', 'torch']
    assert report['openvino'].available
    assert 'OpenVINO 20' in report['openvino'].detail
    for status in report.values():
        assert status.available or 'pip install' in status.detail or 'GPU' in status.detail


def test_the_vehicle_needs_no_torch():
    code = (
        'import sys; sys.modules["torch"] = sys.modules["cuda"] = None\n'
        'from derain_ros.engines import create_engine, engine_report\n'
        'print(create_engine().info.engine)\n'
        'print([s.detail for s in engine_report() if not s.available])\n'
    )
    run = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith('openvino\n')
    # Not by the name of this package: PyPI has none of ours, and anyone may register it.
    assert 'pip install torch safetensors' in run.stdout
    # Not plain cuda-bindings, which are those of CUDA 13 and not JetPack 6's.
    assert '"cuda-python==12.6.*"' in run.stdout


@pytest.mark.parametrize(('module', 'text', 'told'), [
    ('openvino', '', "has no attribute 'Core'"),  # as before 2023
    ('openvino', 'raise OSError("libtbb.so.12: cannot open shared object file")', 'libtbb.so.12'),
    ('torch', 'raise RuntimeError("built for another Python")', 'another Python')])
def test_a_broken_back_end_is_told_and_the_others_are_not_harmed(tmp_path, module, text, told):
    (tmp_path / f'{module}.py').write_text(text)
    run = subprocess.run(
        [sys.executable, '-c',
         f'import sys; sys.path.insert(0, {str(tmp_path)!r}); from derain_ros.cli import main; '
         'sys.exit(main(["info"]))'], cwd=ROOT, capture_output=True, text=True, check=True)
    line = next(line for line in run.stdout.splitlines() if line.startswith(f'  {module}: not'))
    assert told in line and 'pip install --force-reinstall --no-deps' in line


def test_nano_t_is_nano_without_a_state_and_agrees_between_engines_with_one():
    frame = np.ascontiguousarray(test_frame(96, 160))
    state = np.ascontiguousarray(state_for(frame))
    with closing(create_engine('openvino', 'nano-t', precision='f32')) as ours:
        alone = ours.infer(frame)
        known = ours.infer(frame, state)
        assert ours.info.remembers
        with pytest.raises(ValueError, match=r'expected uint8 states of shape \(1, 96, 160, 4\)'):
            ours.infer(frame, state[:, :-1])
    with closing(create_engine('openvino', 'nano', precision='f32')) as nano:
        single = nano.infer(frame)
        with pytest.raises(ValueError, match='the model takes single frames, no states'):
            nano.infer(frame, state)
    np.testing.assert_array_equal(alone.image, single.image)
    np.testing.assert_array_equal(alone.rain_mask, single.rain_mask)
    assert np.abs(known.image.astype(int) - alone.image).max() > 3
    pytest.importorskip('torch', reason='the torch engine needs the extra `train`')
    with closing(create_engine('torch', 'nano-t', precision='f32')) as torch:
        assert agreement(known, torch.infer(frame, state)) > 60
        assert agreement(alone, torch.infer(frame)) > 60
