"""Checks of the fields of a run file, which anybody may have edited."""

import math
from collections.abc import Callable
from typing import Any

from derain_ros.files.run_files import RunFileError
from derain_ros.text import printable

Check = Callable[[Any, str], None]
"""Takes a value and the name of its field; raises RunFileError."""

_LARGEST = 1e19
"""No figure is larger; sums and squares of such numbers stay finite."""

_SHOWN = 40


def whole(value: Any, where: str) -> None:
    """Require a whole number of 64 bits."""
    if type(value) is not int or not -2**63 <= value < 2**63:
        raise _wrong(value, where, 'a whole number')


def count(value: Any, where: str) -> None:
    """Require a whole number from 0 on."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise _wrong(value, where, 'a whole number from 0 on')


def number(value: Any, where: str) -> None:
    """Require a finite number."""
    if type(value) not in (int, float) or not -_LARGEST < value < _LARGEST:
        raise _wrong(value, where, 'a number')


def text(value: Any, where: str) -> None:
    """Require a text."""
    if type(value) is not str:
        raise _wrong(value, where, 'a text')


def flag(value: Any, where: str) -> None:
    """Require true or false."""
    if type(value) is not bool:
        raise _wrong(value, where, 'true or false')


def one_of(*words: str) -> Check:
    """Require one of some texts."""
    def check(value: Any, where: str) -> None:
        if type(value) is not str or value not in words:
            raise _wrong(value, where, ' or '.join(f'"{word}"' for word in words))
    return check


def maybe(inner: Check) -> Check:
    """Allow null beside what ``inner`` requires."""
    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)
    return check


def listed(inner: Check, *, least: int = 0) -> Check:
    """Require a list of what ``inner`` requires."""
    def check(value: Any, where: str) -> None:
        if type(value) is not list or len(value) < least:
            raise _wrong(value, where, 'a list' if least == 0 else f'a list of {least} or more')
        for position, item in enumerate(value):
            inner(item, f'{where}[{position}]')
    return check


def record(optional: tuple[str, ...] = (), /, **fields: Check) -> Check:
    """Require an object with these fields; others are passed over."""
    def check(value: Any, where: str) -> None:
        if type(value) is not dict:
            raise _wrong(value, where or 'the file', 'an object')
        for name, inner in fields.items():
            here = f'{where}.{name}' if where else name
            if name in value:
                inner(value[name], here)
            elif name not in optional:
                raise RunFileError(f'{here}: is missing')
    return check


def columns(**fields: Check) -> Check:
    """Require an object of lists of equal length."""
    lists = record(**{name: listed(inner) for name, inner in fields.items()})

    def check(value: Any, where: str) -> None:
        lists(value, where)
        lengths = {name: len(value[name]) for name in fields}
        if len(set(lengths.values())) > 1:
            told = ', '.join(f'{name} {length}' for name, length in lengths.items())
            raise RunFileError(f'{where}: the columns are of unequal length ({told})')
    return check


def _wrong(value: Any, where: str, wanted: str) -> RunFileError:
    if isinstance(value, dict):
        found = 'an object'
    elif isinstance(value, list):
        found = f'a list of {len(value)}'
    elif isinstance(value, float) and not math.isfinite(value):
        found = 'not a finite number'
    elif type(value) is int and abs(value) >= 2**63:
        found = 'a number of more than 64 bits'
    else:
        found = 'null' if value is None else repr(value)
    found = printable(found)
    if len(found) > _SHOWN:
        found = found[:_SHOWN] + '…'
    return RunFileError(f'{where}: {wanted} is needed, found {found}')
