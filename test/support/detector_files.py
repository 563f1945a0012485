"""A small real detector for tests, whose output is a known function of the picture."""

import json

import numpy as np
import pytest
from evaluate_files import write_picture

SIDE, CELL = 64, 16
"""The input is 64×64 pixels; each of its 4×4 cells of 16×16 pixels is one box."""

CLASSES = ('red thing', 'blue thing')

MINIMAL = """\
model: cells.onnx
input: {width: 64, height: 64}
score_threshold: 0.3
classes: [red thing, blue thing]
"""

ROWS = MINIMAL + """\
output:
  layout: rows
  objectness: {index: 4}
  classes: {start: 5}
"""


def write_detector(folder, text=MINIMAL, layout='columns', outputs=1, **model_options):
    """Write cells.onnx and cells.yaml, and return the path of the latter.

    The output has the contract of a YOLOv8 export (``columns``: 1×6×16), or that of YOLOv5
    (``rows``: 1×16×7 with objectness). Box k is cell k. Its scores are the means of the
    first and of the last input channel in the cell, objectness is 1/2. ``sides`` are those
    of the input, ``kind`` its type.
    """
    onnx = pytest.importorskip('onnx')
    helper, types = onnx.helper, onnx.TensorProto
    kind = getattr(types, model_options.get('kind', 'FLOAT'))
    count = (SIDE // CELL) ** 2
    rows, columns = np.mgrid[:SIDE // CELL, :SIDE // CELL] * CELL + CELL // 2
    boxes = np.stack([columns.ravel(), rows.ravel(), *np.full((2, count), CELL)])
    constants = [
        helper.make_tensor('boxes', kind, [1, 4, count], boxes.astype(float).ravel()),
        helper.make_tensor('half', kind, [1, 1, count], [0.5] * count),
        helper.make_tensor('shape', types.INT64, [3], [1, 3, count]),
        helper.make_tensor('ends', types.INT64, [2], [0, 2]),
    ]
    nodes = [
        helper.make_node('AveragePool', ['images'], ['means'], kernel_shape=[CELL] * 2,
                         strides=[CELL] * 2),
        helper.make_node('Reshape', ['means', 'shape'], ['flat']),
        helper.make_node('Gather', ['flat', 'ends'], ['scores'], axis=1),
    ]
    numbers = 4 + len(CLASSES)
    if layout == 'columns':
        nodes.append(helper.make_node('Concat', ['boxes', 'scores'], ['output0'], axis=1))
        shape = [1, numbers, count]
    else:
        nodes += [
            helper.make_node('Concat', ['boxes', 'half', 'scores'], ['tall'], axis=1),
            helper.make_node('Transpose', ['tall'], ['output0'], perm=[0, 2, 1]),
        ]
        shape = [1, count, numbers + 1]
    names = [('output0', shape), ('scores', [1, 2, count])][:outputs]
    sides = model_options.get('sides', [1, 3, SIDE, SIDE])
    graph = helper.make_graph(
        nodes, 'cells', [helper.make_tensor_value_info('images', kind, sides)],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in names],
        initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / 'cells.onnx')
    description = folder / 'cells.yaml'
    description.write_text(text)
    return description


def scene(things, streaks=(), side=SIDE):
    """A black picture, uint8, BGR: ``(class, column, row, level)`` fills a cell.

    A streak is an upright white line in a cell, 6 of its 16 columns wide: (column, row).
    """
    picture = np.zeros((side, side, 3), np.uint8)
    for number, column, row, level in things:
        channel = (2, 0)[number]
        picture[row * CELL:(row + 1) * CELL, column * CELL:(column + 1) * CELL, channel] = level
    for column, row in streaks:
        left = column * CELL + 5
        picture[row * CELL:(row + 1) * CELL, left:left + 6] = 255
    return picture


def write_scenes(folder, scenes):
    """Write pictures by name."""
    for name, picture in scenes.items():
        write_picture(folder / name, picture)
    return folder


def coco(images, annotations, /, names=CLASSES, **more):
    """COCO labels: image (name, or more keys) by number, annotations (image, class, cell)."""
    return json.dumps({
        'images': [{'id': number, **({'file_name': image} if isinstance(image, str) else image)}
                   for number, image in enumerate(images)],
        'annotations': [
            {'id': number, 'image_id': image, 'category_id': category,
             'bbox': [column * CELL, row * CELL, CELL, CELL], **rest}
            for number, (image, category, column, row, rest) in enumerate(annotations)],
        'categories': [{'id': number, 'name': name} for number, name in enumerate(names)],
        **more})
