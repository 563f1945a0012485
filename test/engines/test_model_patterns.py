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


@pytest.mark.parametrize('model', model_names())
def test_dry_patterns_come_back(model):
    with closing(create_engine('openvino', model=model, precision='f32')) as engine:
        scores = {name: psnr(engine.infer(picture[None]).image[0], picture)
                  for name, picture in PICTURES.items()}
    assert {name: score for name, score in scores.items() if score < 25.5} == {}
    # The card of `pico` says what its large cells cost.
    assert np.median(list(scores.values())) > (45 if model == 'pico' else 48)
