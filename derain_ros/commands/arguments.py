"""What the text of an option has to be; each raises ``argparse.ArgumentTypeError`` otherwise."""

import argparse
import math


def number(text: str, least: float, most: float, expected: str) -> float:
    """Read a number from ``least`` to ``most``; ``expected`` says so in words."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f'{text!r} is not {expected}')
    return value


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    return number(text, 0, 1, 'a number from 0 to 1')


def strength(text: str) -> float:
    """Read a number from 0 to 1.5."""
    return number(text, 0, 1.5, 'a number from 0 to 1.5')


def positive_number(text: str) -> float:
    """Read a finite number above 0."""
    return number(text, math.ulp(0.0), math.nextafter(math.inf, 0), 'a positive number')


def seconds(text: str) -> float:
    """Read seconds from 0 on."""
    return number(text, 0, 1e9, 'seconds from 0 on')


def seconds_above_0(text: str) -> float:
    """Read seconds above 0."""
    return number(text, 1e-3, 1e9, 'seconds above 0')


def rate(text: str) -> float:
    """Read a rate in Hz."""
    return number(text, 0.1, 1000, 'a rate from 0.1 to 1000')


def count(text: str) -> int:
    """Read a whole number from 1 on."""
    return _whole(text, 1)


def count_or_none(text: str) -> int:
    """Read a whole number from 0 on."""
    return _whole(text, 0)


def size_in_pixels(text: str) -> tuple[int, int]:
    """Read width and height, such as 640x480."""
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'{text!r} is not a size such as 640x480')
    return int(width), int(height)


def _whole(text: str, least: int) -> int:
    # Ten digits are enough; Python refuses to read thousands of them.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) >= least):
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from {least} on')
    return int(text)
