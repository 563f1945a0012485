"""Newest-frame slots and their counts."""

import random
import threading
import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from derain_ros.ros.mailbox import Counts, Mailbox, Outcome


def opened(*cameras):
    mailbox = Mailbox(cameras)
    mailbox.open()
    return mailbox


def in_flight(counts):
    return counts.received - counts.published - counts.dropped - counts.failed - counts.idle


def test_only_the_newest_frame_is_kept_and_the_older_counted():
    mailbox = opened('front')
    for frame in 'abc':
        mailbox.put('front', frame)
    assert mailbox.counts() == {'front': Counts(received=2, dropped=2)}
    assert mailbox.take() == ('front', 'c')
    assert mailbox.counts() == {'front': Counts(received=3, dropped=2)}
    mailbox.finish('front', Outcome.PUBLISHED)
    assert mailbox.counts() == {'front': Counts(received=3, dropped=2, published=1)}


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
        camera, _ = mailbox.take()
        mailbox.finish(camera, Outcome.PUBLISHED)
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
    mailbox = Mailbox(['front'])
    mailbox.put('front', 'a')
    assert mailbox.counts() == {'front': Counts()}
    mailbox.open()
    mailbox.put('front', 'b')
    assert mailbox.take() == ('front', 'b')


def test_silence_is_measured_from_the_last_frame_or_the_opening():
    mailbox = opened('front')
    time.sleep(0.1)
    assert mailbox.seconds_since_frame('front') >= 0.1
    mailbox.put('front', 'a')
    assert mailbox.seconds_since_frame('front') < 0.1


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
            mailbox.finish(taken[0], random_outcome.choice(list(Outcome)))

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
