"""Labels of images: COCO JSON, or a folder of YOLO text files."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np

from derain_ros.evaluation.detection.boxes import Truths
from derain_ros.files.frame_sources import FrameSet
from derain_ros.files.image_files import IMAGE_SUFFIXES
from derain_ros.text import printable

_LARGEST_FILE = 1 << 30
_LARGEST_TEXT = 1 << 20
_SHOWN = 5


class LabelError(ValueError):
    """Labels cannot be read or do not fit; the message says which and why."""


class Labels(Protocol):
    """What is known to be in the frames.

    Attributes
    ----------
    classes
        Numbers, in the detector's list, of the classes that the labels tell of.
    notes
        What was left out, for the user; printable.

    """

    classes: frozenset[int]
    notes: list[str]

    def find(self, frame: FrameSet) -> Truths | None:
        """Return the objects in a frame; None where the labels do not tell of it.

        Raises
        ------
        LabelError
            They tell of an image of another size, or are damaged.

        """


def read_labels(path: Path, classes: Sequence[str]) -> Labels:
    """Read labels.

    Parameters
    ----------
    path
        COCO JSON file, or a folder of YOLO text files.
    classes
        What the detector calls its classes.

    Raises
    ------
    LabelError
        They cannot be read, or none of their classes is one of the detector's.

    """
    return YoloLabels(path, classes) if path.is_dir() else CocoLabels(path, classes)


class _Entry(NamedTuple):
    """An image of a COCO file: its sides as far as told, and its objects."""

    sides: tuple[Any, Any]
    boxes: list[tuple[float, ...]]
    classes: list[int]
    ignored: list[bool]


class CocoLabels:
    """Labels of a COCO JSON file.

    An image belongs to the frame whose path in its folder is its ``file_name``, else whose
    path without suffix, else whose bare name is, if one alone has it. A frame of a bag is
    ``<sec>.<nanosec>`` (nine digits), or the image has ``stamp``, in nanoseconds. Categories
    go by name, whatever the case. ``iscrowd`` and ``ignore`` make regions where nothing is
    counted.
    """

    def __init__(self, path: Path, classes: Sequence[str]):
        self._path = path
        found = _read_json(path)
        try:
            categories = {_key(entry['id']): str(entry['name']) for entry in found['categories']}
            numbers = match_names(categories.values(), classes)
            self.classes = frozenset(numbers.values())
            self.notes = _unknown(path, categories.values(), numbers)
            self._entries, self._by_name = {}, {}
            for entry in found['images']:
                self._entries[_key(entry['id'])] = _Entry(
                    (entry.get('width'), entry.get('height')), [], [], [])
                for name in _names_of(entry):
                    self._by_name.setdefault(name, set()).add(_key(entry['id']))
            empty = 0
            for annotation in found['annotations']:
                empty += not self._add(annotation, categories, numbers)
        except (KeyError, TypeError, AttributeError) as error:
            raise LabelError(printable(
                f'{path}: no COCO labels ({type(error).__name__}: {error}); expected images, '
                'annotations and categories')) from error
        if empty:
            self.notes.append(f'{printable(str(path))}: {empty} boxes have no area; they are '
                              'left out')
        if not self.classes:
            raise LabelError(_no_class(path, categories.values(), classes))

    def _add(self, annotation: dict, categories: dict, numbers: dict[str, int]) -> bool:
        """Take in an annotation; False if its box has no area."""
        number = numbers.get(categories[_key(annotation['category_id'])])
        entry = self._entries[_key(annotation['image_id'])]
        box = annotation['bbox']
        if len(box) != 4 or not all(
                type(value) in (int, float) and math.isfinite(value) for value in box):
            raise LabelError(printable(
                f'{self._path}: annotation {annotation.get("id")!r} has the bbox '
                f'{repr(box)[:60]}; '
                'expected left, top, width and height'))
        left, top, width, height = box
        if number is None:
            return True
        if width <= 0 or height <= 0:
            return False
        entry.boxes.append((left, top, left + width, top + height))
        entry.classes.append(number)
        entry.ignored.append(bool(annotation.get('iscrowd') or annotation.get('ignore')))
        return True

    def find(self, frame: FrameSet) -> Truths | None:
        """Return the objects in a frame; see :class:`Labels`."""
        names = [frame.stamp] if frame.stamp is not None else []
        path = PurePosixPath(frame.name)
        for name in [*names, frame.name, _bare(frame.name), path.name, _bare(path.name)]:
            keys = self._by_name.get(name, ())
            if len(keys) == 1:
                entry = self._entries[next(iter(keys))]
                _check_sides(self._path, frame, entry.sides)
                return _truths(entry.boxes, entry.classes, entry.ignored)
        return None


class YoloLabels:
    """Labels in text files, ``<name of the frame>.txt``, with a line for each object.

    A line has class, centre x, centre y, width and height, the latter relative to the image.
    Classes are numbers in ``classes.txt`` of the folder, where there is one, else in the
    detector's list. An empty file says that nothing is there; a frame without a file is not
    told of.
    """

    def __init__(self, path: Path, classes: Sequence[str]):
        self._path = path
        self._numbers: list[int | None] = list(range(len(classes)))
        self.notes: list[str] = []
        own = path / 'classes.txt'
        if own.is_file():
            names = [line.strip() for line in _read_text(own).splitlines() if line.strip()]
            known = match_names(names, classes)
            self._numbers = [known.get(name) for name in names]
            self.notes = _unknown(own, names, known)
            if not known:
                raise LabelError(_no_class(own, names, classes))
        self.classes = frozenset(number for number in self._numbers if number is not None)

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
                        0 <= value <= 1 for value in (x, y, w, h)):
                    raise ValueError
                number = self._numbers[int(number)]
            except (ValueError, IndexError):
                raise LabelError(printable(
                    f'{file}, line {line_number}: {line.strip()[:60]!r}; expected a class from 0 '
                    f'to {len(self._numbers) - 1}, then centre x, centre y, width and height '
                    'from 0 to 1')) from None
            if number is not None and w > 0 and h > 0:
                boxes.append(((x - w / 2) * width, (y - h / 2) * height,
                              (x + w / 2) * width, (y + h / 2) * height))
                classes.append(number)
        return _truths(boxes, classes, [False] * len(boxes))


def match_names(names: Iterable[str], classes: Sequence[str]) -> dict[str, int]:
    """Return the number in ``classes`` of each name that is there, whatever the case."""
    known = {name.casefold(): number for number, name in enumerate(classes)}
    return {name: known[name.casefold()] for name in names if name.casefold() in known}


def _truths(boxes: list, classes: list[int], ignored: list[bool]) -> Truths:
    return Truths(
        np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64),
        np.array(ignored, bool))


def _names_of(image: dict) -> set[str | int]:
    """Return all names by which an image of a COCO file may be found."""
    names: set[str | int] = set()
    if type(image.get('stamp')) is int:
        names.add(image['stamp'])
    if 'file_name' in image:
        path = PurePosixPath(printable(str(image['file_name'])))
        names |= {str(path), _bare(str(path)), path.name, _bare(path.name)}
    if not names:
        raise KeyError('file_name')
    return names


def _bare(name: str) -> str:
    """Return a name without the suffix of a picture; a stamp has a dot and no suffix."""
    path = PurePosixPath(name)
    return str(path.with_suffix('')) if path.suffix.lower() in IMAGE_SUFFIXES else name


def _check_sides(path: Path, frame: FrameSet, sides: tuple[Any, Any]) -> None:
    height, width = frame.rainy.shape[:2]
    if None not in sides and sides != (width, height):
        raise LabelError(printable(
            f'{frame.name}: is {width}x{height} pixels, but {path} says '
            f'{sides[0]}x{sides[1]}; labels must be for the frames as they are'))


def _key(value: Any) -> int | str:
    if type(value) not in (int, str):
        raise TypeError(f'id {value!r}')
    return value


def _unknown(path: Path, names: Iterable[str], numbers: dict[str, int]) -> list[str]:
    unknown = sorted({name for name in names if name not in numbers})
    if not unknown:
        return []
    shown = ', '.join(unknown[:_SHOWN]) + (' ...' if len(unknown) > _SHOWN else '')
    return [printable(f'{path}: the detector does not know {shown}; left out')]


def _no_class(path: Path, names: Iterable[str], classes: Sequence[str]) -> str:
    ours, theirs = (
        ', '.join(list(found)[:_SHOWN]) + (' ...' if len(found) > _SHOWN else '')
        for found in (classes, sorted(set(names))))
    return printable(f'{path}: none of its classes ({theirs or "none"}) is one of the detector '
                     f'({ours}); rename them')


def _read_json(path: Path) -> dict:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise LabelError(f'{path}: larger than 1 GiB; split it')
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise LabelError(f'{path}: {error.strerror or error}') from error
    except LabelError:
        raise
    except (ValueError, RecursionError) as error:
        raise LabelError(printable(
            f'{path}: no JSON ({error}); labels are COCO JSON or a folder of YOLO text '
            'files')) from error
    if not isinstance(found, dict):
        raise LabelError(f'{path}: no COCO labels; expected images, annotations and categories')
    return found


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST_TEXT:
            raise LabelError(printable(f'{file}: larger than 1 MiB; no labels of one image'))
        return file.read_text(encoding='utf-8')
    except OSError as error:
        raise LabelError(printable(f'{file}: {error.strerror or error}')) from error
    except UnicodeDecodeError as error:
        raise LabelError(printable(f'{file}: no text; expected lines of labels')) from error
