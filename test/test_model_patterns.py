"""Shipped models on dry pictures far from photographs: they may not break up."""

import numpy as np
import pytest
from hard_pictures import hard_pictures

pytest.importorskip('openvino', reason='needs OpenVINO')

from derain_ros.engines import create_engine
from derain_ros.evaluation.metrics import psnr
from derain_ros.models import list_models

PICTURES = hard_pictures()


@pytest.fixture(scope='module', params=[model.name for model in list_models()])
def engine(request):
    engine = create_engine('openvino', model=request.param, precision='f32')
    yield engine
    engine.close()


@pytest.mark.parametrize('kind', ['fence', 'lattice', 'blinds', 'checkers', 'noise'])
def test_dry_patterns_come_back(engine, kind):
    scores = {}
    for name, picture in PICTURES.items():
        if name.startswith(kind):
            scores[name] = psnr(engine.infer(picture[None]).image[0], picture)
    assert min(scores.values()) > 20, scores
    if kind != 'noise':
        assert np.median(list(scores.values())) > 30, scores
