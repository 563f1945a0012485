"""Soak test: run the node under load for a long time, and check that nothing grows."""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from derain_ros.bench.measures import (
    Figure,
    ProcessFigures,
    Result,
    growth,
    percentile,
    process_figures,
    slope,
)
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream_scenarios import even_plan
from derain_ros.live.listener import CAMERA, COUNTS, number
from derain_ros.live.live_run import LiveRun, live_run
from derain_ros.live.played import PlayedClip
from derain_ros.report.plots import Axis, require, time_plot
from derain_ros.text import UserError

WARM_UP_SECONDS = 60.0  # growth in the first minute is due to caches and pools being filled

MEMORY_BAR = 5.0

SoakSample = Mapping[str, float]
"""The node at one moment, and its output since the sample before; a row of soak.csv.

``seconds`` since the first sample; memory, ``threads`` and ``descriptors`` as in
:class:`~derain_ros.bench.measures.ProcessFigures`; ``cpu`` usage since the last sample,
percent of one core; ``fps`` of images received; ``age_p50``, ``age_p95`` and ``age_p99`` from
stamp to arrival, ms, NaN if no image arrived; counters of the node, from its newest report.
"""


class _Recorder:
    """Takes a sample every ``every`` seconds, and writes it to a CSV file immediately."""

    def __init__(self, run: LiveRun, sink: TextIO, every: float):
        self.samples: list[SoakSample] = []
        self._run = run
        self._every = every
        self._sink = sink
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
        images = [found for found in self._run.listener.drain()
                  if found.topic == f'{CAMERA}/derained/image']
        if before is None:  # the first sample has no interval before it
            self._start = now.time
            return
        ages = [(found.time - found.stamp) / 1e6 for found in images]
        values = self._run.listener.values(f'/derain: {CAMERA.strip("/")}')
        passed = max(now.time - before.time, 1) / 1e9
        sample = {
            'seconds': round((now.time - self._start) / 1e9, 2),
            **{key: round(getattr(now, key), 2) for key in (
                'rss', 'pss', 'anonymous', 'threads', 'descriptors')},
            'cpu': round(100 * (now.cpu - before.cpu) / passed, 1),
            'fps': round(len(images) / passed, 2),
            **{f'age_p{share}': round(percentile(ages, share), 2) for share in (50, 95, 99)},
            **{key: number(values, key) for key in COUNTS}}
        writer = csv.DictWriter(self._sink, sample)
        if not self.samples:
            writer.writeheader()
        self.samples.append(sample)
        writer.writerow(sample)
        self._sink.flush()


def run_soak(
    setting: Setting, output: Path, *, size: tuple[int, int], rate: float, seconds: float,
    every: float,
) -> Result:
    """Run a soak test; writes ``soak.csv``, ``soak.json``, ``soak.svg`` and logs to ``output``.

    Frames of ``size`` (width, height) are sent at ``rate`` Hz for ``seconds``, with a sample every
    ``every`` seconds. Raises LiveRunError if a process fails, UserError if there was no time for
    two samples, and ModuleNotFoundError without matplotlib.
    """
    require()
    if seconds < 2 * every:
        raise UserError(f'{seconds:g} s give no two samples {every:g} s apart; sample more often')
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
        raise UserError(f'{len(samples)} samples in {seconds:g} s; sample more often')
    title = f'soak: {size[0]}x{size[1]} at {rate:g} Hz for {seconds / 60:.3g} minutes'
    begin = warm_up_seconds(samples)
    result = judge(title, samples, begin)
    (output / 'soak.svg').write_text(plot(title, samples, begin), encoding='utf-8')
    (output / 'soak.json').write_text(json.dumps(result.as_json(), indent=2) + '\n')
    return result


def warm_up_seconds(samples: Sequence[SoakSample]) -> float:
    """Return the length of the warm-up, s: a minute, or half of a short soak test."""
    return min(WARM_UP_SECONDS, samples[-1]['seconds'] / 2)


def judge(title: str, samples: Sequence[SoakSample], begin: float) -> Result:
    """Judge the samples from ``begin`` seconds on against the bars."""
    steady = [sample for sample in samples if sample['seconds'] >= begin]

    def column(name: str) -> list[float]:
        return [sample[name] for sample in steady]

    memory, last = column('rss'), steady[-1]
    notes = [f'{len(steady)} samples, judged from {begin:.0f} s on']
    if begin < WARM_UP_SECONDS:
        notes.append('shorter than two minutes: caches and pools may still be filling')
    return Result(title, [
        Figure('memory growth (RSS), end less beginning', growth(memory), 'MiB',
               f'< {MEMORY_BAR:g}', 2),
        Figure('thread growth', growth(column('threads')), bar='<= 0', digits=0),
        Figure('descriptor growth', growth(column('descriptors')), bar='<= 0', digits=0),
        Figure('memory slope (RSS)', 3600 * slope(column('seconds'), memory), 'MiB/h', digits=2),
        Figure('growth of anonymous memory', growth(column('anonymous')), 'MiB', digits=2),
        Figure('RSS at the end', memory[-1], 'MiB'),
        Figure('threads at the end', last['threads'], digits=0),
        Figure('descriptors at the end', last['descriptors'], digits=0),
        Figure('published, median', percentile(column('fps'), 50), 'fps'),
        Figure('age p95, median', percentile(column('age_p95'), 50), 'ms'),
        Figure('growth of age p50', growth(column('age_p50')), 'ms'),
    ], notes, {'counts': {key: last[key] for key in COUNTS}})


def plot(title: str, samples: Sequence[SoakSample], begin: float) -> str:
    """Return an SVG document of the samples."""
    def series(*names: str, less: str = '') -> dict[str, list[float]]:
        return {name.removeprefix(less): [float(sample[name]) for sample in samples]
                for name in names}

    start = next(sample for sample in samples if sample['seconds'] >= begin)
    return time_plot(title, series('seconds')['seconds'], [
        # Relative to the mark, as relevant growth is small compared with the total.
        (Axis('memory of the node less that at the mark, MiB', least_span=4 * MEMORY_BAR), {
            f'{label}, {samples[-1][name]:.0f} at the end':
                [sample[name] - start[name] for sample in samples]
            for label, name in (('RSS', 'rss'), ('anonymous', 'anonymous'))}),
        (Axis('threads and descriptors', 0.0, least_span=1.0), series('threads', 'descriptors')),
        (Axis('age, stamp to image received, ms', 0.0, least_span=1.0),
         series('age_p50', 'age_p95', 'age_p99', less='age_')),
        (Axis('images received per second', 0.0, least_span=1.0), series('fps')),
    ], (begin, 'judged from here on'))
