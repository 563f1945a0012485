"""The model zoo as it is shipped."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from derain_ros.engines.models import ModelError, digest, find_model, list_models, share_directory

ROOT = Path(__file__).resolve().parents[2]


def test_share_directory_of_a_checkout():
    assert (share_directory() / 'models' / 'nano.onnx').is_file()
    assert (share_directory() / 'config' / 'derain.yaml').is_file()


def test_every_model_is_complete_and_undamaged():
    shipped = list_models()
    assert 'nano' in [model.name for model in shipped]
    for model in shipped:
        model.verify(model.onnx)
        files = (model.onnx, model.onnx_fp16, model.weights)
        for file in files:
            model.verify(file)
        assert set(model.sha256) == {file.name for file in files}
        assert model.licence == 'Apache-2.0'
        assert model.parameters > 0
        assert model.figures
        card = model.onnx.with_suffix('.md').read_text(encoding='utf-8')
        for heading in ('Data', 'Licence', 'Figures', 'Limits'):
            assert f'## {heading}' in card


@pytest.mark.parametrize(('name', 'most'), [('nano', 16_000), ('base', 160_000)])
def test_models_are_within_their_cost(name, most):
    for model in list_models():
        if model.variant == name:
            assert 0 < model.flops_per_pixel <= most


def test_digest_is_sha256(tmp_path):
    file = tmp_path / 'x'
    file.write_bytes(b'rain' * 700_000)
    assert digest(file) == hashlib.sha256(b'rain' * 700_000).hexdigest()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ModelError, match=r"unknown model 'mega'; known: .*nano"):
        find_model('mega')
    with pytest.raises(ModelError, match=r'absent\.onnx: no such file'):
        find_model('absent.onnx')


def test_an_onnx_file_is_a_model_too(tmp_path):
    file = tmp_path / 'mine.onnx'
    shutil.copy(find_model('nano').onnx, file)
    model = find_model(str(file))
    assert (model.name, model.onnx, model.weights) == ('mine', file, None)


def test_a_damaged_file_is_refused(tmp_path):
    nano = find_model('nano')
    damaged = tmp_path / 'nano.onnx'
    data = bytearray(nano.onnx.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ModelError, match='sha256 differs'):
        nano.verify(damaged)


def test_facts_agree_with_the_file_on_disk():
    for path in sorted((ROOT / 'models').glob('*.json')):
        facts = json.loads(path.read_text(encoding='utf-8'))
        for name, expected in facts['sha256'].items():
            assert digest(path.parent / name) == expected


def test_a_model_of_an_earlier_release_has_no_fp16_file(tmp_path):
    nano = find_model('nano')
    for folder in ('models', 'config', 'derain_ros/engines'):
        (tmp_path / folder).mkdir(parents=True)
    for file in (nano.onnx, nano.weights, nano.onnx.with_suffix('.json')):
        shutil.copy(file, tmp_path / 'models')
    for name in ('__init__', 'engines/__init__', 'engines/contract', 'engines/models'):
        shutil.copy(ROOT / f'derain_ros/{name}.py', tmp_path / f'derain_ros/{name}.py')
    code = "from derain_ros.engines.models import find_model; print(find_model('nano'))"
    found = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path) in found.stdout
    assert 'onnx_fp16=None' in found.stdout
