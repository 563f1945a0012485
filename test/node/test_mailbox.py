"""Newest-frame slots and their counts."""

import random
import threading
import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from derain_ros.node.mailbox import (
    FIRST_WAIT,
    HABIT_BREAKS,
    SHORTEST_WAIT,
    Counts,
    Mailbox,
    Outcome,
    _Pace,
)

TOLERANCE = 0.005


def mailbox_of(*cameras, **groups):
    """Return a mailbox whose frames are their own stamps."""
    groups = dict.fromkeys(cameras, '') | groups
    return Mailbox(groups, TOLERANCE, lambda stamp: stamp)


def opened(*cameras, **groups):
    mailbox = mailbox_of(*cameras, **groups)
    mailbox.open()
    return mailbox


def take(mailbox):
    return [(taken.camera, taken.data) for taken in mailbox.take()]


def in_flight(counts):
    return counts.received - counts.published - counts.dropped - counts.failed - counts.idle


def test_only_the_newest_frame_is_kept_and_the_older_counted():
    mailbox = opened('front')
    for frame in 'abc':
        mailbox.put('front', frame)
    assert mailbox.counts() == {'front': Counts(received=2, dropped=2)}
    assert take(mailbox) == [('front', 'c')]
    assert mailbox.counts() == {'front': Counts(received=3, dropped=2)}
    mailbox.finish('front', Outcome.DERAINED)
    assert mailbox.counts() == {'front': Counts(received=3, dropped=2, derained=1)}
    assert mailbox.counts()['front'].published == 1


def test_a_waiting_frame_is_not_yet_received():
    mailbox = opened('front')
    mailbox.put('front', 'a')
    assert mailbox.counts() == {'front': Counts()}


@pytest.mark.parametrize('outcome', list(Outcome))
def test_each_outcome_has_its_count(outcome):
    mailbox = opened('front')
    mailbox.put('front', 'a')
    mailbox.take()
    mailbox.finish('front', outcome)
    assert mailbox.counts() == {'front': Counts(received=1, **{outcome.value: 1})}


def test_cameras_take_turns_however_busy_one_is():
    mailbox = opened('busy', 'calm', 'quiet')
    mailbox.put('calm', 0)
    mailbox.put('quiet', 0)
    served = []
    for frame in range(6):
        mailbox.put('busy', frame)
        (camera, _), = take(mailbox)
        mailbox.finish(camera, Outcome.DERAINED)
        served.append(camera)
        if frame == 2:
            mailbox.put('calm', 1)
    assert served == ['busy', 'calm', 'quiet', 'busy', 'calm', 'busy']


def test_closing_drops_what_waits_and_wakes_the_taker():
    mailbox = opened('front', 'rear')
    taken = []
    taker = threading.Thread(target=lambda: taken.append(mailbox.take()))
    taker.start()
    time.sleep(0.05)
    assert taker.is_alive()
    mailbox.close()
    taker.join(5)
    assert taken == [None]
    mailbox.open()
    mailbox.put('rear', 'a')
    mailbox.close()
    assert mailbox.counts() == {'front': Counts(), 'rear': Counts(received=1, dropped=1)}
    assert mailbox.take() is None


def test_a_closed_mailbox_takes_nothing_in():
    mailbox = mailbox_of('front')
    mailbox.put('front', 'a')
    assert mailbox.counts() == {'front': Counts()}
    mailbox.open()
    mailbox.put('front', 'b')
    assert take(mailbox) == [('front', 'b')]


def test_a_camera_is_overdue_by_its_own_pace():
    mailbox = opened('fast', 'never')
    assert mailbox.silence('never') == (None, False)
    for _ in range(4):
        mailbox.put('fast', 0)
        time.sleep(0.02)
    assert mailbox.silence('fast') == (None, True)
    time.sleep(SHORTEST_WAIT)
    seconds, ever = mailbox.silence('fast')
    assert ever and SHORTEST_WAIT < seconds < 2
    assert mailbox.silence('never') == (None, False)
    mailbox.put('fast', 0)
    assert mailbox.silence('fast') == (None, True)
    time.sleep(FIRST_WAIT - SHORTEST_WAIT)
    seconds, ever = mailbox.silence('never')
    assert not ever and FIRST_WAIT < seconds < FIRST_WAIT + 2


@pytest.mark.parametrize('gaps', [
    [0.03] * 30 + [1.0] * 10,  # a camera that slows down
    ([0.03] * 25 + [2.0]) * 6,  # bursts
    [3.0] * 5,
])
def test_a_camera_of_an_uneven_pace_is_not_overdue_for_ever(gaps):
    pace, now, late = _Pace(), 100.0, []
    for gap in gaps:
        if pace.intervals:
            late.append(gap > pace.limit())
        now += gap
        pace.arrived(now)
    assert sum(late) <= HABIT_BREAKS, 'only until it is known'
    assert not any(late[-5:])


def test_single_breaks_are_no_habit():
    pace, now = _Pace(), 100.0
    for gap in [0.03] * 5 + [6.0] + [0.03] * 9 + [2.0] + [0.03] * 9:
        now += gap
        pace.arrived(now)
    assert pace.limit() == SHORTEST_WAIT
    for gap in ([0.03] * 25 + [2.0]) * 3 + [0.03] * 1000:
        now += gap
        pace.arrived(now)
    assert pace.limit() == SHORTEST_WAIT


def test_a_group_comes_together_or_not_at_all():
    mailbox = opened('solo', left='pair', right='pair')
    mailbox.put('left', 1.0)
    mailbox.put('solo', 0.0)
    mailbox.put('right', 1.0 + TOLERANCE / 2)
    assert take(mailbox) == [('solo', 0.0)]
    assert take(mailbox) == [('left', 1.0), ('right', 1.0 + TOLERANCE / 2)]
    mailbox.put('left', 2.0)
    mailbox.put('right', 2.1)  # its partner at 2.0 was lost
    mailbox.put('left', 2.2)
    mailbox.put('right', 2.2)
    assert take(mailbox) == [('left', 2.2), ('right', 2.2)]
    assert mailbox.counts()['left'] == Counts(received=3, dropped=1)
    assert mailbox.counts()['right'] == Counts(received=3, dropped=1)


def test_a_newer_group_displaces_one_that_waits_only_when_it_is_whole():
    mailbox = opened(left='pair', right='pair')
    for camera, stamp in (('left', 1.0), ('right', 1.0), ('left', 2.0)):
        mailbox.put(camera, stamp)
    assert take(mailbox) == [('left', 1.0), ('right', 1.0)]
    mailbox.put('right', 2.0)
    mailbox.put('left', 3.0)
    mailbox.put('right', 3.0)
    assert take(mailbox) == [('left', 3.0), ('right', 3.0)]
    assert mailbox.counts()['left'] == Counts(received=3, dropped=1)


def test_a_group_finds_together_after_time_has_jumped_back():
    mailbox = opened(left='pair', right='pair')
    mailbox.put('left', 100.0)
    for stamp in (1.0, 2.0):
        mailbox.put('right', stamp)
        mailbox.put('left', stamp)
    assert take(mailbox) == [('left', 2.0), ('right', 2.0)]


def test_counting_from_zero_leaves_out_what_is_done():
    mailbox = opened('front')
    for frame in 'ab':
        mailbox.put('front', frame)
    mailbox.take()
    mailbox.reset_counts()
    assert mailbox.counts() == {'front': Counts(received=1)}
    mailbox.finish('front', Outcome.IDLE)
    assert mailbox.counts() == {'front': Counts(received=1, idle=1)}


def test_the_sum_holds_at_every_moment_under_load():
    mailbox = opened('front', 'rear')
    sent = 3000
    done = threading.Event()
    violations = []

    def watch():
        while not done.is_set():
            counts = mailbox.counts().values()
            flying = [in_flight(count) for count in counts]
            if min(flying) < 0 or sum(flying) > 1:
                violations.append(flying)

    def work():
        random_outcome = random.Random(1)
        while (taken := mailbox.take()) is not None:
            mailbox.finish(taken[0].camera, random_outcome.choice(list(Outcome)))

    def send(camera):
        for frame in range(sent):
            mailbox.put(camera, frame)
            if frame % 50 == 0:
                time.sleep(0.001)

    threads = [threading.Thread(target=watch), threading.Thread(target=work),
               *(threading.Thread(target=send, args=(name,)) for name in ('front', 'rear'))]
    for thread in threads:
        thread.start()
    for thread in threads[2:]:
        thread.join(30)
    mailbox.close()
    threads[1].join(30)
    done.set()
    threads[0].join(30)
    assert violations == []
    for counts in mailbox.counts().values():
        assert counts.received == sent
        assert in_flight(counts) == 0
        assert counts.published > 0
