"""The limit for gradients that follows the gradients."""

import pytest

from derain_ros.training.clipping import FEWEST, LARGER_THAN_USUAL, clipping_limit


def test_the_fixed_limit_holds_until_enough_was_seen():
    assert clipping_limit(0.5, [0.1] * (FEWEST - 1)) == 0.5
    assert clipping_limit(0.5, [0.1] * FEWEST) == pytest.approx(0.15)


def test_it_follows_the_median_and_never_passes_the_fixed_limit():
    norms = [*[0.1] * 30, *[0.2] * 31, *[9.0] * 5]
    assert clipping_limit(0.5, norms) == pytest.approx(LARGER_THAN_USUAL * 0.2)
    assert clipping_limit(0.5, [4.0] * FEWEST) == 0.5
