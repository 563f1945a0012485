"""YOLOv8 and YOLO11 through ``config/detectors/yolov8.yaml``: the output of their head.

``yolo export format=onnx`` writes 1x84x8400 numbers for pictures of 640x640: of each cell on
grids of 80x80, 40x40 and 20x20 centre and size of a box in pixels, and 80 scores.
"""

from pathlib import Path

import numpy as np
import pytest

from derain_ros.evaluation.detection.description import read_description
from derain_ros.evaluation.detection.detector import Detector

onnx = pytest.importorskip('onnx')

SHIPPED = Path(__file__).resolve().parents[3] / 'config' / 'detectors' / 'yolov8.yaml'
SIDE, CLASSES, STRIDES = 640, 80, (8, 16, 32)
PERSON, CAR, TRUCK = 0, 2, 7

# Stride, column, row of a cell; distances to left, top, right, bottom in strides; class, score.
PLACED = [
    (8, 10, 30, (1.5, 2.25, 3.0, 0.75), PERSON, 0.9),
    (8, 11, 30, (2.5, 2.25, 2.5, 0.75), PERSON, 0.6),    # from the next cell: IoU 0.9
    (16, 20, 19, (3.0, 2.0, 4.5, 2.5), CAR, 0.8),
    (16, 21, 19, (3.5, 2.0, 3.5, 2.5), TRUCK, 0.5),      # about the same, as another class
    (32, 19, 12, (14.25, 6.0, 0.5, 1.0), CAR, 0.7),      # the last column, the widest distances
    (32, 0, 4, (2.0, 1.0, 3.0, 1.5), CAR, 0.65),         # out of the picture on the left
    (8, 50, 55, (2.0, 2.0, 2.0, 2.0), PERSON, 0.55),     # two beside each other: IoU 0.6
    (8, 51, 55, (2.0, 2.0, 2.0, 2.0), PERSON, 0.45),
    (8, 40, 40, (2.0, 2.0, 2.0, 2.0), TRUCK, 0.2),       # below the score that it is operated at
]


def _head():
    """Return what the head puts out, 1×84×8400: noise, and what is placed."""
    rng = np.random.default_rng(8)
    grids = []
    for stride in STRIDES:
        cells = SIDE // stride
        logits = rng.normal(-9, 1, (CLASSES, cells, cells))  # the best score is about 0.02
        distances = rng.uniform(0, 15, (4, cells, cells))
        for its_stride, column, row, placed, number, score in PLACED:
            if its_stride == stride:
                distances[:, row, column] = placed
                logits[number, row, column] = np.log(score / (1 - score))
        y, x = np.mgrid[:cells, :cells] + 0.5
        left, top, right, bottom = distances
        boxes = np.stack([x + (right - left) / 2, y + (bottom - top) / 2,
                          left + right, top + bottom]) * stride
        grids.append(np.concatenate([boxes, 1 / (1 + np.exp(-logits))]).reshape(4 + CLASSES, -1))
    return np.concatenate(grids, 1)[np.newaxis]


def _write(path, batch, kind):
    """Write a network that puts this out, with the ends of an export of Ultralytics."""
    helper, dtype = onnx.helper, {'FLOAT': np.float32, 'FLOAT16': np.float16}[kind]
    tensor, head = getattr(onnx.TensorProto, kind), _head().astype(dtype)
    graph = helper.make_graph(
        [helper.make_node('ReduceMean', ['images'], ['mean'], keepdims=0),
         helper.make_node('Mul', ['mean', 'none'], ['nothing']),
         helper.make_node('Add', ['head', 'nothing'], ['output0'])],
        'yolo', [helper.make_tensor_value_info('images', tensor, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info('output0', tensor, head.shape)],
        [onnx.numpy_helper.from_array(value, name)
         for name, value in (('head', head), ('none', np.array(0, dtype)))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def _expected(width, height):
    """Return boxes in a frame, scores and classes, by hand: what is operated, best first."""
    scale = min(SIDE / width, SIDE / height)
    across, down = (SIDE - width * scale) / 2, (SIDE - height * scale) / 2
    found = []
    for place in (0, 2, 4, 5, 6, 3, 7):
        stride, column, row, (left, top, right, bottom), number, score = PLACED[place]
        x, y = column + 0.5, row + 0.5
        box = np.array([x - left, y - top, x + right, y + bottom]) * stride
        box = (box - [across, down] * 2) / scale
        found.append((np.clip(box, 0, [width, height] * 2), score, number))
    return tuple(map(np.array, zip(*found, strict=True)))


@pytest.mark.parametrize(('name', 'batch', 'kind', 'tolerance'), [
    ('yolov8n', 'batch', 'FLOAT', 0.02),  # dynamic=True
    ('yolo11n', 1, 'FLOAT16', 0.5),       # half=True
])
def test_the_boxes_of_a_true_head_are_decoded(name, batch, kind, tolerance, tmp_path):
    path = _write(tmp_path / f'{name}.onnx', batch, kind)
    detector = Detector(read_description(SHIPPED, path))
    classes = detector.description.classes
    assert [classes[number] for number in (PERSON, CAR, TRUCK)] == ['person', 'car', 'truck']
    for width, height in ((1280, 720), (480, 640)):
        frame = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
        found = detector.detect(frame, detector.description.score_threshold)
        boxes, scores, numbers = _expected(width, height)
        assert found.classes.tolist() == numbers.tolist()
        assert found.scores == pytest.approx(scores, abs=2e-3)
        assert found.boxes == pytest.approx(boxes, abs=tolerance * max(width, height) / SIDE)
