"""A plot with its key, and the figures behind it as a table."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from derain_ros.report.plots import Axis, Numbers, Series, legend, line_plot, median
from derain_ros.report.tables import plain_table

_ROWS = 24


@dataclass(frozen=True)
class PlotFigure:
    """A plot over time, or of a distribution.

    Attributes
    ----------
    title
        What is shown; not yet escaped.
    x, y
        The axes.
    series
        Lines with at least one finite value each.
    form
        Writes a value of y.
    heads, rows
        The table behind it; without them it is made from the lines, by stretches of time.

    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    form: Callable[[float], str]
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def plot_figure(numbers: Numbers, figure: PlotFigure, *, level: int = 3) -> Iterable[str]:
    """Yield a figure; ``level`` is that of its heading."""
    yield f'<figure class="plot"><h{level}>{escape(figure.title)}</h{level}>'
    if len(figure.series) > 0:
        yield legend(figure.series)
    yield line_plot(numbers, figure.title, figure.x, figure.y, figure.series, figure.form)
    heads, rows = figure.heads, figure.rows
    if not rows:
        heads, rows = _stretches(figure)
    yield '<details><summary>Figures of this plot</summary>'
    yield from plain_table(f'{figure.title}: {figure.y.name}', heads, rows)
    yield '</details></figure>'


def _stretches(figure: PlotFigure) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return the values of each line; of many their median and highest, by stretches of time."""
    times = sorted({time for one in figure.series for time in one.times})
    short = len(times) <= _ROWS
    edges = times if short else [
        times[0] + (times[-1] - times[0]) * number / _ROWS for number in range(_ROWS)]
    names = ('',) if short else (', median', ', highest')
    heads = [figure.x.name if short else f'{figure.x.name}, from',
             *(one.label + name for one in figure.series for name in names)]
    rows = []
    for start, end in pairwise([*edges, math.inf]):
        cells = []
        for one in figure.series:
            found = [value for time, value in zip(one.times, one.values, strict=True)
                     if start <= time < end and math.isfinite(value)]
            told = [figure.form(median(found)), figure.form(max(found))] if found else ['–'] * 2
            cells += told[-len(names):]
        rows.append((f'{start:.2f}', *cells))
    return heads, rows
