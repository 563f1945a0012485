"""The memory of a camera: what is known of a frame by the one before."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_model import scene
from pictures import add_rain

from derain_ros.engines import Derained
from derain_ros.images.memory import (
    BLOCK_SECONDS,
    DARKER,
    LEAST_KNOWN,
    MOVED,
    Darkest,
    Memory,
    find_light,
    find_motion,
    find_turn,
    make_flow,
    move,
    shrink,
)
from derain_ros.rain import RainClip

DRY = np.zeros((96, 128), np.uint8)


def shifted(picture, right, down):
    """The picture as it would be cut out elsewhere: its content moves right and down."""
    return np.roll(picture, (down, right), (0, 1))


def remembered(first, second, *, times=(0.0, 0.1), mask=DRY):
    """The state for the second of two frames."""
    memory = Memory()
    assert memory.recall(first, times[0]) is None
    memory.keep(first, mask)
    return memory.recall(second, times[1])


def test_a_still_scene_comes_back_as_it_was():
    mask = DRY.copy()
    mask[20:40] = 255
    state = remembered(scene(), scene(), mask=mask)
    np.testing.assert_array_equal(state[..., :3], scene())
    assert (state[20:40, :, 3] == LEAST_KNOWN).all() and (state[:20, :, 3] == 255 - MOVED).all()


@pytest.mark.parametrize('light', [0.7, 0.93, 1.08, 1.4])
def test_a_change_of_the_light_is_no_rain(light):
    dim = scene() // 2 + 20
    now = cv2.convertScaleAbs(dim, alpha=light)
    np.testing.assert_allclose(remembered(dim, now)[..., :3], now, atol=1)
    if abs(light - 1) < 0.1:
        return
    # Also in rain, which the result before has lost, where the change exceeds that by the rain.
    rain, memory = RainClip(0.4, seed=1), Memory()
    memory.recall(rain.render(dim, 0).image, 0.0)
    memory.keep(dim, DRY)
    rainy = rain.render(dim, 1).image
    state = memory.recall(cv2.convertScaleAbs(rainy, alpha=light), 0.1)
    assert np.abs(state[..., :3] - now.astype(float)).mean() < 2


def test_rain_changes_no_light():
    rain = [RainClip(intensity, seed=3) for intensity in (0.3, 0.5, 0.8)]
    for clip in rain:
        small = [shrink(clip.render(scene(4, 240, 320), number).image) for number in range(8)]
        lights = [find_light(*pair) for pair in pairwise(small)]
        assert lights.count(1) >= 6, lights


def test_golden_light():
    before = np.full((8, 12), 50, np.uint8)
    now = np.where(np.arange(12) % 4 < 2, 53, 54).astype(np.uint8)[None].repeat(8, 0)
    assert find_light(before, now) == pytest.approx(53.5 / 50)
    now[:, ::6] = 250  # rain
    assert find_light(before, now) == pytest.approx(53.5 / 50)
    assert find_light(before, before + 1) == 1 and find_light(before, before * 2) == 1
    assert find_light(before // 5, before // 4) == 1  # too dark to tell
    before[:4] = 100
    assert find_light(before, before // 10 * 11) == pytest.approx(1.1)
    assert find_light(before, before + 9) == 1  # a veil


def later(frames):
    """The state for the last of frames, ten a second."""
    memory = Memory()
    for number, frame in enumerate(frames):
        state = memory.recall(frame, number / 10)
        memory.keep(frame, np.zeros(frame.shape[:2], np.uint8))
    return state


def test_what_stands_is_told_after_a_while():
    assert (later([scene()] * 4)[..., 3] == 255 - MOVED).all()
    assert (later([scene()] * 6)[..., 3] == 255).all()


def test_a_thing_that_moves_does_not_stand_and_the_rest_does():
    frames = [scene(2, 384, 512) for _ in range(8)]
    for number, frame in enumerate(frames):
        frame[210:250, 190 + 5 * number:230 + 5 * number] = scene(3)[:40, :40] // 2
    memory = Memory()
    for number, frame in enumerate(frames):
        state = memory.recall(frame, number / 10)
        memory.keep(frame, np.zeros((384, 512), np.uint8))
    stands = state[..., 3] > 255 - MOVED
    assert not stands[210:250, 225:265].any() and stands[:128].all() and stands[:, 384:].all()


@pytest.mark.parametrize(('right', 'down'), [(6, 0), (-2, 3)])
def test_before_a_camera_that_turns_the_scene_stands_and_the_picture_does_not(right, down):
    wide = scene(1, 400, 700)
    frames = [np.ascontiguousarray(wide[150 + down * n:342 + down * n, 280 + right * n:][:, :256])
              for n in range(12)]
    state = later(frames)
    turned = (state[..., 3] > 255 - MOVED) & (state[..., 3] < 256 - MOVED // 2)
    assert turned[80:112, 96:160].all() and state[..., 3].max() < 256 - MOVED // 2
    # What has come into sight since is not known to stand.
    assert not turned[:, 236:].any() if right > 0 else not turned[:, :4].any()
    error = np.abs(state[..., :3].astype(float) - frames[-1])[turned]
    assert error.mean() < 2


def test_nothing_stands_before_a_camera_that_drives_past_things():
    far, near = scene(1, 96, 400), scene(4, 96, 400)
    near[:, np.arange(400) % 40 < 20] = 0
    frames = []
    for n in range(12):
        frame, things = (wide[:, step * n:step * n + 128].copy()
                         for wide, step in ((far, 1), (near, 5)))
        frame[things > 0] = things[things > 0]
        frames.append(frame)
    assert (later(frames)[..., 3] <= 255 - MOVED).all()


def plane_flow(turn, height=64, width=96):
    """The flow of a homography, float32, height×width×2."""
    places = np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    return cv2.perspectiveTransform(places, turn) - places


def seen_before(turn):
    """A scene, and the frame after it that the homography of small images leads from."""
    full = np.float64([[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1]])
    before = cv2.GaussianBlur(scene(2, 256, 384), (0, 0), 2)
    now = cv2.warpPerspective(
        before, full @ turn @ np.linalg.inv(full), (384, 256), borderMode=cv2.BORDER_REFLECT,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    return before, now


TURNS = {
    'shaken': [[1, 0, 0.3], [0, 1, -1.2], [0, 0, 1]],
    'panned': [[1, 0, 5.2], [0, 1, 0.4], [0, 0, 1]],
    'rolled': [[0.999, -0.008, 0.3], [0.008, 0.999, -0.5], [0, 0, 1]],
    'yawed': [[1.005, 0, 2], [0, 1.0, 0.2], [5e-5, 0, 1]],
}


@pytest.mark.parametrize('turn', TURNS.values(), ids=TURNS.keys())
@pytest.mark.parametrize(('rain', 'tolerance'), [(0, 0.1), (0.5, 0.35)], ids=['dry', 'in rain'])
def test_the_motion_of_the_camera_is_found_in_rain_and_beside_what_moves(turn, rain, tolerance):
    turn = np.float64(turn)
    before, now = seen_before(turn)
    now = add_rain(now, rain, np.random.default_rng(1)).image
    now[60:140, 100:180] = scene(3)[:80, :80]
    found = find_turn(shrink(before), shrink(now), np.round(turn[:2, 2]))
    error = plane_flow(found) - plane_flow(turn)
    assert np.sqrt(np.square(error).mean()) < tolerance


def test_a_scene_that_stands_has_no_motion_of_the_camera():
    still = scene(2, 256, 384)
    wet, flat = add_rain(still, 0.5, np.random.default_rng(1)).image, np.full_like(still, 90)
    for before, now in ((still, still), (still, wet), (flat, flat)):
        assert find_motion(make_flow(), shrink(before), shrink(now)).turn is None


def test_a_lorry_before_a_static_camera_is_not_taken_for_its_motion():
    before = cv2.GaussianBlur(scene(2, 256, 384), (0, 0), 16)  # less textured than the lorry
    now = before.copy()
    lorry = scene(3, 130, 250)
    before[60:190, 30:280], now[60:190, 42:292] = lorry, lorry
    assert find_motion(make_flow(), shrink(before), shrink(now)).turn is None


def test_in_rain_the_motion_of_a_shaken_camera_is_better_than_the_flow():
    turn = np.float64(TURNS['shaken'])
    before, now = seen_before(turn)
    now = add_rain(now, 0.6, np.random.default_rng(1)).image
    before, now = shrink(before), shrink(now)
    motion, alone = find_motion(make_flow(), before, now), make_flow().calc(now, before, None)
    camera, found, alone = (
        np.sqrt(np.square(flow - plane_flow(turn))[8:-8, 8:-8].mean())
        for flow in (motion.camera, motion.flow, alone))
    assert camera < 0.1
    assert found < 0.75 * alone


def test_what_stood_before_a_cut_is_forgotten():
    state = later([scene()] * 6 + [scene(7)] * 3)
    assert (state[..., 3] == 255 - MOVED).all()


@pytest.mark.parametrize(('right', 'down'), [(6, 0), (-9, 3), (2, -5)])
def test_a_state_follows_the_scene(right, down):
    wide = scene(1, 160, 200)
    first, second = (wide[32 - dy:128 - dy, 36 - dx:164 - dx]
                     for dx, dy in ((0, 0), (right, down)))
    state = remembered(np.ascontiguousarray(first), np.ascontiguousarray(second))
    known = state[..., 3] >= LEAST_KNOWN
    assert 0.8 < known.mean() < 1  # what comes into sight is not known
    error = (state[..., :3].astype(float) - second)[known]
    still = (first.astype(float) - second)[known]
    assert np.square(error).mean() < 0.02 * np.square(still).mean()


def test_a_thing_that_moves_alone_is_followed():
    before, after = scene(2), scene(2)
    thing = scene(3)[:40, :40] // 2
    before[30:70, 40:80], after[30:70, 45:85] = thing, thing
    inner = np.s_[34:66, 49:81]
    error, still = (np.abs(one[..., :3].astype(float) - after)[inner].mean()
                    for one in (remembered(before, after), before))
    assert error < still / 2


@pytest.mark.parametrize('times', [(0.0, 1.5), (10.0, 9.9)], ids=['a gap', 'back'])
def test_stamps_that_jump_start_anew(times):
    assert remembered(scene(), scene(), times=times) is None


def test_a_cut_and_a_new_size_start_anew():
    assert remembered(scene(0), scene(7)) is None
    assert remembered(scene(), scene(0, 128, 96)) is None


def test_two_scenes_in_the_same_light_are_not_the_same():
    light = np.linspace(0, 100, 160)[:, None, None]
    one, other = ((light + 0.6 * scene(seed, 160, 192)).astype(np.uint8) for seed in (0, 7))
    mask = np.zeros(one.shape[:2], np.uint8)
    assert remembered(one, one, mask=mask) is not None
    assert remembered(one, other, mask=mask) is None


def test_rain_of_one_frame_is_no_cut():
    rainy = scene()
    rainy[:, ::9] = 255
    assert remembered(scene(), rainy) is not None


def without_wires(picture):
    """The picture as a result that took every eighth column for rain."""
    lost = picture.copy()
    lost[:, ::8] //= 2
    return lost


def in_rain(step=0, mask=DRY):
    """The last frame of eight, dry and rainy, what was kept of it, and the state after it.

    Ten frames a second; the camera moves by ``step`` pixels a frame, a multiple of 8.
    """
    memory, wide = Memory(), scene(3, 96, 128 + 8 * step)
    for number in range(8):
        dry = wide[:, step * number : step * number + 128]
        rainy = dry.copy()
        rainy[number::9] = 255  # rain is elsewhere in each frame
        memory.recall(rainy, number / 10)
        kept = memory.keep(without_wires(dry), mask)
    return dry, rainy, kept, memory.recall(dry, 0.75)


@pytest.mark.parametrize('cover', [0, 255])
def test_bright_things_that_a_result_lost_come_back(cover):
    dry, _, kept, state = in_rain(mask=np.full_like(DRY, cover))
    lost = without_wires(dry)
    bounded = np.maximum(lost, dry.astype(int) - DARKER)
    np.testing.assert_array_equal(state[..., :3], bounded)
    # Where rain may have covered a pixel in all frames, only the state is bounded.
    np.testing.assert_array_equal(kept, lost if cover else bounded)


def test_they_come_back_where_the_camera_turns():
    dry, rainy, kept, _ = in_rain(step=8)
    lost = without_wires(dry)
    known = np.s_[8:88, 8:56:8]  # what lies to the right came into view since
    left, before = (dry[known].astype(int).mean() - one[known].mean() for one in (kept, lost))
    assert left < 0.4 * before
    np.testing.assert_array_equal(kept[:, 120:], lost[:, 120:])
    assert (kept <= np.maximum(lost, rainy)).all()


def test_golden_darkest():
    """Pixels of small images: one is static, one under rain, and something dark comes to one."""
    darkest, fits = Darkest(), np.ones((1, 8), bool)
    frames = [(100, 255, 90), (101, 80, 90), (255, 90, 90), (103, 85, 90)]

    def bound(number, frame, fits, turn=None):
        derained = picture((50, 75, 60))
        found = darkest.bound(derained, picture(frame), fits, turn, 2 + 0.07 * number)
        return found[0, [0, 4, 28], 0].tolist()

    def picture(values):
        return np.uint8([values[0], values[1], *6 * [values[2]]]).repeat(4)[
            None, :, None].repeat(4, 0).repeat(3, 2)

    found = [bound(number, frame, None if number == 0 else fits)
             for number, frame in enumerate(frames[:3])]
    moved = fits.copy()
    moved[0, 5:] = False
    found.append(bound(3, frames[3], moved))
    # Four frames are needed; then the least of them less 6 holds.
    assert found == [[50, 75, 60]] * 3 + [[100 - 6, 75, 60]]
    # Where something moved, three more are needed.
    found = [bound(number, (103, 85, 200), fits) for number in (4, 5, 6)]
    assert found == [[94, 75, 60]] * 2 + [[103 - 6, 85 - 6, 90 - 6]]
    # Two blocks later all of that is forgotten.
    for number in range(5):
        last = bound(6 + (2 * BLOCK_SECONDS + 0.05 * number) / 0.07, (200, 200, 200), fits)
    assert last == [200 - 6] * 3
    # The camera turns right: what it saw lies four pixels, one of the small images, further left.
    turn = np.float64([[1, 0, 1], [0, 1, 0], [0, 0, 1]])
    darkest = Darkest()
    for number in range(4):
        last = bound(number, (120, 110, 100), None if number == 0 else fits)
    assert last == [120 - 6, 110 - 6, 100 - 6]
    assert bound(3, (140, 140, 140), fits, turn) == [110 - 6, 100 - 6, 60]


def test_a_frame_that_failed_leaves_what_was_known_before_it():
    memory = Memory()
    memory.recall(scene(), 0.0)
    memory.keep(scene(), DRY)
    with pytest.raises(ValueError, match='broken'):
        memory.through(broken, 0.1)(shifted(scene(), 4, 0)[None])
    np.testing.assert_array_equal(memory.recall(scene(), 0.2)[..., :3], scene())


def test_a_frame_that_comes_again_gets_the_same_result():
    memory, wet = Memory(), scene(1)
    inferred = []

    def infer(images, *states):
        inferred.append(images[0])
        return Derained(images, np.full(images.shape[:3], len(inferred), np.uint8))

    def derain(frame, time):
        result = memory.through(infer, time)(frame[None])
        same = np.array_equal(result.image[0], frame)
        return len(inferred), result.rain_mask[0, 0, 0], same

    # A first result may be wrong; repeated, a thing that it took for rain would come back.
    assert [derain(wet, time) for time in (0.0, 0.2, 0.4)] == [
        (number, number, True) for number in (1, 2, 3)]
    assert derain(wet.copy(), 0.5) == (3, 3, True)
    assert derain(wet, 0.59) == (3, 3, True)
    # What is still there after that is a scene without noise.
    assert derain(wet, 0.65) == (4, 4, True)
    other = wet.copy()
    other[50, 60, 1] ^= 1
    assert derain(other, 0.7)[:2] == (5, 5)
    assert derain(other, 0.8)[:2] == (5, 5)
    # Stamps that jump are a new beginning, and so is a memory that was told to forget.
    assert derain(other, 0.6)[:2] == (6, 6)
    assert [derain(other, time)[0] for time in (0.8, 1.0, 1.1)] == [7, 8, 8]
    memory.forget()
    assert derain(other, 1.2)[:2] == (9, 9)


def broken(images, states):
    raise ValueError('broken')


def test_two_memories_do_not_share():
    one, other = Memory(), Memory()
    one.recall(scene(), 0.0)
    one.keep(scene(), DRY)
    assert other.recall(scene(), 0.1) is None


def test_forgetting():
    memory = Memory()
    memory.recall(scene(), 0.0)
    memory.keep(scene(), DRY)
    memory.forget()
    assert memory.recall(scene(), 0.1) is None


@given(height=st.integers(32, 90), width=st.integers(32, 90), level=st.integers(0, 255))
def test_any_size_and_flat_pictures(height, width, level):
    picture = np.full((height, width, 3), level, np.uint8)
    state = remembered(picture, picture, mask=np.zeros((height, width), np.uint8))
    if min(height, width) > 60:
        np.testing.assert_array_equal(state[..., :3], picture)
    else:
        assert state is None


@pytest.mark.parametrize(('height', 'width'), [(289, 401), (361, 641), (97, 65), (98, 130)])
def test_a_state_is_exact_at_any_size(height, width):
    wide = cv2.GaussianBlur(scene(2, height, width + 60), (0, 0), 2)
    frames = [np.ascontiguousarray(wide[:, 4 * n : 4 * n + width]) for n in range(8)]
    inside = np.s_[16:-16, 16:-24]
    error = later(frames)[inside][..., :3] - frames[-1][inside].astype(float)
    assert np.abs(error).mean() < 0.1


@pytest.mark.parametrize('shape', [(64, 6400), (6400, 64), (64, 16_400)])
def test_long_narrow_pictures_that_move(shape):
    wide = scene(1, shape[0], shape[1] + 60)
    state = later([np.ascontiguousarray(wide[:, 5 * n : 5 * n + shape[1]]) for n in range(8)])
    assert state is None or state.shape == (*shape, 4)


def test_streaks_do_not_look_moved_where_the_camera_turns():
    state = np.full((96, 128, 4), 255, np.uint8)
    state[:, np.arange(128) % 12 < 4, 3] = LEAST_KNOWN + MOVED
    for right in np.arange(0, 1, 1 / 16, np.float32):
        flow = np.full((24, 32, 2), right, np.float32)
        moved = move(state, flow, np.ones((24, 32), bool), turning=True)[8:-8, 8:-8, 3]
        assert moved.min() == LEAST_KNOWN + MOVED // 2


def test_the_small_picture_is_the_mean_grey():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4, :4] = 200
    np.testing.assert_array_equal(shrink(picture), [[200, 0], [0, 0]])
    assert shrink(cv2.resize(picture, (37, 50))).shape == (13, 10)
