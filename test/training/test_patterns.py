"""Patterns that look like rain: where they are laid, and what they leave alone."""

import numpy as np
import torch

from derain_ros.training.patterns import (
    Bars,
    Pattern,
    add_pattern,
    lay,
    sample_pattern,
)

UPRIGHT = Bars(angle=0.0, period=8.0, phase=0.0, breadth=0.0, edge=0.1, bend=0.0, bend_rate=0.1)


def test_bars_against_hand_computed_values():
    image = torch.full((3, 4, 16), 50, dtype=torch.uint8)
    pattern = Pattern(0.0, 0.5, 0.0, 0.5, (250.0, 150.0, 50.0), 0.5, (UPRIGHT,))
    laid = lay(image, pattern)
    # cos(2π·x/8) is 1, .71, 0, −.71, −1, −.71, 0, .71: half opaque at x = 0, 1, 7 and a
    # half of that where the cosine is 0.
    assert laid[0, 0].tolist() == [150, 150, 100, 50, 50, 50, 100, 150] + 8 * [50]
    assert laid[1, 0, 0] == 100
    assert laid[2, 0, 0] == 50
    assert (laid[:, 2:] == 50).all()
    assert (image == 50).all()


def test_a_ground_hides_most_of_the_picture():
    image = torch.full((3, 4, 16), 40, dtype=torch.uint8)
    pattern = Pattern(0.0, 1.0, 0.0, 0.5, (200.0,) * 3, 1.0, (UPRIGHT,), ground=100.0)
    laid = lay(image, pattern)
    # 100 + 0.15 · 40 = 106 between the bars, the bars' own 200 on them.
    assert laid[0, 0].tolist() == [200, 200, 153, 106, 106, 106, 153, 200] + 8 * [40]


def test_checkers_of_one_pixel():
    image = torch.full((3, 4, 6), 50, dtype=torch.uint8)
    # cos(πx + π/4) is 0.71, −0.71, ...: no pixel lies on an edge.
    across = Bars(0.0, 2.0, np.pi / 4, 0.0, 0.1, 0.0, 0.0)
    down = Bars(np.pi / 2, 2.0, np.pi / 4, 0.0, 0.1, 0.0, 0.0)
    pattern = Pattern(0, 1, 0, 1, (250.0,) * 3, 1.0, (across, down), None, checkers=True)
    rows = [[50, 250] * 3, [250, 50] * 3]
    assert lay(image, pattern)[1].tolist() == rows * 2


def test_same_seed_same_pattern():
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    first = add_pattern(picture, np.random.default_rng(4))
    assert np.array_equal(first, add_pattern(picture, np.random.default_rng(4)))
    assert first.shape == picture.shape
    assert first.dtype == np.uint8
    assert not np.array_equal(first, picture)


def test_bars_lie_in_all_directions_and_of_all_spacings():
    rng = np.random.default_rng(1)
    bars = [bar for _ in range(400) for bar in sample_pattern(rng).bars]
    upright, lying = (np.mean([abs(f(bar.angle)) < 0.5 for bar in bars]) for f in (np.sin, np.cos))
    assert 0.4 < upright < 0.65
    assert 0.2 < lying < 0.45
    assert any(bar.taper for bar in bars)
    assert any(bar.dash for bar in bars)
    assert min(bar.period for bar in bars) < 3
    assert max(bar.period for bar in bars) > 100
