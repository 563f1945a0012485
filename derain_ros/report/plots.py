"""All plots, drawn with matplotlib as SVG that is legible in light and dark mode.

matplotlib is imported only when a plot is drawn. The same data gives the same bytes.
"""

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ('#0a5bb5', '#b8480a', '#1a7f37', '#7b3fd0', '#7d5400', '#b0277a')
"""Line colours on a light background; the style sheet of the page has the same ones."""

_TEXT, _GROUND, _LINE, _SOFT, _LOSS = '#1b1f24', '#ffffff', '#d0d7de', '#57606a', '#b3261e'
_DARK = dict(zip(
    (*COLOURS, _TEXT, _GROUND, _LINE, _SOFT, _LOSS),
    ('#6cb1ff', '#ffa657', '#56d364', '#d2a8ff', '#e3b341', '#ff9bce',
     '#e4e8ec', '#14181d', '#39424c', '#a3adb8', '#ff8a80'), strict=True))
_STYLE = ''.join((
    '<style>@media (prefers-color-scheme:dark){',
    *(f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
      for light, dark in _DARK.items() for part in ('fill', 'stroke')),
    '}</style>'))
_SETTINGS = {
    'svg.fonttype': 'none', 'svg.hashsalt': 'derain_ros', 'font.size': 13,
    'font.sans-serif': ['DejaVu Sans'], 'text.parse_math': False, 'text.color': _TEXT,
    'axes.labelcolor': _TEXT, 'xtick.labelcolor': _TEXT, 'ytick.labelcolor': _TEXT,
    'axes.edgecolor': _LINE, 'xtick.color': _LINE, 'ytick.color': _LINE, 'grid.color': _LINE,
    'xtick.major.size': 0, 'ytick.major.size': 0, 'xtick.minor.size': 0,
    'xtick.major.pad': 8, 'ytick.major.pad': 5,
    'axes.grid': True, 'axes.axisbelow': True, 'axes.xmargin': 0.01, 'lines.linewidth': 1.8,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.spines.left': False,
    'axes.titlelocation': 'left', 'axes.titlesize': 13, 'axes.titleweight': 'bold',
    'axes.formatter.useoffset': False, 'path.simplify_threshold': 0.5,
    'legend.frameon': False, 'legend.borderaxespad': 0, 'legend.columnspacing': 1.2,
    'legend.handlelength': 1.2, 'legend.fontsize': 12,
}
_DASHES = ('-', (0, (5, 2.5)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_INPUT, _BEFORE = {'color': _SOFT, 'linestyle': (0, (6, 4))}, {
    'marker': 'o', 'markerfacecolor': _GROUND, 'markeredgecolor': _TEXT, 'linestyle': 'none'}


@dataclass(frozen=True)
class Series:
    """A line of a plot; NaN leaves a gap.

    ``colour`` is an index into :data:`COLOURS`; ``dash`` is 0 for a solid line, 1 to 3 for dash
    patterns of further lines of the same colour.
    """

    label: str
    colour: int
    times: Sequence[float]
    values: Sequence[float]
    dash: int = 0


@dataclass(frozen=True)
class Axis:
    """An axis: name with unit, and the minimum range and span that it covers."""

    name: str
    low: float | None = None
    high: float | None = None
    least_span: float = 1e-6


@dataclass(frozen=True)
class SpeedRow:
    """A row of :func:`speed_plot`; times in ms, NaN if unknown.

    ``label`` has engine, model, precision and size; ``whole`` is the time from uint8 to uint8,
    ``network`` that of the network alone; ``ideal`` and ``layers`` are lower bounds of ``whole``.
    """

    label: str
    whole: float
    network: float = math.nan
    ideal: float = math.nan
    layers: float = math.nan

    @property
    def times(self) -> list[float]:
        """The times that are known, ms."""
        return [time for time in (self.whole, self.network, self.ideal, self.layers)
                if math.isfinite(time)]


def require() -> None:
    """Raise ModuleNotFoundError if matplotlib is missing, to fail before hours of work."""
    import matplotlib.style  # noqa: F401


def line_plot(x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Draw lines, each with a finite value, in one pair of axes, without a legend, as SVG."""
    def draw(figure: 'Figure') -> None:
        # Fixed axes, as an automatic layout takes twice as long.
        axes = figure.add_axes((0.13, 0.2, 0.85, 0.77))
        for one in series:
            known = [False, *map(math.isfinite, one.values), False]
            # A single value between two gaps is invisible as a line, so it gets a marker.
            alone = [place for place in range(len(one.values))
                     if known[place:place + 3] == [False, True, False]]
            axes.plot(one.times, one.values, color=COLOURS[one.colour], marker='o', markersize=4,
                      markevery=alone, linestyle=_DASHES[one.dash % 4])
        axes.set_xlabel(x.name)
        axes.set_ylabel(y.name)
        axes.yaxis.set_label_coords(-0.105, 0.5)
        axes.set_xlim(_span(x, [time for one in series for time in one.times]))
        low, high = _span(y, [value for one in series for value in one.values])
        spare = 0.04 * (high - low)
        axes.set_ylim(low - (spare if y.low is None else 0), high + spare)

    return _svg(480, 250, draw, layout=None)


def cost_plot(points: Sequence[tuple[str, float, float, int]], input_psnr: float) -> str:
    """Draw PSNR against cost on a logarithmic axis, as SVG.

    ``points`` are model, cost in kFLOP per pixel (above 0), PSNR in dB and index of the colour;
    ``input_psnr``, that of the rainy images in dB, is drawn as a line.
    """
    def draw(figure: 'Figure') -> None:
        axes = figure.subplots()
        costs = [cost for _, cost, _, _ in points]
        low, high = min(costs) / 2, max(costs) * 2
        _logarithmic(axes, low, high)
        axes.set(xlabel='kFLOP per pixel', ylabel='PSNR, dB')
        axes.axhline(input_psnr, **_INPUT)
        axes.margins(y=0.15)
        for name, cost, psnr, colour in points:
            axes.plot(cost, psnr, 'o', color=COLOURS[colour], markersize=9)
            left = math.log(cost / low) > 0.5 * math.log(high / low)
            axes.annotate(f'{shorten(name, 40)}, {psnr:.2f} dB', (cost, psnr),
                          (-9 if left else 9, 0), textcoords='offset points', va='center',
                          ha='right' if left else 'left')
        axes.annotate(f'rainy input, {input_psnr:.2f} dB', (high, input_psnr), (-4, -4),
                      textcoords='offset points', va='top', ha='right')

    return _svg(480, 270, draw)


def change_plot(rows: Sequence[tuple[str, float, float]], colour: int = 0) -> str:
    """Draw a row for each image, as SVG: name, PSNR of the input and of the result in dB.

    ``colour`` is the index of the colour of results that are not worse than the input.
    """
    def draw(figure: 'Figure') -> None:
        axes = _rows(figure, [shorten(name, 26) for name, _, _ in rows])
        for number, (_, before, after) in enumerate(rows):
            drawn = COLOURS[colour] if after >= before else _LOSS
            axes.plot([before, after], [number, number], color=drawn)
            axes.plot(before, number, **_BEFORE)
            axes.plot(after, number, 'o', color=drawn)
        axes.set_xlabel('PSNR, dB: ring rainy, dot derained')
        axes.margins(x=0.03)

    return _svg(480, 50 + 21 * len(rows), draw)


def time_plot(
    title: str, times: Sequence[float],
    panels: Sequence[tuple[Axis, Mapping[str, Sequence[float]]]], mark: tuple[float, str]
) -> str:
    """Draw panels above each other, as a stand-alone SVG file.

    ``times`` are in seconds, ascending, at least two; ``panels`` are y axes with their series by
    label, where NaN leaves a gap; ``mark`` is the time of a vertical line in seconds, and its
    label.
    """
    def draw(figure: 'Figure') -> None:
        minutes = times[-1] - times[0] > 240
        scale = 60 if minutes else 1
        figure.suptitle(title, x=0.01, ha='left', fontweight='bold')
        for axes, (axis, series) in zip(
                figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels,
                strict=True):
            for number, (label, values) in enumerate(series.items()):
                axes.plot([time / scale for time in times], values, label=label,
                          gid=f'line: {label}', color=COLOURS[number % len(COLOURS)])
            found = [value for values in series.values() for value in values]
            low, high = _span(axis, found)
            spare = 0.05 * (high - low)
            if axis.low is None:  # centre the values
                top = max(filter(math.isfinite, found), default=high)
                low, high = low - (high - top) / 2 - spare, high - (high - top) / 2
            axes.set_ylim(low, high + spare)
            axes.set_title(axis.name)
            axes.legend(loc='lower right', bbox_to_anchor=(1, 1.02), ncols=len(series))
            if times[0] < mark[0] < times[-1]:
                axes.axvline(mark[0] / scale, **_INPUT)
        if times[0] < mark[0] < times[-1]:
            figure.axes[0].annotate(
                mark[1], (mark[0] / scale, 0), (5, 5), xycoords=('data', 'axes fraction'),
                textcoords='offset points')
        axes.set_xlabel('minutes' if minutes else 'seconds')

    return _svg(820, 60 + 190 * len(panels), draw, title)


def speed_plot(rows: Sequence[SpeedRow], title: str) -> str:
    """Draw times of engines on a logarithmic axis, as a stand-alone SVG file."""
    def draw(figure: 'Figure') -> None:
        axes = _rows(figure, [shorten(row.label, 40) for row in rows])
        times = [time for row in rows for time in row.times]
        _logarithmic(axes, min(times) / 1.3, max(times) * 1.3)
        places = range(len(rows))
        axes.hlines(places, [min(row.times) for row in rows], [row.whole for row in rows], _SOFT)
        for name, label, style in (
                ('network', 'network alone', {**_BEFORE, 'markeredgecolor': COLOURS[0]}),
                ('whole', 'uint8 to uint8', {'marker': 'o', 'color': COLOURS[0]}),
                ('ideal', 'ideal floor', {'marker': '|', 'color': COLOURS[4]}),
                ('layers', 'layer by layer', {'marker': '|', 'color': COLOURS[1]})):
            axes.plot([getattr(row, name) for row in rows], places, label=label,
                      gid=f'{name} marks', **{
                          'linestyle': 'none', 'markeredgewidth': 2,
                          'markersize': 15 if style['marker'] == '|' else 8} | style)
        axes.set_xlabel('ms for a frame')
        figure.suptitle(title, x=0.01, ha='left', fontweight='bold')
        axes.legend(loc='lower right', bbox_to_anchor=(1, 1), ncols=4)

    return _svg(820, 110 + 26 * len(rows), draw, title)


def shorten(words: str, length: int) -> str:
    """Shorten a text at its beginning, as file names usually differ at the end."""
    return words if len(words) <= length else '…' + words[1 - length:]


def _svg(
    width: int, height: int, draw: Callable[['Figure'], None], title: str | None = None,
    layout: str | None = 'constrained',
) -> str:
    """Return a drawing as SVG; with a title it has a background, for a stand-alone file."""
    from matplotlib import style
    from matplotlib.figure import Figure

    sink = io.StringIO()
    # Ignore the user's matplotlibrc.
    with style.context(['default', _SETTINGS], after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # names with letters missing in the font
        figure = Figure((width / 72, height / 72), layout=layout)
        draw(figure)
        figure.savefig(
            sink, format='svg', transparent=title is None,
            metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
            | ({} if title is None else {'Title': title}))
    document = sink.getvalue()
    head, body = document[document.index('<svg'):].split('<defs>', 1)
    return f'{head}{_STYLE}<defs>{body}'.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")


def _rows(figure: 'Figure', labels: Sequence[str]) -> 'Axes':
    """Return axes with a row for each label, the first one on top."""
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis='y')
    return axes


def _logarithmic(axes: 'Axes', low: float, high: float) -> None:
    """Make the x axis logarithmic, with ticks at 1, 2 and 5, or at powers of ten if it is long."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_xscale('log')
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))


def _span(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis: all finite values, and the minimum range of the axis."""
    found = [value for value in values if math.isfinite(value)] or [0.0]
    low = min(found) if axis.low is None else min(axis.low, *found)
    high = max(found) if axis.high is None else max(axis.high, *found)
    # At large values, tick labels cannot show a span that is relatively tiny.
    return low, max(high, low + axis.least_span, low + 1e-6 * max(abs(low), abs(high)))
