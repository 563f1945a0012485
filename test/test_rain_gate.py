"""The rain gate: what it makes of masks, what holds for any, and when and where it probes."""

import copy
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.highlevel import AnyReader

from derain_ros.images.compressed import decode_compressed
from derain_ros.rain import RainClip
from derain_ros.rain_gate import (
    FORGET_SECONDS,
    PROBE_SECONDS,
    PROBE_SIDE,
    GateSettings,
    RainGate,
    mask_response,
)

SETTINGS = GateSettings(wet_above=0.2, dry_below=0.1, dry_after=5.0)
CLIP = Path(__file__).parent / 'data' / 'driving_rain'
SIZES = st.tuples(st.integers(32, 2200), st.integers(32, 4000))


def rain(share):
    """Return a mask of 10,000 pixels of which a share is rain."""
    mask = np.zeros(10_000, np.uint8)
    mask[:round(share * mask.size)] = 255
    return mask.reshape(100, 100)


def dry_gate():
    """Return a gate that has just become dry, and the time."""
    gate = RainGate(SETTINGS)
    now = 100.0
    while gate.update(rain(0), now):
        now += 0.1
    return gate, now


def opened_at(gate, now, share):
    """Return how many masks, the first after one interval, it takes until the gate is wet."""
    for count in range(1, 100):
        if gate.update(rain(share), now + count * PROBE_SECONDS):
            return count
    return None


def test_response_counts_what_the_mask_is_sure_of():
    mask = np.array([[0, 61, 128, 175], [201, 255, 31, 0]], np.uint8)
    # A chance of 5/16 (128) counts by 3/8, one of 1/2 (175) by 3/4.
    assert mask_response(mask) == pytest.approx((3 / 8 + 3 / 4 + 1 + 1) / 8, abs=1e-3)
    assert mask_response(mask[:1, 1:2]) == 0
    assert mask_response(mask[1:, :2]) == 1


@pytest.mark.parametrize('mask', [
    np.zeros((4, 5), np.float32),
    np.zeros((4, 5, 1), np.uint8),
    np.zeros((0, 5), np.uint8),
])
def test_a_foreign_mask_is_refused_and_changes_nothing(mask):
    gate, now = dry_gate()
    with pytest.raises(ValueError, match='rain mask'):
        gate.update(mask, now + 1)
    assert gate.intensity == 0
    assert gate.probe_due(now + PROBE_SECONDS)


def test_it_starts_wet_and_knowing_nothing():
    gate = RainGate(SETTINGS)
    assert gate.wet
    assert math.isnan(gate.intensity)
    assert not gate.probe_due(0.0)
    assert gate.update(rain(0.03), 0.0)
    assert gate.intensity == pytest.approx(0.03)


def test_the_intensity_is_an_exponential_average():
    gate = RainGate(SETTINGS)
    gate.update(rain(0), 10.0)
    gate.update(rain(1), 10.2)
    assert gate.intensity == pytest.approx(1 - math.exp(-0.5))  # 0.2 s of 0.4 s
    gate.update(rain(0.5), 10.6)
    assert gate.intensity == pytest.approx(0.5 + (0.393469 - 0.5) * math.exp(-1), abs=1e-6)
    gate.update(rain(0), 15.6)
    assert gate.intensity < 1e-5


@given(st.lists(st.floats(0, 0.5), max_size=12))
def test_only_time_counts_not_how_often_one_looks(steps):
    often, once = RainGate(SETTINGS), RainGate(SETTINGS)
    for gate in (often, once):
        gate.update(rain(0.8), 50.0)
    now = 50.0
    for step in steps:
        now += step
        often.update(rain(0.3), now)
    once.update(rain(0.3), now)
    assert often.intensity == pytest.approx(once.intensity, abs=1e-9)


def test_it_closes_after_five_dry_seconds():
    gate = RainGate(SETTINGS)
    states = [gate.update(rain(0), index / 8) for index in range(60)]
    assert states.index(False) == 40  # 5 s at 8 Hz
    assert not any(states[40:])


def test_a_glimpse_of_rain_starts_the_wait_anew():
    gate = RainGate(SETTINGS)
    for index in range(39):
        assert gate.update(rain(0), index / 8)
    # 1/8 s of full rain takes the slow average to 0.061 only, the intensity to 0.268.
    assert gate.update(rain(1), 39 / 8)
    assert gate.update(rain(0), 40 / 8), 'rain that may have come back must not close it'
    for index in range(41, 43):
        gate.update(rain(1), index / 8)
    states = [gate.update(rain(0), index / 8) for index in range(43, 100)]
    assert states.index(False) >= 5 * 8 - 1


@given(st.lists(st.floats(0.1, 1.0), min_size=1, max_size=80), st.floats(0.01, 3))
def test_what_stays_above_the_lower_threshold_never_closes(shares, interval):
    gate = RainGate(SETTINGS)
    assert all(gate.update(rain(share), i * interval) for i, share in enumerate(shares))


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=80), st.floats(0.01, 3))
def test_what_stays_below_the_upper_threshold_never_opens(shares, interval):
    gate, now = dry_gate()
    for index, share in enumerate(shares, 1):
        assert not gate.update(rain(share), now + index * interval)


@given(
    st.lists(st.floats(-0.3, 0.3), min_size=100, max_size=100),
    st.sampled_from(['wet_above', 'dry_below']),
    st.booleans(),
    st.floats(1 / 60, 0.3),
)
def test_noise_about_a_threshold_changes_the_state_once_at_most(noise, about, start, interval):
    gate, now = (RainGate(SETTINGS), 0.0) if start else dry_gate()
    level = getattr(SETTINGS, about)
    states = [gate.wet]
    for index, share in enumerate(noise * 4, 1):
        states.append(gate.update(rain(level * (1 + share)), now + index * interval))
    assert np.count_nonzero(np.diff(states)) <= 1


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 2)), max_size=150))
def test_whatever_comes_it_stays_open_for_five_seconds(masks):
    gate, now = dry_gate()
    opened = None
    for share, step in masks:
        before, now = gate.wet, now + step
        after = gate.update(rain(share), now)
        if after and not before:
            opened = now
        elif before and not after:
            assert now - opened >= SETTINGS.dry_after - 1e-9
            assert gate.intensity < SETTINGS.dry_below
        assert after or gate.intensity <= SETTINGS.wet_above


def test_a_gap_is_no_proof_of_dryness():
    gate = RainGate(SETTINGS)
    gate.update(rain(0), 0.0)
    gate.update(rain(0), 20.0)
    assert gate.wet
    for index in range(1, 5):
        gate.update(rain(0), 20.0 + index)
    assert not gate.wet


@pytest.mark.parametrize('gap', [FORGET_SECONDS + 1, 600.0, 1e7])
def test_after_a_long_gap_it_starts_anew(gap):
    gate, now = dry_gate()
    assert gate.probe_due(now + gap)
    assert gate.update(rain(0.05), now + gap)
    assert gate.intensity == pytest.approx(0.05)


def test_time_that_stands_or_goes_back_does_no_harm():
    gate, now = dry_gate()
    for time in (now, now - 50.0, now - 50.0):
        assert not gate.update(rain(1), time)
        assert gate.intensity == 0
    assert gate.probe_due(now - 60.0)
    assert opened_at(gate, now - 50.0, 1.0) == 2


def test_reset_is_the_beginning():
    gate, now = dry_gate()
    first = gate.next_patch(480, 640)
    gate.next_patch(480, 640)
    gate.reset()
    assert gate.wet
    assert math.isnan(gate.intensity)
    assert not gate.probe_due(now + 1)
    assert gate.next_patch(480, 640) == first


def test_settings_hold_from_the_next_mask_on():
    gate, now = dry_gate()
    gate.update(rain(0.1), now + 10)
    gate.settings = GateSettings(wet_above=0.05, dry_below=0.02, dry_after=0.0)
    assert not gate.wet
    assert gate.update(rain(0.1), now + 10.2)
    assert not gate.update(rain(0), now + 30)


@pytest.mark.parametrize(('change', 'message'), [
    ({'wet_above': 0.0}, 'wet_above is 0.0; set it above 0'),
    ({'wet_above': 1.5}, 'wet_above is 1.5; set it above 0 and to 1 at most'),
    ({'wet_above': math.nan}, 'wet_above is nan'),
    ({'dry_below': 0.3}, r'dry_below is 0.3; set it .* wet_above \(0.2\) at most'),
    ({'dry_below': 0.0}, 'dry_below is 0.0; set it above 0'),
    ({'dry_below': math.nan}, 'dry_below is nan'),
    ({'dry_after': -1.0}, 'dry_after is -1.0; set it to a number of seconds'),
    ({'dry_after': math.inf}, 'dry_after is inf'),
])
def test_settings_that_do_not_fit_are_refused(change, message):
    values = {'wet_above': 0.2, 'dry_below': 0.1, 'dry_after': 5.0} | change
    with pytest.raises(ValueError, match=message):
        GateSettings(**values)


@pytest.mark.parametrize(('multiple', 'probes'), [
    (1.0, None), (1.05, 7), (1.2, 4), (1.5, 3), (1.75, 2), (5.0, 2)])
def test_probes_until_rain_opens_it(multiple, probes):
    # After n probes the intensity is 1 − exp(−n/2) of the step: 0.393, 0.632, 0.777, 0.865...
    # and no probe counts for more than 1.75 thresholds.
    gate, now = dry_gate()
    assert opened_at(gate, now, multiple * SETTINGS.wet_above) == probes


@given(st.floats(0, 0.2), st.floats(0.3, 1.0), st.floats(5, 120))
def test_rain_at_half_above_the_threshold_opens_within_a_second(offset, share, rate):
    """From any moment, at any frame rate of at least 5 Hz, by way of probe_due."""
    gate, now = dry_gate()
    start = now + offset
    for index in range(1, 1000):
        time = now + index / rate
        if gate.probe_due(time) and gate.update(rain(share if time >= start else 0), time):
            break
    assert time - start <= 1.0


def test_one_patch_alone_does_not_open_it():
    gate, now = dry_gate()
    for index in range(1, 40):
        assert not gate.update(rain(1.0 if index % 9 == 0 else 0.0), now + index / 5)
    assert opened_at(gate, now + 39 / 5, 1.0) == 2


def probes(gate, now, mask, rate=30.0, size=(480, 640)):
    """Give a second of frames; yields of each look its frame, patch, and if it is a second one."""
    for index in range(1, round(rate) + 1):
        time = now + index / rate
        if gate.probe_due(time):
            patch, again = gate.next_patch(*size), gate.looks_again
            if not gate.doubts(mask(again)):
                gate.update(mask(again), time)
            yield index, patch, again


def test_rain_that_a_second_look_confirms_opens_it():
    gate, now = dry_gate()
    (first, patch, _), (second, same, again), *more = probes(gate, now, lambda again: rain(1.0))
    assert (second, same, again) == (first + 1, patch, True) and gate.wet and not more
    # It counts for 3 thresholds, by its 0.4 s of smoothing; the gate is wet above one.
    assert gate.intensity == pytest.approx(0.6 * (1 - math.exp(-second / 30 / 0.4)))


def test_what_a_second_look_finds_dry_leaves_it_closed():
    gate, now = dry_gate()
    looks = list(probes(gate, now, lambda again: rain(0.0 if again else 1.0)))
    assert not gate.wet and gate.intensity == 0
    assert [again for *_, again in looks] == [False, True] * (len(looks) // 2)
    patches = [patch for _, patch, again in looks if not again]
    assert len(patches) >= 4 and all(one != other for one, other in pairwise(patches))
    assert patches == [patch for _, patch, again in looks if again]


def test_where_frames_are_rare_or_change_size_one_look_counts():
    gate, now = dry_gate()
    looks = list(probes(gate, now, lambda again: rain(1.0), rate=4.0))
    assert [again for *_, again in looks] == [False, False] and gate.wet
    gate, now = dry_gate()
    assert [gate.probe_due(now + after) for after in (0.1, 0.2)] == [False, True]
    gate.next_patch(480, 640)
    assert gate.doubts(rain(1.0)) and gate.probe_due(now + 0.3)
    assert gate.next_patch(100, 100) == (slice(0, 100), slice(0, 100)) and not gate.looks_again


def test_a_pause_between_two_looks_confirms_nothing():
    gate, now = dry_gate()
    assert [gate.probe_due(now + after) for after in (0.1, 0.2)] == [False, True]
    patch = gate.next_patch(480, 640)
    assert gate.doubts(rain(1.0)) and gate.looks_again
    for time in (1.7, 3.2):  # a pause, then another one just after the look that began anew
        assert gate.probe_due(now + time) and not gate.looks_again
        assert gate.next_patch(480, 640) != patch
        assert gate.doubts(rain(1.0))
        assert gate.probe_due(now + time + 1 / 30) and gate.looks_again
        assert not gate.doubts(rain(0.0))
        gate.update(rain(0.0), now + time + 1 / 30)
        assert not gate.wet


@pytest.mark.parametrize('rate', [5.0, 7.0, 10.0, 24.0, 30.0, 60.0])
def test_five_probes_a_second_on_average(rate):
    gate, now = dry_gate()
    jitter = np.random.default_rng(3).uniform(-0.2, 0.2, int(20 * rate)) / rate
    probed = []
    for index, late in enumerate(jitter, 1):
        time = now + index / rate + late
        if gate.probe_due(time):
            probed.append(time)
            gate.update(rain(0), time)
    assert len(probed) <= 20 / PROBE_SECONDS + 1
    assert len(probed) >= 0.93 * 20 / PROBE_SECONDS


@given(SIZES)
def test_patches_cover_the_frame(size):
    gate = RainGate(SETTINGS)
    tall, wide = (min(side, patch) for side, patch in zip(size, PROBE_SIDE, strict=True))
    count = math.ceil(size[0] / tall) * math.ceil(size[1] / wide)
    seen = np.zeros(size, bool)
    for _ in range(count):
        rows, columns = gate.next_patch(*size)
        assert (rows.stop - rows.start, columns.stop - columns.start) == (tall, wide)
        assert seen[rows, columns].shape == (tall, wide), 'it reaches out of the frame'
        seen[rows, columns] = True
    assert seen.all()


def test_successive_patches_lie_apart():
    gate = RainGate(SETTINGS)
    patches = [gate.next_patch(480, 640) for _ in range(18)]
    assert patches[:9] == patches[9:]
    assert all(first[0] != second[0] for first, second in pairwise(patches))
    # Three that open it see the top, the middle and the foot, left, middle and right.
    assert {rows.start for rows, _ in patches[:3]} == {0, 144, 288}
    assert {columns.start for _, columns in patches[:3]} == {0, 192, 384}


@pytest.fixture(scope='module')
def drive():
    """Return the dry frames of the demo clip, there and back."""
    with AnyReader([CLIP]) as reader:
        topics = [c for c in reader.connections if c.topic.startswith('/camera_clean/')]
        frames = [
            decode_compressed(reader.deserialize(data, connection.msgtype))
            for connection, _, data in reader.messages(topics)]
    return frames + frames[-2:0:-1]


def look(gate, engine, frame, now):
    """Do with a frame what the gate asks for; return whether it is wet now."""
    if gate.wet:
        return gate.update(engine.infer(frame[np.newaxis]).rain_mask[0], now)
    if gate.probe_due(now):
        patch = np.ascontiguousarray(frame[gate.next_patch(*frame.shape[:2])])
        gate.update(engine.infer(patch[np.newaxis]).rain_mask[0], now)
    return gate.wet


@pytest.fixture(scope='module')
def after_a_dry_drive(engine, drive):
    """Return the states of nine dry seconds at 5 Hz, and the gate after them."""
    gate = RainGate(GateSettings())
    states = [look(gate, engine, drive[i % len(drive)], i / 5) for i in range(45)]
    return states, gate


def test_a_dry_drive_closes_it(after_a_dry_drive):
    states, gate = after_a_dry_drive
    assert states == [True] * 25 + [False] * 20
    assert gate.intensity < gate.settings.dry_below


@pytest.mark.parametrize('intensity', [0.1, 0.3, 0.8])
def test_rain_opens_it_within_a_second(engine, drive, after_a_dry_drive, intensity):
    gate = copy.deepcopy(after_a_dry_drive[1])
    clip = RainClip(intensity, seed=11)
    for index in range(10):
        rainy = clip.render(drive[index], index, index / 10).image
        if look(gate, engine, rainy, 9 + index / 10):
            break
    assert gate.wet
