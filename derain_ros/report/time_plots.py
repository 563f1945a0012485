"""Figures over time as an SVG file of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _PANEL = 820, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 34, 24
_HEAD, _FOOT = 36, 22
_COLOURS = ('#1f6fb4', '#c8581b', '#2e8b57', '#8757b0')
_STYLE = """
text{font:12px system-ui,sans-serif;fill:#333}
.title{font-size:16px;font-weight:600}.name{font-weight:600}
.grid{stroke:#e2e2e2}.mark{stroke:#999;stroke-dasharray:4 4}
polyline{fill:none;stroke-width:1.6;stroke-linejoin:round}
"""


@dataclass(frozen=True)
class Panel:
    """Series that share an axis.

    Attributes
    ----------
    name
        What it shows, with the unit.
    series
        Values by label, one per point in time; NaN leaves a gap.
    from_zero
        The axis begins at 0.
    least_span
        The axis spans at least this much, so that noise does not fill it.

    """

    name: str
    series: Mapping[str, Sequence[float]]
    from_zero: bool = True
    least_span: float = 1.0


def time_plot(
    title: str, times: Sequence[float], panels: Sequence[Panel], mark: tuple[float, str]
) -> str:
    """Draw panels above each other.

    Parameters
    ----------
    title
        Of the whole.
    times
        Seconds, ascending, at least two.
    panels
        At least one.
    mark
        Time of a vertical line, and what it stands for.

    Returns
    -------
    str
        An SVG document.

    """
    height = _HEAD + _PANEL * len(panels) + _FOOT
    minutes = times[-1] - times[0] > 240
    scale = 60.0 if minutes else 1.0
    parts = [f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>']
    for number, panel in enumerate(panels):
        parts += _panel(panel, [time / scale for time in times], _HEAD + _PANEL * number,
                        (mark[0] / scale, mark[1] if number == 0 else ''))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, height - 8,
                       'minutes' if minutes else 'seconds', 'middle'))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img"><title>{escape(title)}</title>'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'{"".join(parts)}</svg>\n')


def _panel(
    panel: Panel, times: Sequence[float], top: float, mark: tuple[float, str]
) -> list[str]:
    bottom = top + _PANEL - _BOTTOM
    values = [value for series in panel.series.values() for value in series
              if math.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    if panel.from_zero:
        low = min(low, 0.0)
    if high - low < panel.least_span:
        spare = panel.least_span - (high - low)
        high += spare if panel.from_zero else spare / 2
        low -= 0 if panel.from_zero else spare / 2
    rows = ticks(low, high, 4)

    def x_of(time: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (time - times[0]) / (times[-1] - times[0])

    def y_of(value: float) -> float:
        return bottom - (bottom - top - _TOP) * (value - rows[0]) / (rows[-1] - rows[0])

    parts = [f'<text class="name" x="{_LEFT}" y="{top + 22:g}">{escape(panel.name)}</text>']
    for tick in rows:
        parts.append(_line(_LEFT, y_of(tick), _WIDTH - _RIGHT, y_of(tick), 'grid'))
        parts.append(_text(_LEFT - 8, y_of(tick) + 4, f'{tick:g}', 'end'))
    for tick in ticks(times[0], times[-1], 10):
        if times[0] <= tick <= times[-1]:
            parts.append(_text(x_of(tick), bottom + 16, f'{tick:g}', 'middle'))
    if times[0] < mark[0] < times[-1]:
        parts.append(_line(x_of(mark[0]), top + _TOP, x_of(mark[0]), bottom, 'mark'))
        parts.append(_text(x_of(mark[0]) + 5, bottom - 6, mark[1], 'start'))
    legend = _WIDTH - _RIGHT
    for (label, series), colour in reversed(
            list(zip(panel.series.items(), _COLOURS, strict=False))):
        legend -= 6.6 * len(label) + 30
        parts.append(f'<rect x="{legend:g}" y="{top + 12:g}" width="12" height="12" '
                     f'fill="{colour}"/>')
        parts.append(_text(legend + 17, top + 22, label, 'start'))
        for points in unbroken(times, series):
            path = ' '.join(f'{x_of(time):.1f},{y_of(value):.1f}' for time, value in points)
            parts.append(f'<polyline stroke="{colour}" points="{path}"/>')
    return parts


def unbroken(
    times: Sequence[float], series: Sequence[float]
) -> list[list[tuple[float, float]]]:
    """Split a series at its gaps, which are NaN."""
    runs: list[list[tuple[float, float]]] = [[]]
    for time, value in zip(times, series, strict=True):
        if math.isfinite(value):
            runs[-1].append((time, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers that enclose a range, at least two and about ``most``."""
    span = max(high - low, 1e-9)
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 9) for number in range(first, max(last, first + 1) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
