"""Timing in the report: latency, losses, processor and memory of replayed bags."""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from derain_ros.report.plot_figures import PlotFigure, plot_figure
from derain_ros.report.plots import Axis, Numbers, Series, shares
from derain_ros.report.runs import Entry, of_kind
from derain_ros.report.schemas import COUNTS
from derain_ros.report.tables import decimals, plain_table, share

_PERCENTILES = ('p50', 'p90', 'p95', 'p99', 'max')
_ONE = decimals(1)


def timing_section(numbers: Numbers, entries: Sequence[Entry]) -> Iterable[str]:
    """Yield the section; nothing where no bag was replayed."""
    replays = of_kind(entries, 'replay')
    if not replays:
        return
    yield '<h2 id="timing">Timing</h2>'
    factors = ' and '.join(dict.fromkeys(
        f'{entry.run["runs"][0]["factor"]:g}' for entry in replays))
    yield (f'<p class="soft">Played at {factors} times the recorded rate. Latency is from the '
           'publisher to the derained image in the listener, age from the header stamp on.</p>')
    figures = [
        *_distribution(replays),
        *_over_time(replays, 'latency_ms', 'Latency over time', 'latency, ms'),
        *_over_time(replays, 'infer_ms', 'Inference over time', 'inference, ms'),
        *_drops(replays),
        *_samples(replays, 'cpu_percent', 'Processor over time', 'processor, % of a core'),
        *_samples(replays, 'rss_mib', 'Memory over time', 'resident memory, MiB'),
    ]
    if figures:
        yield '<div class="plots">'
        for figure in figures:
            yield from plot_figure(numbers, figure)
        yield '</div>'
    yield from plain_table(
        'Latency and age of each camera', (
            'run, camera', 'sent', 'received', 'loss', 'offered, 1/s', 'got, 1/s',
            *(f'latency {name}, ms' for name in _PERCENTILES), 'age p50, ms', 'age p95, ms'),
        (_camera_row(entry, camera) for entry in replays
         for camera in entry.run['runs'][0]['cameras']))
    yield from plain_table(
        'What the node itself counted', (
            'run, camera', *(name.replace('_', ' ') for name in COUNTS)),
        ((_name(entry, camera), *(_told(camera.get('counts', {}).get(name), str)
                                  for name in COUNTS))
         for entry in replays for camera in entry.run['runs'][0]['cameras']))
    yield from _factors(replays)


def _camera_row(entry: Entry, camera: dict) -> Sequence[str]:
    latency, age = camera['latency_ms'], camera['age_ms']
    return (_name(entry, camera), str(camera['sent']),
            str(camera['received']), _told(camera['loss'], share),
            _told(camera['offered_fps'], _ONE), _told(camera['fps'], _ONE),
            *(_told(latency[name], _ONE) for name in _PERCENTILES),
            _told(age['p50'], _ONE), _told(age['p95'], _ONE))


def _name(entry: Entry, camera: dict) -> str:
    return f'{entry.letter}: {camera["camera"] or camera["topic"]}'


def _factors(replays: Sequence[Entry]) -> Iterable[str]:
    """Yield what happened at other rates than the bag's own."""
    searched = [entry for entry in replays if len(entry.run['runs']) > 1 or entry.run['search']]
    if not searched:
        return
    yield '<h3>Faster than recorded</h3>'
    for entry in searched:
        search = entry.run['search']
        if search:
            highest = search['highest_factor']
            found = ('No factor was sustained' if highest is None else
                     f'It keeps up with {highest:g} times the recorded rate'
                     + ('' if search['highest_fps'] is None
                        else f' ({search["highest_fps"]:.1f} frames/s)'))
            yield (f'<p><b>{escape(entry.short)}</b>: {escape(found)}, '
                   f'with a loss of at most {share(search["loss_limit"])}.</p>')
    yield from plain_table(
        'Runs by factor', ('run', 'factor', 'sent', 'received', 'loss', 'frames/s',
                           'worst latency p95, ms', 'processor, %', 'memory, MiB'),
        ((entry.short, f'{run["factor"]:g}', str(run['sent']), str(run['received']),
          _told(run['loss'], share), _told(run['fps'], _ONE),
          _told(max((camera['latency_ms']['p95'] for camera in run['cameras']
                     if camera['latency_ms']['p95'] is not None), default=None), _ONE),
          _told(run['cpu_percent'], _ONE), _told(run['rss_mib']['max'], '{:.0f}'.format))
         for entry in searched for run in entry.run['runs']))
    tried = [(entry.short, f'{one["factor"]:g}', _told(one['loss'], share),
              'yes' if one['sustained'] else 'no')
             for entry in searched if entry.run['search']
             for one in entry.run['search']['tried']]
    if tried:
        yield '<details><summary>Factors tried</summary>'
        yield from plain_table('Factors tried', ('run', 'factor', 'loss', 'kept up'), tried)
        yield '</details>'


def _told(value: float | None, form: Callable[[float], str]) -> str:
    return '–' if value is None else form(value)


def _cameras(entry: Entry) -> Iterable[tuple[str, int, dict]]:
    """Yield label, number of the dash, and camera."""
    cameras = entry.run['runs'][0]['cameras']
    for number, camera in enumerate(cameras):
        name = f', {camera["camera"] or camera["topic"]}' if len(cameras) > 1 else ''
        yield entry.short + name, number, camera['frames']


def _distribution(replays: Sequence[Entry]) -> list[PlotFigure]:
    series = []
    for entry in replays:
        for label, dash, frames in _cameras(entry):
            found = [value for value in frames['latency_ms'] if value is not None]
            if found:
                values, parts = shares(found)
                series.append(Series(label, entry.colour, [values[0], *values], [0, *parts],
                                     dash))
    if not series:
        return []
    told = [[one.label, *(f'{_at(one, part):.1f}' for part in (50, 90, 95, 99, 100))]
            for one in series]
    return [PlotFigure('Distribution of latency', Axis('latency, ms', 0.0), Axis(
        'share of frames, %', 0.0, 100.0), series, '{:.0f} %'.format,
        ('run', *(f'{name}, ms' for name in _PERCENTILES)), told)]


def _at(series: Series, part: float) -> float:
    """Return the value that ``part`` percent do not exceed."""
    return next(time for time, value in zip(series.times, series.values, strict=True)
                if value >= part - 1e-9)


def _over_time(replays: Sequence[Entry], column: str, title: str, name: str) -> list[PlotFigure]:
    series = []
    for entry in replays:
        for label, dash, frames in _cameras(entry):
            values = [math.nan if value is None else value for value in frames[column]]
            if any(map(math.isfinite, values)):
                series.append(_ordered(label, entry.colour, frames['sent_s'], values, dash))
    return [PlotFigure(title, Axis('time, s', 0.0, least_span=0.1), Axis(
        name, 0.0, least_span=1.0), series, '{:.1f} ms'.format)] if series else []


def _drops(replays: Sequence[Entry]) -> list[PlotFigure]:
    """Sum up the frames that were sent and never came back."""
    series = []
    for entry in replays:
        for label, dash, frames in _cameras(entry):
            order = sorted(range(len(frames['sent_s'])), key=lambda place: frames['sent_s'][place])
            lost, counts = 0, []
            for place in order:
                lost += frames['latency_ms'][place] is None
                counts.append(lost)
            if counts:
                series.append(Series(label, entry.colour,
                                     [frames['sent_s'][place] for place in order], counts, dash))
    return [PlotFigure('Drops over time', Axis('time, s', 0.0, least_span=0.1), Axis(
        'frames lost so far', 0.0, least_span=4.0), series, '{:.0f}'.format)] if series else []


def _samples(
    replays: Sequence[Entry], column: str, title: str, name: str
) -> list[PlotFigure]:
    series = []
    for entry in replays:
        samples = entry.run['runs'][0]['samples']
        values = [math.nan if value is None else value for value in samples[column]]
        if any(map(math.isfinite, values)):
            series.append(_ordered(entry.short, entry.colour, samples['time_s'], values, 0))
    return [PlotFigure(title, Axis('time, s', 0.0, least_span=0.1), Axis(
        name, 0.0, least_span=4.0), series, '{:.0f}'.format)] if series else []


def _ordered(
    label: str, colour: int, times: Sequence[float], values: Sequence[float], dash: int
) -> Series:
    order = sorted(range(len(times)), key=lambda place: times[place])
    return Series(label, colour, [times[place] for place in order],
                  [values[place] for place in order], dash)
