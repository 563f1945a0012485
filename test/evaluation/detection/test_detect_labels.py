"""Labels: found by name or stamp, classes by name, and what does not fit is told."""

import json

import numpy as np
import pytest
from detector_files import CELL, CLASSES, coco
from hypothesis import given, settings
from hypothesis import strategies as st

from derain_ros.evaluation.detection.labels import read_labels
from derain_ros.files import FileError
from derain_ros.files.frame_sources import FrameSet

STAMP = 1_700_000_000_000_000_007


def _frame(name, stamp=None, height=64, width=64):
    return FrameSet(name, stamp, np.zeros((height, width, 3), np.uint8))


def _coco(tmp_path, *arguments, **options):
    path = tmp_path / 'labels.json'
    path.write_text(coco(*arguments, **options))
    return read_labels(path, CLASSES)


def test_coco_boxes_and_regions(tmp_path):
    labels = _coco(tmp_path, ['a.png', 'b.png'], [
        (0, 1, 2, 3, {}), (0, 0, 0, 1, {'iscrowd': 1}), (0, 0, 0, 2, {'ignore': True}),
        (0, 0, 0, 0, {'bbox': [1, 1, 0, 5]})])
    found = labels.find(_frame('a.png'))
    assert found.boxes.tolist() == [
        [2 * CELL, 3 * CELL, 3 * CELL, 4 * CELL], [0, CELL, CELL, 2 * CELL],
        [0, 2 * CELL, CELL, 3 * CELL]]
    assert found.classes.tolist() == [1, 0, 0]
    assert found.ignored.tolist() == [False, True, True]
    assert labels.notes and '1 of 4 annotations have a box without area' in labels.notes[0]
    assert labels.find(_frame('b.png')).boxes.shape == (0, 4)
    assert labels.find(_frame('c.png')) is None
    assert labels.classes == {0, 1}


@pytest.mark.parametrize(('image', 'name', 'stamp', 'found'), [
    ('front/a.png', 'front/a.jpg', None, True),
    ('front/a.png', 'a.png', None, True),
    ('a.png', 'front/a.png', None, True),
    ('images\\000.png', 'images/000.png', None, True),
    ('images\\000.png', '000.jpg', None, True),
    ('a.png', 'b.png', None, False),
    ('1700000000.000000007', '1700000000.000000007', STAMP, True),
    ('1700000000.000000007.png', '1700000000.000000007', STAMP, True),
    ({'stamp': STAMP}, '1700000000.000000007', STAMP, True),
    ({'stamp': STAMP, 'file_name': 'x.png'}, '1700000000.000000007', STAMP, True),
    ({'stamp': STAMP + 1}, '1700000000.000000007', STAMP, False),
])
def test_images_are_found_by_name_or_stamp(tmp_path, image, name, stamp, found):
    labels = _coco(tmp_path, [image], [(0, 0, 0, 0, {})])
    assert (labels.find(_frame(name, stamp)) is not None) == found


def test_an_annotation_of_no_image_or_category_leaves_the_others(tmp_path):
    labels = _coco(tmp_path, ['a.png'], [
        (0, 1, 2, 3, {}), (1, 0, 0, 0, {}), (0, 0, 0, 0, {'category_id': 77})])
    assert len(labels.find(_frame('a.png')).boxes) == 1
    assert '2 of 3 annotations name no image or no category' in labels.notes[0]
    with pytest.raises(FileError, match='none of its annotations names an image'):
        _coco(tmp_path, ['a.png'], [(0, 0, 0, 0, {'image_id': '0'})])


def test_an_annotation_without_a_box_leaves_the_others(tmp_path):
    text = json.loads(coco(['a.png'], [(0, 1, 2, 3, {}), (0, 1, 2, 3, {})]))
    del text['annotations'][0]['bbox']
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(text), encoding='utf-8-sig')
    labels = read_labels(path, CLASSES)
    assert len(labels.find(_frame('a.png')).boxes) == 1
    assert '1 of 2 annotations have no bbox' in labels.notes[0]


def test_a_bare_name_that_two_images_have_is_not_guessed(tmp_path):
    labels = _coco(tmp_path, ['front/a.png', 'rear/a.png'], [(1, 0, 0, 0, {})])
    assert labels.find(_frame('a.png')) is None
    assert len(labels.find(_frame('rear/a.png')).boxes) == 1


def test_categories_go_by_name(tmp_path):
    labels = _coco(
        tmp_path, ['a.png'], [(0, 0, 0, 0, {}), (0, 1, 1, 0, {}), (0, 2, 2, 0, {})],
        names=['Blue Thing', 'zebra\x1b[2J', 'RED THING'])
    assert labels.find(_frame('a.png')).classes.tolist() == [1, 0]
    assert len(labels.notes) == 1 and 'zebra\\x1b[2J' in labels.notes[0]
    # Only one of the detector's classes is labelled: the other is no false alarm.
    assert _coco(tmp_path, ['a.png'], [], names=['blue thing']).classes == {1}
    with pytest.raises(FileError, match=r'none of its classes \(cat\) is one of the detector'):
        _coco(tmp_path, ['a.png'], [], names=['cat'])


def test_labels_of_another_size_are_refused(tmp_path):
    labels = _coco(tmp_path, [{'file_name': 'a.png', 'width': 64, 'height': 48}], [])
    assert labels.find(_frame('a.png', height=48)) is not None
    with pytest.raises(FileError, match=r'64x64.*64x48'):
        labels.find(_frame('a.png'))


@pytest.mark.parametrize(('text', 'words'), [
    ('', 'not JSON'), ('[' * 100_000, 'not JSON'), ('[]', 'not COCO labels'),
    ('{}', 'images is missing'),
    (coco(['a'], [(0, 0, 0, 0, {'bbox': [1, 2, 3]})]), r'annotations\[0\].bbox is \[1, 2, 3\]'),
    (coco(['a'], [(0, 0, 0, 0, {'bbox': [1, 2, 'x', 4]})]), r'annotations\[0\].bbox\[2\] is .x'),
    (coco(['a'], [(0, 0, 0, 0, {'bbox': [1, 2, float('nan'), 4]})]), 'not JSON'),
    (coco([{}], []), 'file_name'),
    (coco(['a', 'b'], [], images=[{'id': 1, 'file_name': name} for name in 'ab']),
     'images share an id'),
    (coco([], [], images=[{'id': 1, 'stamp': stamp} for stamp in (1, 2)]), 'images share an id'),
    (coco(['a'], [], categories=[{'id': 1, 'name': name} for name in CLASSES]),
     'categories share an id'),
    (coco(['a'], [], images=['a']), r'images\[0\]'),
    (coco(['a'], [], categories=[{'id': [], 'name': 'x'}]), r'categories\[0\].id is \[\]'),
])
def test_other_json_is_told(tmp_path, text, words):
    path = tmp_path / 'labels.json'
    path.write_text(text)
    with pytest.raises(FileError, match=words) as error:
        read_labels(path, CLASSES)
    assert 'labels.json' in str(error.value) and str(error.value).isprintable()


def test_yolo_files(tmp_path):
    (tmp_path / 'a.txt').write_text('1 0.5 0.25 0.5 0.125\n\n0 0 0 1 1\n')
    (tmp_path / 'b.txt').write_text('')
    labels = read_labels(tmp_path, CLASSES)
    found = labels.find(_frame('front/a.png', height=80, width=40))
    assert found.boxes.tolist() == [[10, 15, 30, 25], [-20, -40, 20, 40]]
    assert found.classes.tolist() == [1, 0] and not found.ignored.any()
    assert labels.find(_frame('b.png')).boxes.shape == (0, 4)
    assert labels.find(_frame('c.png')) is None
    assert labels.classes == {0, 1}
    assert "numbers of classes are taken to be the detector's" in labels.notes[0]


@pytest.mark.parametrize('names', ['[zebra, red thing, blue thing]',
                                   '{5: Red Thing, 0: zebra, 1: red thing}'])
@pytest.mark.parametrize('folder', ['.', 'labels/val'])
def test_yolo_classes_are_numbered_by_data_yaml(tmp_path, names, folder):
    (tmp_path / 'data.yaml').write_text(f'train: images/train\nnc: 3\nnames: {names}\n')
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / 'a.txt').write_text('1 0.5 0.5 0.5 0.5\n0 0.5 0.5 1.0000001 0.5\n')
    labels = read_labels(tmp_path / folder, CLASSES)
    assert labels.find(_frame('a.png')).classes.tolist() == [0]
    assert 'data.yaml: the detector does not know zebra' in labels.notes[0]


@pytest.mark.parametrize('text', ['names: 5', '[', 'nc: 3', 'names: {a: b}', 'names: [[]]'])
def test_a_data_yaml_that_names_nothing_is_told(tmp_path, text):
    (tmp_path / 'data.yaml').write_text(text)
    with pytest.raises(FileError, match=r'data\.yaml: .*expected `names`'):
        read_labels(tmp_path, CLASSES)


def test_yolo_classes_of_their_own(tmp_path):
    # An empty line is a class without a name.
    (tmp_path / 'classes.txt').write_text('zebra\n\nred thing\n', encoding='utf-8-sig')
    (tmp_path / 'a.txt').write_text('2 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n')
    labels = read_labels(tmp_path, CLASSES)
    assert labels.find(_frame('a.png')).classes.tolist() == [0]
    assert labels.classes == {0} and 'zebra' in labels.notes[0]


def test_a_yolo_box_without_area_is_named(tmp_path, caplog):
    (tmp_path / 'a.txt').write_text('0 0.5 0.5 0.5 0\n1 0.5 0.5 0.5 0.5\n')
    assert len(read_labels(tmp_path, CLASSES).find(_frame('a.png')).boxes) == 1
    assert 'a.txt, line 1: a box without area; left out' in caplog.text


def test_a_folder_without_yolo_files_is_told(tmp_path):
    (tmp_path / 'a.xml').write_text('<annotation/>')
    (tmp_path / 'classes.txt').write_text('red thing')
    with pytest.raises(FileError, match='in this folder; labels are COCO JSON'):
        read_labels(tmp_path, CLASSES)


@pytest.mark.parametrize('line', [
    '2 0.5 0.5 0.5 0.5', '-1 0.5 0.5 0.5 0.5', '0 0.5 0.5 0.5', '0 0.5 0.5 0.5 1.5',
    '0 0.5 0.5 nan 0.5', '0 0.1 0.1 0.5 0.1 0.5 0.5', '0 0.5 0.5 0.5 0.5 0.9',
    '\x1b[2J', '٣ 0 0 0 0'])
def test_yolo_lines_that_do_not_fit_are_told(tmp_path, line):
    (tmp_path / 'a.txt').write_text(f'0 0.5 0.5 0.5 0.5\n{line}\n', encoding='utf-8')
    with pytest.raises(FileError, match=r'a\.txt, line 2: ') as error:
        read_labels(tmp_path, CLASSES).find(_frame('a.png'))
    assert str(error.value).isprintable()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(['id', 'name', 'file_name', 'bbox', 'image_id', 'category_id', 'stamp']),
        inner, max_size=5), max_leaves=8)


@settings(max_examples=50, deadline=None)
@given(key=st.sampled_from(['images', 'annotations', 'categories']), value=_JSON)
def test_no_json_gives_another_error(tmp_path_factory, key, value):
    path = tmp_path_factory.mktemp('labels') / 'labels.json'
    good = json.loads(coco(['a.png'], [(0, 0, 0, 0, {})]))
    path.write_text(json.dumps(good | {key: value}))
    try:
        read_labels(path, CLASSES).find(_frame('a.png'))
    except FileError as error:
        assert str(error).isprintable()
