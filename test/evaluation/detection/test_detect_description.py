"""Descriptions of detectors: what may be left out, and what is refused by name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain_ros.evaluation.detection.description import read_description
from derain_ros.files import FileError

SHIPPED = Path(__file__).resolve().parents[3] / 'config' / 'detectors'
MINIMAL = 'model: a.onnx\ninput: {width: 640, height: 480}\nclasses: [car, dog]\n'


def _read(tmp_path, text):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    return read_description(path)


def test_what_is_left_out_is_that_of_yolov8(tmp_path):
    found = _read(tmp_path, 'model: yolov8n.onnx\ninput: {width: 640, height: 640}\n'
                            'classes: [car]\n')
    shipped = read_description(SHIPPED / 'yolov8.yaml')
    assert replace(found, file=shipped.file, name=shipped.name, model=shipped.model,
                   classes=shipped.classes) == shipped
    assert shipped.numbers_per_box == 84
    assert (found.name, found.model) == ('yolov8n', tmp_path / 'yolov8n.onnx')


def test_other_values_are_read(tmp_path):
    (tmp_path / 'names.txt').write_text('traffic light\n\n  dog \r\n')
    found = _read(tmp_path, MINIMAL.replace('[car, dog]', 'names.txt').replace(
        'height: 480', 'height: 480, mean: [1, 2.5, 3], std: 4'))
    assert found.classes == ('traffic light', 'dog')
    assert found.input.mean == [1.0, 2.5, 3.0] and found.input.std == 4.0
    shipped = read_description(SHIPPED / 'fastestdet.yaml', tmp_path / 'other.onnx')
    assert shipped.numbers_per_box == 85 and shipped.model == tmp_path / 'other.onnx'
    assert shipped.classes[2] == 'car' and shipped.classes[7] == 'truck'


@pytest.mark.parametrize(('old', 'new', 'words'), [
    ('model: a.onnx', 'modle: a.onnx', ("unknown key 'modle'; did you mean 'model'?",)),
    ('model: a.onnx\n', '', ('model is missing',)),
    ('model: a.onnx', 'model: a.onnx\nscor_threshold: 0.5',
     ("unknown key 'scor_threshold'; did you mean 'score_threshold'?", 'nms')),
    ('width: 640, ', '', ('input.width is missing',)),
    ('width: 640', 'width: 640, wide: 1',
     ("input: unknown key 'wide'; did you mean 'width'?", 'width, height')),
    ('width: 640', 'width: 0', ('width is 0', 'from 1')),
    ('width: 640', 'width: 640, colour: grey', ("'grey'", 'bgr, rgb')),
    ('width: 640', 'width: 640, std: -1', ('std is -1', 'number from 1e-06')),
    ('width: 640', 'width: 640, mean: [1, 2]', ('mean is [1, 2]', 'list of 3')),
    ('input: {width: 640, height: 480}', 'input: 640', ('input is 640', 'keys with values')),
    ('[car, dog]', '[car, 7]', ('classes[1] is 7', 'a word')),
    ('[car, dog]', '[car, dog, car]', ('is named twice', 'car')),
    ('[car, dog]', 'none.txt', ('none.txt', 'No such file')),
    ('classes', 'score_threshold: 2\nclasses', ('score_threshold is 2', 'from 0 to 1')),
    ('classes', 'nms: {class_agnostic: 1}\nclasses', ('class_agnostic is 1', 'true or false')),
    ('classes', 'output: {boxes: {format: xywh}}\nclasses', ("'xywh'", 'cxcywh, xyxy')),
    ('classes', 'output: {classes: {start: 3}}\nclasses', ('boxes', 'start')),
    ('classes', 'output: {objectness: {index: 2}, classes: {start: 5}}\nclasses',
     ('objectness: index is 2', 'none of the box')),
    ('classes', 'output: {objectness: {index: 4}}\nclasses', ('objectness', 'before the classes')),
    ('classes', 'output: {boxes: {centre: cell_tanh, units: relative}}\nclasses',
     ('cell_tanh', 'no cells')),
    ('classes', 'output: {layout: grid, boxes: {centre: cell_tanh}}\nclasses',
     ('cell_tanh', 'relative')),
    ('classes', 'output: {boxes: {format: xyxy, size: sigmoid}}\nclasses', ('xyxy', 'cxcywh')),
])
def test_what_does_not_fit_is_named(tmp_path, old, new, words):
    assert old in MINIMAL
    with pytest.raises(FileError) as error:
        _read(tmp_path, MINIMAL.replace(old, new, 1))
    for word in ('mine.yaml', *words):
        assert word in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', [
    b'', b'- a\n- b\n', b'a: [', b'\xff\xfe', b'[' * 300, b'a: !!python/object:os.system x',
    b'a: 1\na: 2\n', b'a' * (1 << 21),
    b'a0: &a0 [x,x]\n' + b''.join(
        b'a%d: &a%d [*a%d,*a%d]\n' % (n, n, n - 1, n - 1) for n in range(1, 60))
    + MINIMAL.encode().replace(b'[car, dog]', b'*a59'),
])
def test_hostile_files_are_one_line(tmp_path, content):
    path = tmp_path / 'mine.yaml'
    path.write_bytes(content)
    with pytest.raises(FileError, match=r'mine\.yaml') as error:
        read_description(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.yaml'):
        read_description(tmp_path / 'none.yaml')


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@settings(max_examples=20, deadline=None)
@given(key=st.sampled_from(['input', 'output', 'nms', 'classes', 'model', 'name',
                            'score_threshold']), value=_VALUES)
def test_no_value_gives_another_error(tmp_path_factory, key, value):
    path = tmp_path_factory.mktemp('yaml') / 'mine.yaml'
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(key)]
    path.write_text('\n'.join([*lines, f'{key}: {json.dumps(value)}']))
    try:
        read_description(path)
    except FileError as error:
        assert str(error).isprintable()
