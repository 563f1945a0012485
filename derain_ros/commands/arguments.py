"""Types of command line options, which raise ``argparse.ArgumentTypeError`` on invalid text."""

import argparse
import math
from collections.abc import Callable


def between(least: float, most: float, expected: str) -> Callable[[str], float]:
    """Return a parser of numbers from ``least`` to ``most``; errors say ``expected``."""
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f'{text!r} is not {expected}')
        return value
    return read


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of integers from ``least`` on, or from ``least`` to ``most``."""
    def read(text: str) -> int:
        # Ten digits are enough; int() refuses text with thousands of them.
        if (text.isascii() and text.isdigit() and len(text) <= 10
                and least <= int(text) <= (math.inf if most is None else most)):
            return int(text)
        span = f'from {least} ' + ('on' if most is None else f'to {most}')
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number {span}')
    return read


share = between(0, 1, 'a number from 0 to 1')
strength = between(0, 1.5, 'a number from 0 to 1.5')
positive_number = between(math.ulp(0.0), math.nextafter(math.inf, 0), 'a positive number')
seconds = between(0, 1e9, 'a number of seconds, 0 or more')
seconds_above_0 = between(1e-3, 1e9, 'a number of seconds above 0')
rate = between(0.1, 1000, 'a rate from 0.1 to 1000')
count = whole(1)
count_or_none = whole(0)


def size_in_pixels(text: str) -> tuple[int, int]:
    """Parse width and height in pixels, such as 640x480."""
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'{text!r} is not a size such as 640x480')
    return int(width), int(height)
