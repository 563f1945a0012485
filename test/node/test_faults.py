"""Engines that fail, hang or lag, and cameras that stop or lose their sense of time.

The node is a process of its own with the engine of faulty_engine.py; cameras and listeners are
here, joined to it by DDS alone. A frame that waited for an engine to be created anew, or for one
that hangs, would come after seconds or not at all; a busy machine adds less. Not asserted: that
an engine survives which holds the GIL while it hangs (nothing in Python can), that a crash of the
process is survived (the launch file starts it again), and what rain is (the rain gate is off).
"""

import re
import signal
import time

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from faulty_engine import Controls
from lens import Lens, paced
from rig import Rig, active_rig
from ros_fixtures import wait_for
from rosgraph_msgs.msg import Clock

PERIOD = 0.1
BUSY = 1.0
WATCHDOG = 0.5
PARAMETERS = {'watchdog_ms': 1e3 * WATCHDOG, 'cameras': ['front']}
rig = active_rig(PARAMETERS | {'cameras': ['front', 'slow']})


@pytest.fixture(scope='module')
def lens(rig):
    return Lens(rig.peer, 'front')


@pytest.fixture
def front(rig, lens):
    """The camera of most tests, while the engine works."""
    rig.heal(lens)
    lens.answer(lens.send())  # no earlier frame is in work any more
    yield lens
    events = {event['event'] for event in rig.engine.events()}
    assert not events & {'two at once', 'closed while running'}


def assert_passed_through(answer, seconds=0.0, level=DiagnosticStatus.ERROR):
    assert (answer.word, answer.level) == ('fault', level)
    assert answer.values['reason']
    assert answer.identical
    assert answer.seconds < seconds + BUSY


@pytest.mark.parametrize(('mode', 'words'), [
    ('crash', 'ZeroDivisionError'), ('nan', 'float32'),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ('raise', 'as commanded'), ('memory', 'memory as commanded'), ('black', ''),
        ('shape', '24')))])
def test_frames_pass_through_while_the_engine_fails(rig, front, mode, words):
    rig.engine.command(mode=mode, creation='fail')
    answers = front.play(3, 1 / PERIOD)
    for answer in answers:
        assert_passed_through(answer)
    assert words in answers[0].values['reason']
    wait_for(lambda: rig.level('engine') == DiagnosticStatus.ERROR, 'error')
    assert rig.state() == 'failed'
    assert int(rig.peer.values('engine')['failures']) >= 1
    rig.heal(front)
    wait_for(lambda: rig.level('engine') == DiagnosticStatus.OK, 'recovery')
    assert rig.state() == 'ready'


def test_a_hung_inference_holds_up_one_frame_and_the_engine_comes_back(rig, front):
    rig.engine.command(mode='hang', creation='fail')
    stuck = front.send()
    assert_passed_through(front.answer(stuck), WATCHDOG)
    for answer in front.play(5, 1 / PERIOD):
        assert_passed_through(answer)
    wait_for(lambda: rig.level('engine') == DiagnosticStatus.ERROR, 'error')
    wait_for(lambda: rig.state() in ('stuck', 'failed'), 'word of the hang')
    rig.engine.command()
    front.derains()
    assert front.play(3)[-1].derained
    # The late result of the frame that was passed through is discarded.
    front.answer(stuck)


def test_an_engine_that_is_always_too_slow_is_not_logged_with_every_frame(rig, front):
    told = len(rig.node.log())
    rig.engine.command(infer_ms=1e3 * WATCHDOG + 100)
    assert {answer.word for answer in front.play(5)} == {'fault'}
    assert rig.node.log()[told:].count('an inference takes longer') < 5


def test_a_watchdog_of_a_millisecond_says_how_long_it_waited(rig, front):
    told = len(rig.node.log())
    assert rig.peer.set('watchdog_ms', 1.0) == ''
    try:
        rig.engine.command(infer_ms=2000)
        front.send()
        stuck = r'stuck for (\d+) ms'
        wait_for(lambda: re.search(stuck, rig.node.log()[told:]), 'word of the hang')
        assert all(int(ms) >= 1 for ms in re.findall(stuck, rig.node.log()[told:]))
    finally:
        assert rig.peer.set('watchdog_ms', 1e3 * WATCHDOG) == ''


def test_on_fault_drop(rig, front):
    def lost():
        counts = rig.peer.counts('front')
        return counts['dropped'] + counts['failed']

    assert rig.peer.set('on_fault', 'drop') == ''
    try:
        rig.engine.command(mode='raise')
        before = lost()
        stamps = [front.send() for _ in paced(5, 1 / PERIOD)]
        # One report says so, and the next, maybe at once, that all is well.
        wait_for(lambda: any(
            report.level == DiagnosticStatus.ERROR and 'as commanded' in report.message
            for report in rig.peer.reports('front')), 'error')
        wait_for(lambda: lost() == before + 5, 'count of all')
        assert not set(stamps) & set(front.images)
    finally:
        assert rig.peer.set('on_fault', 'pass_through') == ''


def test_creation_is_tried_again_ever_more_rarely_until_reset(rig, front):
    start = time.monotonic()
    rig.engine.command(mode='raise', creation='fail')

    def tries():
        return [event['time'] for event in rig.engine.events('create', start)]

    with front.streaming(1 / PERIOD):
        wait_for(lambda: len(tries()) == 2, 'second attempt')
        failed = rig.engine.events('infer', start)[0]['time']
        first, second = tries()
        assert 0.9 < first - failed < 1.8
        assert 1.8 < second - first < 3.5
        rig.engine.command()
        assert rig.peer.reset()
        wait_for(lambda: len(tries()) == 3, 'attempt after the reset')
        assert tries()[2] - second < 3.5  # 4 s are between them without the reset
    front.derains()


def test_max_age(rig, front):
    assert rig.peer.set_together(max_age_ms=80.0, watchdog_ms=5000.0) == ''
    try:
        rig.engine.command(infer_ms=400)
        answers = front.play(6, 1 / PERIOD)
        for answer in answers:
            # The engine is slow but works: that is no error.
            assert_passed_through(answer, 0.08, DiagnosticStatus.WARN)
        assert 'max_age_ms' in answers[0].values['reason']
        # No age can be told from these, so they are not too old.
        rig.engine.command()
        assert rig.peer.set('max_age_ms', 3000.0) == ''
        front.derains()
        for stamp in ((0, 0), (int(time.time()) + 3600, 5)):
            assert front.answer(front.send(stamp)).derained
        assert front.answer(front.send((int(time.time()) - 5, 6))).word == 'fault'
        # Nothing came out twice, late results included.
        assert all(len(images) == 1 for images in front.images.values())
    finally:
        assert rig.peer.set_together(max_age_ms=0.0, watchdog_ms=1e3 * WATCHDOG) == ''


def test_stamps_may_be_missing_ahead_or_jump_back(rig, front):
    now = int(time.time())
    for number, seconds in enumerate((0, now + 3600, now, now - 3600, 1, now)):
        answer = front.answer(front.send((seconds, 1000 + number)))
        assert (answer.word, answer.derained) == ('derained', True)
        assert answer.image.header.frame_id == 'front'
    assert float(rig.peer.values('front')['age_p99_ms']) >= 0


def test_size_and_encoding_change_in_mid_stream(rig, front):
    rig.engine.command(mode='hang')  # the warm-up, too
    size, front.size = front.size, (81, 60)
    try:
        answers = front.play(5, 1 / PERIOD)
        for answer in answers:
            assert_passed_through(answer, level=DiagnosticStatus.WARN)
            assert (answer.image.width, answer.image.height) == (81, 60)
        assert 'warming up' in answers[0].values['reason']
        wait_for(lambda: rig.state() == 'warming up', 'word of the warm-up')
        assert rig.peer.says('engine') == 'faulty on test bench, warming up for 81x60'
        assert rig.level('engine') == DiagnosticStatus.OK
        rig.engine.command()
        front.derains()
        assert rig.state() != 'stuck'
        for encoding in ('rgb8', 'mono8', 'bgr8'):
            answer = front.answer(front.send(encoding=encoding))
            assert (answer.word, answer.derained) == ('derained', True)
            assert answer.image.encoding == encoding
            assert (answer.image.width, answer.image.height) == (81, 60)
        front.size = size
        assert front.play(2)[-1].derained
    finally:
        front.size = size


def test_set_enabled_and_reset(rig, front):
    assert rig.peer.set_enabled(False)
    try:
        assert rig.peer.get('enabled') == [False]
        answer = front.play(3)[-1]
        assert (answer.word, answer.level) == ('bypassed', DiagnosticStatus.OK)
        assert answer.identical
        assert answer.values['infer_ms'] == ''
        assert 'enabled' in answer.values['reason']
    finally:
        assert rig.peer.set_enabled(True)
    answer = front.play(3)[-1]
    assert answer.derained
    assert float(answer.values['infer_ms']) > 0
    assert float(answer.values['age_ms']) > 0
    assert rig.peer.reset()
    assert not any(rig.peer.counts('front').values())
    front.play(2)
    wait_for(lambda: rig.peer.counts('front')['published'] == 2, 'count of both')
    ways = ('derained', 'bypassed', 'passed_through')
    assert [rig.peer.values('front')[way] for way in ways] == ['2', '0', '0']


def test_a_camera_that_stops_is_named_after_its_own_period(rig, front):
    slow = Lens(rig.peer, 'slow')
    with front.streaming(10), slow.streaming(0.5):
        wait_for(lambda: len(slow.images) >= 3, 'frames of the slow camera')
    # 3 of its periods are less than the least wait of 0.5 s; 6 s are those of the slow camera.
    wait_for(lambda: 'front: the last message on /front/image_raw' in rig.node.log(), 'warning')
    assert 'slow: the last message' not in rig.node.log()
    wait_for(lambda: rig.level('front') == DiagnosticStatus.WARN, 'status')
    with front.streaming(10):
        wait_for(lambda: rig.level('front') == DiagnosticStatus.OK, 'end of the warning')
    wait_for(lambda: 'slow: the last message' in rig.node.log(), 'warning of the slow camera')


def test_a_node_whose_engine_hangs_can_be_taken_down_and_up_again(rig, front):
    assert rig.peer.set('watchdog_ms', 60_000.0) == ''
    rig.engine.command(mode='hang')
    since = time.monotonic()
    front.send()
    wait_for(lambda: rig.engine.events('infer', since), 'inference')
    assert rig.peer.change_state('deactivate')
    assert rig.peer.change_state('cleanup')
    assert rig.peer.state() == 'unconfigured'
    rig.engine.command()
    assert rig.peer.change_state('configure')
    assert rig.peer.change_state('activate')
    wait_for(lambda: rig.peer.counts('front')['received'] == 0, 'new counts')
    front.derains()


def test_sigterm_while_idle(rig, front):
    rig.ends(signal.SIGTERM)


def test_in_simulated_time_the_next_engine_takes_over(tmp_path):
    with Rig(tmp_path, PARAMETERS | {'engine': 'auto', 'use_sim_time': True}) as rig:
        front = Lens(rig.active().peer, 'front')
        clock = rig.peer.publisher(Clock, '/clock')
        front.derains()
        rig.peer.matched(clock)
        assert rig.peer.set('max_age_ms', 300.0) == ''
        for number, seconds in enumerate((100, 5000, 20)):
            message = Clock()
            message.clock.sec, message.clock.nanosec = seconds, 20_000_000
            clock.publish(message)
            numbers = iter(range(1000 * number, 10**9))

            def age(seconds=seconds, numbers=numbers):
                answer = front.answer(front.send((seconds, next(numbers))))
                assert (answer.word, answer.derained) == ('derained', True)
                return answer.values['age_ms'].startswith(('19.9', '20.0'))
            wait_for(age, 'age by the clock')
        assert rig.peer.set('max_age_ms', 0.0) == ''

        # The clock stands still, and the attempts go on.
        rig.engine.command(mode='raise')
        front.derains(30)
        wait_for(lambda: rig.peer.values('engine')['engine'] == 'faulty2', 'next engine')
        created = [event['name'] for event in rig.engine.events('created')]
        assert created == ['faulty'] * 3 + ['faulty2']
        assert front.answer(front.send()).derained
        rig.engine.command('faulty2', mode='stuck')
        front.send()
        time.sleep(WATCHDOG / 2)
        rig.ends(signal.SIGTERM)


def test_two_hung_inferences_leave_one_thread_behind_and_frames_pass(tmp_path):
    with Rig(tmp_path, PARAMETERS) as rig:
        front = Lens(rig.active().peer, 'front')
        front.derains()
        threads = rig.threads()
        for hung in range(2):
            rig.engine.command(mode='stuck')
            assert_passed_through(front.answer(front.send()), WATCHDOG)
            rig.engine.command()
            if not hung:
                front.derains()
        rig.peer.reset()

        def advised():
            answer, = front.play(1)
            assert_passed_through(answer)
            return 'restart' in answer.values['reason']
        wait_for(advised, 'advice')
        wait_for(lambda: 'restart' in rig.peer.says('engine'), 'advice on /diagnostics')
        assert rig.threads() <= threads + 1
        assert len(rig.engine.events('create')) == 2
        assert rig.state() == 'stuck'
        assert rig.level('engine') == DiagnosticStatus.ERROR
        rig.ends(signal.SIGINT)


@pytest.mark.parametrize(('number', 'creation'), [
    (signal.SIGINT, 'stuck'), (signal.SIGTERM, 'hang')])
def test_a_signal_while_the_engine_is_built(tmp_path, number, creation):
    Controls(tmp_path / 'engines').command(creation=creation)
    with Rig(tmp_path) as rig:
        wait_for(lambda: rig.engine.events('create'), 'creation')
        wait_for(lambda: rig.peer.says('engine') == 'the engine is being created', 'word of it')
        assert (rig.level('engine'), rig.state()) == (DiagnosticStatus.WARN, 'being created')
        rig.ends(number)
    assert not rig.engine.events('created')
