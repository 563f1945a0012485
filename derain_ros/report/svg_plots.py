"""Plots as inline SVG: colours come from the classes of the page around them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 16, 48
_LABEL_GAP = 17
_CHARACTER = 7.5
_ROW = 22


@dataclass(frozen=True)
class CostPoint:
    """A model in the plot of quality against cost: kFLOP per pixel, and PSNR in dB."""

    label: str
    kiloflops: float
    psnr: float


def cost_plot(points: Sequence[CostPoint], input_psnr: float) -> str:
    """Draw PSNR against cost on a logarithmic axis.

    Parameters
    ----------
    points
        At least one; costs above 0.
    input_psnr
        PSNR of the rainy pictures, drawn as a line.

    Returns
    -------
    str
        One ``<svg>`` element.

    """
    costs = [point.kiloflops for point in points]
    low, high = math.log10(min(costs) / 2), math.log10(max(costs) * 2)
    values = [*(point.psnr for point in points), input_psnr]
    ticks = _ticks(min(values), max(values), 6)
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x_of(cost: float) -> float:
        return _LEFT + plot_width * (math.log10(cost) - low) / (high - low)

    def y_of(psnr: float) -> float:
        return _TOP + plot_height * (ticks[-1] - psnr) / (ticks[-1] - ticks[0])

    parts = []
    for tick in ticks:
        y = y_of(tick)
        parts.append(line(_LEFT, y, _WIDTH - _RIGHT, y, 'grid'))
        parts.append(text(_LEFT - 8, y + 4, f'{tick:g}', 'end'))
    for tick in log_ticks(low, high):
        x = x_of(tick)
        parts.append(line(x, _TOP, x, _HEIGHT - _BOTTOM, 'grid'))
        parts.append(text(x, _HEIGHT - _BOTTOM + 18, f'{tick:g}', 'middle'))
    parts.append(text(_LEFT + plot_width / 2, _HEIGHT - 8, 'kFLOP per pixel', 'middle'))
    y = y_of(input_psnr)
    parts.append(line(_LEFT, y, _WIDTH - _RIGHT, y, 'input'))
    # Beside the right edge, on the side of the line where there is room.
    above = y - _TOP > 2 * _LABEL_GAP
    parts.append(text(_WIDTH - _RIGHT - 4, y - 6 if above else y + 16,
                      f'rainy input, {input_psnr:.2f} dB', 'end'))
    last = -math.inf
    for point in sorted(points, key=lambda point: -point.psnr):
        x, y = x_of(point.kiloflops), y_of(point.psnr)
        label = f'{shorten(point.label, 40)}, {point.psnr:.2f} dB'
        fits = x + 10 + _CHARACTER * len(label) < _WIDTH
        last = max(y + 4, last + _LABEL_GAP)
        parts.append(dot(x, y, 6, 'point'))
        parts.append(text(x + 11 if fits else x - 11, last, label, 'start' if fits else 'end'))
    described = '; '.join(
        f'{point.label}: {point.kiloflops:g} kFLOP per pixel, {point.psnr:.2f} dB'
        for point in points)
    return svg(_HEIGHT, 'PSNR against cost',
               f'{described}; rainy input: {input_psnr:.2f} dB', parts)


def change_plot(rows: Sequence[tuple[str, float, float]]) -> str:
    """Draw a row for each picture: PSNR of the input, and of the result.

    Parameters
    ----------
    rows
        Name, PSNR before and PSNR after in dB; at least one.

    Returns
    -------
    str
        One ``<svg>`` element.

    """
    left = _LEFT + 150
    height = _ROW * len(rows) + _BOTTOM + _TOP
    ticks = _ticks(min(min(row[1:]) for row in rows), max(max(row[1:]) for row in rows), 8)

    def x_of(psnr: float) -> float:
        return left + (_WIDTH - _RIGHT - left) * (psnr - ticks[0]) / (ticks[-1] - ticks[0])

    parts = []
    for tick in ticks:
        x = x_of(tick)
        parts.append(line(x, _TOP, x, height - _BOTTOM, 'grid'))
        parts.append(text(x, height - _BOTTOM + 18, f'{tick:g}', 'middle'))
    parts.append(text((left + _WIDTH - _RIGHT) / 2, height - 8,
                      'PSNR, dB: ring rainy, dot derained', 'middle'))
    for number, (name, before, after) in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        style = 'gain' if after >= before else 'loss'
        parts.append(text(left - 12, y + 4, shorten(name, 26), 'end'))
        parts.append(line(x_of(before), y, x_of(after), y, style))
        parts.append(dot(x_of(before), y, 4.5, 'ring'))
        parts.append(dot(x_of(after), y, 5, 'point' if after >= before else 'bad'))
    worse = sum(after < before for _, before, after in rows)
    return svg(height, 'PSNR of each picture, rainy and derained',
               f'{len(rows)} pictures, {worse} of them made worse; the figures stand in the '
               'table below', parts)


def svg(height: float, title: str, description: str, parts: Sequence[str]) -> str:
    """Return an ``<svg>`` element, 720 wide, that says in words what it shows."""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(f"{title}. {description}")}">'
        f'<title>{escape(title)}</title><desc>{escape(description)}</desc>{"".join(parts)}</svg>')


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """Return a line of a class of the page."""
    return (f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}">'
            '</line>')


def dot(x: float, y: float, radius: float, style: str) -> str:
    """Return a disc of a class of the page."""
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"></circle>'


def text(x: float, y: float, words: str, anchor: str) -> str:
    """Return a text; ``anchor`` is ``start``, ``middle`` or ``end``."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def shorten(words: str, length: int) -> str:
    """Return the end of a text, where names of files differ."""
    return words if len(words) <= length else '…' + words[1 - length:]


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers that enclose a range, at least two."""
    span = max(high - low, 1.0)
    step = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10):
        if span / (step * factor) <= most:
            step *= factor
            break
    first, last = math.floor(low / step), math.ceil(high / step)
    if first == last:
        last += 1
    return [round(number * step, 9) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between two exponents."""
    factors = (1, 2, 5) if high - low < 3 else (1,)
    found = [
        factor * 10.0 ** exponent
        for exponent in range(math.floor(low), math.ceil(high) + 1) for factor in factors
    ]
    return [tick for tick in found if low <= math.log10(tick) <= high]
