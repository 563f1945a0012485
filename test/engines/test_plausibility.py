"""Results that cannot be those of their frames."""

import numpy as np
import pytest

from derain_ros.engines import Derained
from derain_ros.engines.agreement import find_implausible, harmless_picture

FRAMES = np.random.default_rng(2).integers(60, 200, (2, 48, 64, 3), np.uint8)
MASKS = np.zeros((2, 48, 64), np.uint8)


def flat(level):
    return np.full_like(FRAMES, level)


def test_a_derained_frame_is_plausible():
    assert find_implausible(FRAMES, Derained(FRAMES - 40, MASKS)) == ''


@pytest.mark.parametrize(('result', 'part'), [
    (None, 'NoneType'),
    (Derained(None, MASKS), 'the image is NoneType'),
    (Derained(FRAMES, MASKS[:1]), 'rain mask is uint8 of shape (1, 48, 64)'),
    (Derained(FRAMES.astype(np.float32), MASKS), 'the image is float32'),
    (Derained(flat(0), MASKS), 'flat, 0 everywhere'),
    (Derained(flat(255), MASKS), 'flat, 255 everywhere'),
    (Derained(np.where(FRAMES > 130, 0, 255).astype(np.uint8), MASKS), 'does not resemble'),
])
def test_nonsense_is_named(result, part):
    assert part in find_implausible(FRAMES, result)


def test_one_bad_frame_of_a_batch_is_enough():
    images = FRAMES.copy()
    images[1] = 0
    assert 'flat' in find_implausible(FRAMES, Derained(images, MASKS))


def test_flat_is_fine_where_the_frame_is_flat_or_dark():
    assert find_implausible(flat(7), Derained(flat(23), MASKS)) == ''
    night = flat(0)
    night[:, :, 24] = 60  # a streak
    assert find_implausible(night, Derained(flat(0), MASKS)) == ''


def test_the_harmless_picture_is_a_ramp_over_the_width():
    picture = harmless_picture((2, 5, 256, 3))
    assert picture.flags.c_contiguous
    assert (picture == np.arange(256)[:, np.newaxis]).all()
