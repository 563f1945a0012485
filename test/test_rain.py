"""The rain renderer: seeded, bounded, and honest about where its streaks are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain_ros.rain import StreakLayer, add_rain, draw_streaks
from derain_ros.rain.renderer import LAYER_MODELS, compose, sample_layers
from derain_ros.rain.streaks import scatter_streaks


def scene(height=96, width=128, seed=5):
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)


def test_same_seed_same_rain_other_seed_other_rain():
    first = add_rain(scene(), 0.6, np.random.default_rng(1))
    again = add_rain(scene(), 0.6, np.random.default_rng(1))
    other = add_rain(scene(), 0.6, np.random.default_rng(2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.streaks, again.streaks)
    assert not np.array_equal(first.image, other.image)


def test_no_rain_returns_the_scene():
    rainy = add_rain(scene(), 0.0, np.random.default_rng(1))
    assert np.array_equal(rainy.image, scene())
    assert rainy.streaks.max() == 0


def test_more_intensity_hides_more():
    def error(intensity):
        pictures = [add_rain(scene(), intensity, np.random.default_rng(k)) for k in range(12)]
        return np.mean([np.abs(p.image.astype(int) - scene()).mean() for p in pictures])

    light, medium, heavy = error(0.1), error(0.4), error(1.0)
    assert 1.5 * light < medium < heavy / 1.5


@settings(max_examples=30, deadline=None)
@given(
    intensity=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
)
def test_any_size_and_intensity(intensity, seed, height, width):
    rainy = add_rain(scene(height, width), intensity, np.random.default_rng(seed))
    assert rainy.image.shape == (height, width, 3)
    assert rainy.image.dtype == np.uint8
    assert rainy.streaks.shape == (height, width)
    assert rainy.streaks.dtype == np.float32
    assert 0 <= rainy.streaks.min() <= rainy.streaks.max() <= 1
    # Where the truth says dry, the picture is untouched.
    dry = rainy.streaks == 0
    assert np.abs(rainy.image[dry].astype(int) - scene(height, width)[dry]).max(initial=0) <= 3


@pytest.mark.parametrize('draw', [draw_streaks, scatter_streaks])
def test_streaks_lie_along_their_angle(draw):
    layer = StreakLayer(
        density=0.03, length=40, width=2, angle=30, angle_spread=0, brightness=(0.5, 0.9)
    )
    streaks = draw(256, 256, layer, np.random.default_rng(3))
    # Structure tensor: the gradient is across the streak, at right angles to it.
    dy, dx = np.gradient(streaks)
    across = 0.5 * np.arctan2(2 * (dx * dy).sum(), (dx**2 - dy**2).sum())
    # Leaning right at the foot by 30° from the vertical: across is −30° from the row axis.
    assert np.rad2deg(across) == pytest.approx(-30, abs=4)


def test_cover_is_proportional_to_density():
    def cover(density):
        layer = StreakLayer(
            density, length=30, width=1, angle=0, angle_spread=0, brightness=(1, 1), softness=0
        )
        return draw_streaks(600, 600, layer, np.random.default_rng(0)).mean()

    # Antialiased lines of one pixel spread over a second one.
    assert 0.004 < cover(0.004) < 0.008
    assert cover(0.008) == pytest.approx(2 * cover(0.004), rel=0.15)


def test_composition_against_hand_computed_values():
    image = np.full((1, 1, 3), 51, np.uint8)  # 0.2
    streaks = np.full((1, 1), 0.5, np.float32)
    rng = np.random.default_rng(0)
    light = (rng.uniform(0.8, 1.0) + 0.02 * rng.standard_normal(3)).astype(np.float32)
    expected = {
        'additive': 0.2 + light * 0.5,
        'screen': 1 - 0.8 * (1 - 0.5 * light),
        'occlusion': 0.1 + 0.5 * light,
    }
    for model in LAYER_MODELS:
        rainy = compose(image, streaks, np.random.default_rng(0), model)
        assert rainy[0, 0] == pytest.approx(expected[model] * 255, abs=0.51)


def test_layers_grow_with_intensity():
    def count(intensity):
        rng = np.random.default_rng(0)
        return np.mean([len(sample_layers(intensity, rng)) for _ in range(200)])

    assert count(0.0) == 0
    assert 1 <= count(0.1) < count(0.5) < count(1.0) <= 5


@pytest.mark.parametrize(
    ('image', 'intensity', 'model', 'message'),
    [
        (np.zeros((8, 8), np.uint8), 0.5, None, 'expected uint8'),
        (np.zeros((8, 8, 3), np.float32), 0.5, None, 'expected uint8'),
        (np.zeros((8, 8, 3), np.uint8), 1.5, None, 'intensity'),
        (np.zeros((8, 8, 3), np.uint8), 0.5, 'fog', 'unknown layer model'),
    ],
)
def test_bad_arguments_are_refused(image, intensity, model, message):
    with pytest.raises(ValueError, match=message):
        add_rain(image, intensity, np.random.default_rng(0), model=model)
