"""The rain renderer: seeded, bounded, and honest about where its streaks are."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import add_rain

from derain_ros.rain import (
    CameraEffects,
    RainClip,
    StreakLayer,
    draw_streaks,
    render,
    sample_shower,
)
from derain_ros.rain.renderer import add_mist, compose
from derain_ros.rain.shower import LAYER_MODELS, streak_size, terminal_speed
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


@settings(max_examples=20, deadline=None)
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


def test_where_the_truth_says_dry_the_picture_is_untouched():
    rainy = add_rain(scene(), 0.5, np.random.default_rng(2), mist=0.0)
    dry = rainy.streaks == 0
    assert 0.05 < dry.mean() < 0.95
    # Less than half a level of grey is up to four of blue.
    assert np.abs(rainy.image[dry].astype(int) - scene()[dry]).max() <= 4


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
    light = np.array([0.8, 0.9, 1.0], np.float32)
    expected = {
        'additive': [0.6, 0.65, 0.7],  # 0.2 + light · 0.5
        'screen': [0.52, 0.56, 0.6],  # 1 − 0.8 · (1 − light · 0.5)
        'occlusion': [0.5, 0.55, 0.6],  # 0.5 · 0.2 + 0.5 · light
    }
    for model in LAYER_MODELS:
        rainy = compose(image, streaks, light, model)
        assert rainy[0, 0] == pytest.approx(255 * np.array(expected[model]), abs=0.51)


def test_mist_against_hand_computed_values():
    image = np.zeros((4, 1, 3), np.uint8)
    veiled = add_mist(image, 0.5, 0.5, np.ones(3, np.float32))[:, 0, 0]
    # Above the horizon half is mist; 1/8 and 3/8 below it, at distances 1/2 and 1/4:
    # 1 − 0.5^(1/2) = 0.293 and 1 − 0.5^(1/4) = 0.159.
    assert veiled == pytest.approx([127.5, 127.5, 74.7, 40.6], abs=0.6)


def test_streaks_are_as_long_and_wide_as_the_camera_sees_them():
    # 9.65 − 10.3 · exp(−1.2) = 6.548 m/s; 600 px / 3 m = 200 px/m.
    assert terminal_speed(2.0) == pytest.approx(6.548, abs=1e-3)
    length, width = streak_size(2.0, 3.0, 0.01, 600.0)
    assert length == pytest.approx(13.095, abs=1e-3)
    assert width == pytest.approx(0.4)


def test_a_shower_keeps_what_was_asked_for():
    for seed in range(20):
        shower = sample_shower(
            0.2, np.random.default_rng(seed), wind=20, model='screen', mist=0.1
        )
        assert shower.model == 'screen'
        assert shower.mist == 0.1
        assert all(abs(layer.angle - 20) < 15 for layer in shower.layers)


def test_one_in_four_showers_before_a_moving_camera_is_sparse_and_plain_to_see():
    rng = np.random.default_rng(3)
    showers = [sample_shower(1.0, rng, moving=True) for _ in range(400)]
    # A downpour of one layer is rare otherwise.
    sparse = [one for one in showers if len(one.layers) == 1 and one.drops is None]
    assert 0.18 < len(sparse) / len(showers) < 0.32
    streaks = [render(np.full((96, 96, 3), 90, np.uint8), one, rng).streaks for one in sparse]
    assert np.median([(one > 8 / 255).mean() for one in streaks]) < 0.03
    assert np.median([one.max() for one in streaks if one.any()]) > 20 / 255


class TestRainClip:
    """One shower over time."""

    def test_frames_do_not_depend_on_each_other(self):
        clip = RainClip(0.5, 3)
        first, later = clip.render(scene(), 0), clip.render(scene(), 7)
        again = RainClip(0.5, 3).render(scene(), 7)
        assert np.array_equal(later.image, again.image)
        assert not np.array_equal(first.streaks, later.streaks)

    def test_drops_are_new_in_each_frame(self):
        clip = RainClip(0.3, 1, mist=0.0)
        masks = [clip.render(scene(240, 320), k).streaks > 8 / 255 for k in range(6)]
        cover = np.mean(masks)
        both = np.mean([a & b for a, b in itertools.pairwise(masks)])
        # Independent masks meet on cover² of the pixels.
        assert both == pytest.approx(cover**2, rel=0.5)

    def test_wind_changes_slowly_and_little(self):
        clip = RainClip(0.5, 5)
        leans = [clip.lean(k / 30) for k in range(900)]
        assert max(abs(a - b) for a, b in itertools.pairwise(leans)) < 0.3
        assert 0.2 < np.std(leans) < 4

class TestCamera:
    """What comes after the rain."""

    def test_gamma_against_hand_computed_values(self):
        image = np.full((2, 2, 3), 51, np.uint8)
        assert (CameraEffects(gamma=2.0).capture(image, 0) == 10).all()  # 255 · 0.2² = 10.2

    def test_noise_grows_with_the_root_of_brightness(self):
        dark, bright = (np.full((200, 200, 3), level, np.uint8) for level in (30, 120))
        camera = CameraEffects(noise=8.0)
        ratio = camera.capture(bright, 1).std() / camera.capture(dark, 1).std()
        assert ratio == pytest.approx(2, rel=0.05)

    def test_picture_and_truth_get_the_same_noise(self):
        camera = CameraEffects(noise=5.0)
        image = np.full((64, 64, 3), 100, np.uint8)
        assert np.array_equal(camera.capture(image, 4), camera.capture(image, 4))
        assert not np.array_equal(camera.capture(image, 4), camera.capture(image, 5))
