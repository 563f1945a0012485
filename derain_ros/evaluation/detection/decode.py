"""Decodes the output of a detector into boxes with scores and classes."""

import numpy as np

from derain_ros.evaluation.detection.boxes import Detections, areas
from derain_ros.evaluation.detection.description import (
    BoxFormat,
    ClassesFormat,
    Description,
    ObjectnessFormat,
    OutputFormat,
)
from derain_ros.text import UserError

# Rounding in float16 may lift a sigmoid above 1 by this much.
_TOLERANCE = 1e-2


class DecodeError(UserError, ValueError):
    """The output is not as described; the message says what it is instead."""


def decode(output: np.ndarray, description: Description, threshold: float) -> Detections:
    """Decode boxes before suppression, in pixels of the input and in the order of the output.

    The score of a box is ``objectness^a · class^b`` of its best class; boxes with a score
    below ``threshold`` are left out. Raises DecodeError if shape or range are not as
    described.
    """
    form = description.output
    columns, cells = _columns(output, description)
    if not np.isfinite(columns).all():
        raise DecodeError(f'{description.model}: outputs NaN or infinity; export it again, in '
                          'float32 if it is float16')
    start = form.classes.start
    scores = _score(columns[start:], form.classes, description)
    classes = np.argmax(scores, axis=0)
    scores = np.take_along_axis(scores, classes[np.newaxis], axis=0)[0]
    if form.objectness:
        index = form.objectness.index
        scores = scores * _score(columns[index:index + 1], form.objectness, description)[0]
    chosen = scores >= threshold
    boxes = _boxes(columns[:, chosen], cells and tuple(axis[chosen] for axis in cells[:2]),
                   cells and cells[2], form, description)
    found = Detections(boxes, scores[chosen], classes[chosen])
    return found.where(areas(found.boxes) > 0)


def check_shape(shape: tuple, description: Description) -> None:
    """Raise DecodeError unless an output of this shape can be decoded; -1 fits any length."""
    numbers = description.numbers_per_box
    layout = description.output.layout
    axis, rank = {'columns': (1, 3), 'rows': (2, 3), 'grid': (1, 4)}[layout]
    if len(shape) == rank and shape[0] in (1, -1) and shape[axis] in (numbers, -1):
        return
    expected = {'columns': f'1x{numbers}xN', 'rows': f'1xNx{numbers}', 'grid': f'1x{numbers}xHxW'}
    shown = 'x'.join('?' if side == -1 else str(side) for side in shape) or 'a single number'
    raise DecodeError(
        f'{description.model}: its output is {shown}, but {description.file} says layout {layout} '
        f'with {description.output.classes.start} numbers before {len(description.classes)} '
        f'classes, which is {expected[layout]}; correct `output` or `classes` there')


def _columns(output: np.ndarray, description: Description) -> tuple[np.ndarray, tuple | None]:
    """Return A×N numbers; for a grid also column and row of each cell, and the grid size."""
    check_shape(output.shape, description)
    output = output[0].astype(np.float64)
    layout = description.output.layout
    if layout == 'columns':
        return output, None
    if layout == 'rows':
        return output.T, None
    height, width = output.shape[1:]
    rows, columns = np.mgrid[:height, :width]
    return output.reshape(len(output), -1), (
        columns.ravel(), rows.ravel(), np.array([width, height]))


def _score(
    values: np.ndarray, form: ClassesFormat | ObjectnessFormat, description: Description
) -> np.ndarray:
    """Return values (M×N) as scores 0–1."""
    if form.activation == 'sigmoid':
        values = _sigmoid(values)
    elif form.activation == 'softmax':
        values = np.exp(values - values.max(axis=0))
        values = values / values.sum(axis=0)
    least, most = values.min(initial=0.0), values.max(initial=0.0)
    if least < -_TOLERANCE or most > 1 + _TOLERANCE:
        raise DecodeError(
            f'{description.model}: scores from {least:.3g} to {most:.3g} where {description.file} '
            f'has activation {form.activation}; a score is 0 to 1: set `activation`, or correct '
            'the place of the scores')
    return np.clip(values, 0.0, 1.0) ** form.power


def _boxes(
    columns: np.ndarray, cells: tuple[np.ndarray, ...] | None, grid: np.ndarray | None,
    output: OutputFormat, description: Description,
) -> np.ndarray:
    """Return N×4 boxes, xyxy, in pixels of the input."""
    form: BoxFormat = output.boxes
    first, second = (columns[form.start + offset:form.start + offset + 2] for offset in (0, 2))
    if form.format == 'cxcywh':
        if form.centre != 'plain':
            move = np.tanh if form.centre == 'cell_tanh' else _sigmoid
            first = (np.stack(cells) + move(first)) / grid[:, np.newaxis]
        size = _sigmoid(second) if form.size == 'sigmoid' else second
        first, second = first - size / 2, first + size / 2
    boxes = np.concatenate([first, second]).T
    if form.units == 'relative':
        boxes = boxes * np.array([description.input.width, description.input.height] * 2)
    return boxes


def _sigmoid(values: np.ndarray) -> np.ndarray:
    # The form with tanh does not overflow.
    return (np.tanh(values / 2) + 1) / 2
