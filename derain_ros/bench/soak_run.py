"""The node under full load for a long time: whether anything grows."""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TextIO

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.process_figures import ProcessFigures, process_figures
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream import even_plan
from derain_ros.bench.stream_statistics import growth, percentile, slope
from derain_ros.live.listener import CAMERA, COUNTS, number
from derain_ros.live.live_run import LiveRun, live_run
from derain_ros.live.played import PlayedClip
from derain_ros.report.plots import Panel, require, time_plot

WARM_UP_SECONDS = 60.0
"""What grows in the first minute is caches and pools that fill."""

MEMORY_BAR = 5.0
_IMAGE = f'{CAMERA}/derained/image'


@dataclass(frozen=True)
class SoakSample:
    """The node at one moment, and what came from it since the sample before.

    Attributes
    ----------
    seconds
        Since the first sample.
    rss, pss, anonymous
        Memory in MiB, as in :class:`derain_ros.bench.process_figures.ProcessFigures`.
    threads, descriptors
        How many.
    cpu
        CPU time since the last sample, percent of one core.
    fps
        Images received per second.
    age_p50, age_p95, age_p99
        Milliseconds from stamp to arrival; NaN if no image came.
    received, published, dropped, failed, idle
        Counts of the node so far, by its newest report.

    """

    seconds: float
    rss: float
    pss: float
    anonymous: float
    threads: int
    descriptors: int
    cpu: float
    fps: float
    age_p50: float
    age_p95: float
    age_p99: float
    received: float
    published: float
    dropped: float
    failed: float
    idle: float


class _Recorder:
    """Takes a sample every now and then, and writes it down at once."""

    def __init__(self, run: LiveRun, sink: TextIO, every: float):
        self.samples: list[SoakSample] = []
        self._run = run
        self._every = every
        self._sink = sink
        self._writer = csv.DictWriter(sink, [field.name for field in fields(SoakSample)])
        self._writer.writeheader()
        self._due = 0.0
        self._last: ProcessFigures | None = None

    def __call__(self, _begins_or_ends: bool) -> None:
        if time.monotonic() < self._due:
            return
        if self._last is None:
            self._due = time.monotonic()
        self._due += self._every
        now = process_figures(self._run.pid)
        before, self._last = self._last, now
        images = [found for found in self._run.listener.drain() if found.topic == _IMAGE]
        if before is None:  # the first one looks back on nothing
            self._start = now.time
            return
        ages = [(found.time - found.stamp) / 1e6 for found in images]
        values = self._run.listener.values(f'/derain: {CAMERA.strip("/")}')
        passed = max(now.time - before.time, 1) / 1e9
        sample = SoakSample(
            seconds=round((now.time - self._start) / 1e9, 2),
            **{key: round(getattr(now, key), 2) for key in ('rss', 'pss', 'anonymous')},
            threads=now.threads, descriptors=now.descriptors,
            cpu=round(100 * (now.cpu - before.cpu) / passed, 1),
            fps=round(len(images) / passed, 2),
            **{f'age_p{share}': round(percentile(ages, share), 2) for share in (50, 95, 99)},
            **{key: number(values, key) for key in COUNTS})
        self.samples.append(sample)
        self._writer.writerow(asdict(sample))
        self._sink.flush()


def run_soak(
    setting: Setting, output: Path, *, size: tuple[int, int], rate: float, seconds: float,
    every: float,
) -> Result:
    """Load the node, and leave ``soak.csv``, ``soak.json``, ``soak.svg`` and logs.

    Parameters
    ----------
    setting
        Clip and parameters.
    output
        Folder for the results.
    size
        Width and height in pixels.
    rate
        Frames a second to offer.
    seconds
        How long.
    every
        Seconds from sample to sample.

    Raises
    ------
    LiveRunError
        A process failed.
    ValueError
        There was no time for enough samples.

    """
    require()
    output.mkdir(parents=True, exist_ok=True)
    clip = setting.clip(*size)
    source = PlayedClip(clip.path, even_plan(clip.rainy, rate, seconds))
    parameters = {**setting.parameters, 'rain_gate': 'false'}
    with (
        (output / 'soak.csv').open('w', newline='') as sink,
        live_run(output, source, parameters) as run,
    ):
        recorder = _Recorder(run, sink, every)
        run.play(seconds, watch=recorder)
        samples = recorder.samples
    if len(samples) < 2:
        raise ValueError(f'{len(samples)} samples in {seconds:g} s; sample more often')
    title = f'soak: {size[0]}x{size[1]} at {rate:g} Hz for {seconds / 60:.3g} minutes'
    begin = warm_up_seconds(samples)
    result = judge(title, samples, begin)
    (output / 'soak.svg').write_text(plot(title, samples, begin), encoding='utf-8')
    (output / 'soak.json').write_text(json.dumps(result.as_json(), indent=2) + '\n')
    return result


def warm_up_seconds(samples: Sequence[SoakSample]) -> float:
    """Return where the judgement begins: after a minute, in a short soak at the middle."""
    return min(WARM_UP_SECONDS, samples[-1].seconds / 2)


def judge(title: str, samples: Sequence[SoakSample], begin: float) -> Result:
    """Hold the samples since ``begin`` seconds against the bars."""
    steady = [sample for sample in samples if sample.seconds >= begin]
    seconds = [sample.seconds for sample in steady]

    def column(name: str) -> list[float]:
        return [getattr(sample, name) for sample in steady]

    memory = column('rss')
    notes = [f'{len(steady)} samples, judged from {begin:.0f} s on']
    if begin < WARM_UP_SECONDS:
        notes.append('shorter than two minutes: caches and pools may still be filling')
    return Result(
        title,
        [
            Figure('memory growth (RSS), end less beginning', growth(memory), 'MiB',
                   Bar('<', MEMORY_BAR), 2),
            Figure('thread growth', growth(column('threads')), '', Bar('<=', 0), 0),
            Figure('descriptor growth', growth(column('descriptors')), '', Bar('<=', 0), 0),
            Figure('memory slope (RSS)', 3600 * slope(seconds, memory), 'MiB/h', None, 2),
            Figure('growth of anonymous memory', growth(column('anonymous')), 'MiB', None, 2),
            Figure('RSS at the end', memory[-1], 'MiB'),
            Figure('threads at the end', steady[-1].threads, '', None, 0),
            Figure('descriptors at the end', steady[-1].descriptors, '', None, 0),
            Figure('published, median', percentile(column('fps'), 50), 'fps'),
            Figure('age p95, median', percentile(column('age_p95'), 50), 'ms'),
            Figure('growth of age p50', growth(column('age_p50')), 'ms'),
        ],
        notes, {'counts': _counts(steady[-1])})


def plot(title: str, samples: Sequence[SoakSample], begin: float) -> str:
    """Return an SVG document of the samples."""
    def series(names: Mapping[str, str]) -> dict[str, list[float]]:
        return {label: [float(getattr(sample, name)) for sample in samples]
                for label, name in names.items()}

    return time_plot(title, [sample.seconds for sample in samples], [
        # Less what it began with: growth that matters is small beside the whole.
        Panel('memory of the node less that at the mark, MiB', {
            f'{label}, {values[-1]:.0f} at the end': _less_start(samples, values, begin)
            for label, values in series({'RSS': 'rss', 'anonymous': 'anonymous'}).items()},
              from_zero=False, least_span=4 * MEMORY_BAR),
        Panel('threads and descriptors',
              series({'threads': 'threads', 'descriptors': 'descriptors'})),
        Panel('age, stamp to image received, ms',
              series({'p50': 'age_p50', 'p95': 'age_p95', 'p99': 'age_p99'})),
        Panel('images received per second', series({'fps': 'fps'})),
    ], (begin, 'judged from here on'))


def _less_start(
    samples: Sequence[SoakSample], values: Sequence[float], begin: float
) -> list[float]:
    start = next(value for sample, value in zip(samples, values, strict=True)
                 if sample.seconds >= begin)
    return [value - start for value in values]


def _counts(sample: SoakSample) -> dict[str, float]:
    return {key: getattr(sample, key) for key in COUNTS}
