"""Probes of the rain gate: when, where, and that rain before the real network opens it."""

import copy
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from gate_masks import SETTINGS, dry_gate, opened_at, rain
from hypothesis import given
from hypothesis import strategies as st
from rosbags.highlevel import AnyReader

from derain_ros.engines import create_engine
from derain_ros.images.codec import decode_compressed
from derain_ros.rain import RainClip
from derain_ros.rain_gate import PROBE_SECONDS, PROBE_SIDE, GateSettings, RainGate

CLIP = Path(__file__).parent / 'data' / 'driving_rain'
SIZES = st.tuples(st.integers(32, 2200), st.integers(32, 4000))


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


def test_a_slow_camera_is_probed_on_every_frame():
    gate, now = dry_gate()
    for index in range(1, 20):
        assert gate.probe_due(now + index)
        gate.update(rain(0), now + index)


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
def engine():
    engine = create_engine('openvino')
    yield engine
    engine.close()


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
