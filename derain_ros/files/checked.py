"""Read YAML files, and explain msgspec validation errors: field, value found, value expected."""

import difflib
import re
import reprlib
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from derain_ros.files import FileError
from derain_ros.text import printable

# With aliases, even a small YAML file can hold a huge value.
_short_repr = reprlib.Repr()
_short_repr.maxlevel = 2
_LARGE = 2**62
"""Bounds beyond this only reflect the range of the type, and are not mentioned."""

_LARGEST_FILE = 1 << 20


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file of 1 MiB at most; raises FileError or OSError."""
    with path.open('rb') as stream:
        content = stream.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise FileError(f'{path}: larger than 1 MiB; name a short YAML file')
    return parse_yaml(content, str(path))


def parse_yaml(content: bytes | str, source: str) -> Any:
    """Parse YAML 1.2, bytes being UTF-8; raises FileError, which begins with ``source``."""
    from ruamel.yaml import YAML

    try:
        text = content.decode() if isinstance(content, bytes) else content
        return YAML(typ='safe', pure=True).load(text)
    except Exception as error:
        # On a hostile file, ruamel.yaml also raises internal errors, and RecursionError.
        reason = ' '.join(str(error).split()).partition(' To suppress')[0]
        raise FileError(printable(f'{source}: not YAML ({reason[:300]})')) from error


def explain(error: msgspec.ValidationError, data: Any, kind: Any) -> str:
    """Return what is wrong with a file, as one printable line.

    ``error`` is what msgspec raised while converting ``data``, the content of the file, to
    ``kind``.
    """
    told, _, path = str(error).partition(' - at `$')
    where, info = '', inspect.type_info(kind)
    for name, number in re.findall(r'\.?([^.\[\]`]+)(?=[.\[`])|\[([0-9]+)\]', path):
        key = name or int(number)
        if name and not isinstance(data, dict):
            break  # a `[...]`, which names no field
        where += (f'.{name}' if where else name) if name else f'[{number}]'
        data, info = data[key], _inner(info, key)
    if match := re.fullmatch(r'Object missing required field `(.*)`', told):
        return printable(f'{where}{"." if where else ""}{match[1]} is missing')
    if match := re.fullmatch(r'Object contains unknown field `(.*)`', told, re.S):
        known = [field.encode_name for field in _struct(info).fields]
        near = difflib.get_close_matches(match[1], known, 1)
        hint = f'did you mean {near[0]!r}? ' if near else ''
        place = f'{where}: ' if where else ''
        return printable(f'{place}unknown key {match[1]!r}; {hint}known here: {", ".join(known)}')
    if told.startswith(('Expected', 'Invalid enum', 'Number out of')):
        found = _short_repr.repr(data)[:80]
        return printable(f'{where or "the file"} is {found}, expected {_wanted(info)}')
    return printable(f'{where or "the file"}: {told}')


def _struct(info: inspect.Type) -> inspect.Type:
    """Return the member of a union that has fields, or else items; other types unchanged."""
    if isinstance(info, inspect.UnionType):
        return max(info.types, key=lambda one: (hasattr(one, 'fields'), hasattr(one, 'item_type')))
    return info


def _inner(info: inspect.Type, key: str | int) -> inspect.Type:
    info = _struct(info)
    if isinstance(key, int):
        return info.item_type
    return next(field.type for field in info.fields if field.encode_name == key)


def _wanted(info: inspect.Type) -> str:
    match info:
        case inspect.IntType() | inspect.FloatType():
            name = 'a whole number' if isinstance(info, inspect.IntType) else 'a number'
            for word, bound in (('above', info.gt), ('from', info.ge), ('to', info.le)):
                if bound is not None and abs(bound) < _LARGE:
                    name += f' {word} {bound:g}'
            return name + (f', a multiple of {info.multiple_of:g}' if info.multiple_of else '')
        case inspect.CustomType():
            return 'a path'
        case inspect.StrType():
            return 'a text' if not info.min_length else 'a word'
        case inspect.BoolType():
            return 'true or false'
        case inspect.NoneType():
            return 'null'
        case inspect.LiteralType():
            return 'one of ' + ', '.join(map(str, info.values))
        case inspect.UnionType():
            return ' or '.join(map(_wanted, info.types))
        case inspect.ListType() if info.min_length:
            return f'a list of {info.min_length}' + (
                '' if info.max_length == info.min_length else ' or more')
        case inspect.ListType():
            return 'a list'
    return 'keys with values'
