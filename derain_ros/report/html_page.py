"""The frame of an HTML report, and the forms of its figures.

The page loads nothing: pictures are JPEGs inside it, and its security policy allows only
those and the one style and the one script that it is made with.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape


def document(title: str, style: str, script: str, body: Iterable[str]) -> str:
    """Return a whole page.

    Parameters
    ----------
    title
        Shown by the browser; not yet escaped.
    style, script
        The only ones that the page may use.
    body
        Lines of HTML.

    Returns
    -------
    str
        An HTML document, to be written as UTF-8.

    """
    policy = (f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
              f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'")
    return '\n'.join([
        '<!DOCTYPE html>',
        '<html lang="en">',
        '<head>',
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{escape(title)}</title>',
        f'<style>{style}</style>',
        '</head>',
        '<body>',
        *body,
        f'<script>{script}</script>',
        '</body>',
        '</html>',
        '',
    ])


def jpeg_address(data: bytes) -> str:
    """Return a JPEG as the address of a picture."""
    return f'data:image/jpeg;base64,{base64.b64encode(data).decode()}'


def code(text: str) -> str:
    """Return a name as HTML."""
    return f'<code>{escape(text)}</code>'


def count(things: Sequence, noun: str) -> str:
    """Return how many there are, in words.

    >>> count('ab', 'pair')
    '2 pairs'
    """
    return f'{len(things)} {noun}{"" if len(things) == 1 else "s"}'


def decibel(value: float | None) -> str:
    """Return a figure with two decimals, or a dash."""
    return '–' if value is None else f'{value:.2f}'


def ssim(value: float | None) -> str:
    """Return a figure with four decimals, or a dash."""
    return '–' if value is None else f'{value:.4f}'


def percent(value: float | None) -> str:
    """Return a share, 0–1, in percent, or a dash."""
    return '–' if value is None else f'{100 * value:.1f}\N{NO-BREAK SPACE}%'


def _hash(text: str) -> str:
    return 'sha256-' + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
