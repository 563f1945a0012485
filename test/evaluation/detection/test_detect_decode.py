"""From pictures to boxes: placement, every layout by hand, and a real network by OpenVINO."""

from pathlib import Path

import numpy as np
import pytest
from detector_files import CELL, MINIMAL, ROWS, scene, write_detector
from hypothesis import given, settings
from hypothesis import strategies as st

from derain_ros.evaluation.detection.decode import DecodeError, decode
from derain_ros.evaluation.detection.description import InputFormat, read_description
from derain_ros.evaluation.detection.detector import Detector, place
from derain_ros.text import UserError

YOLO = InputFormat(64, 64, 'letterbox', 114, 'rgb', 255.0, (0.0,) * 3, (1.0,) * 3, 'nchw')


def _described(tmp_path, output, classes='[a, b]'):
    path = tmp_path / 'mine.yaml'
    path.write_text(f'model: a.onnx\ninput: {{width: 100, height: 50}}\nclasses: {classes}\n'
                    f'output: {output}\n')
    return read_description(path)


def test_a_letterbox_is_centred_on_grey_in_rgb():
    values, to_image = place(np.full((32, 128, 3), (255, 51, 0), np.uint8), YOLO)
    assert values.shape == (1, 3, 64, 64) and values.dtype == np.float32
    for channel, value in zip(values[0], (0, 0.2, 1), strict=True):
        assert channel[24:40] == pytest.approx(value)
    assert values[0, :, [*range(24), *range(40, 64)]] == pytest.approx(114 / 255)
    assert to_image(np.array([[10.0, 30, 20, 60]])).tolist() == [[20, 12, 40, 32]]


def test_stretching_mean_std_and_layout():
    form = InputFormat(
        40, 20, 'stretch', 0, 'bgr', 2.0, (1.0, 2.0, 3.0), (1.0, 2.0, 4.0), 'nhwc')
    values, to_image = place(np.full((60, 20, 3), (10, 20, 30), np.uint8), form)
    assert values.shape == (1, 20, 40, 3)
    assert values.reshape(-1, 3) == pytest.approx(np.array([[4, 4, 3]] * 800))
    assert to_image(np.array([[0.0, 0, 40, 20], [-9, -9, 20, 90]])).tolist() == [
        [0, 0, 20, 60], [0, 0, 10, 60]]


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_the_whole_picture_goes_there_and_back(width, height):
    values, to_image = place(np.full((height, width, 3), 255, np.uint8), YOLO)
    rows, columns = np.nonzero((values[0] == 1).all(axis=0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    assert len(rows) == (right - left) * (bottom - top)
    assert to_image(np.array([[left, top, right, bottom]], float))[0] == pytest.approx(
        [0, 0, width, height])


def test_columns_are_read_as_yolov8_writes_them(tmp_path):
    output = np.array([[50, 25, 20, 10, 0.2, 0.7], [10, 10, 4, 4, 0.1, 0.05],
                       [60, 30, 2, 2, 0.9, 0.1]], np.float32).T[None]
    found = decode(output, _described(tmp_path, '{}'), 0.25)
    assert found.boxes.tolist() == [[40, 20, 60, 30], [59, 29, 61, 31]]
    assert found.scores == pytest.approx([0.7, 0.9]) and found.classes.tolist() == [1, 0]


def test_rows_with_objectness_are_read_as_yolov5_writes_them(tmp_path):
    form = _described(tmp_path, '{layout: rows, objectness: {index: 4}, classes: {start: 5}}')
    output = np.array([[[50, 25, 20, 10, 0.5, 0.2, 0.8], [50, 25, 20, 10, 0.5, 0.2, 0.4]]])
    found = decode(output, form, 0.25)
    assert found.scores == pytest.approx([0.4]) and found.classes.tolist() == [1]


def test_relative_corners(tmp_path):
    form = _described(
        tmp_path, '{boxes: {start: 2, format: xyxy, units: relative}, classes: {start: 6}}')
    output = np.array([[9, 9, 0.1, 0.2, 0.5, 0.6, 0.9, 0], [9, 9, 0.5, 0.5, 0.4, 0.6, 0.9, 0]])
    found = decode(output.T[None], form, 0.25)
    # The second box is inside out.
    assert found.boxes == pytest.approx(np.array([[10, 10, 50, 30]]))


@pytest.mark.parametrize(('move', 'shift'), [
    ('cell_tanh', 0.46211716), ('cell_sigmoid', 0.62245933)])
def test_a_grid_is_read_as_fastestdet_writes_it(tmp_path, move, shift):
    form = _described(tmp_path, (
        '{layout: grid, objectness: {index: 0, power: 0.6}, classes: {start: 5, power: 0.4}, '
        f'boxes: {{start: 1, units: relative, centre: {move}, size: sigmoid}}}}'))
    output = np.zeros((1, 7, 2, 4), np.float32)
    # Row 1, column 2 of 2x4 cells: v = 0.5 moves right, sigmoid(-1) of the width.
    output[0, :, 1, 2] = [0.5, 0.5, 0, -1, 0, 0.1, 0.8]
    found = decode(output, form, 0.3)
    zero = {'cell_tanh': 0.0, 'cell_sigmoid': 0.5}[move]
    x, y = (2 + shift) / 4 * 100, (1 + zero) / 2 * 50
    w, h = 0.26894142 * 100, 0.5 * 50
    assert found.boxes[0] == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2], rel=1e-6)
    assert found.scores == pytest.approx([0.5**0.6 * 0.8**0.4])
    assert found.classes.tolist() == [1]


def test_activations(tmp_path):
    logits = np.array([[50, 25, 20, 10, 0.0, np.log(3)]]).T[None]
    for activation, score in (('sigmoid', 0.75), ('softmax', 0.75)):
        form = _described(tmp_path, f'{{classes: {{activation: {activation}}}}}')
        assert decode(logits, form, 0.1).scores == pytest.approx([score])
    huge = np.array([[50, 25, 20, 10, -5000.0, 5000.0]]).T[None]
    assert decode(huge, form, 0.1).scores == pytest.approx([1.0])


@pytest.mark.parametrize(('output', 'words'), [
    (np.zeros((1, 8, 5)), ('1x8x5', '1x6xN', '4 numbers before 2 classes')),
    (np.zeros((2, 6, 5)), ('2x6x5',)),
    (np.zeros((1, 6, 2, 2)), ('1x6x2x2',)),
    (np.zeros(()), ('a single number',)),
    (np.full((1, 6, 5), 7.0), ('scores from 0 to 7', 'activation none', '`activation`')),
    (np.full((1, 6, 5), -1.0), ('scores from -1',)),
    (np.full((1, 6, 5), np.nan), ('NaN',)),
    (np.full((1, 6, 5), np.inf), ('infinity',)),
])
def test_outputs_that_are_not_as_described_are_told(tmp_path, output, words):
    with pytest.raises(DecodeError) as error:
        decode(output, _described(tmp_path, '{}'), 0.25)
    for word in ('a.onnx', *words):
        assert word in str(error.value)


def test_nothing_found_is_no_error(tmp_path):
    for count in (0, 5):
        found = decode(np.zeros((1, 6, count)), _described(tmp_path, '{}'), 0.25)
        assert found.boxes.shape == (0, 4) and len(found.scores) == len(found.classes) == 0


@pytest.mark.parametrize(('text', 'layout', 'factor', 'kind'), [
    (MINIMAL, 'columns', 1, 'FLOAT'), (MINIMAL, 'columns', 1, 'FLOAT16'),  # exported by half=True
    (ROWS, 'rows', 0.5, 'FLOAT')])
def test_a_network_finds_the_cells(tmp_path, text, layout, factor, kind):
    detector = Detector(read_description(write_detector(tmp_path, text, layout, kind=kind)))
    found = detector.detect(scene([(0, 1, 2, 255), (1, 3, 0, 204), (0, 0, 0, 51)]), 0.25 * factor)
    assert found.boxes == pytest.approx(np.array([
        [CELL, 2 * CELL, 2 * CELL, 3 * CELL], [3 * CELL, 0, 4 * CELL, CELL]]))
    assert found.scores == pytest.approx([factor, 0.8 * factor], rel=1e-3)
    assert found.classes.tolist() == [0, 1]
    assert detector.facts.name == 'cells' and len(detector.facts.sha256) == 64


def test_boxes_are_in_pixels_of_any_frame(tmp_path):
    detector = Detector(read_description(write_detector(tmp_path)))
    # 256x128 goes to 64x32, 16 from the top: the cell (1, 1) of the input.
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[:64, 64:128, 2] = 255
    found = detector.detect(frame, 0.9)
    assert found.boxes == pytest.approx(np.array([[64, 0, 128, 64]]))
    # The grey above and below counts for neither class below this score.
    assert len(detector.detect(np.zeros_like(frame), 0.46).scores) == 0


@pytest.mark.parametrize(('text', 'options', 'words'), [
    (MINIMAL.replace('64, height', '96, height'), {}, ('[1, 3, 64, 96]', '`input`')),
    (MINIMAL.replace('height: 64', 'height: 64, layout: nhwc'), {}, ('[1, 64, 64, 3]',)),
    (MINIMAL, {'kind': 'DOUBLE'}, ('f64', 'expected f32 or f16')),
    (MINIMAL, {'outputs': 2}, ('several outputs', 'output0, scores', 'output: name')),
    (MINIMAL + 'output: {name: boxes}\n', {}, ("no output 'boxes'", 'output0')),
    (MINIMAL.replace('blue thing', 'blue thing, third'), {}, ('1x6x16', '1x7xN', '3 classes')),
    (ROWS, {}, ('1x6x16', '1xNx7')),
    (MINIMAL.replace('cells.onnx', 'none.onnx'), {}, ('none.onnx', 'no such file')),
    (MINIMAL.replace('cells.onnx', 'cells.yaml'), {}, ('cells.yaml', 'ends in .onnx')),
])
def test_networks_that_are_not_as_described_are_told(tmp_path, text, options, words):
    path = write_detector(tmp_path, text, **options)
    with pytest.raises(UserError) as error:
        Detector(read_description(path))
    for word in words:
        assert word in str(error.value)
    assert '\n' not in str(error.value) and 'OpenVINO' not in str(error.value)


def test_an_output_among_several_is_chosen_by_name(tmp_path):
    path = write_detector(tmp_path, MINIMAL + 'output: {name: output0}\n', outputs=2)
    assert len(Detector(read_description(path)).detect(scene([(0, 1, 2, 255)]), 0.5).scores) == 1


def test_files_that_are_no_network_are_told(tmp_path):
    path = write_detector(tmp_path)
    onnx = pytest.importorskip('onnx')
    model = onnx.load(tmp_path / 'cells.onnx')
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, tmp_path / 'cells.onnx', save_as_external_data=True, size_threshold=0,
              location='weights.bin', convert_attribute=False)
    with pytest.raises(UserError, match='external data'):
        Detector(read_description(path))
    for content in (b'', b'no network at all', b'\x08\x08' + bytes(100)):
        (tmp_path / 'cells.onnx').write_bytes(content)
        with pytest.raises(UserError, match=r'cells\.onnx') as error:
            Detector(read_description(path))
        assert '\n' not in str(error.value)


def test_a_file_that_differs_from_its_checksum_is_not_loaded(tmp_path):
    path = write_detector(tmp_path)
    (tmp_path / 'cells.onnx.sha256').write_text('0' * 64)
    with pytest.raises(UserError, match='sha256'):
        Detector(read_description(path))


SHARED = Path(__file__).resolve().parents[4] / 'shared' / 'data'


@pytest.mark.skipif(not (SHARED / 'detector' / 'FastestDet.onnx').is_file(),
                    reason='FastestDet is not in ../shared/data/detector, and not in this package')
def test_fastestdet_finds_the_cars_of_the_driving_clip():
    cv2 = pytest.importorskip('cv2')
    shipped = Path(__file__).resolve().parents[3] / 'config' / 'detectors' / 'fastestdet.yaml'
    detector = Detector(read_description(shipped, SHARED / 'detector' / 'FastestDet.onnx'))
    capture = cv2.VideoCapture(str(SHARED / 'driving_clip' / 'solidWhiteRight.mp4'))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 165)
    done, frame = capture.read()
    assert done
    found = detector.detect(frame, 0.65)
    names = [detector.description.classes[number] for number in found.classes]
    assert names == ['car'] * 3
    # Three cars on the left, as seen in the picture, each to some pixels.
    centres = sorted((left + right) / 2 for left, _, right, _ in found.boxes)
    assert centres == pytest.approx([45, 163, 263], abs=12)
