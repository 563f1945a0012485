"""Shipped models on dry pictures far from photographs: they may not break up."""

import numpy as np
import pytest
from hard_pictures import hard_pictures

pytest.importorskip('openvino', reason='needs OpenVINO')

from derain_ros.engines import create_engine
from derain_ros.engines.models import model_names
from derain_ros.evaluation.metrics import psnr

PICTURES = hard_pictures()


@pytest.fixture(scope='module', params=model_names())
def engine(request):
    engine = create_engine('openvino', model=request.param, precision='f32')
    yield engine
    engine.close()


def score(engine, kind):
    """PSNR in dB of the pictures of a kind, by name."""
    return {
        name: psnr(engine.infer(picture[None]).image[0], picture)
        for name, picture in PICTURES.items() if name.startswith(kind)
    }


@pytest.mark.parametrize('side', [1, 2, 4])
def test_dry_checkers_come_back(engine, side, request):
    if engine.info.model == 'base' and side == 2:
        request.applymarker(pytest.mark.xfail(
            strict=True, reason='base takes checkers of two pixels for rain, see its card'))
    scores = score(engine, f'checkers, {side} px')
    assert min(scores.values()) > 20, scores


@pytest.mark.parametrize('kind', ['fence', 'lattice', 'blinds', 'noise'])
def test_dry_patterns_come_back(engine, kind):
    scores = score(engine, kind)
    assert min(scores.values()) > 20, scores
    if kind != 'noise':
        assert np.median(list(scores.values())) > 30, scores
