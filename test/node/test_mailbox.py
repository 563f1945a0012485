"""Newest-frame slots and their counts."""

import random
import threading
import time

import pytest

from derain_ros.node import mailbox as mailbox_module
from derain_ros.node.mailbox import (
    FIRST_WAIT,
    MOST_WAITING,
    SHORTEST_WAIT,
    Counts,
    Mailbox,
    Outcome,
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
    mailbox.put('front', 'a')
    assert mailbox.counts() == {'front': Counts()}  # what waits is not yet received
    for frame in 'bc':
        mailbox.put('front', frame)
    assert mailbox.counts() == {'front': Counts(received=2, dropped=2)}
    assert take(mailbox) == [('front', 'c')]
    assert mailbox.counts() == {'front': Counts(received=3, dropped=2)}


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
    mailbox.put('front', 'b')  # it is closed
    assert mailbox.counts()['front'] == Counts()
    assert mailbox.take() is None


def test_a_camera_is_overdue_by_its_own_pace(monkeypatch):
    now = 100.0
    monkeypatch.setattr(mailbox_module.time, 'monotonic', lambda: now)
    mailbox = opened('fast', 'never')
    assert mailbox.silence('never') == (None, False)
    assert mailbox.rate('fast') is None
    for _ in range(8):
        now += 0.02
        mailbox.put('fast', 0)
    assert mailbox.silence('fast') == (None, True)
    assert mailbox.rate('fast') == pytest.approx(50)
    now += SHORTEST_WAIT + 0.1
    assert mailbox.silence('fast') == (pytest.approx(SHORTEST_WAIT + 0.1), True)
    assert mailbox.rate('fast') == 0
    assert mailbox.silence('never') == (None, False)
    mailbox.put('fast', 0)
    assert mailbox.silence('fast') == (None, True)
    now = 100.1 + FIRST_WAIT
    assert mailbox.silence('never') == (pytest.approx(FIRST_WAIT + 0.1), False)


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
    assert mailbox.counts()['left'] == Counts(received=3, dropped=1, unmatched=1)
    assert mailbox.counts()['right'] == Counts(received=3, dropped=1, unmatched=1)


@pytest.mark.parametrize(('frames', 'taken', 'dropped'), [
    # A newer group displaces one that waits only when it is whole.
    (['left 1', 'right 1', 'left 2'], 1.0, 0),
    (['left 1', 'right 1', 'left 2', 'right 2', 'left 3', 'right 3'], 3.0, 4),
    # The frames of one camera arrive later than those of the other, by more than their interval.
    (['left 1', 'left 2', 'right 1'], 1.0, 0),
    (['left 1', 'left 2', 'left 3', 'right 1', 'left 4', 'right 2', 'right 4'], 4.0, 5),
    (['left 1', *(f'left {number}' for number in range(2, 3 + MOST_WAITING)), 'right 1', 'right 2',
      'right 3'], 3.0, 4),
    # Time jumps back.
    (['left 100', 'right 1', 'left 1', 'right 2', 'left 2'], 2.0, 3),
])
def test_the_newest_whole_group_is_taken(frames, taken, dropped):
    mailbox = opened(left='pair', right='pair')
    for frame in frames:
        camera, stamp = frame.split()
        mailbox.put(camera, float(stamp))
    assert take(mailbox) == [('left', taken), ('right', taken)]
    assert sum(counts.dropped for counts in mailbox.counts().values()) == dropped


def test_the_sum_holds_at_every_moment_under_load():
    mailbox = opened('front', 'rear')
    sent = 1000
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
