"""The f32 reference that compiled engines are compared with, by OpenVINO or by torch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import frames

from derain_ros.engines import Derained
from derain_ros.engines.agreement import (
    LEAST_DB,
    LEAST_MASK_DB,
    MOST_DB,
    agreement,
    mask_agreement,
)
from derain_ros.engines.models import find_model
from derain_ros.engines.reference import Reference
from derain_ros.evaluation.metrics import psnr

CODE = """
import sys, numpy
for name in sys.argv[2:]:
    sys.modules[name] = None
from derain_ros.engines import EngineError
from derain_ros.engines.reference import Reference
from derain_ros.engines.models import find_model
try:
    reference = Reference(find_model(MODEL))
except EngineError as error:
    print(error)
else:
    print(reference.name)
    found = reference.infer(numpy.load(sys.argv[1])['frames'])
    numpy.savez(sys.argv[1], image=found.image, mask=found.rain_mask)
"""
ROOT = Path(__file__).resolve().parents[2]


def without(modules, file, model='nano'):
    """Run where modules cannot be imported; returns what it prints."""
    np.savez(file, frames=frames())
    done = subprocess.run(
        [sys.executable, '-c', CODE.replace('MODEL', repr(model)), str(file), *modules],
        capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torch_stands_in_for_openvino(tmp_path):
    pytest.importorskip('openvino', reason='needs OpenVINO')
    pytest.importorskip('torch', reason='needs the extra `train`')
    ours = Reference(find_model('nano'))
    assert ours.name == 'OpenVINO'
    assert without(['openvino'], tmp_path / 'found.npz') == 'torch'
    found, expected = np.load(tmp_path / 'found.npz'), ours.infer(frames())
    assert psnr(found['image'], expected.image) > 50
    assert psnr(found['mask'], expected.rain_mask) > 45


def test_without_any_reference_the_remedy_is_told(tmp_path):
    said = without(['openvino', 'torch'], tmp_path / 'found.npz')
    assert 'compared with the CPU before use' in said
    assert 'pip install openvino' in said
    assert 'import of torch halted' in said


@pytest.mark.slow
def test_torch_is_no_reference_for_a_file_without_weights(tmp_path):
    pytest.importorskip('torch', reason='needs the extra `train`')
    file = tmp_path / 'own.onnx'
    file.write_bytes(find_model('nano').onnx.read_bytes())
    said = without(['openvino'], tmp_path / 'found.npz', str(file))
    assert 'torch needs the weights of a zoo model, not own.onnx' in said
    assert 'pip install openvino' in said


def test_the_weights_are_checked(tmp_path):
    pytest.importorskip('torch', reason='needs the extra `train`')
    model = find_model('nano')
    weights = tmp_path / model.weights.name
    weights.write_bytes(model.weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match='sha256 differs'):
        Reference(replace(model, weights=weights))._by_torch(frames())


def test_agreement_against_hand_computed_values():
    image, mask = frames(), frames()[..., 0]
    same = Derained(image, mask)
    assert agreement(same, same) == mask_agreement(same, same) == MOST_DB
    inverted = Derained(255 - image, 255 - mask)
    assert agreement(same, inverted) < LEAST_DB
    assert mask_agreement(same, inverted) < LEAST_MASK_DB
    off = Derained(image, np.where(mask > 0, mask - 1, mask + 1).astype(np.uint8))
    assert mask_agreement(same, off) == pytest.approx(20 * np.log10(255))
    assert agreement(same, off) == MOST_DB
