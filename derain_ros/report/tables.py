"""Tables of the report: figures in columns, with what changes from the first one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from derain_ros.report.runs import Entry

DASH = '–'


@dataclass(frozen=True)
class Row:
    """A row: one figure of all columns.

    Attributes
    ----------
    label
        What it is, with the unit.
    values
        One for each column; None where it is not known.
    form
        Writes a value.
    better
        1 where more is better, -1 where less is, 0 where it is no matter of good and bad.
    notes
        Below the value, one for each column; or none.
    meaning
        A few words.

    """

    label: str
    values: Sequence[float | None]
    form: Callable[[float], str]
    better: int = 0
    notes: Sequence[str] = ()
    meaning: str = ''


def table(
    caption: str, columns: Sequence[str], rows: Sequence[Row], comparable: Sequence[bool]
) -> Iterable[str]:
    """Yield a table whose columns are compared with the first one.

    Parameters
    ----------
    caption
        What is in it; not yet escaped.
    columns
        Heads of the columns, HTML.
    rows
        Rows; those without any value are left out.
    comparable
        Whether a column measured the same as the first one; for each column.

    """
    yield from open_table(caption)
    heads = ''.join(f'<th scope="col" class="run">{head}</th>' for head in columns)
    explained = any(row.meaning for row in rows)
    note = '<th scope="col" class="note">what it means</th>' if explained else ''
    yield f'<thead><tr><th scope="col" class="note">figure</th>{heads}{note}</tr></thead><tbody>'
    for row in rows:
        if all(value is None for value in row.values):
            continue
        cells = []
        for number, value in enumerate(row.values):
            cell = DASH if value is None else row.form(value)
            if number and comparable[number]:
                cell += _change(row, row.values[0], value)
            if row.notes and row.notes[number]:
                cell += f'<small>{escape(row.notes[number])}</small>'
            cells.append(f'<td>{cell}</td>')
        meaning = f'<td class="note">{escape(row.meaning)}</td>' if explained else ''
        yield f'<tr><th scope="row">{escape(row.label)}</th>{"".join(cells)}{meaning}</tr>'
    yield '</tbody></table></div>'


def plain_table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]
) -> Iterable[str]:
    """Yield a table of texts, not yet escaped; the first column names the rows."""
    yield from open_table(caption)
    first, *others = heads
    yield (f'<thead><tr><th scope="col" class="note">{escape(first)}</th>'
           + ''.join(f'<th scope="col">{escape(head)}</th>' for head in others)
           + '</tr></thead><tbody>')
    for name, *cells in rows:
        yield (f'<tr><th scope="row">{escape(name)}</th>'
               + ''.join(f'<td>{escape(cell)}</td>' for cell in cells) + '</tr>')
    yield '</tbody></table></div>'


def open_table(caption: str) -> Iterable[str]:
    """Yield the beginning of a table that can be scrolled by keyboard where it is too wide."""
    yield (f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0">'
           f'<table><caption>{escape(caption)}</caption>')


def head(entry: Entry) -> str:
    """Return the head of an entry's column: a patch of its colour, letter and label."""
    about = f'<small class="start">{escape(entry.about)}</small>' if entry.about else ''
    return (f'<span class="patch c{entry.colour}" aria-hidden="true"></span>'
            f'{escape(f"{entry.letter}: {entry.name}")}{about}')


def _change(row: Row, before: float | None, after: float | None) -> str:
    """Return how a value differs from that of the first column, and whether that is good."""
    if before is None or after is None or not row.better:
        return ''
    old, new = row.form(before), row.form(after)
    if old == new:
        return '<small>same</small>'
    change = after - before
    good = change * row.better > 0
    sign = '+' if change > 0 else '−'
    size = f'{100 * abs(change):.1f} points' if row.form is share else row.form(abs(change))
    word = 'better' if good else 'worse'
    return f'<small class="{word}">{sign}{size}, {word}</small>'


def decimals(places: int) -> Callable[[float], str]:
    """Return what writes a number with so many decimals."""
    def write(value: float) -> str:
        return f'{value:.{places}f}'
    return write


def whole(value: float) -> str:
    """Write a count."""
    return f'{value:.0f}'


def share(value: float) -> str:
    """Write a share, 0–1, in percent."""
    return f'{100 * value:.1f}\N{NO-BREAK SPACE}%'
