"""Errors and damage reports for recorded bags."""

from dataclasses import dataclass

from derain_ros.text import UserError, printable


class BagError(UserError, ValueError):
    """A bag cannot be read or written as requested; the message says what to do."""


@dataclass(frozen=True)
class Damage:
    """A place in a file that cannot be read.

    ``file`` is a name and ``reason`` what is wrong, both printable; ``offset`` is in bytes, None
    where it has no meaning (a missing file, a database). ``last_time`` is the time of the newest
    message read before it, ns, and ``lost`` the number of messages lost; both None if unknown.
    """

    file: str
    offset: int | None
    reason: str
    last_time: int | None = None
    lost: int | None = None

    def __str__(self) -> str:
        place = self.file if self.offset is None else f'{self.file}, byte {self.offset}'
        text = f'{place}: {self.reason}'
        if self.lost is not None:
            text += f'; {self.lost} message{"s are" if self.lost != 1 else " is"} lost'
        if self.last_time is not None:
            text += f'; the last message before it is from {show_time(self.last_time)}'
        return text


class DamageError(Exception):
    """A file was found to be damaged while it was read; see :class:`Damage`."""

    def __init__(self, file: str, offset: int | None, reason: str):
        self.damage = Damage(printable(file), offset, printable(reason))
        super().__init__(str(self.damage))

    def __reduce__(self) -> tuple:
        return type(self), (self.damage.file, self.damage.offset, self.damage.reason)


def show_time(time: int) -> str:
    """Return a time in ns as seconds with nine decimals.

    >>> show_time(1_500_000_000)
    '1.500000000'
    """
    seconds, nanoseconds = divmod(time, 10**9)
    return f'{seconds}.{nanoseconds:09d}'


def why(error: BaseException) -> str:
    """Return the message of an error on one line, or its type if it has none."""
    return ' '.join(str(error).split()) or type(error).__name__
