"""Read the fields of a YAML file, with errors that name the key, the file and what fits."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from derain_ros.text import printable

_LARGEST_FILE = 1 << 20
_REQUIRED = object()

# YAML aliases make small files of huge values.
_short_repr = reprlib.Repr()
_short_repr.maxlevel = 2


class DescriptionError(ValueError):
    """The description of a detector cannot be used; the message says where and why."""


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises
    ------
    DescriptionError
        It cannot be read, is larger than 1 MiB, or is no YAML.

    """
    # rosbags depends on this one, so that it is wherever bags are read.
    from ruamel.yaml import YAML

    try:
        with path.open('rb') as stream:
            content = stream.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise DescriptionError(f'{path}: larger than 1 MiB; name a short YAML description')
        return YAML(typ='safe', pure=True).load(content.decode('utf-8'))
    except DescriptionError:
        raise
    except OSError as error:
        raise DescriptionError(f'{path}: {error.strerror or error}') from error
    except Exception as error:
        # ruamel.yaml lets errors of its parts through, and of deep nesting, on a hostile file.
        reason = ' '.join(str(error).split()).partition(' To suppress')[0]
        raise DescriptionError(printable(f'{path}: no YAML ({reason[:300]})')) from error


class Fields:
    """One mapping of a YAML file, of which each key is taken once.

    Parameters
    ----------
    values
        What stands there; None, an empty entry, counts as no keys.
    where
        Its place, for messages: the file, then the keys that lead to it.

    Attributes
    ----------
    where
        The same.

    Raises
    ------
    DescriptionError
        ``values`` is no mapping.

    """

    def __init__(self, values: Any, where: str):
        if values is None:
            values = {}
        if not isinstance(values, Mapping):
            raise DescriptionError(f'{where}: expected lines of the form `key: value`')
        self._values = values
        self.where = where
        self._known: list[str] = []

    def _take(self, key: str, default: Any) -> Any:
        self._known.append(key)
        if key in self._values:
            return self._values[key]
        if default is _REQUIRED:
            raise DescriptionError(f'{self.where}: {key} is missing')
        return default

    def refuse(self, key: str, expected: str) -> DescriptionError:
        """Return an error that tells what stands at a key, and what was expected."""
        found = printable(_short_repr.repr(self._values.get(key)))
        return DescriptionError(f'{self.where}: {key} is {found}, expected {expected}')

    def inner(self, key: str) -> 'Fields | None':
        """Take a mapping; None where it is not given."""
        values = self._take(key, None)
        if values is None:
            return None
        return Fields(values, f'{self.where}: {key}')

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        """Take a string that is not empty."""
        value = self._take(key, default)
        if key in self._values and not (isinstance(value, str) and value):
            raise self.refuse(key, 'a word')
        return value

    def word(self, key: str, choices: Sequence[str], default: str) -> str:
        """Take one of several words."""
        value = self._take(key, default)
        if value not in choices:
            raise self.refuse(key, f'one of {", ".join(choices)}')
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Take true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, 'true or false')
        return value

    def whole(self, key: str, least: int, most: int, default: Any = _REQUIRED) -> int:
        """Take a whole number within bounds."""
        value = self._take(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self.refuse(key, f'a whole number from {least} to {most}')
        return value

    def number(self, key: str, least: float, most: float, default: float) -> float:
        """Take a number within bounds."""
        value = self._take(key, default)
        if not is_number(value) or not least <= value <= most:
            raise self.refuse(key, f'a number from {least:g} to {most:g}')
        return float(value)

    def three(self, key: str, default: float, *, positive: bool = False) -> tuple[float, ...]:
        """Take one number for three channels, or a list of three."""
        value = self._take(key, default)
        numbers = value if isinstance(value, list) else [value] * 3
        if len(numbers) != 3 or not all(map(is_number, numbers)) or (
                positive and not all(number > 0 for number in numbers)):
            kind = 'positive number' if positive else 'number'
            raise self.refuse(key, f'a {kind} or a list of three')
        return tuple(float(number) for number in numbers)

    def anything(self, key: str) -> Any:
        """Take whatever stands there; it must be given."""
        return self._take(key, _REQUIRED)

    def end(self) -> None:
        """Raise DescriptionError if a key is left that was not taken."""
        unknown = [str(key) for key in self._values if key not in self._known]
        if unknown:
            raise DescriptionError(printable(
                f'{self.where}: unknown key {unknown[0]!r}; known here: '
                f'{", ".join(self._known)}'))


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite int or float, and no bool."""
    return type(value) in (int, float) and math.isfinite(value)
