"""A picture of how fast engines are: times of each, and the least that they could be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from derain_ros.report.svg_plots import dot, line, log_ticks, shorten, svg, text

_LEFT, _RIGHT, _TOP, _BOTTOM, _ROW = 250, 700, 34, 46, 26
_STYLE = """<style>
svg { background: #fff; font: 12px sans-serif; max-width: 1000px }
.grid { stroke: #ddd } .span { stroke: #9ab; stroke-width: 2 }
.floor { stroke: #c40; stroke-width: 2 } .lower { stroke: #e90; stroke-width: 2 }
.point { fill: #06c } .ring { fill: #fff; stroke: #06c; stroke-width: 2 }
</style>"""
_LEGEND = {'ring': 'network alone', 'point': 'uint8 to uint8', 'lower': 'ideal floor',
           'floor': 'layer by layer'}


@dataclass(frozen=True)
class SpeedRow:
    """One line of the picture; times in ms, NaN where there is none.

    Attributes
    ----------
    label
        Engine, model, precision and size.
    whole, network
        From uint8 to uint8, and the network alone.
    ideal, layers
        Floors of the former.

    """

    label: str
    whole: float
    network: float = math.nan
    ideal: float = math.nan
    layers: float = math.nan

    @property
    def times(self) -> list[float]:
        """Those that there are."""
        times = (self.whole, self.network, self.ideal, self.layers)
        return [time for time in times if math.isfinite(time)]


def speed_plot(rows: Sequence[SpeedRow], title: str) -> str:
    """Draw times on a logarithmic axis, as an SVG file of its own.

    Parameters
    ----------
    rows
        At least one.
    title
        Such as the name of the GPU.

    """
    times = [time for row in rows for time in row.times]
    low, high = math.log10(min(times) / 1.3), math.log10(max(times) * 1.3)

    def x_of(time: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (math.log10(time) - low) / (high - low)

    height = _TOP + _ROW * len(rows) + _BOTTOM
    parts = [text(8, 20, shorten(title, 34), 'start'), *_legend()]
    for tick in log_ticks(low, high):
        parts.append(line(x_of(tick), _TOP, x_of(tick), height - _BOTTOM, 'grid'))
        parts.append(text(x_of(tick), height - _BOTTOM + 18, f'{tick:g}', 'middle'))
    parts.append(text((_LEFT + _RIGHT) / 2, height - 8, 'ms for a frame', 'middle'))
    for number, row in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        parts.append(text(_LEFT - 10, y + 4, shorten(row.label, 36), 'end'))
        parts.append(line(x_of(min(row.times)), y, x_of(row.whole), y, 'span'))
        for time, style in ((row.ideal, 'lower'), (row.layers, 'floor')):
            if math.isfinite(time):
                parts.append(line(x_of(time), y - 9, x_of(time), y + 9, style))
        for time, style in ((row.network, 'ring'), (row.whole, 'point')):
            if math.isfinite(time):
                parts.append(dot(x_of(time), y, 5, style))
    described = '; '.join(f'{row.label}: {row.whole:.2f} ms' for row in rows)
    drawn = svg(height, 'Time for a frame', f'{title}. {described}', parts)
    return drawn.replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        '<title>', f'{_STYLE}<title>', 1)


def _legend() -> list[str]:
    parts = []
    for number, (style, words) in enumerate(_LEGEND.items()):
        x = _LEFT + 10 + 118 * number
        parts.append(dot(x, 16, 5, style) if style in ('ring', 'point')
                     else line(x, 8, x, 24, style))
        parts.append(text(x + 10, 20, words, 'start'))
    return parts
