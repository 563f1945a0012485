"""The model zoo as it is shipped, and with any of its files missing or damaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from memory_model import scene

from derain_ros.cli import main
from derain_ros.engines import EngineError, create_engine
from derain_ros.engines.models import find_model, model_names, share_directory
from derain_ros.images.memory import Memory

ROOT = Path(__file__).resolve().parents[2]


def test_share_directory_of_a_checkout():
    assert (share_directory() / 'models' / 'nano.onnx').is_file()
    assert (share_directory() / 'config' / 'derain.yaml').is_file()


@pytest.mark.parametrize('name', model_names())
def test_every_model_is_complete_and_undamaged(name):
    model = find_model(name)
    assert model.problems() == []
    assert set(model.sha256) == {
        file.name for file in (model.onnx, model.onnx_fp16, model.weights)}
    assert model.licence == 'Apache-2.0'
    assert model.parameters > 0
    assert model.figures
    most = {'pico': 7_000, 'nano': 16_000, 'nano-t': 17_300, 'base': 160_000,
            'base-t': 162_000}[model.variant]
    assert 0 < model.flops_per_pixel <= most
    card = model.onnx.with_suffix('.md').read_text(encoding='utf-8')
    for heading in ('Data', 'Licence', 'Figures', 'Limits'):
        assert f'## {heading}' in card


def test_an_onnx_file_is_a_model_too(tmp_path):
    file = tmp_path / 'mine.onnx'
    shutil.copy(find_model('nano').onnx, file)
    model = find_model(str(file))
    assert (model.name, model.onnx, model.weights) == ('mine', file, None)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Copy the zoo to where it may be damaged, and have it found there."""
    shutil.copytree(ROOT / 'models', tmp_path / 'models')
    monkeypatch.setattr('derain_ros.engines.models.share_directory', lambda: tmp_path)
    return tmp_path / 'models'


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize('harm', [Path.unlink, flip], ids=['missing', 'one bit'])
@pytest.mark.parametrize(
    'file', ['nano.json', 'nano.onnx', 'nano.safetensors', 'nano_fp16.onnx'])
def test_a_broken_file_harms_the_engines_that_load_it_alone(zoo, capsys, file, harm):
    pytest.importorskip('openvino', reason='needs OpenVINO')
    pytest.importorskip('torch', reason='needs the extra `train`')
    harm(zoo / file)
    if file.endswith('.json') and harm is flip:
        (zoo / file).write_text('{"variant": "nano", "parameters": "many"}')
    needed = {'.json': ['openvino', 'torch'], '.safetensors': ['torch']}.get(
        Path(file).suffix, [] if 'fp16' in file else ['openvino'])
    for engine in ('openvino', 'torch'):
        if engine in needed:
            with pytest.raises(EngineError, match=f'{file}.*; install the package again|'
                               f'{file}: .*was replaced: install the package again'):
                create_engine(engine, 'nano', precision='f32')
        else:
            create_engine(engine, 'nano', precision='f32').close()
    if file == 'nano.onnx':
        create_engine('openvino', 'base', precision='f32').close()
    assert main(['info', '--json']) == 0
    found = {model['name']: model['problems']
             for model in json.loads(capsys.readouterr().out)['models']}
    assert found.pop('nano')[0].startswith(str(zoo / file))
    assert set(map(tuple, found.values())) == {()}
    assert main(['info']) == 0
    assert f'broken: {zoo / file}: ' in capsys.readouterr().out


def test_a_model_of_the_zoo_must_have_digests(zoo):
    facts = json.loads((zoo / 'nano.json').read_text())
    for name in list(facts['sha256']):
        del facts['sha256'][name]
    (zoo / 'nano.json').write_text(json.dumps(facts))
    with pytest.raises(EngineError, match=r'nano\.json: no sha256 of nano\.onnx'):
        create_engine('openvino', 'nano')


def test_a_model_of_an_earlier_release_has_no_fp16_file(zoo):
    facts = json.loads((zoo / 'nano.json').read_text())
    del facts['sha256']['nano_fp16.onnx']
    (zoo / 'nano.json').write_text(json.dumps(facts))
    (zoo / 'nano_fp16.onnx').unlink()
    assert find_model('nano').onnx_fp16 is None
    assert find_model('nano').problems() == []


def test_nano_t_tells_rain_from_a_lamp_before_a_camera_that_stands():
    pytest.importorskip('openvino')
    engine, memory, dark = create_engine('openvino', 'nano-t'), Memory(), scene(4, 128, 192) // 2
    lit = dark.copy()
    lit[60:74, 90:93] = np.minimum(lit[60:74, 90:93].astype(int) + 60, 255)
    spot = np.s_[61:73, 91]

    rng = np.random.default_rng(0)

    def left(number, frame, noise=1):
        frame = frame + rng.integers(0, 1 + noise, frame.shape, np.uint8)
        result = memory.through(engine.infer, number / 30)(frame[None]).image[0]
        shown, wanted = (one[spot].astype(float) - dark[spot] for one in (result, lit))
        return shown.mean() / wanted.mean()

    for number in range(20):
        left(number, dark)
    assert left(20, lit) < 0.2  # a streak, as far as anybody can know
    assert left(21, dark) == pytest.approx(0, abs=0.05)
    left(22, lit)
    assert min(left(number, lit) for number in range(23, 27)) > 0.8  # rain would be gone
    # Without noise, the first frames might be copies of one.
    for number in range(27, 50):
        left(number, dark, 0)
    shown = [left(number, lit, 0) for number in range(50, 60)]
    assert shown[0] < 0.2 and min(shown[7:]) > 0.8
