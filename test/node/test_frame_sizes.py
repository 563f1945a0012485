"""Which sizes the engine is made ready for: the rule, and cameras of many sizes over DDS."""

import time
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest
from lens import Lens
from rig import Rig
from ros_fixtures import wait_for

from derain_ros.engines.contract import forget_shapes
from derain_ros.node.frame_sizes import IDLE_SECONDS, OWN_SIZES, FrameSizes
from derain_ros.node.supervisor import FaultError
from derain_ros.node.worker import patch_size

VEHICLE = [(2160, 3840), (1860, 2880), (1200, 1920), (1080, 1920), (720, 1280)]
MANY = [(64 + 10 * number, 60 + 12 * number) for number in range(14)]


def test_sizes_of_a_vehicle_are_kept_as_they_are():
    sizes = FrameSizes()
    for now in range(200):
        for number, size in enumerate(VEHICLE):
            assert sizes.choose(str(number), size, now) == size


def test_a_camera_of_many_sizes_is_padded_to_few():
    sizes = FrameSizes()
    used = []
    for turn in range(20):
        for number, size in enumerate(MANY):
            found = sizes.choose('many', size, turn + number / 14)
            assert found[0] >= size[0] and found[1] >= size[1]
            used.append(found)
        assert sizes.choose('steady', (48, 64), turn) == (48, 64)
    assert used[:OWN_SIZES] == MANY[:OWN_SIZES]
    later = used[len(MANY):]
    assert len(set(later)) <= 10
    cost = sum(h * w for h, w in later) / sum(h * w for h, w in MANY * 19)
    assert cost < 1.8


def test_what_does_not_fit_is_refused_for_that_camera_alone():
    sizes = FrameSizes()
    for number, size in enumerate(VEHICLE):
        sizes.choose(f'camera {number}', size, 0.0)
    with pytest.raises(FaultError, match='6000x4000 does not fit beside the sizes in use, 3840x'):
        sizes.choose('large', (4000, 6000), 1.0)
    for number, size in enumerate(VEHICLE):
        assert sizes.choose(f'camera {number}', size, 2.0) == size
    # A frame a little smaller than one in use takes that size.
    assert sizes.choose('close', (2150, 3830), 3.0) == VEHICLE[0]
    # What is used no more gives way.
    assert sizes.choose('large', (4000, 6000), 4.0 + IDLE_SECONDS) == (4000, 6000)


def test_many_cameras_of_nearly_one_size_share_one():
    sizes = FrameSizes()
    cameras = [(1500 + number, 2000) for number in range(20)]
    for turn in range(3):
        found = [sizes.choose(str(size), size, turn) for size in cameras]
    assert set(found) == {(1536, 2048)}


def test_the_engine_can_keep_all_that_is_admitted():
    sizes, random = FrameSizes(), np.random.default_rng(3)
    for now in range(2000):
        size = tuple(int(side) for side in random.integers(32, 1500, 2))
        with suppress(FaultError):
            sizes.choose(str(random.integers(9)), size, now * 0.05)
        kept = OrderedDict.fromkeys(
            (1, *shape, 3) for size in sizes._used for shape in (size, patch_size(size)))
        before = len(kept)
        forget_shapes(kept)
        assert len(kept) == before


def test_a_steady_camera_is_served_beside_one_of_fourteen_sizes(tmp_path):
    parameters = {'cameras': ['steady', 'many'], 'watchdog_ms': 5000.0}
    with Rig(tmp_path, parameters) as rig:
        rig.engine.command(warm_up_ms=100, infer_ms=5)
        rig.active()
        steady = Lens(rig.peer, 'steady')
        many = Lens(rig.peer, 'many')
        random = np.random.default_rng(1)
        pictures = [random.integers(0, 256, (*size, 3), np.uint8) for size in MANY]

        def share(answers):
            return sum(answer.derained for answer in answers) / len(answers)

        def steady_since(start):
            return [steady.answer(stamp) for stamp, (sent, _) in list(steady.sent.items())
                    if sent > start and stamp in steady.images]

        def settled():
            before, start = len(rig.engine.events('warm_up')), time.monotonic()
            found = [many.answer(many.send(picture=picture)) for picture in pictures * 2]
            return (share(found) >= 0.8 and share(steady_since(start)) >= 0.8
                    and len(rig.engine.events('warm_up')) == before)
        with steady.streaming(10):
            start = time.monotonic()
            wait_for(settled, 'frames of both without further warm-ups')
        assert share(steady_since(start)) > 0.5  # on a quiet machine 0.8


@pytest.mark.slow
def test_a_size_that_does_not_fit_is_told_of_and_harms_no_other(tmp_path):
    # Twelve sizes, of which none holds another, are what the engine keeps. All are smaller than
    # the shared memory of Fast DDS, 512 KiB, which often loses larger frames.
    shapes = [(40 + 10 * number, round(2700 / 1.28 ** number)) for number in range(12)]
    parameters = {'cameras': ['one', 'two', 'three', 'last'], 'watchdog_ms': 5000.0}
    with Rig(tmp_path, parameters) as rig:
        rig.active()
        lenses = [Lens(rig.peer, camera) for camera in parameters['cameras']]
        for number, (height, width) in enumerate(shapes):
            lenses[number // 4].size = width, height
            lenses[number // 4].derains()
        lenses[3].size = 4_600, 36

        def told():
            # All sizes stay in use, however slow the machine.
            for number, (height, width) in enumerate(shapes):
                lenses[number // 4].size = width, height
                lenses[number // 4].send()
                lenses[3].send()  # a report tells of the frames since the one before
                time.sleep(0.05)
            return '4600x36 does not fit' in rig.peer.says('last')
        wait_for(told, 'refusal')
        lenses[0].derains()
