"""Rain over time in the report, and what deraining gained on the same axis."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from derain_ros.report.camera_takes import CameraTakes
from derain_ros.report.plot_figures import PlotFigure, plot_figure
from derain_ros.report.plots import Axis, Numbers, Series
from derain_ros.report.runs import Entry, of_kind

_PERCENT = '{:.1f} %'.format
_GAIN = '{:+.2f} dB'.format


def rain_section(
    numbers: Numbers, entries: Sequence[Entry], cameras: Sequence[CameraTakes]
) -> Iterable[str]:
    """Yield the section; nothing where no run tells of rain."""
    columns = [figures for figures in map(_of_camera, cameras) if figures]
    columns += [[figure] for figure in _replayed(entries)]
    if not columns:
        return
    yield '<h2 id="rain">Rain over time</h2>'
    yield ('<p class="soft">Rain intensity is what the node publishes: 0 is dry, 100 % a '
           'downpour. The gain is PSNR after deraining less PSNR of the rainy frame; below 0 the '
           'frame was made worse.</p><div class="plots">')
    for figures in columns:
        yield '<div>'
        for figure in figures:
            yield from plot_figure(numbers, figure)
        yield '</div>'
    yield '</div>'


def _of_camera(camera: CameraTakes) -> list[PlotFigure]:
    start = camera.start
    rain, gain = [], []
    # Takes of one colour are told apart by their dashes.
    for _, group in groupby(sorted(camera.takes, key=lambda take: take.entry.colour),
                            key=lambda take: take.entry.colour):
        for dash, take in enumerate(group):
            frames, label = take.camera['frames'], take.entry.short
            order = sorted(range(len(frames['time'])), key=lambda place: frames['time'][place])
            if not order:
                continue
            times = [(frames['time'][place] - start) / 1e9 for place in order]
            rain.append(Series(label, take.entry.colour, times, [
                100 * frames['rain_intensity'][place] for place in order], dash))
            gains = [math.nan] * len(order)
            for number, place in enumerate(order):
                before, after = take.psnr.get(frames['stamp'][place], (math.nan, math.nan))
                gains[number] = after - before
            if any(map(math.isfinite, gains)):
                gain.append(Series(label, take.entry.colour, times, gains, dash))
    if not rain:
        return []
    end = max(time for one in rain for time in one.times)
    begin = min(time for one in rain for time in one.times)
    axis = Axis('time, s', begin, end if end > begin else begin + 1.0)
    truth = ' (the truth)' if camera.is_truth else ''
    found = [PlotFigure(f'{camera.topic}{truth}: rain intensity', axis,
                    Axis('rain intensity, %', 0.0, least_span=10.0), rain, _PERCENT)]
    if gain:
        lowest = min(0.0, *(value for one in gain for value in one.values if value == value))
        found.append(PlotFigure(f'{camera.topic}: PSNR gain', axis,
                            Axis('PSNR gain, dB', lowest, least_span=2.0), gain, _GAIN))
    return found


def _replayed(entries: Sequence[Entry]) -> Iterable[PlotFigure]:
    """Yield rain as the node told it while bags were replayed, by topic."""
    topics: dict[str, list[Series]] = {}
    for entry in of_kind(entries, 'replay'):
        for camera in entry.run['runs'][0]['cameras']:
            frames = camera['frames']
            found = sorted(
                (time, 100 * value) for time, value in zip(
                    frames['sent_s'], frames['rain_intensity'], strict=True)
                if value is not None)
            if found:
                times, values = zip(*found, strict=True)
                topics.setdefault(camera['topic'], []).append(
                    Series(entry.short, entry.colour, times, values))
    for topic, series in topics.items():
        yield PlotFigure(f'{topic}, live: rain intensity', Axis('time, s', 0.0, least_span=0.1),
                     Axis('rain intensity, %', 0.0, least_span=10.0), series, _PERCENT)
