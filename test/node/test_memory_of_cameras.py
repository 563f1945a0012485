"""A model that looks at the frame before as well, in a node: each camera has its own past.

Node and engine are real, and the model is known by hand. What the node publishes is compared,
byte for byte, with the same model run here frame by frame, from a fresh start where the node must
start afresh. Not asserted: what a trained model gains (the tests of the models do).
"""

import time
from functools import partial

import numpy as np
import pytest
from lens import Lens, repeating
from memory_model import scene, write_memory_model
from ros_fixtures import NodeProcess, Peer, new_domain, wait_for

from derain_ros.engines import create_engine
from derain_ros.images.memory import Memory

LARGE, HUGE = scene(0, 160, 400), scene(0, 540, 720)


def panned(number, picture=LARGE, size=(96, 128)):
    """A view into a scene that moves 5 pixels a frame."""
    return np.ascontiguousarray(picture[20:20 + size[0], 5 * number:5 * number + size[1]])


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_memory_model(tmp_path_factory.mktemp('model') / 'mean.onnx')


@pytest.fixture(scope='module')
def engine(model):
    engine = create_engine('openvino', str(model), precision='f32')
    yield engine
    engine.close()


@pytest.fixture(scope='module')
def running(tmp_path_factory, model):
    domain = new_domain()
    parameters = {
        'engine': 'openvino', 'model': str(model), 'precision': 'f32', 'rain_gate': False,
        'cameras': ['front', 'rear']}
    with Peer(domain) as peer, NodeProcess(
            tmp_path_factory.mktemp('node'), domain, parameters) as node:
        peer.wait_for_state('active', node)
        lenses = [Lens(peer, camera, (128, 96)) for camera in ('front', 'rear')]
        for size in ((140, 100), (128, 96)):  # warm for both
            lenses[0].size = size
            lenses[0].derains()
        lenses[1].derains()
        yield peer, *lenses


def expected(engine, frames, times):
    """What the model makes of frames from a fresh start."""
    memory = Memory()
    return [memory.through(engine.infer, when)(frame[None]).image[0]
            for frame, when in zip(frames, times, strict=True)]


def sent(lens, frame, seconds):
    """Send a frame and return what comes back."""
    answer = lens.answer(lens.send(divmod(round(seconds * 10**9), 10**9), picture=frame))
    assert answer.word == 'derained', answer
    return np.frombuffer(answer.image.data, np.uint8).reshape(frame.shape)


def check(lens, engine, frames, times):
    """Play frames; all come back as from a fresh start, and the past shows in the last."""
    made = expected(engine, frames, times)
    for number, (frame, when) in enumerate(zip(frames, times, strict=True)):
        np.testing.assert_array_equal(sent(lens, frame, when), made[number], str(number))
    assert len(frames) == 1 or np.abs(made[-1].astype(int) - frames[-1]).max() > 0


def test_cameras_do_not_share_their_past(running, engine):
    _, front, rear = running
    begin = time.time() + 2
    frames = [panned(n) for n in range(4)], [panned(n, LARGE[:, ::-1]) for n in range(4)]
    times = [begin + 0.1 * n for n in range(4)]
    made = [expected(engine, each, times) for each in frames]
    for number, when in enumerate(times):
        for lens, each, result in zip((front, rear), frames, made, strict=True):
            np.testing.assert_array_equal(sent(lens, each[number], when), result[number])
    assert np.abs(made[0][3].astype(int) - frames[0][3]).max() > 0


def test_a_cut_a_gap_a_loop_and_a_new_size_start_afresh(running, engine):
    _, front, _ = running
    begin = time.time() + 10
    for frames, start in (
            ([panned(n) for n in range(3)], begin),
            ([panned(n, scene(9, 160, 400)) for n in range(2)], begin + 0.3),  # a cut
            ([panned(n + 2, scene(9, 160, 400)) for n in range(2)], begin + 5),  # a gap
            ([panned(n) for n in range(2)], begin - 3),  # a bag that loops
            ([panned(n, size=(100, 140)) for n in range(2)], begin - 2.8)):  # a new size
        check(front, engine, frames, [start + 0.1 * n for n in range(len(frames))])


def test_a_frame_that_comes_again_comes_back_the_same(running, engine):
    _, front, _ = running
    begin = time.time() + 15
    frames = [panned(n) for n in (0, 1, 2, 3, 4, 5, 5, 5, 6)]
    check(front, engine, frames, [begin + 0.09 * n for n in range(len(frames))])
    made = [sent(front, frame, begin + 5 + 0.09 * n) for n, frame in enumerate(frames)]
    for again in made[6:8]:
        np.testing.assert_array_equal(again, made[5])
    assert np.abs(made[8].astype(int) - made[7]).max() > 0


def test_frames_left_out_only_lengthen_the_step(running, engine):
    _, _, rear = running
    begin = time.time() + 20
    check(rear, engine, [panned(n) for n in (0, 1, 4, 5)], [begin, begin + .1, begin + .4,
                                                            begin + .5])


def test_a_restart_forgets(running, engine):
    peer, front, rear = running
    begin = time.time() + 30
    check(front, engine, [panned(n) for n in range(2)], [begin, begin + 0.1])
    assert peer.change_state('deactivate') and peer.change_state('activate')
    for lens in (front, rear):
        peer.matched(lens._publisher)
    check(front, engine, [panned(n) for n in (2, 3)], [begin + 0.2, begin + 0.3])


def test_a_closed_gate_looks_again_before_it_opens(tmp_path):
    """All is rain for a first look, which opens the gate after two, and dry for a second one."""
    model = write_memory_model(tmp_path / 'fence.onnx', rain=0, alone=255)
    domain = new_domain()
    parameters = {'engine': 'openvino', 'model': str(model), 'precision': 'f32',
                  'rain_gate_dry_after': 0.5, 'watchdog_ms': 5000.0, 'cameras': ['front']}
    with Peer(domain) as peer, NodeProcess(tmp_path / 'node', domain, parameters) as node:
        peer.wait_for_state('active', node)
        lens = Lens(peer, 'front', (128, 96))
        lens.derains()
        with repeating(20, partial(lens.send, picture=panned(0))):
            wait_for(lambda: 'front: it is dry' in node.log(), 'the gate to close')
            wait_for(lambda: int(peer.values('front')['bypassed']) >= 40, '2 s of frames')
        assert 'it rains' not in node.log()


def test_the_time_of_the_memory_counts_as_inference(running):
    lens = running[1]
    lens.size = (640, 480)
    lens.derains()

    def fastest(seconds_apart, start):
        """The least inference time of ten frames of a camera that pans, ms."""
        found = []
        for number in range(10):
            frame = panned(number, HUGE, (480, 640))
            stamp = divmod(round((start + number * seconds_apart) * 10**9), 10**9)
            answer = lens.answer(lens.send(stamp, picture=frame))
            found.append(float(answer.values['infer_ms']))
        return min(found[4:])

    # Frames that are seconds apart have no past, so that nothing is aligned.
    assert fastest(0.05, 5000) > 1.5 * fastest(5, 6000)
