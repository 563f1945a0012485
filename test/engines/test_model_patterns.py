"""Shipped models on dry pictures far from photographs: they may not break up."""

from contextlib import closing

import numpy as np
import pytest
from hard_pictures import hard_pictures

pytest.importorskip('openvino', reason='needs OpenVINO')

from derain_ros.engines import create_engine
from derain_ros.engines.models import model_names
from derain_ros.evaluation.metrics import psnr

PICTURES = hard_pictures()

BROKEN = {
    'nano': set(),
    'base': {'fence, 4 px, 30%, 90 degrees', 'fence, 7 px, 60%, 90 degrees', 'checkers, 2 px',
             'wires, 1.5 px, 157 degrees'},
}
"""What comes back below 21 dB, as the cards say; whoever trains on changes these sets."""


@pytest.mark.parametrize('model', model_names())
def test_dry_patterns_come_back(model):
    with closing(create_engine('openvino', model=model, precision='f32')) as engine:
        scores = {name: psnr(engine.infer(picture[None]).image[0], picture)
                  for name, picture in PICTURES.items()}
    assert {name for name, score in scores.items() if score < 21} == BROKEN.get(model, set())
    assert np.median(list(scores.values())) > 44
