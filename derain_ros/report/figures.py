"""The plots of the report, each with a description and a table of its values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median_low
from typing import Any

from derain_ros.report.cameras import CameraTakes
from derain_ros.report.comparisons import cost_of
from derain_ros.report.plots import Axis, Series, change_plot, cost_plot, line_plot
from derain_ros.report.runs import Entry, of_kind
from derain_ros.report.schemas import PERCENTILES
from derain_ros.report.tables import Form, Table, decimals
from derain_ros.text import printable

_ROWS, _PLOTTED = 24, 40

_PERCENT, _GAIN = decimals(1, ' %'), '{:+.2f} dB'.format


@dataclass(frozen=True)
class PlotFigure:
    """A plot with its legend, and what it shows in words and as a table.

    ``description`` is the alternative text of the plot; ``table`` holds the plotted values, unless
    the page shows them elsewhere.
    """

    title: str
    series: Sequence[Series]
    svg: str
    description: str
    table: Table | None = None


def lines(
    title: str, x: Axis, y: Axis, series: Sequence[Series], form: Form, table: Table | None = None
) -> list[PlotFigure]:
    """Return a line plot as a list of one figure, or an empty list without any series.

    Each series needs a finite value. ``form`` formats y; the default table is of the series.
    """
    if not series:
        return []
    described = '; '.join(_describe(one, form) for one in series)
    return [PlotFigure(title, series, line_plot(x, y, series),
                       f'{title}. {y.name} over {x.name}. {described}.',
                       table or Table(f'{title}: {y.name}', *_stretches(x, series, form)))]


def timing_figures(entries: Sequence[Entry]) -> list[PlotFigure]:
    """Return plots of latency, inference, dropped frames, CPU and memory of replayed bags."""
    replays = of_kind(entries, 'replay')
    time = Axis('time, s', 0.0, least_span=0.1)

    def frames(column: str) -> list[Series]:
        return [one for entry in replays for label, dash, found in _cameras(entry)
                if (one := _ordered(label, entry.colour, found.sent_s, getattr(found, column),
                                    dash))]

    def samples(column: str) -> list[Series]:
        return [one for entry in replays if (one := _ordered(
            entry.short, entry.colour, entry.run.runs[0].samples.time_s,
            getattr(entry.run.runs[0].samples, column)))]

    return [
        *_distribution(replays),
        *lines('Latency over time', time, Axis('latency, ms', 0.0, least_span=1.0),
               frames('latency_ms'), decimals(1, ' ms')),
        *lines('Inference over time', time, Axis('inference, ms', 0.0, least_span=1.0),
               frames('infer_ms'), decimals(1, ' ms')),
        *lines('Drops over time', time, Axis('frames lost so far', 0.0, least_span=4.0),
               list(_drops(replays)), decimals(0)),
        *lines('Processor over time', time, Axis('processor, % of a core', 0.0, least_span=4.0),
               samples('cpu_percent'), decimals(0)),
        *lines('Memory over time', time, Axis('resident memory, MiB', 0.0, least_span=4.0),
               samples('rss_mib'), decimals(0)),
    ]


def rain_figures(
    entries: Sequence[Entry], cameras: Sequence[CameraTakes]
) -> list[list[PlotFigure]]:
    """Return plots of rain intensity over time and, on the same axis, PSNR gain, by camera."""
    found = [_of_camera(camera) for camera in cameras]
    topics: dict[str, list[Series]] = {}
    for entry in of_kind(entries, 'replay'):
        for camera in entry.run.runs[0].cameras:
            times = [(sent, 100 * value) for sent, value in zip(
                camera.frames.sent_s, camera.frames.rain_intensity, strict=True)
                if value is not None]
            if times:
                topics.setdefault(camera.topic, []).append(Series(
                    entry.short, entry.colour, *zip(*sorted(times), strict=True)))
    found += [lines(f'{printable(topic)}, live: rain intensity',
                    Axis('time, s', 0.0, least_span=0.1),
                    Axis('rain intensity, %', 0.0, least_span=10.0), series, _PERCENT)
              for topic, series in topics.items()]
    return [figures for figures in found if figures]


def quality_figures(entries: Sequence[Entry]) -> tuple[list[PlotFigure], list[PlotFigure]]:
    """Return plots of quality against cost, and of PSNR by image, of ``derain evaluate`` runs."""
    costs, changes = [], []
    for _, group in groupby(of_kind(entries, 'pairs'), key=lambda entry: id(entry.run)):
        models = list(group)
        first = models[0]
        title = first.name if len({id(one.run) for one in of_kind(entries, 'pairs')}) > 1 else ''
        points = [(one.model, cost, one.data.summary.psnr, one.colour) for one in models
                  if (cost := cost_of(one)) and one.data.summary.psnr is not None]
        rainy = first.data.summary.input_psnr
        if points and rainy is not None:
            described = '; '.join(f'{name}: {cost:g} kFLOP per pixel, {psnr:.2f} dB'
                                  for name, cost, psnr, _ in points)
            costs.append(PlotFigure(
                title, (), cost_plot(points, rainy),
                f'PSNR against cost. {described}; rainy input: {rainy:.2f} dB'))
        images = sorted(first.data.images, key=lambda one: one.psnr)
        worse = sum(one.psnr < one.input_psnr for one in images)
        if images:
            shown = '' if len(images) <= _PLOTTED else f', the worst {_PLOTTED} of {len(images)}'
            changes.append(PlotFigure(
                f'{first.short}{shown}', (), change_plot(
                    [(printable(one.name), one.input_psnr, one.psnr)
                     for one in images[:_PLOTTED]], first.colour),
                f'PSNR of each picture, rainy and derained. {len(images)} pictures, {worse} of '
                'them made worse; the figures are in the table below'))
    return costs, changes


def _of_camera(camera: CameraTakes) -> list[PlotFigure]:
    rain, gain = [], []
    # Takes of the same colour differ in their dash pattern.
    for _, group in groupby(sorted(camera.takes, key=lambda take: take.entry.colour),
                            key=lambda take: take.entry.colour):
        for dash, take in enumerate(group):
            frames, label, colour = take.camera.frames, take.entry.short, take.entry.colour
            times = [(time - camera.start) / 1e9 for time in frames.time]
            gains = [None if stamp not in take.psnr else
                     take.psnr[stamp][1] - take.psnr[stamp][0] for stamp in frames.stamp]
            rain.append(_ordered(label, colour, times, [
                100 * value for value in frames.rain_intensity], dash))
            gain.append(_ordered(label, colour, times, gains, dash))
    rain, gain = list(filter(None, rain)), list(filter(None, gain))
    times = [time for one in rain for time in one.times] or [0.0]
    axis = Axis('time, s', min(times), max(times) if max(times) > min(times) else min(times) + 1.0)
    topic = printable(camera.topic)
    lowest = min((value for one in gain for value in one.values if math.isfinite(value)),
                 default=0.0)
    return [
        *lines(f'{topic}{" (ground truth)" if camera.is_truth else ""}: rain intensity', axis,
               Axis('rain intensity, %', 0.0, least_span=10.0), rain, _PERCENT),
        *lines(f'{topic}: PSNR gain', axis, Axis(
            'PSNR gain, dB', min(0.0, lowest), least_span=2.0), gain, _GAIN)]


def _cameras(entry: Entry) -> Iterable[tuple[str, int, Any]]:
    """Yield label, dash pattern number, and frames of each camera."""
    cameras = entry.run.runs[0].cameras
    for number, camera in enumerate(cameras):
        name = f', {printable(camera.camera or camera.topic)}' if len(cameras) > 1 else ''
        yield entry.short + name, number, camera.frames


def _distribution(replays: Sequence[Entry]) -> list[PlotFigure]:
    series, rows = [], []
    for entry in replays:
        for label, dash, frames in _cameras(entry):
            found = sorted(value for value in frames.latency_ms if value is not None)
            if found:
                shares = [100 * (number + 1) / len(found) for number in range(len(found))]
                series.append(Series(label, entry.colour, [found[0], *found], [0, *shares], dash))
                rows.append([label, *(
                    f'{found[math.ceil(part * len(found) / 100 - 1e-9) - 1]:.1f}'
                    for part in (50, 90, 95, 99, 100))])
    title, y = 'Distribution of latency', Axis('share of frames, %', 0.0, 100.0)
    return lines(title, Axis('latency, ms', 0.0), y, series, decimals(0, ' %'), Table(
        f'{title}: {y.name}', ('run', *(f'{name}, ms' for name in PERCENTILES)), rows))


def _drops(replays: Sequence[Entry]) -> Iterable[Series]:
    """Yield the cumulative number of frames that were sent but never received, by camera."""
    for entry in replays:
        for label, dash, frames in _cameras(entry):
            lost, times, counts = 0, [], []
            for time, gone in sorted(
                    (time, value is None)
                    for time, value in zip(frames.sent_s, frames.latency_ms, strict=True)):
                lost += gone
                times.append(time)
                counts.append(lost)
            if times:
                yield Series(label, entry.colour, times, counts, dash)


def _ordered(
    label: str, colour: int, times: Sequence[float], values: Sequence[float | None], dash: int = 0
) -> Series | None:
    """Return a series sorted by time, with gaps for None; None if no value is known."""
    order = sorted(range(len(times)), key=times.__getitem__)
    drawn = [math.nan if values[place] is None else values[place] for place in order]
    if not any(map(math.isfinite, drawn)):
        return None
    return Series(label, colour, [times[place] for place in order], drawn, dash)


def _stretches(
    x: Axis, series: Sequence[Series], form: Form
) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return heads and rows of a table of values; if too many, median and highest by interval."""
    times = sorted({time for one in series for time in one.times})
    short = len(times) <= _ROWS
    edges = times if short else [
        times[0] + (times[-1] - times[0]) * number / _ROWS for number in range(_ROWS)]
    names = ('',) if short else (', median', ', highest')
    heads = [x.name if short else f'{x.name}, from',
             *(one.label + name for one in series for name in names)]
    rows = []
    for start, end in pairwise([*edges, math.inf]):
        cells: list[str] = []
        for one in series:
            found = [value for time, value in zip(one.times, one.values, strict=True)
                     if start <= time < end and math.isfinite(value)]
            told = [form(median_low(found)), form(max(found))] if found else ['–'] * 2
            cells += told[-len(names):]
        rows.append((f'{start:.2f}', *cells))
    return heads, rows


def _describe(series: Series, form: Form) -> str:
    found = [value for value in series.values if math.isfinite(value)]
    return (f'{series.label}: lowest {form(min(found))}, median {form(median_low(found))}, '
            f'highest {form(max(found))}')
