"""A model for streams that is known by hand, and frames for it."""

import cv2
import numpy as np
import pytest

from derain_ros.images.memory import LEAST_KNOWN


def write_memory_model(path, rain=200, alone=0):
    """Write an ONNX model: the mean of frame and state, and the mask ``rain``.

    That is where the state is known; elsewhere the frame, and the mask ``alone``.
    """
    onnx = pytest.importorskip('onnx')
    helper, types = onnx.helper, onnx.TensorProto
    node = helper.make_node
    nodes = [
        node('Cast', ['image'], ['frame'], to=types.FLOAT),
        node('Cast', ['state_in'], ['state'], to=types.FLOAT),
        node('Split', ['state', 'parts'], ['before', 'dryness'], axis=3),
        node('GreaterOrEqual', ['dryness', 'least'], ['known']),
        node('Add', ['frame', 'before'], ['sum']),
        node('Mul', ['sum', 'half'], ['mean']),
        node('Where', ['known', 'mean', 'frame'], ['mixed']),
        node('Floor', ['mixed'], ['whole']),
        node('Cast', ['whole'], ['derained'], to=types.UINT8),
        node('Where', ['known', 'rain', 'dry'], ['shade']),
        node('Squeeze', ['shade', 'axis'], ['flat']),
        node('Cast', ['flat'], ['rain_mask'], to=types.UINT8),
    ]
    constants = [
        helper.make_tensor(name, types.FLOAT, [], [value])
        for name, value in (('least', LEAST_KNOWN), ('half', 0.5), ('rain', rain), ('dry', alone))
    ] + [helper.make_tensor('axis', types.INT64, [1], [3]),
         helper.make_tensor('parts', types.INT64, [2], [3, 1])]
    shape = ['N', 'H', 'W', 3]

    def described(name, shape):
        return helper.make_tensor_value_info(name, types.UINT8, shape)

    graph = helper.make_graph(
        nodes, 'memory', [described('image', shape), described('state_in', [*shape[:3], 4])],
        [described('derained', shape), described('rain_mask', shape[:3])], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def scene(seed=0, height=96, width=128):
    """A picture with structure at every scale that flow needs, uint8, H×W×3."""
    rng = np.random.default_rng(seed)
    fine, coarse = (cv2.GaussianBlur(rng.uniform(0, 255, (height, width, 3)), (0, 0), sigma)
                    for sigma in (2, 8))
    mixed = (fine - fine.mean()) * 3 + (coarse - coarse.mean()) * 12 + 128
    return np.clip(mixed, 0, 255).astype(np.uint8)
