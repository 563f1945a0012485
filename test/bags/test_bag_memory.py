"""``derain bag`` with a model that looks at the frame before as well, known by hand."""

from contextlib import closing

import numpy as np
import pytest
from bag_files import IMAGE, START, image, messages_on, read_bag, tree, write_bag
from memory_model import scene, write_memory_model

from derain_ros.bags.derain import LEAD_IN, derain_bag, plan_bag
from derain_ros.cli import main
from derain_ros.engines import create_engine
from derain_ros.images.codec import decode_image
from derain_ros.images.memory import Memory

FRAMES = 16
STEP = 50_000_000
SCENES = {'/cam': scene(0, 96, 300), '/rear': scene(5, 96, 300)}


def frame(camera, number):
    return np.ascontiguousarray(SCENES[camera][:64, 4 * number:4 * number + 96])


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    """A bag of two cameras, and the model."""
    folder = tmp_path_factory.mktemp('memory')
    rows = [(f'{camera}/image_raw', IMAGE, START + STEP * number, image(
        0, START + STEP * number, data=frame(camera, number).reshape(-1)))
        for number in range(FRAMES) for camera in SCENES]
    return write_bag(folder / 'in', rows), write_memory_model(folder / 'mean.onnx')


@pytest.fixture(scope='module')
def whole(recorded):
    """The derained bag, and the engine that made it."""
    source, model = recorded
    with closing(create_engine('openvino', str(model), precision='f32')) as engine:
        plan = plan_bag(source, source.parent / 'whole' / 'out')
        derain_bag(plan, engine)
        yield plan, engine


def test_each_camera_has_its_own_past_from_segment_to_segment(whole):
    plan, engine = whole
    rows = read_bag(plan.destination)
    assert len(plan.boundaries) > 3
    for camera in SCENES:
        derained = messages_on(rows, f'{camera}/derained/image')
        assert len(derained) == FRAMES
        for start, stop in zip(plan.boundaries, plan.boundaries[1:], strict=False):
            memory = Memory()
            for number in range(FRAMES):
                time = START + STEP * number
                if start - LEAD_IN * STEP <= time < stop:
                    infer = memory.through(engine.infer, time / 1e9)
                    made = infer(frame(camera, number)[None]).image[0]
                    if time >= start:
                        found = decode_image(derained[number].message)
                        np.testing.assert_array_equal(found, made, f'{camera} {number}')
        assert np.abs(found.astype(int) - frame(camera, FRAMES - 1)).max() > 0


def test_a_segment_begins_with_the_frames_that_are_derained(whole, tmp_path):
    plan, engine = whole
    plan = plan_bag(plan.source, tmp_path / 'out', every=3)
    sizes, infer = [], engine.infer
    engine.infer = lambda *arrays: sizes.append(len(arrays)) or infer(*arrays)
    try:
        derain_bag(plan, engine)
    finally:
        del engine.infer
    rows = read_bag(plan.destination)
    used = range(0, FRAMES, 3)
    assert len(plan.boundaries) > 3
    leading = 0
    for camera in SCENES:
        derained = messages_on(rows, f'{camera}/derained/image')
        assert len(derained) == len(used)
        for start, stop in zip(plan.boundaries, plan.boundaries[1:], strict=False):
            memory = Memory()
            earlier = [number for number in used if START + STEP * number < start][-LEAD_IN:]
            leading += len(earlier)
            for number in [*earlier, *used]:
                time = START + STEP * number
                if number in earlier or start <= time < stop:
                    made = memory.through(infer, time / 1e9)(frame(camera, number)[None]).image[0]
                    if time >= start:
                        found = decode_image(derained[number // 3].message)
                        np.testing.assert_array_equal(found, made, f'{camera} {number}')
    assert len(sizes) == 2 * len(used) + leading


def test_several_processes_write_the_same_bytes(whole, recorded, tmp_path):
    plan, _ = whole
    source, model = recorded
    assert main(['bag', str(source), '-o', str(tmp_path / 'out'), '--engine', 'openvino',
                 '--model', str(model), '--precision', 'f32', '--workers', '2']) == 0
    assert tree(tmp_path / 'out') == tree(plan.destination)
