"""Line plots as inline SVG, whose colours come from the style of the page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

from derain_ros.report.svg_plots import line, text
from derain_ros.report.time_plots import ticks, unbroken

_WIDTH, _HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 14, 48
_DRAWN = 600
"""Points of a line from which on it is thinned; the screen shows no more."""


@dataclass(frozen=True)
class Series:
    """A line of a plot.

    Attributes
    ----------
    label
        For the legend; not yet escaped.
    colour
        See :attr:`derain_ros.report.runs.Entry.colour`.
    times, values
        Of equal length; NaN leaves a gap.
    dash
        0 for a solid line, and up to 3 for lines of the same colour.

    """

    label: str
    colour: int
    times: Sequence[float]
    values: Sequence[float]
    dash: int = 0


@dataclass(frozen=True)
class Axis:
    """An axis: name with the unit, and the range that it spans at least."""

    name: str
    low: float | None = None
    high: float | None = None
    least_span: float = 1e-6


class Numbers:
    """Numbers for the ids of a page, from 1 on; one for each page."""

    def __init__(self) -> None:
        self._counter = count(1)

    def take(self) -> int:
        """Return the next one."""
        return next(self._counter)


def line_plot(
    numbers: Numbers, title: str, x: Axis, y: Axis, series: Sequence[Series],
    form: Callable[[float], str] = '{:.1f}'.format,
) -> str:
    """Draw lines in one pair of axes.

    Parameters
    ----------
    numbers
        Of the page.
    title
        What is shown.
    x, y
        The axes.
    series
        Lines with at least one finite value each.
    form
        Writes a value of y for the description.

    Returns
    -------
    str
        One ``<svg>`` element with title and description, which gives lowest, median and highest
        value of each line.

    """
    xs = [time for one in series for time in one.times]
    ys = [value for one in series for value in one.values if math.isfinite(value)]
    left, right = _range(x, xs)
    columns, rows = ticks(left, right, 7), ticks(*_range(y, ys), 5)

    def x_of(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - left) / (right - left)

    def y_of(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (rows[-1] - value) / (rows[-1] - rows[0])

    parts = []
    for tick in rows:
        parts.append(line(_LEFT, y_of(tick), _WIDTH - _RIGHT, y_of(tick), 'grid'))
        parts.append(text(_LEFT - 8, y_of(tick) + 4, f'{tick:g}', 'end'))
    for tick in columns:
        if left <= tick <= right:
            parts.append(text(x_of(tick), _HEIGHT - _BOTTOM + 18, f'{tick:g}', 'middle'))
    parts.append(text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 7, x.name, 'middle'))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="19" y="{middle:g}" text-anchor="middle" '
                 f'transform="rotate(-90 19 {middle:g})">{escape(y.name)}</text>')
    for one in series:
        for points in unbroken(*thin(one.times, one.values)):
            path = ' '.join(f'{x_of(time):.1f},{y_of(value):.1f}' for time, value in points)
            style = f'line c{one.colour} d{one.dash % 4}'
            if len(points) == 1:
                time, value = points[0]
                parts.append(f'<circle class="spot c{one.colour}" cx="{x_of(time):.1f}" '
                             f'cy="{y_of(value):.1f}" r="3"></circle>')
            else:
                parts.append(f'<polyline class="{style}" points="{path}"></polyline>')
    described = '; '.join(_describe(one, form) for one in series)
    number = numbers.take()
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="t{number} d{number}"><title id="t{number}">{escape(title)}</title>'
        f'<desc id="d{number}">{escape(f"{y.name} over {x.name}. {described}.")}</desc>'
        f'{"".join(parts)}</svg>')


def legend(series: Sequence[Series]) -> str:
    """Return the key to the lines, for above a plot."""
    items = ''.join(
        f'<li><svg class="key" viewBox="0 0 28 10" aria-hidden="true">'
        f'<polyline class="line c{one.colour} d{one.dash % 4}" points="0,5 28,5"></polyline></svg>'
        f'{escape(one.label)}</li>' for one in series)
    return f'<ul class="legend">{items}</ul>'


def thin(
    times: Sequence[float], values: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """Keep the lowest and the highest value of each stretch of a line with very many.

    Parameters
    ----------
    times, values
        Of equal length; NaN is a gap, which stays where it fills a whole stretch.

    Returns
    -------
    tuple
        Both as they are, or about 600 of them.

    """
    if len(times) <= _DRAWN:
        return times, values
    kept = set()
    stretches = _DRAWN // 2
    for number in range(stretches):
        first, end = (len(times) * (number + step) // stretches for step in (0, 1))
        finite = [place for place in range(first, end) if math.isfinite(values[place])]
        if finite:
            kept |= {min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)}
        else:
            kept.add(first)
    order = sorted(kept)
    return [times[place] for place in order], [values[place] for place in order]


def shares(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return sorted values, and for each the share in percent that is no larger."""
    found = sorted(values)
    return found, [100 * (number + 1) / len(found) for number in range(len(found))]


def median(values: Sequence[float]) -> float:
    """Return the middle one of the values, the lower of two."""
    return sorted(values)[(len(values) - 1) // 2]


def _range(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """Return what an axis spans: all values, and the range that it is to span."""
    low = min(values) if axis.low is None else min(axis.low, *values)
    high = max(values) if axis.high is None else max(axis.high, *values)
    # Of large numbers a small difference is lost in the axis.
    return low, max(high, low + axis.least_span, low + 1e-6 * max(abs(low), abs(high)))


def _describe(series: Series, form: Callable[[float], str]) -> str:
    found = [value for value in series.values if math.isfinite(value)]
    return (f'{series.label}: lowest {form(min(found))}, median {form(median(found))}, '
            f'highest {form(max(found))}')


