"""Labels of images: COCO JSON, or a folder of YOLO text files."""

import logging
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct

from derain_ros.evaluation.detection.boxes import Truths
from derain_ros.files import FileError
from derain_ros.files.checked import explain, read_yaml
from derain_ros.files.frame_sources import FrameSet
from derain_ros.files.image_files import IMAGE_SUFFIXES
from derain_ros.text import printable

_SHOWN = 5
_KINDS = 'labels are COCO JSON or a folder of YOLO text files'
_Key = int | str


class _Image(Struct):
    id: _Key
    file_name: str | None = None
    stamp: int | None = None
    width: float | None = None
    height: float | None = None

    def __post_init__(self):
        if self.file_name is None and self.stamp is None:
            raise ValueError('has neither file_name nor stamp')


class _Annotation(Struct):
    image_id: _Key
    category_id: _Key
    bbox: Annotated[list[Annotated[float, Meta(ge=-1e9, le=1e9)]],
                    Meta(min_length=4, max_length=4)] | None = None
    iscrowd: Any = False
    ignore: Any = False


class _Category(Struct):
    id: _Key
    name: _Key


class _Coco(Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _DataYaml(Struct):
    names: list[str] | dict[int, str]


class _Entry(NamedTuple):
    """An image of a COCO file, and its objects."""

    image: _Image
    boxes: list[tuple[float, ...]]
    classes: list[int]
    ignored: list[bool]


class CocoLabels:
    r"""Labels of a COCO JSON file.

    A frame is matched to the image whose ``file_name`` is its path in its folder, else its path
    without suffix, else its bare name, if only one image fits; ``\`` separates folders as ``/``
    does. A frame of a bag is ``<sec>.<nanosec>`` (nine digits), or the image has ``stamp``, in
    nanoseconds. Categories are matched by name, ignoring case. ``iscrowd`` and ``ignore`` mark
    regions where nothing is counted.
    """

    def __init__(self, path: Path, classes: Sequence[str]):
        self._path = path
        found = _read_coco(path)
        for kind, ids in (
                ('categories', {(one.id, one.name) for one in found.categories}),
                ('images', {(one.id, one.file_name, one.stamp) for one in found.images})):
            if len({number for number, *_ in ids}) < len(ids):
                raise FileError(printable(f'{path}: {kind} share an id; give each its own'))
        categories = {one.id: str(one.name) for one in found.categories}
        numbers = match_names(categories.values(), classes)
        self.classes = frozenset(numbers.values())
        self.notes = _unknown(path, categories.values(), numbers)
        self._entries = {one.id: _Entry(one, [], [], []) for one in found.images}
        self._by_name: dict[_Key, set[_Key]] = {}
        for one in found.images:
            for name in _names_of(one):
                self._by_name.setdefault(name, set()).add(one.id)
        empty = orphans = unboxed = 0
        for one in found.annotations:
            entry = self._entries.get(one.image_id)
            number = numbers.get(categories.get(one.category_id))
            left, top, width, height = one.bbox or (0, 0, 0, 0)
            if entry is None or one.category_id not in categories:
                orphans += 1
            elif number is None:
                continue
            elif one.bbox is None:
                unboxed += 1
            elif width <= 0 or height <= 0:
                empty += 1
            else:
                entry.boxes.append((left, top, left + width, top + height))
                entry.classes.append(number)
                entry.ignored.append(bool(one.iscrowd or one.ignore))
        for count, why in ((orphans, 'name no image or no category of the file'),
                           (unboxed, 'have no bbox'), (empty, 'have a box without area')):
            if count:
                self.notes.append(printable(
                    f'{path}: {count} of {len(found.annotations)} annotations {why}; left out'))
        if orphans and orphans == len(found.annotations):
            raise FileError(printable(
                f'{path}: none of its annotations names an image and a category of the file; '
                'image_id and category_id must be the ids of these, as number or as text'))
        if not self.classes:
            raise FileError(_no_class(path, categories.values(), classes))

    def find(self, frame: FrameSet) -> Truths | None:
        """Return the objects in a frame; see :class:`Labels`."""
        names = [frame.stamp] if frame.stamp is not None else []
        path = PurePosixPath(frame.name)
        for name in [*names, frame.name, _bare(frame.name), path.name, _bare(path.name)]:
            keys = self._by_name.get(name, ())
            if len(keys) == 1:
                entry = self._entries[next(iter(keys))]
                height, width = frame.rainy.shape[:2]
                sides = entry.image.width, entry.image.height
                if None not in sides and sides != (width, height):
                    raise FileError(printable(
                        f'{frame.name}: is {width}x{height} pixels, but {self._path} says '
                        f'{sides[0]:g}x{sides[1]:g}; labels must be for the frames as they are'))
                return _truths(entry.boxes, entry.classes, entry.ignored)
        return None


class YoloLabels:
    """Labels in text files, ``<name of the frame>.txt``, with one line per object.

    A line has class, centre x, centre y, width and height, these four relative to the image size.
    Classes are indices into ``classes.txt`` of the folder, or ``names`` of the ``data.yaml`` of
    the folder or of the two above it, else into the detector's list. An empty file means that
    there is no object; a frame without a file has no labels.
    """

    def __init__(self, path: Path, classes: Sequence[str]):
        self._path = path
        self._numbers: dict[int, int | None] = dict(enumerate(range(len(classes))))
        own, names = _yolo_names(path)
        if all(file.name == 'classes.txt' for file in path.rglob('*.txt')):
            raise FileError(printable(f'{path}: no .txt with labels in this folder; {_KINDS}'))
        if own is None:
            self.notes = [f'{printable(str(path))}: neither classes.txt nor data.yaml is there; '
                          "numbers of classes are taken to be the detector's"]
        else:
            known = match_names(names.values(), classes)
            self._numbers = {number: known.get(name) for number, name in names.items()}
            self.notes = _unknown(own, names.values(), known)
            if not known:
                raise FileError(_no_class(own, names.values(), classes))
        self.classes = frozenset(number for number in self._numbers.values() if number is not None)

    def find(self, frame: FrameSet) -> Truths | None:
        """Return the objects in a frame; see :class:`Labels`."""
        path = PurePosixPath(frame.name)
        for name in (_bare(frame.name), _bare(path.name)):
            file = self._path / f'{name}.txt'
            if file.is_file():
                return self._parse(file, frame)
        return None

    def _parse(self, file: Path, frame: FrameSet) -> Truths:
        height, width = frame.rainy.shape[:2]
        boxes, classes = [], []
        for line_number, line in enumerate(_read_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                number, *values = line.split()
                x, y, w, h = map(float, values)
                if not (number.isascii() and number.isdigit()) or not all(
                        0 <= value <= 1 + 1e-4 for value in (x, y, w, h)):
                    raise ValueError
                number = self._numbers[int(number)]
            except (ValueError, KeyError):
                raise FileError(printable(
                    f'{file}, line {line_number}: {line.strip()[:60]!r}; expected a class from '
                    f'{min(self._numbers)} to {max(self._numbers)}, then centre x, centre y, '
                    'width and height from 0 to 1, and no polygon, key point or confidence'
                )) from None
            if w <= 0 or h <= 0:
                logging.getLogger(__name__).warning('%s', printable(
                    f'{file}, line {line_number}: a box without area; left out'))
            elif number is not None:
                boxes.append(((x - w / 2) * width, (y - h / 2) * height,
                              (x + w / 2) * width, (y + h / 2) * height))
                classes.append(number)
        return _truths(boxes, classes, [False] * len(boxes))


Labels = CocoLabels | YoloLabels
"""Ground truth labels of frames.

``classes`` are the indices, in the detector's list, of the classes that the labels use;
``notes`` tell the user what was left out or assumed. ``find(frame)`` returns the objects in a
frame, or None if the labels do not mention it, and raises FileError if they are for an
image of another size or damaged.
"""


def read_labels(path: Path, classes: Sequence[str]) -> Labels:
    """Read a COCO JSON file, or a folder of YOLO text files; ``classes`` are the detector's.

    Raises FileError if they cannot be read, or none of their classes is the detector's.
    """
    return YoloLabels(path, classes) if path.is_dir() else CocoLabels(path, classes)


def match_names(names: Iterable[str], classes: Sequence[str]) -> dict[str, int]:
    """Return the index in ``classes`` of each name that is there, ignoring case."""
    known = {name.casefold(): number for number, name in enumerate(classes)}
    return {name: known[name.casefold()] for name in names if name.casefold() in known}


def _truths(boxes: list, classes: list[int], ignored: list[bool]) -> Truths:
    return Truths(
        np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64),
        np.array(ignored, bool))


def _names_of(image: _Image) -> set[_Key]:
    """Return all names by which an image of a COCO file may be found."""
    names: set[_Key] = set() if image.stamp is None else {image.stamp}
    if image.file_name is not None:
        for name in {image.file_name, image.file_name.replace('\\', '/')}:
            path = PurePosixPath(printable(name))
            names |= {str(path), _bare(str(path)), path.name, _bare(path.name)}
    return names


def _bare(name: str) -> str:
    """Return a name without its picture suffix; the dot of a stamp begins no suffix."""
    path = PurePosixPath(name)
    return str(path.with_suffix('')) if path.suffix.lower() in IMAGE_SUFFIXES else name


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ', '.join(found[:_SHOWN]) + (' ...' if len(found) > _SHOWN else '')


def _unknown(path: Path, names: Iterable[str], numbers: dict[str, int]) -> list[str]:
    unknown = sorted({name for name in names if name not in numbers})
    return [printable(f'{path}: the detector does not know {_listed(unknown)}; left out')
            ] if unknown else []


def _no_class(path: Path, names: Iterable[str], classes: Sequence[str]) -> str:
    return printable(f'{path}: none of its classes ({_listed(sorted(set(names))) or "none"}) is '
                     f'one of the detector ({_listed(classes)}); rename them')


def _read_coco(path: Path) -> _Coco:
    try:
        content = msgspec.json.decode(path.read_bytes().removeprefix(BOM_UTF8))
        return msgspec.convert(content, _Coco)
    except msgspec.ValidationError as error:
        raise FileError(printable(
            f'{path}: not COCO labels ({explain(error, content, _Coco)}); expected images, '
            'annotations and categories')) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise FileError(printable(
            f'{path}: not JSON ({error}); {_KINDS}')) from error


def _yolo_names(path: Path) -> tuple[Path | None, dict[int, str]]:
    """Return the file that names the classes of a folder, and the names by number."""
    file = path / 'classes.txt'
    if file.is_file():
        lines = enumerate(line.strip() for line in _read_text(file).splitlines())
        return file, {number: name for number, name in lines if name}
    for folder in (path, *path.absolute().parents[:2]):
        file = folder / 'data.yaml'
        if file.is_file():
            try:
                names = msgspec.convert(read_yaml(file), _DataYaml).names
            except (FileError, msgspec.ValidationError) as error:
                reason = str(error).removeprefix(f'{file}: ')
                raise FileError(printable(
                    f'{file}: {reason}; expected `names`, a list of classes')) from error
            return file, names if isinstance(names, dict) else dict(enumerate(names))
    return None, {}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding='utf-8-sig')
    except OSError as error:
        raise FileError(printable(f'{file}: {error.strerror or error}')) from error
    except UnicodeDecodeError as error:
        raise FileError(printable(f'{file}: not in UTF-8; expected lines of labels')) from error
