"""Tables of the report: one column for each run, with the difference from the first one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Form = Callable[[float | None], str]


def decimals(places: int, unit: str = '', scale: float = 1.0) -> Form:
    """Return a function that formats a number with fixed decimals, and None as a dash."""
    def write(value: float | None) -> str:
        return '–' if value is None else f'{scale * value:.{places}f}{unit}'
    return write


whole, tenths, decibel, ssim = decimals(0), decimals(1), decimals(2), decimals(4)
share = decimals(1, '\N{NO-BREAK SPACE}%', 100)
"""Formats a fraction, 0–1, in percent."""


class Cell(NamedTuple):
    """A figure, its change from the first column, whether that is better or worse, and a note."""

    text: str
    change: str = ''
    verdict: str = ''
    note: str = ''


class Row(NamedTuple):
    """One figure for all columns; None where it is unknown.

    ``label`` is its name with the unit, ``meaning`` a short explanation; ``better`` is 1 if higher
    is better, -1 if lower is, else 0; ``notes`` are shown below the values.
    """

    label: str
    values: Sequence[float | None]
    form: Form
    better: int = 0
    notes: Sequence[str] = ()
    meaning: str = ''

    def cells(self, comparable: Sequence[bool]) -> list[Cell]:
        """Return the cells; ``comparable`` marks columns of the same data as the first one."""
        return [
            Cell(self.form(value), *(self._change(value) if number and comparable[number]
                                     else ('', '')), self.notes[number] if self.notes else '')
            for number, value in enumerate(self.values)]

    def _change(self, after: float | None) -> tuple[str, str]:
        before = self.values[0]
        if before is None or after is None or not self.better:
            return '', ''
        change = after - before
        if self.form(before) == self.form(after) or self.form(abs(change)) == self.form(0):
            return 'same', ''
        size = (f'{100 * abs(change):.1f} points' if self.form is share
                else self.form(abs(change)))
        verdict = 'better' if change * self.better > 0 else 'worse'
        return f'{"+" if change > 0 else "−"}{size}, {verdict}', verdict


class Table(NamedTuple):
    """A table of text; the first column names the rows."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
