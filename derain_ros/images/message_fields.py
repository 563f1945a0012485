"""Validated access to the fields of image messages, and the error for invalid ones."""

import operator
from typing import Any, NoReturn

MAXIMUM_SIDE = 16384
"""Longest image height or width in pixels that is decoded."""


class ImageFormatError(ValueError):
    """A message that cannot be read; the text names the field and the remedy."""


def refuse(field: str, found: str, expected: str, remedy: str) -> NoReturn:
    """Raise an :class:`ImageFormatError` with a message from these parts."""
    raise ImageFormatError(f'{field} is {found}, expected {expected}; {remedy}')


def shown(value: Any) -> str:
    """Return a field's value as short printable ASCII."""
    text = ascii(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def integer_field(msg: Any, field: str, smallest: int, largest: int, remedy: str) -> int:
    """Return an integer field, or raise ImageFormatError when it is outside the limits."""
    found = getattr(msg, field)
    try:
        value = operator.index(found)
    except TypeError:
        value = -1
    if not smallest <= value <= largest:
        refuse(field, shown(found), f'an integer from {smallest} to {largest}', remedy)
    return value


def byte_view(msg: Any) -> memoryview:
    """Return ``msg.data`` as a flat read-only view of bytes; raises ImageFormatError."""
    try:
        view = memoryview(msg.data)
        return view.cast('B').toreadonly() if view.nbytes else memoryview(b'')
    except (TypeError, ValueError, BufferError):
        found = shown(type(msg.data))
        refuse('data', found, 'a contiguous buffer of bytes', 'check the publisher')
