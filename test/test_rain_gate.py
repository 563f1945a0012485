"""The rain gate: what it makes of masks, hand-computed, and what holds for any masks."""

import math

import numpy as np
import pytest
from gate_masks import SETTINGS, dry_gate, opened_at, rain
from hypothesis import given
from hypothesis import strategies as st

from derain_ros.rain_gate import (
    FORGET_SECONDS,
    PROBE_SECONDS,
    GateSettings,
    RainGate,
    mask_response,
)


def test_response_counts_what_the_mask_is_sure_of():
    mask = np.array([[0, 32, 96, 128], [160, 255, 31, 0]], np.uint8)
    # Halfway (96) is 128 of 255, three quarters (128) 191 of 255.
    assert mask_response(mask) == pytest.approx((128 / 255 + 191 / 255 + 1 + 1) / 8)
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
