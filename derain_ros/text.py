"""Names and messages as they are shown and sorted, and the errors that tell them to users."""

import re
import sys


class UserError(Exception):
    """Something that the user can put right; the message says what is wrong and what to do."""


def printable(text: object) -> str:
    r"""Escape what could confuse a terminal or a page: controls, bidi marks, broken UTF-8.

    >>> printable('a\x1b[2Jb')
    'a\\x1b[2Jb'
    """
    return ''.join(
        letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def natural_key(text: str) -> list:
    """Sort frame_2 before frame_10."""
    parts = re.split('([0-9]+)', text)
    return [(int(part), part) if number % 2 else part for number, part in enumerate(parts)]


def how_to_install(*packages: str) -> str:
    """Say how to get packages of PyPI: outside of a virtual environment, first by activating one.

    >>> how_to_install('openvino').endswith('install it with `pip install openvino`')
    True
    """
    them = 'it' if len(packages) == 1 else 'them'
    install = f'install {them} with `pip install {" ".join(packages)}`'
    if sys.prefix != sys.base_prefix:
        return install
    return ('no virtual environment is active: if there is one, activate it '
            f'(`source .venv/bin/activate`), else {install}')
