"""The overlay and the blend, against values worked out by hand."""

import numpy as np
import pytest

from derain_ros.images.overlay import TINT_BGR, TINT_OPACITY, blend, draw_overlay


def _grey(value, height=4, width=6):
    return np.full((height, width, 3), value, np.uint8)


def test_dry_frame_is_unchanged():
    frame = np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    result = draw_overlay(frame, np.zeros((33, 47), np.uint8))
    assert np.array_equal(result, frame)
    assert not np.shares_memory(result, frame)


def test_only_masked_pixels_are_tinted():
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 255
    mask[2, 3] = 128
    mask[3, 4] = 64
    result = draw_overlay(_grey(100), mask).astype(int)
    full = [100 + TINT_OPACITY * (tint - 100) for tint in TINT_BGR]
    half = [100 + TINT_OPACITY * 0.5 * (tint - 100) for tint in TINT_BGR]
    assert result[1, 2] == pytest.approx(full, abs=1)
    assert result[2, 3] == pytest.approx(half, abs=1)
    result[1, 2] = result[2, 3] = 100
    assert (result == 100).all()


def test_blend_mixes_linearly():
    rainy, derained = _grey(200), _grey(100)
    assert blend(rainy, derained, 1.0) is derained
    assert blend(rainy, derained, 0.0) is rainy
    assert (blend(rainy, derained, 0.25) == 175).all()
    assert (blend(rainy, derained, 0.5) == 150).all()
    assert (blend(rainy, derained, 1.5) == 50).all()
    assert (blend(_grey(40), _grey(10), 1.5) == 0).all()  # -5, not 251


@pytest.mark.parametrize(('strength', 'width', 'part'), [
    (-0.01, 6, 'strength'), (1.51, 6, 'strength'), (float('nan'), 6, 'strength'),
    (0.5, 7, 'derained')])
def test_blend_refuses_another_strength_or_size(strength, width, part):
    with pytest.raises(ValueError, match=part):
        blend(_grey(0), _grey(1, width=width), strength)
