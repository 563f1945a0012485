"""Tables of the report: figures in columns, with what changes from the first one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Form = Callable[[float | None], str]


def decimals(places: int, unit: str = '', scale: float = 1.0) -> Form:
    """Return what writes a number with so many decimals, or a dash for None."""
    def write(value: float | None) -> str:
        return '–' if value is None else f'{scale * value:.{places}f}{unit}'
    return write


whole, decibel, ssim = decimals(0), decimals(2), decimals(4)
share = decimals(1, '\N{NO-BREAK SPACE}%', 100)
"""Writes a share, 0–1, in percent."""


class Cell(NamedTuple):
    """A figure, how it differs from that of the first column, whether for the better, a note."""

    text: str
    change: str = ''
    verdict: str = ''
    note: str = ''


class Row(NamedTuple):
    """One figure of all columns; None where it is not known.

    ``label`` says what it is, with the unit, ``meaning`` in a few words; ``better`` is 1 where
    more is better, -1 where less is, else 0; ``notes`` stand below the values.
    """

    label: str
    values: Sequence[float | None]
    form: Form
    better: int = 0
    notes: Sequence[str] = ()
    meaning: str = ''

    def cells(self, comparable: Sequence[bool]) -> list[Cell]:
        """Return the cells; ``comparable`` tells which columns measured what the first one did."""
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
    """A table of texts; the first column names the rows."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
