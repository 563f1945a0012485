"""The supervised engine: what happens when it fails, hangs, talks nonsense, and recovers."""

import threading
import time

import numpy as np
import pytest
from ros_fixtures import wait_for as wait_for_it

from derain_ros.engines import Derained, Engine, EngineError, EngineInfo
from derain_ros.node import supervisor
from derain_ros.node.supervisor import EngineLine, FaultError, ShapeRecord, Supervisor

VGA, HD = (1, 480, 640, 3), (1, 720, 1280, 3)
FRAME = np.random.default_rng(3).integers(0, 256, (1, 48, 64, 3), np.uint8)


class Obedient(Engine):
    """Does what its rig says."""

    def __init__(self, rig, name):
        self.info = EngineInfo(name, 'a test', 'none', 'f32', 'it was asked for')
        self.rig = rig

    def infer(self, images):
        behaviour = self.rig.behaviour
        self.rig.calls += 1
        if images.shape in self.rig.too_much:
            raise MemoryError(f'no room for {images.shape}')
        if isinstance(behaviour, Exception):
            raise behaviour
        if isinstance(behaviour, threading.Event):
            behaviour.wait()
        if isinstance(behaviour, float):
            time.sleep(behaviour)
        masks = np.full(images.shape[:3], 9, np.uint8)
        if behaviour == 'flat':
            return Derained(np.zeros_like(images), masks)
        noise = np.array_equal(images, FRAME)
        if behaviour == 'far' or (behaviour == 'far on noise' and noise):
            return Derained(np.where(images < 128, 255, 0).astype(np.uint8), masks)
        if behaviour == 'small':
            return Derained(images[:, ::2], masks)
        return Derained(images // 2, masks)

    def close(self):
        self.rig.closed += 1


def wait_for(condition):
    wait_for_it(condition, 'event')


class Rig:
    """A supervisor, and an engine that can be told what to do."""

    def __init__(self, line=('first',)):
        self.behaviour = 'good'
        self.refuses = set()
        self.too_much = set()
        self.created = []
        self.calls = self.closed = 0
        self.log = []
        self.supervisor = Supervisor(
            line, self.create, lambda text, bad: self.log.append((text, bad)))

    def create(self, names):
        for name in names:
            self.created.append(name)
            if name not in self.refuses:
                return Obedient(self, name)
        raise EngineError('no engine works here')

    def infer(self, **options):
        return self.supervisor.infer(FRAME, **options)

    def derains(self):
        return np.array_equal(self.infer()[0].image, FRAME // 2)

    def fault(self, **options):
        with pytest.raises(FaultError) as fault:
            self.infer(**options)
        return str(fault.value)


@pytest.fixture
def rig(monkeypatch):
    monkeypatch.setattr(supervisor, 'FIRST_DELAY', 0.05)
    made = []

    def make(*line):
        made.append(Rig(line or ('first',)))
        made[-1].supervisor.open(threading.Event())
        wait_for(lambda: made[-1].supervisor.prepare([FRAME.shape]))
        return made[-1]

    yield make
    for one in made:
        if isinstance(one.behaviour, threading.Event):
            one.behaviour.set()
        assert one.supervisor.close(5.0)


def recovered(one):
    """Tell whether a frame is derained again."""
    one.supervisor.tend()
    try:
        return one.supervisor.prepare([FRAME.shape]) and one.derains()
    except FaultError:
        return False


@pytest.mark.parametrize(('behaviour', 'part'), [
    (EngineError('the device is lost'), 'the device is lost'),
    (MemoryError('no more'), 'MemoryError: no more'),
    ('flat', 'flat, 0 everywhere'),
    ('far', 'does not resemble the frame'),
    ('small', 'expected uint8 (1, 48, 64, 3)'),
])
def test_a_failure_costs_the_frame_and_the_engine_is_created_anew(rig, behaviour, part):
    one = rig()
    one.behaviour = behaviour
    assert part in one.fault()
    assert part in one.supervisor.problem
    assert one.supervisor.failures == 1
    one.behaviour = 'good'
    wait_for(lambda: recovered(one))
    assert one.created == ['first', 'first']
    assert one.supervisor.problem == ''
    wait_for(lambda: one.closed == 1)


def test_an_engine_that_has_become_slower_is_waited_for_longer(rig):
    one = rig()
    one.behaviour = 0.6
    assert 'an inference takes longer than' in one.fault()
    wait_for(lambda: recovered(one))
    assert one.created == ['first']


def test_a_shape_that_the_engine_cannot_do_is_refused_alone(rig):
    one = rig()
    big = (1, 96, 64, 3)
    one.too_much = {big}
    assert not one.supervisor.prepare([big])
    wait_for(lambda: one.supervisor.state() == 'ready')
    with pytest.raises(FaultError, match='64x96: MemoryError: no room'):
        one.supervisor.prepare([big])
    assert one.supervisor.prepare([FRAME.shape])
    assert one.derains()
    assert (one.created, one.supervisor.failures) == (['first'], 0)
    one.too_much = set()
    one.supervisor.reset()
    wait_for(lambda: one.supervisor.prepare([big]))


def test_the_sizes_after_a_refused_one_are_warmed_up_too(rig):
    one = rig()
    big, other = (1, 96, 64, 3), (1, 64, 96, 3)
    one.too_much = {big}
    assert not one.supervisor.prepare([big, other])
    wait_for(lambda: one.supervisor.state() == 'ready')
    assert one.supervisor.prepare([other])


def test_a_warm_up_that_returns_late_does_not_count_for_the_next_engine(rig):
    one = rig()
    other = (1, 96, 64, 3)
    one.behaviour = gate = threading.Event()
    assert not one.supervisor.prepare([other])
    wait_for(lambda: one.supervisor.state() == 'warming up')
    assert 'warming up' in one.fault()
    job = one.supervisor._thread.job
    job.limit = 0.001  # as if a minute were over
    wait_for(lambda: one.supervisor.tend() or len(one.created) == 2)
    one.behaviour = 'good'
    lines = len(one.log)
    gate.set()
    wait_for(lambda: one.supervisor.prepare([FRAME.shape]))
    assert not any('64x96' in text for text, _ in one.log[lines:])
    assert not one.supervisor.prepare([other])
    wait_for(lambda: one.supervisor.prepare([other]))


def test_the_frame_is_blamed_where_the_engine_is_sound(rig):
    one = rig()
    one.behaviour = 'far on noise'
    assert 'so the frame is the cause' in one.fault()
    assert (one.created, one.supervisor.failures) == (['first'], 0)
    one.behaviour = 'good'
    assert one.derains()


class Builder(Obedient):
    """Takes long to prepare a size, says how far it is, and can be told to stop."""

    preparation_limit = 30.0

    def __init__(self, rig, name):
        super().__init__(rig, name)
        self.cancelled = threading.Event()

    def warm_up(self, height, width, batch=1):
        self.activity = f'building {width}x{height}, 40 %'
        if self.cancelled.wait(20.0):
            raise EngineError('the build was aborted')

    def cancel(self):
        self.cancelled.set()


def test_a_long_build_tells_how_far_it_is_and_ends_with_the_node():
    one = Rig()
    one.create = lambda names: Builder(one, names[0])
    supervisor = Supervisor(['first'], one.create, lambda text, bad: None)
    supervisor.open(threading.Event())
    assert supervisor.activity == ''
    assert not supervisor.prepare([FRAME.shape])
    told = 'warming up for 64x48: building 64x48, 40 %'
    wait_for(lambda: supervisor.activity == told)
    assert supervisor.state() == 'warming up'
    assert supervisor.why_not() == f'the engine is {told}'
    with pytest.raises(FaultError, match='building 64x48, 40 %'):
        supervisor.infer(FRAME)
    assert supervisor.close(15.0)  # of the 20 s that the build takes
    assert (one.closed, supervisor.activity) == (1, '')


# Which engine is tried next and when, and what is known of it by shape

def test_after_three_failures_in_a_row_the_next_is_tried_at_once():
    line = EngineLine(['tensorrt', 'openvino', 'torch'])
    first, second = ['tensorrt', 'openvino', 'torch'], ['openvino', 'torch', 'tensorrt']

    def after(failures):
        for _ in range(failures):
            line.failed()
        return line.delay(), line.next_names()
    assert after(2) == (2, first)
    line.worked()  # which ends the row
    assert after(2) == (2, first)
    assert after(1) == (0, second)
    line.created('openvino')
    assert after(1) == (8, second)
    assert line.failures == 6
    line.reset()
    assert (line.failures, line.delay()) == (0, 1)
    line.created('one that is not in line')
    assert line.next_names() == second


def test_the_limit_goes_by_the_slowest_inference_of_the_shape():
    shapes = ShapeRecord()
    assert shapes.missing([VGA, HD, VGA]) == [VGA, HD]
    assert shapes.limit(VGA) == 0.2
    shapes.warm(VGA, 0.02)
    assert shapes.limit(VGA) == 0.2
    shapes.took(VGA, 0.1)
    shapes.took(VGA, 0.03)
    assert shapes.limit(VGA) == pytest.approx(0.4)
    assert shapes.limit(HD) == 0.2
    assert shapes.missing([VGA, HD]) == [HD]
    for _ in range(100):
        shapes.took(VGA, 0.06)
    assert shapes.limit(VGA) == pytest.approx(0.24)
    shapes.new_engine()
    assert shapes.missing([VGA]) == [VGA]


def test_a_refused_shape_is_refused_for_a_while(monkeypatch):
    now = 100.0
    monkeypatch.setattr(supervisor.time, 'monotonic', lambda: now)
    shapes = ShapeRecord()
    shapes.refuse(HD, 'no room')
    assert shapes.why_refused([VGA]) == ''
    assert shapes.why_refused([VGA, HD]) == 'no room'
    shapes.new_engine()
    assert shapes.why_refused([HD]) == 'no room'
    now += 60
    assert shapes.why_refused([HD]) == ''
    shapes.refuse(HD, 'no room')
    shapes.accept_all()
    assert shapes.why_refused([HD]) == ''
