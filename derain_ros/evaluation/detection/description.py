"""The YAML file that says how to run a detector's ONNX file and how to read its output.

Every key that is left out has the value that fits an export of YOLOv8 or YOLO11
(``yolo export format=onnx``, without NMS in the graph)::

    name: my detector            # how it is called in reports; default: name of the file
    model: detector.onnx         # relative to this file
    input:                       # float32 or float16, of one image
      width: 640                 # pixels; must be given
      height: 640
      resize: letterbox          # keep the aspect, centred on grey; or stretch
      pad: 114                   # that grey, 0 to 255
      colour: rgb                # or bgr
      divide_by: 255             # value = (pixel / divide_by - mean) / std
      mean: 0                    # a number, or three in the order of `colour`
      std: 1
      layout: nchw               # or nhwc
    output:
      name: output0              # must be given if the model has several outputs
      layout: columns            # 1 x A x N: each column is a box of A numbers; or
                                 # rows: 1 x N x A; or grid: 1 x A x H x W, a box per cell
      boxes:
        start: 0                 # the first of the four numbers
        format: cxcywh           # centre and size, or xyxy: left, top, right, bottom
        units: pixels            # of the input, or relative: 0 to 1
        centre: plain            # or cell_tanh: (cell + tanh(v)) / cells, or cell_sigmoid
        size: plain              # or sigmoid: sigmoid(v)
      objectness:                # leave out where there is none
        index: 4
        activation: none         # or sigmoid
        power: 1                 # score = objectness^power * class^power
      classes:
        start: 4                 # the first class; there are no numbers after the last one
        activation: none         # or sigmoid, softmax
        power: 1
    score_threshold: 0.25        # where the detector is operated
    nms:
      iou: 0.7
      class_agnostic: false
    classes: [person, car]       # in the order of the output, or a file with one a line

Each box is of its best class.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain_ros.evaluation.detection.yaml_fields import DescriptionError, Fields, read_yaml
from derain_ros.text import printable

_LARGEST_SIDE = 8192
_MOST_CLASSES = 10_000
_MOST_NUMBERS = 100_000


@dataclass(frozen=True)
class InputFormat:
    """How an image becomes the input; see the keys of ``input``."""

    width: int
    height: int
    resize: str
    pad: int
    colour: str
    divide_by: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str


@dataclass(frozen=True)
class BoxFormat:
    """How four numbers become a box; see the keys of ``output: boxes``."""

    start: int
    format: str
    units: str
    centre: str
    size: str


@dataclass(frozen=True)
class ScoreFormat:
    """Where scores stand, and what is done to them."""

    index: int
    activation: str
    power: float


@dataclass(frozen=True)
class OutputFormat:
    """How to read the output; see the keys of ``output``."""

    name: str | None
    layout: str
    boxes: BoxFormat
    objectness: ScoreFormat | None
    classes: ScoreFormat


@dataclass(frozen=True)
class Description:
    """A detector, as its YAML file describes it.

    Attributes
    ----------
    file
        The YAML file.
    name
        What to call the detector; printable.
    model
        The ONNX file.
    input, output
        How to run it.
    score_threshold
        Score, 0–1, from which on a detection counts where the detector is operated.
    iou_threshold, class_agnostic
        See :func:`derain_ros.evaluation.detection.boxes.suppress`.
    classes
        Names, in the order of the output; printable.

    """

    file: Path
    name: str
    model: Path
    input: InputFormat
    output: OutputFormat
    score_threshold: float
    iou_threshold: float
    class_agnostic: bool
    classes: tuple[str, ...]

    @property
    def numbers_per_box(self) -> int:
        """Length A of one box in the output."""
        return self.output.classes.index + len(self.classes)


def read_description(path: Path, model: Path | None = None) -> Description:
    """Read the description of a detector.

    Parameters
    ----------
    path
        YAML file, as the text of this module shows.
    model
        The ONNX file, where it is not the one that the description names.

    Raises
    ------
    DescriptionError
        It cannot be read, a key is unknown, missing, or has a value that does not fit.

    """
    fields = Fields(read_yaml(path), str(path))
    named = fields.text('model', None) if model else fields.text('model')
    model = model or path.parent / named
    name = fields.text('name', model.stem)
    description = Description(
        file=path, name=printable(name), model=model,
        input=_input(fields.inner('input') or Fields({}, f'{path}: input')),
        output=_output(fields.inner('output') or Fields({}, f'{path}: output')),
        score_threshold=fields.number('score_threshold', 0, 1, 0.25),
        **_suppression(fields.inner('nms') or Fields({}, f'{path}: nms')),
        classes=_classes(fields, path.parent),
    )
    fields.end()
    return description


def _input(fields: Fields) -> InputFormat:
    found = InputFormat(
        width=fields.whole('width', 1, _LARGEST_SIDE),
        height=fields.whole('height', 1, _LARGEST_SIDE),
        resize=fields.word('resize', ('letterbox', 'stretch'), 'letterbox'),
        pad=fields.whole('pad', 0, 255, 114),
        colour=fields.word('colour', ('rgb', 'bgr'), 'rgb'),
        divide_by=fields.number('divide_by', 1e-6, 1e6, 255.0),
        mean=fields.three('mean', 0.0),
        std=fields.three('std', 1.0, positive=True),
        layout=fields.word('layout', ('nchw', 'nhwc'), 'nchw'),
    )
    fields.end()
    return found


def _output(fields: Fields) -> OutputFormat:
    name = fields.text('name', None)
    layout = fields.word('layout', ('columns', 'rows', 'grid'), 'columns')
    boxes = _boxes(fields.inner('boxes') or Fields({}, 'boxes'), layout)
    inner = fields.inner('objectness')
    objectness = _score(inner, 'index', ('none', 'sigmoid'), 4) if inner else None
    classes = _score(
        fields.inner('classes') or Fields({}, 'classes'), 'start',
        ('none', 'sigmoid', 'softmax'), 4)
    fields.end()
    taken = set(range(boxes.start, boxes.start + 4))
    if objectness and (objectness.index in taken or objectness.index >= classes.index):
        raise inner.refuse('index', 'a number before the classes that is none of the box')
    if max(taken) >= classes.index:
        raise fields.refuse('boxes', f'a start of {classes.index - 4} at most, the classes '
                            f'starting at {classes.index}')
    return OutputFormat(name, layout, boxes, objectness, classes)


def _boxes(fields: Fields, layout: str) -> BoxFormat:
    found = BoxFormat(
        start=fields.whole('start', 0, _MOST_NUMBERS, 0),
        format=fields.word('format', ('cxcywh', 'xyxy'), 'cxcywh'),
        units=fields.word('units', ('pixels', 'relative'), 'pixels'),
        centre=fields.word('centre', ('plain', 'cell_tanh', 'cell_sigmoid'), 'plain'),
        size=fields.word('size', ('plain', 'sigmoid'), 'plain'),
    )
    fields.end()
    if found.format == 'xyxy' and (found.centre, found.size) != ('plain', 'plain'):
        raise fields.refuse('format', 'cxcywh, as centre and size are to be computed')
    if found.centre != 'plain' and layout != 'grid':
        raise fields.refuse('centre', f'plain, as the layout {layout} has no cells')
    if found.centre != 'plain' and found.units != 'relative':
        raise fields.refuse('centre', 'plain, or units: relative, which is what cells give')
    return found


def _score(fields: Fields, key: str, activations: tuple[str, ...], default: int) -> ScoreFormat:
    found = ScoreFormat(
        fields.whole(key, 0, _MOST_NUMBERS, default),
        fields.word('activation', activations, 'none'),
        fields.number('power', 0.01, 100, 1.0))
    fields.end()
    return found


def _suppression(fields: Fields) -> dict[str, Any]:
    found = {'iou_threshold': fields.number('iou', 0, 1, 0.7),
             'class_agnostic': fields.flag('class_agnostic', False)}
    fields.end()
    return found


def _classes(fields: Fields, folder: Path) -> tuple[str, ...]:
    names = fields.anything('classes')
    if isinstance(names, str) and names:
        file = folder / names
        try:
            lines = file.read_text(encoding='utf-8').splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or error
            raise DescriptionError(
                f'{fields.where}: classes are in {printable(str(file))}: {reason}') from error
        names = [line.strip() for line in lines if line.strip()]
    if not isinstance(names, list) or not 0 < len(names) <= _MOST_CLASSES or not all(
            isinstance(name, str) and name for name in names):
        raise fields.refuse('classes', 'a list of names (quote what YAML takes for a number) or '
                            'a file with one name a line')
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise fields.refuse('classes', f'names of which none is there twice, as is '
                            f'{printable(repeated[0])[:80]}')
    return tuple(printable(name) for name in names)
