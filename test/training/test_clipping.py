"""The limit for gradients that follows the gradients."""

import pytest

from derain_ros.training.clipping import FEWEST, LARGER_THAN_USUAL, REMEMBERED, Clipping


def filled(largest, *norms):
    clipping = Clipping(largest)
    for norm in norms:
        clipping.add(norm)
    return clipping


def test_the_fixed_limit_holds_until_enough_was_seen():
    clipping = filled(0.5, *[0.1] * (FEWEST - 1))
    assert clipping.limit() == 0.5
    clipping.add(0.1)
    assert clipping.limit() == pytest.approx(0.15)


def test_it_follows_the_median_and_never_passes_the_fixed_limit():
    clipping = filled(0.5, *[0.1] * 30, *[0.2] * 31, *[9.0] * 5)
    assert clipping.limit() == pytest.approx(LARGER_THAN_USUAL * 0.2)
    assert filled(0.5, *[4.0] * FEWEST).limit() == 0.5


def test_what_is_long_ago_is_forgotten():
    clipping = filled(9.0, *[1.0] * REMEMBERED, *[0.1] * REMEMBERED)
    assert clipping.limit() == pytest.approx(0.15)


def test_a_checkpoint_takes_it_along():
    clipping = filled(0.5, *[0.1] * 60)
    other = filled(0.5, *[7.0] * 80)
    other.load(clipping.norms())
    assert other.norms() == clipping.norms()
    assert other.limit() == clipping.limit()
