"""Drops before a moving camera, against the geometry and physics that they follow."""

from dataclasses import replace

import numpy as np
import pytest

from derain_ros.rain import CameraMotion, DropVolume, RainClip, render
from derain_ros.rain.drops import (
    MOUNTS,
    Drops,
    draw_drops,
    drops_per_cubic_metre,
    refract,
    sample_drops,
    splat,
    terminal_speed,
    trace,
)
from derain_ros.rain.shower import Shower

HEIGHT, WIDTH = 240, 320
WIDE = DropVolume(rate=20, focal_length=1.1 * WIDTH, exposure=1 / 500, aperture=0.0)


def directions(volume, seed=1):
    """Middle of each streak from the principal point, and its image velocity, 2×N each."""
    drops = sample_drops(volume, HEIGHT, WIDTH, np.random.default_rng(seed))
    start, end = drops.start, drops.start + drops.velocity * drops.duration
    ahead = np.minimum(start[2], end[2]) > 0.2
    first, last = (
        volume.focal_length * place[:2, ahead] / place[2, ahead] for place in (start, end))
    middle = (start + end)[:, ahead] / 2
    return volume.focal_length * middle[:2] / middle[2], last - first, middle[2], drops, ahead


def test_streaks_follow_the_direction_field():
    # (x·v, f·v_t + y·v)/Z for a drop at the pixel (x, y) from the principal point.
    volume = replace(WIDE, speed=28.0, exposure=1e-5)
    place, moved, depth, drops, ahead = directions(volume)
    fall = terminal_speed(drops.diameter[ahead] * 1e3)
    expected = np.stack([place[0] * 28, volume.focal_length * fall + place[1] * 28]) / depth
    assert moved / 1e-5 == pytest.approx(expected, rel=0.02, abs=2)


@pytest.mark.parametrize('speed', [0.0, 13.9, 27.8])
def test_a_side_camera_sees_rain_lean_by_speed_over_fall(speed):
    for mount, sign in (('left', -1), ('right', 1)):
        _, moved, _, drops, ahead = directions(replace(WIDE, speed=speed, mount=mount))
        fall = terminal_speed(drops.diameter[ahead] * 1e3)
        assert moved[0] / moved[1] == pytest.approx(sign * speed / fall, rel=1e-2, abs=1e-2)


def test_a_turn_to_the_left_moves_drops_to_the_right():
    _, moved, depth, _, _ = directions(replace(WIDE, yaw_rate=0.5, exposure=1e-4))
    far = depth > 1
    # About f·ω/s, with little of it from the distance to the middle.
    assert np.median(moved[0][far]) == pytest.approx(0.5 * WIDE.focal_length * 1e-4, rel=0.1)


def one_drop(volume, *, diameter=0.002, distance=2.0):
    fall = float(terminal_speed(diameter * 1e3))
    velocity = np.array([[0.0], [fall], [0.0]], np.float32)
    middle = np.array([[0.0], [0.0], [distance]], np.float32)
    single = (np.array([value], np.float32) for value in (
        diameter, volume.exposure, 1.0, 0.0, 0.0))
    diameter, duration, radiance, frequency, phase = single
    return Drops(middle - velocity * duration / 2, velocity, diameter, duration, radiance,
                 frequency, phase)


def test_cover_is_the_share_of_the_exposure():
    def cover(exposure, **changes):
        volume = replace(WIDE, exposure=exposure, **changes)
        points = trace(one_drop(volume), volume, HEIGHT, WIDTH)
        return splat(points, HEIGHT, WIDTH)[0]

    brief, long = cover(1 / 500), cover(1 / 125)
    # The disc of the drop, 0.352 pixels across at 2 m, spread over time: area · π/4.
    area = np.pi / 4 * (WIDE.focal_length * 0.002 / 2) ** 2
    assert -np.log(1 - brief).sum() == pytest.approx(area, rel=0.02)
    assert -np.log(1 - long).sum() == pytest.approx(area, rel=0.02)
    # Four times the exposure: four times as long, a quarter of the brightness.
    length = float(terminal_speed(2.0)) * WIDE.focal_length / 2 / 125
    assert (long > long.max() / 2).any(1).sum() == pytest.approx(length, abs=2)
    assert brief.max() / long.max() == pytest.approx(4, rel=0.25)
    # Out of focus it is wider and fainter, and hides as much in all.
    soft = cover(1 / 500, aperture=0.06)
    assert soft.max() < 0.5 * brief.max()
    assert -np.log(1 - soft).sum() == pytest.approx(area, rel=0.05)


def test_a_rolling_shutter_follows_what_falls_with_it():
    rolling = replace(WIDE, readout=5e-5)
    for volume, longer in ((WIDE, False), (rolling, True)):
        drops = sample_drops(volume, HEIGHT, WIDTH, np.random.default_rng(1))
        assert (drops.duration > 1.001 * volume.exposure).any() == longer
    # The picture runs past drops at 1/readout = 20,000 rows a second: 1/(1 − 5e-5·rows/s).
    drops = sample_drops(rolling, HEIGHT, WIDTH, np.random.default_rng(1))
    middle = drops.start + drops.velocity * drops.duration / 2
    rows = rolling.focal_length * drops.velocity[1] / middle[2]
    expected = np.clip(1 / (1 - 5e-5 * rows), 0.5, 2) * rolling.exposure
    slow = 5e-5 * rows < 0.4
    assert drops.duration[slow] == pytest.approx(expected[slow], rel=1e-3)


def test_drops_by_rain_rate():
    # 8000/4.1·exp(−4.1·0.8) at 1 mm/h; Marshall and Palmer.
    assert drops_per_cubic_metre(1.0) == pytest.approx(8000 / 4.1 * np.exp(-3.28))
    assert drops_per_cubic_metre(0.0) == 0
    numbers = [
        len(sample_drops(replace(WIDE, rate=rate), 64, 64, np.random.default_rng(0)).phase)
        for rate in (2, 10, 50)]
    assert 2 * numbers[0] < numbers[1] < numbers[2] / 2


def test_drops_are_darker_than_the_sky_and_brighter_than_the_ground():
    image = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    image[: HEIGHT // 2] = 250
    volume = replace(WIDE, opacity=20.0, rate=50, ground=0.5)
    cover, radiance = draw_drops(volume, HEIGHT, WIDTH, np.random.default_rng(1))
    rainy = refract(image, cover, radiance, np.full(3, 0.8, np.float32), 0.5)
    plain = cover > 0.2
    sky = plain.copy()
    sky[HEIGHT // 3 :] = False
    road = plain.copy()
    road[: 2 * HEIGHT // 3] = False
    assert np.median(rainy[sky]) < 250
    assert np.median(rainy[road]) > 20
    assert np.array_equal(rainy[cover == 0], image[cover == 0])


def test_the_truth_marks_what_changed():
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    shower = Shower((), drops=replace(WIDE, opacity=10.0))
    rainy = render(image, shower, np.random.default_rng(2))
    again = render(image, shower, np.random.default_rng(2))
    assert np.array_equal(rainy.image, again.image)
    changed = np.abs(rainy.image.astype(int) - 60).max(2) > 8
    assert 0.001 < changed.mean() < 0.5
    assert np.array_equal(rainy.streaks > 8 / 255, changed)


class TestClipInMotion:
    """A clip that a vehicle takes."""

    IMAGE = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)

    def test_the_speed_of_a_frame_beats_that_of_the_clip(self):
        clip = RainClip(0.5, 4, camera=CameraMotion(speed=28.0))
        own = RainClip(0.5, 4, camera=CameraMotion(speed=0.0))
        stopped = clip.render(self.IMAGE, 3, speed=0.0)
        assert np.array_equal(stopped.image, own.render(self.IMAGE, 3).image)
        assert not np.array_equal(stopped.image, clip.render(self.IMAGE, 3).image)

    def test_a_rain_rate_is_as_faint_as_physics_makes_it(self):
        drops = RainClip(0.5, 4, camera=CameraMotion(rate=12.0)).shower.drops
        assert (drops.rate, drops.opacity, drops.near_gain) == (12.0, 1.0, 1.0)
        dry = RainClip(0.0, 4, camera=CameraMotion(speed=10.0), mist=0.0)
        assert np.array_equal(dry.render(self.IMAGE, 0).image, self.IMAGE)

    @pytest.mark.parametrize(('arguments', 'message'), [
        ({'speed': -1}, 'speed must be between 0 and 100'),
        ({'fov': 170}, 'fov must be between 10 and 150'),
        ({'rate': 301}, 'rate must be between 0 and 300'),
        ({'mount': 'roof'}, "unknown mount 'roof'; known: " + ', '.join(MOUNTS)),
    ])
    def test_bad_arguments_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            CameraMotion(**arguments)
