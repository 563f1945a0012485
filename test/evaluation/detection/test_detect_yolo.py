"""YOLOv8 and YOLO11 through ``config/detectors/yolov8.yaml``: their head, at its true size.

The head of Ultralytics (``Detect``, as ``yolo export format=onnx`` writes it) is built here from
its raw numbers: per cell 4 distances, each as 16 bins (DFL), and 80 logits, on grids of 80x80,
40x40 and 20x20 cells. Both families end in it, and put out 1x84x8400.
"""

from pathlib import Path

import numpy as np
import pytest

from derain_ros.evaluation.detection.description import read_description
from derain_ros.evaluation.detection.detector import Detector

onnx = pytest.importorskip('onnx')

SHIPPED = Path(__file__).resolve().parents[3] / 'config' / 'detectors' / 'yolov8.yaml'
SIDE, BINS, CLASSES, STRIDES = 640, 16, 80, (8, 16, 32)
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
    """Return the raw output of the three grids, 1×144×rows×columns: noise, and what is placed."""
    rng = np.random.default_rng(8)
    grids = {}
    for stride in STRIDES:
        cells = SIDE // stride
        grid = rng.normal(0, 1, (4 * BINS + CLASSES, cells, cells))
        # The best of all cells and classes then scores about 0.02.
        grid[4 * BINS:] -= 9
        grids[stride] = grid
    for stride, column, row, distances, number, score in PLACED:
        values = grids[stride][:, row, column]
        for side, distance in enumerate(distances):
            bins = values[side * BINS:(side + 1) * BINS]
            low, share = int(distance), distance % 1
            # A softmax over these has the distance for its mean.
            bins[:] = -60
            bins[low] = np.log(1 - share)
            if share:
                bins[low + 1] = np.log(share)
        values[4 * BINS + number] = np.log(score / (1 - score))
    return [grids[stride][np.newaxis].astype(np.float32) for stride in STRIDES]


def _write(path, opset, batch, kind):
    """Write the head as Ultralytics exports it; the pictures are weighed by 0."""
    helper, numpy_helper, types = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    dtype = {'FLOAT': np.float32, 'FLOAT16': np.float16}[kind]
    anchors = [np.stack(np.meshgrid(*[np.arange(SIDE // stride) + 0.5] * 2)).reshape(2, -1)
               for stride in STRIDES]
    count = sum(found.shape[1] for found in anchors)
    strides = np.repeat(STRIDES, [found.shape[1] for found in anchors])
    constants = {
        'anchors': np.concatenate(anchors, 1)[np.newaxis].astype(dtype),
        'strides': strides.reshape(1, 1, -1).astype(dtype),
        'bins': np.arange(BINS, dtype=dtype).reshape(1, BINS, 1, 1),
        'split': np.array([4 * BINS, CLASSES]), 'halves': np.array([2, 2]),
        'flat': np.array([1, 4 * BINS + CLASSES, -1]), 'sides': np.array([1, 4, BINS, count]),
        'four': np.array([1, 4, count]), 'half': np.array(0.5, dtype), 'none': np.array(0, dtype),
        **{f'grid{place}': grid.astype(dtype) for place, grid in enumerate(_head())}}
    nodes = []

    def node(kind, inputs, outputs, **more):
        nodes.append(helper.make_node(kind, inputs.split(), outputs.split(), **more))

    node('ReduceMean', 'images', 'mean', keepdims=0)
    node('Mul', 'mean none', 'nothing')
    for place in range(3):
        node('Reshape', f'grid{place} flat', f'cells{place}')
    node('Concat', 'cells0 cells1 cells2', 'quiet', axis=2)
    node('Add', 'quiet nothing', 'head')
    node('Split', 'head split', 'distances logits', axis=1)
    node('Reshape', 'distances sides', 'by_side')
    node('Transpose', 'by_side', 'by_bin', perm=[0, 2, 1, 3])
    node('Softmax', 'by_bin', 'shares', axis=1)
    node('Conv', 'shares bins', 'mean_bin', kernel_shape=[1, 1])
    node('Reshape', 'mean_bin four', 'ltrb')
    node('Split', 'ltrb halves', 'before after', axis=1)
    node('Sub', 'anchors before', 'first')
    node('Add', 'anchors after', 'second')
    node('Add', 'first second', 'sum')
    node('Mul', 'sum half', 'centre')
    node('Sub', 'second first', 'size')
    node('Concat', 'centre size', 'boxes_in_cells', axis=1)
    node('Mul', 'boxes_in_cells strides', 'boxes')
    node('Sigmoid', 'logits', 'scores')
    node('Concat', 'boxes scores', 'output0', axis=1)
    tensor = getattr(types, kind)
    graph = helper.make_graph(
        nodes, 'yolo', [helper.make_tensor_value_info('images', tensor, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info('output0', tensor, [1, 4 + CLASSES, count])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=8)
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


@pytest.mark.parametrize(('name', 'opset', 'batch', 'kind', 'tolerance'), [
    ('yolov8n', 17, 1, 'FLOAT', 0.02),
    ('yolo11n', 17, 'batch', 'FLOAT', 0.02),     # dynamic=True
    ('yolo11n', 17, 1, 'FLOAT16', 0.5),          # half=True
])
def test_the_boxes_of_a_true_head_are_decoded(name, opset, batch, kind, tolerance, tmp_path):
    path = _write(tmp_path / f'{name}.onnx', opset, batch, kind)
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
