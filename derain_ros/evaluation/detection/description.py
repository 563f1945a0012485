"""The YAML file that says how to run a detector's ONNX file and how to read its output.

``config/detectors/yolov8.yaml`` shows and explains every key, and has the values of those that
are left out: they fit an export of YOLOv8 or YOLO11 (``yolo export format=onnx``, without NMS in
the graph). Each box has its best class only.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from derain_ros.files import FileError
from derain_ros.files.checked import explain, read_yaml
from derain_ros.text import printable

_Side = Annotated[int, Meta(ge=1, le=8192)]
_Place = Annotated[int, Meta(ge=0, le=100_000)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Power = Annotated[float, Meta(ge=0.01, le=100)]
_Value = Annotated[float, Meta(ge=-1e6, le=1e6)]
_Positive = Annotated[float, Meta(ge=1e-6, le=1e6)]
_Word = Annotated[str, Meta(min_length=1)]


class InputFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """How an image is converted to the input; see the keys of ``input``."""

    width: _Side
    height: _Side
    resize: Literal['letterbox', 'stretch'] = 'letterbox'
    pad: Annotated[int, Meta(ge=0, le=255)] = 114
    colour: Literal['rgb', 'bgr'] = 'rgb'
    divide_by: _Positive = 255.0
    mean: _Value | Annotated[list[_Value], Meta(min_length=3, max_length=3)] = 0.0
    std: _Positive | Annotated[list[_Positive], Meta(min_length=3, max_length=3)] = 1.0
    layout: Literal['nchw', 'nhwc'] = 'nchw'


class BoxFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """How four numbers are converted to a box; see the keys of ``output: boxes``."""

    start: _Place = 0
    format: Literal['cxcywh', 'xyxy'] = 'cxcywh'
    units: Literal['pixels', 'relative'] = 'pixels'
    centre: Literal['plain', 'cell_tanh', 'cell_sigmoid'] = 'plain'
    size: Literal['plain', 'sigmoid'] = 'plain'

    def __post_init__(self):
        if self.format == 'xyxy' and (self.centre, self.size) != ('plain', 'plain'):
            raise ValueError('format is xyxy, expected cxcywh, as centre and size are computed')
        if self.centre != 'plain' and self.units != 'relative':
            raise ValueError(f'centre is {self.centre}, expected plain, or units: relative, which '
                             'is what cells give')


class ObjectnessFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """Position of the objectness in the output, and its conversion to a score."""

    index: _Place = 4
    activation: Literal['none', 'sigmoid'] = 'none'
    power: _Power = 1.0


class ClassesFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """Position of the class scores in the output, and their conversion to scores 0–1."""

    start: _Place = 4
    activation: Literal['none', 'sigmoid', 'softmax'] = 'none'
    power: _Power = 1.0


class OutputFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """How to read the output; see the keys of ``output``."""

    name: _Word | None = None
    layout: Literal['columns', 'rows', 'grid'] = 'columns'
    boxes: BoxFormat = BoxFormat()
    objectness: ObjectnessFormat | None = None
    classes: ClassesFormat = ClassesFormat()

    def __post_init__(self):
        end = self.boxes.start + 4
        if self.objectness and (self.boxes.start <= self.objectness.index < end
                                or self.objectness.index >= self.classes.start):
            raise ValueError(f'objectness: index is {self.objectness.index}, expected a number '
                             'before the classes that is none of the box')
        if end > self.classes.start:
            raise ValueError(f'boxes: start is {self.boxes.start}, expected '
                             f'{self.classes.start - 4} at most, the classes starting at '
                             f'{self.classes.start}')
        if self.boxes.centre != 'plain' and self.layout != 'grid':
            raise ValueError(f'boxes: centre is {self.boxes.centre}, expected plain, as the '
                             f'layout {self.layout} has no cells')


class _Suppression(Struct, frozen=True, forbid_unknown_fields=True):
    iou: _Share = 0.7
    class_agnostic: bool = False


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """Content of the YAML file."""

    input: InputFormat
    classes: _Word | Annotated[list[_Word], Meta(min_length=1, max_length=10_000)]
    name: _Word | None = None
    model: _Word | None = None
    output: OutputFormat = OutputFormat()
    score_threshold: _Share = 0.25
    nms: _Suppression = _Suppression()


@dataclass(frozen=True)
class Description:
    """A detector, as its YAML file describes it.

    ``name`` and ``classes``, in the order of the output, are printable;
    ``score_threshold``, 0–1, is the score from which on detections count in operation.
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
        return self.output.classes.start + len(self.classes)


def read_description(path: Path, model: Path | None = None) -> Description:
    """Read the YAML file that describes a detector; ``model`` is the ONNX file to take instead.

    Raises OSError if it cannot be read, FileError if a key is unknown, missing, or has an invalid
    value.
    """
    content = _filled(read_yaml(path))
    try:
        found = msgspec.convert(content, _File)
    except msgspec.ValidationError as error:
        raise FileError(f'{path}: {explain(error, content, _File)}') from error
    except UnicodeError as error:
        raise FileError(f'{path}: a text is not Unicode ({error})') from error
    if model is None:
        if found.model is None:
            raise FileError(f'{path}: model is missing')
        model = path.parent / found.model
    return Description(
        path, printable(found.name or model.stem), model, found.input, found.output,
        found.score_threshold, found.nms.iou, found.nms.class_agnostic,
        _class_names(path, found.classes))


def _class_names(path: Path, names: str | list[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        file = path.parent / names
        try:
            lines = file.read_text(encoding='utf-8-sig').splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or error
            raise FileError(f'{path}: classes are in {printable(str(file))}: {reason}') from error
        names = [line.strip() for line in lines if line.strip()]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated or not names:
        reason = (f'the class {printable(repeated[0])[:80]} is named twice; give each its own name'
                  if repeated else 'classes is empty; name at least one class')
        raise FileError(f'{path}: {reason}')
    return tuple(map(printable, names))


def _filled(content: Any) -> Any:
    """Return mappings without the keys that have no value."""
    if not isinstance(content, dict):
        return content
    return {key: _filled(value) for key, value in content.items() if value is not None}
