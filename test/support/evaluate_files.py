"""Pictures, models and clips for the tests of `derain evaluate`, with figures known by hand."""

import cv2
import numpy as np
import pytest

HEIGHT, WIDTH = 48, 64
GROUND, STREAK = 100, 200


def clean_picture(height=HEIGHT, width=WIDTH):
    """A flat grey picture, uint8, H×W×3."""
    return np.full((height, width, 3), GROUND, np.uint8)


def rainy_picture(column=20, height=HEIGHT, width=WIDTH):
    """The clean picture with one streak, one pixel wide, 100 brighter."""
    picture = clean_picture(height, width)
    picture[:, column] = STREAK
    return picture


def write_picture(path, picture):
    """Write a picture, as its suffix says, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, picture)
    path.write_bytes(data)
    return path


def write_pairs(folder, names, columns=None):
    """Write rainy/ and clean/ with one streak in each rainy picture."""
    for number, name in enumerate(names):
        column = columns[number] if columns else 20
        write_picture(folder / 'rainy' / name, rainy_picture(column))
        write_picture(folder / 'clean' / name, clean_picture())
    return folder


def write_model(path, level):
    """Write an ONNX model that cuts pixels off at a level and marks those it cut.

    Of the streak of 100 it leaves level − 100; a clean picture comes back as it was.
    """
    onnx = pytest.importorskip('onnx')
    helper, types = onnx.helper, onnx.TensorProto
    shape = ['N', 'H', 'W', 3]
    nodes = [
        helper.make_node('Cast', ['image'], ['float'], to=types.FLOAT),
        helper.make_node('Min', ['float', 'level'], ['cut']),
        helper.make_node('Cast', ['cut'], ['derained'], to=types.UINT8),
        helper.make_node('ReduceMax', ['float', 'axis'], ['brightest'], keepdims=0),
        helper.make_node('Greater', ['brightest', 'level'], ['marked']),
        helper.make_node('Where', ['marked', 'rain', 'dry'], ['shade']),
        helper.make_node('Cast', ['shade'], ['rain_mask'], to=types.UINT8),
    ]
    constants = [
        helper.make_tensor(name, types.FLOAT, [], [value])
        for name, value in (('level', level), ('rain', 255), ('dry', 0))
    ] + [helper.make_tensor('axis', types.INT64, [1], [3])]
    graph = helper.make_graph(
        nodes, 'cut', [helper.make_tensor_value_info('image', types.UINT8, shape)],
        [helper.make_tensor_value_info('derained', types.UINT8, shape),
         helper.make_tensor_value_info('rain_mask', types.UINT8, shape[:3])],
        initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
