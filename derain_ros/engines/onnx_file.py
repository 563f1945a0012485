"""Checks of an ONNX file before a back end reads it, without the onnx package."""

from collections.abc import Iterator
from pathlib import Path

from derain_ros.engines.contract import EngineError
from derain_ros.engines.models import ModelError

# Messages of onnx.proto that may contain tensors: for each, the fields and their messages.
_CONTENT = {
    'Model': {7: 'Graph', 20: 'Training', 25: 'Function'},
    'Training': {1: 'Graph', 2: 'Graph'},
    'Graph': {1: 'Node', 5: 'Tensor', 15: 'SparseTensor'},
    'Function': {7: 'Node', 11: 'Attribute'},
    'Node': {5: 'Attribute'},
    'Attribute': {5: 'Tensor', 6: 'Graph', 10: 'Tensor', 11: 'Graph',
                  22: 'SparseTensor', 23: 'SparseTensor'},
    'SparseTensor': {1: 'Tensor', 2: 'Tensor'},
    'Tensor': {},
}
# Field numbers of Model.graph, Graph.input and ValueInfo.name.
_GRAPH, _INPUT, _NAME = 7, 11, 1
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_interface(file: Path, inputs: list[str], outputs: list[str]) -> bool:
    """Return whether a model takes a state; EngineError if its inputs and outputs are not ours."""
    if inputs not in (['image'], ['image', 'state_in']) or (
            sorted(outputs) != ['derained', 'rain_mask']):
        raise EngineError(
            f"{file}: inputs {inputs} and outputs {outputs}; a derain_ros model has the input "
            "'image', may have 'state_in', and has the outputs 'derained' and 'rain_mask'")
    return len(inputs) == 2


def takes_state(content: bytes) -> bool:
    """Return whether a model has an input ``state_in``; see :func:`check_one_file`."""
    return any(
        bytes(name) == b'state_in'
        for number, graph in _fields(memoryview(content)) if number == _GRAPH
        for each, value in _fields(graph) if each == _INPUT
        for field, name in _fields(value) if field == _NAME)


def check_one_file(file: Path, content: bytes) -> None:
    """Reject a model that keeps tensors in other files (external data).

    The digest does not cover those files, and back ends resolve their paths differently:
    OpenVINO looks in the working directory if a model is loaded from memory, and 2025.1 follows
    symbolic links out of the folder of the model.

    ``file``: name for the messages. ``content``: the whole file, a serialized ``ModelProto``.
    Raises ModelError: a tensor refers to another file, or this is not an ONNX file.
    """
    # Not recursive, as a file may nest graphs to any depth.
    waiting: list[tuple[str, memoryview]] = [('Model', memoryview(content))]
    try:
        while waiting:
            kind, message = waiting.pop()
            for number, value in _fields(message):
                if kind == 'Tensor' and number in (_EXTERNAL_DATA, _DATA_LOCATION) and value:
                    raise ModelError(
                        f'{file}: keeps weights in another file (external data); export it as '
                        'one file, as `derain export` does'
                    )
                inner = _CONTENT[kind].get(number)
                if inner is not None and isinstance(value, memoryview):
                    waiting.append((inner, value))
    except (IndexError, _MalformedError) as error:
        raise ModelError(f'{file}: not an ONNX file, or damaged; export it again') from error


class _MalformedError(Exception):
    """The bytes are not a protobuf message."""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field; values of fixed width are given as 0."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire = tag & 7
        value: int | memoryview = 0
        if wire == _VARINT:
            value, position = _varint(message, position)
        elif wire == _BYTES:
            length, position = _varint(message, position)
            value = message[position:position + length]
            position += length
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise _MalformedError
        if position > len(message):
            raise _MalformedError
        yield tag >> 3, value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise _MalformedError
