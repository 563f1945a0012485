"""Several cameras on one engine: fair, in groups, and each by itself in its faults.

The node is a process of its own with the engine of faulty_engine.py, which takes as long as it
is told; the cameras are here, joined to it by DDS. Not asserted: what the estimate of rain is
worth (the tests of the rain gate do).
"""

import time
from contextlib import ExitStack

import numpy as np
import pytest
from lens import Lens, paced
from rig import Rig, active_rig
from ros_fixtures import image, output, wait_for
from sensor_msgs.msg import Image, RelativeHumidity

SIZES = {'front': (64, 48), 'rear': (81, 60), 'left': (96, 64), 'right': (48, 64)}
STEREO = {'left': {'sync_group': 'stereo'}, 'right': {'sync_group': 'stereo'}}
rig = active_rig({'cameras': list(SIZES), 'watchdog_ms': 5000.0})


@pytest.fixture(scope='module')
def four(rig):
    return {camera: Lens(rig.peer, camera, size) for camera, size in SIZES.items()}


@pytest.fixture
def cameras(rig, four):
    """The lenses, while all of them are derained."""
    rig.heal(*four.values())
    return four


@pytest.fixture(scope='module')
def stereo(tmp_path_factory):
    """A node with a pair and a camera beside it, and their lenses."""
    parameters = STEREO | {'cameras': ['left', 'right', 'rear'], 'watchdog_ms': 5000.0,
                           'fast_path': False}  # all else is tested with it
    with Rig(tmp_path_factory.mktemp('stereo'), parameters) as rig:
        rig.active()
        yield rig, *(Lens(rig.peer, camera) for camera in ('left', 'right', 'rear'))


@pytest.fixture
def pair(stereo):
    rig, left, right, _ = stereo
    rig.heal()
    wait_for(lambda: any(
        answer.derained for answer in together(left, right, 2)), 'derained pair')
    return stereo


def together(left, right, frames, rate=10.0):
    """Send pairs of equal stamps, each to be answered before the next; returns all answers."""
    return [lens.answer(stamp) for _ in paced(frames, rate)
            for stamp in [right.send(left.send())] for lens in (left, right)]


def counts(rig, key, *cameras):
    """Return one count of several cameras as of a report made after this call."""
    rig.peer.counts(cameras[0])
    return np.array([int(rig.peer.values(camera)[key]) for camera in cameras])


def settled(*lenses):
    """Wait until nothing more comes out."""
    before = -1
    while before != (before := sum(len(lens.images) for lens in lenses)):
        time.sleep(0.3)


def test_four_cameras_get_equal_shares_of_an_engine_that_is_too_slow(rig, cameras):
    before = counts(rig, 'published', *cameras)
    rig.engine.command(infer_ms=30)
    start = time.monotonic()
    with ExitStack() as streams:
        for lens in cameras.values():
            streams.enter_context(lens.streaming(20))
        # At 30 ms each, of 80 frames a second no more than 33 can be served.
        wait_for(lambda: sum(counts(rig, 'published', *cameras) - before) > 120, 'frames')
    settled(*cameras.values())
    shares = counts(rig, 'published', *cameras) - before
    assert min(shares) >= 0.9 * max(shares)
    for lens in cameras.values():
        assert list(lens.images) == sorted(lens.images)
        made = [stamp for stamp, found in lens.images.items() if found[0][0] > start]
        assert all(lens.answer(stamp).derained for stamp in made)
        values = rig.peer.values(lens.camera)
        assert int(values['received']) == sum(
            int(values[key]) for key in ('published', 'dropped', 'failed', 'idle'))
        assert int(values['dropped']) > 0
    assert {event['shape'][0] for event in rig.engine.events('infer')} == {1}


def test_bad_frames_and_silence_of_one_camera_leave_the_others_alone(rig, cameras):
    def lost():
        counts = rig.peer.counts('front')
        return counts['failed'] + counts['dropped']

    before, start = lost(), time.monotonic()
    for number in paced(20, 20):
        cameras['front'].send(announced='plasma')
        if number % 2:
            # The rear camera is silent.
            for lens, stamp in [(cameras[side], cameras[side].send()) for side in STEREO]:
                answer = lens.answer(stamp)
                assert (answer.word, answer.derained) == ('derained', True)
    wait_for(lambda: lost() == before + 20, 'count of all')
    assert not rig.engine.events('create', start)
    wait_for(lambda: 'plasma' in rig.node.log(), 'log')
    assert cameras['front'].play(2)[-1].derained


def test_a_pair_is_published_together_under_overload(pair):
    rig, left, right, rear = pair
    rear.derains()
    before, earlier = counts(rig, 'published', 'left', 'right', 'rear'), set(left.images)
    rig.engine.command(infer_ms=20)

    def shares():
        return counts(rig, 'published', 'left', 'right', 'rear') - before

    def served():
        for _ in paced(60, 25):
            right.send(left.send())
        return min(shares()) > 5

    with rear.streaming(25):
        wait_for(served, 'pairs and frames of the rear')
    settled(left, right, rear)
    assert set(left.images) == set(right.images)
    assert all(lens.answer(stamp).derained for lens in (left, right)
               for stamp in left.images.keys() - earlier)
    assert len({*shares()[:2]}) == 1
    assert int(rig.peer.values('left')['dropped']) > 0


def test_frames_dropped_while_a_pair_is_in_work_have_partners(pair):
    rig, left, right, _ = pair
    rig.engine.command(infer_ms=300)
    said = set()
    for _ in paced(30, 10):
        right.send(left.send())
        said.add(rig.peer.says('left'))
    assert not [text for text in said if 'partner' in text]


def test_a_partner_may_be_late_but_not_missing_broken_or_of_another_time(pair):
    rig, left, right, rear = pair
    rear.derains()
    alone, earlier = [], set(rear.images)
    with rear.streaming(10):
        for number in range(10):
            stamp = left.send()
            time.sleep(0.03)
            if number % 5 == 1:  # nothing comes
                alone.append((left, stamp))
            elif number % 5 == 2:
                alone += [(left, stamp), (right, right.send(stamp, announced='plasma'))]
            elif number % 5 == 3:
                other = moved(stamp, 20_000_000)
                alone += [(left, stamp), (right, right.send(other))]
            else:
                late = right.send(moved(stamp, 3_000_000))
                answers = left.answer(stamp), right.answer(late)
                assert all(answer.derained for answer in answers)
            time.sleep(0.07)
    settled(left)
    assert not [stamp for lens, stamp in alone if stamp in lens.images]
    served = rear.images.keys() - earlier
    assert len(served) > 3 and all(rear.answer(stamp).derained for stamp in served)
    with left.streaming(10):
        wait_for(lambda: 'partner from right, which is silent' in rig.peer.says('left'), 'word')

    def broken():
        right.send(left.send(), announced='plasma')
        time.sleep(0.1)
        return 'partner from right, which fails' in rig.peer.says('left')
    wait_for(broken, 'word of the broken frames')


def moved(stamp, nanoseconds):
    return divmod(stamp[0] * 10**9 + stamp[1] + nanoseconds, 10**9)


def test_a_pair_fails_together(pair):
    rig, left, right, _ = pair
    rig.engine.command(mode='raise', creation='fail')
    answers = together(left, right, 2)
    assert all(answer.word == 'fault' and answer.identical for answer in answers)
    rig.heal()
    assert rig.peer.set('on_fault', 'drop') == ''
    try:
        rig.engine.command(mode='raise', creation='fail')
        alone = rig.node.log().count('no frame has a partner')
        stamps = [right.send(left.send()) for _ in paced(25, 10)]
        settled(left)
        assert not set(stamps) & (set(left.images) | set(right.images))
        # What is dropped has a partner all the same.
        assert rig.node.log().count('no frame has a partner') == alone
    finally:
        assert rig.peer.set('on_fault', 'pass_through') == ''


def test_rain_on_one_of_a_pair_is_rain_on_both(pair):
    rig, left, right, rear = pair
    rear.derains()
    assert rig.peer.set_together(rain_gate=True, rain_gate_dry_after=0.5) == ''
    try:
        rig.heal()  # the gates, too
        rig.engine.command(mask=-1)
        random = np.random.default_rng(5)
        dry, wet = (random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(2))
        # The engine sees as much rain everywhere as the first value says.
        dry[0, 0, 0], wet[0, 0, 0] = 0, 250

        def words(picture, seconds):
            """Send pairs and a frame of the rear camera; return what the last ones were."""
            for _ in paced(int(10 * seconds), 10):
                stamp = left.send(picture=picture)
                right.send(stamp, picture=dry)
                rear.send(stamp, picture=dry)
                said = [lens.answer(stamp).word for lens in (left, right, rear)]
            return said
        wait_for(lambda: words(dry, 0.5) == ['bypassed'] * 3, 'end of the rain')
        wait_for(lambda: rig.peer.values('left')['gate'] == 'dry', 'word of the dry weather')
        wait_for(lambda: words(wet, 0.5) == ['derained', 'derained', 'bypassed'], 'rain')
        wait_for(lambda: rig.peer.values('right')['gate'] == 'wet', 'word of the rain')
        assert rig.peer.values('rear')['gate'] == 'dry'
    finally:
        assert rig.peer.set_together(rain_gate=False, rain_gate_dry_after=5.0) == ''


def test_of_a_pair_only_one_is_listened_to(tmp_path):
    parameters = STEREO | {'cameras': ['left', 'right'], 'watchdog_ms': 5000.0,
                           'rain_gate': True, 'rain_gate_dry_after': 0.5}
    with Rig(tmp_path, parameters) as rig:
        rig.engine.command(mask=0)
        left = Lens(rig.active().peer, 'left')
        right = rig.peer.publisher(Image, '/right/image_raw')
        rig.peer.matched(right)

        def both(**more):
            stamp = left.send(**more)
            partner = image(0)
            partner.header.stamp.sec, partner.header.stamp.nanosec = stamp
            right.publish(partner)
            return stamp

        def word():
            stamp = both()
            wait_for(lambda: stamp in left.statuses, 'status of the left frame')
            return left.statuses[stamp][0].message
        # The gate of the other, which nobody looks at, does not hold its own open.
        wait_for(lambda: word() == 'bypassed', 'end of the rain', 20)
        wait_for(lambda: rig.peer.values('left')['gate'] == 'dry', 'word of the dry weather')

        # The other serves as a rain gauge: frames that are not derained are not its own.
        rig.peer.listen(RelativeHumidity, output('right', 'rain_intensity'))
        assert rig.peer.set_together(rain_gate=False, on_fault='drop') == ''
        rig.engine.command(mode='raise')
        wait_for(lambda: word() == 'dropped' and 'not derained' in rig.peer.says('left'), 'fault')
        assert not any('not derained' in told.message for told in rig.peer.reports('right'))
        before = rig.peer.settled_counts('right')
        both(announced='plasma')
        wait_for(lambda: rig.peer.counts('left')['failed'], 'frame that cannot be read')
        after = rig.peer.settled_counts('right')
        assert (after['dropped'], after['idle']) == (before['dropped'], before['idle'] + 1)
