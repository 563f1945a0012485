"""``derain replay-bench``: replay a bag to a node, compute figures, and find the highest rate."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from derain_ros.bench.measures import KINDS, ProcessFigures, percentile, process_figures, rate
from derain_ros.engines import EngineInfo
from derain_ros.engines.model_facts import model_facts
from derain_ros.engines.models import ModelError
from derain_ros.live.listener import COUNTS as FATES
from derain_ros.live.listener import number
from derain_ros.live.live_run import LiveRun
from derain_ros.live.played import Played, PlayedCamera

COUNTS = (*FATES, *KINDS)
"""Keys of the node's counters in a status of /diagnostics."""

LOWEST, HIGHEST = 1 / 64, 64.0  # the range of factors that are tried

_SAMPLE_SECONDS = 0.5
_SHARES = {'p50': 50, 'p90': 90, 'p95': 95, 'p99': 99, 'max': 100}
# The player has fallen behind if, at the end, messages are late by more than this share of the run
_LATE_SHARE = 0.01
# and by more than this, a delay that the scheduler of a busy machine may cause.
_LATE_SECONDS = 0.1
_LINEAR_STEP = 1.05
_BINARY_RATIO = 1.1
_CONFIRMATIONS = 5


def play(
    run: LiveRun, cameras: Sequence[PlayedCamera], factor: float, seconds: float,
    progress: Callable[[float, float], Any] = lambda played, seconds: None,
) -> dict[str, Any]:
    """Play the bag of a run, ``factor`` times as fast as recorded; returns :func:`run_figures`.

    ``progress`` is called several times per second with the seconds played so far and in all;
    at the end with ``(seconds, seconds)``. Raises LiveRunError if a process fails.
    """
    samples: list[ProcessFigures] = []

    def watch(begins_or_ends: bool) -> None:
        if begins_or_ends or time.time_ns() >= samples[-1].time + _SAMPLE_SECONDS * 1e9:
            samples.append(process_figures(run.pid, cheap=True))
        if not begins_or_ends:
            progress(min((samples[-1].time - samples[0].time) / 1e9, seconds), seconds)

    played = run.play(seconds, factor, watch)
    progress(seconds, seconds)
    return run_figures(factor, seconds, played, samples, cameras)


# Figures of a run

def run_figures(
    factor: float, seconds: float, played: Played, samples: Sequence[ProcessFigures],
    cameras: Sequence[PlayedCamera],
) -> dict[str, Any]:
    """Return the figures of a run, ready for JSON.

    ``factor`` and ``seconds`` are the requested speed, relative to the recording, and duration;
    ``samples`` are of the node's process, the first at the first message, the last after the last
    one. The result has ``factor``, ``seconds`` (actual), ``sent``, ``received``, ``loss`` (0–1),
    ``fps``, ``cpu_percent`` (of one core), ``cpu_ms_per_frame`` (received), ``rss_mib``,
    ``samples``, ``pacing`` (``kept``: whether the player kept the rate, ``late_ms``, and
    ``starved``: messages that the disk delivered too late), and ``cameras``.
    """
    listed = [_camera_figures(camera, played) for camera in cameras]
    sent = sum(camera['sent'] for camera in listed)
    received = sum(camera['received'] for camera in listed)
    memory = [sample.rss for sample in samples]
    # CPU usage is between two samples, so the first one has none.
    steps = list(pairwise(_even(samples)))
    return {
        'factor': factor,
        'seconds': round(played.seconds, 4),
        'sent': sent,
        'received': received,
        'loss': _loss(sent, received),
        'fps': round(sum(camera['fps'] for camera in listed), 3),
        'cpu_percent': _cpu_percent(samples[0], samples[-1]),
        'cpu_ms_per_frame': round(1e3 * (samples[-1].cpu - samples[0].cpu) / received, 2)
        if received else None,
        'rss_mib': {'median': round(float(np.median(memory)), 1), 'max': round(max(memory), 1)},
        'samples': {
            'time_s': [round((now.time - samples[0].time) / 1e9, 3) for _, now in steps],
            'cpu_percent': [_cpu_percent(before, now) for before, now in steps],
            'rss_mib': [round(now.rss, 1) for _, now in steps]},
        'pacing': {
            'kept': kept_pace(played.late_ns, seconds),
            'late_ms': percentiles([lateness / 1e6 for lateness in played.late_ns]),
            'starved': played.starved},
        'cameras': listed,
    }


def _cpu_percent(before: ProcessFigures, now: ProcessFigures) -> float:
    return round(100 * (now.cpu - before.cpu) / max((now.time - before.time) / 1e9, 1e-3), 1)


def _even(samples: Sequence[ProcessFigures]) -> list[ProcessFigures]:
    """Drop the second-to-last sample if the last follows too soon to measure CPU time."""
    if len(samples) > 2 and (
            samples[-1].time - samples[-2].time < (samples[-2].time - samples[-3].time) / 2):
        return [*samples[:-2], samples[-1]]
    return list(samples)


def kept_pace(late: Sequence[int], seconds: float) -> bool:
    """Return whether the player kept the rate; ``late`` is the delay of each message, ns."""
    # A player catches up after a single hiccup; one that is too slow stays late until the end.
    tail = late[-max(1, len(late) // 20):]
    return bool(tail) and min(tail) / 1e9 <= max(_LATE_SECONDS, _LATE_SHARE * seconds)


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return p50, p90, p95, p99 and max of the values, ignoring NaN; None if there are none."""
    return {name: _rounded(percentile(values, share)) for name, share in _SHARES.items()}


def _camera_figures(camera: PlayedCamera, played: Played) -> dict[str, Any]:
    frames = played.frames[camera.namespace]
    received = sum(frame.arrival is not None for frame in frames)
    offered = rate([frame.handed_over for frame in frames])
    columns = {name: [getattr(frame, name) for frame in frames]
               for name in ('latency_ms', 'age_ms', 'infer_ms')}
    return {
        'topic': camera.topic,
        'camera': camera.name,
        'sent': len(frames),
        'received': received,
        'loss': _loss(len(frames), received),
        'offered_fps': round(offered, 3),
        # Received share of the offered rate: late frames count, lost frames do not.
        'fps': round(offered * received / len(frames), 3) if frames else 0.0,
        'counts': played.counts(camera.namespace, COUNTS),
        **{name: percentiles(times) for name, times in columns.items()},
        **({'infer_ms': None} if all(map(math.isnan, columns['infer_ms'])) else {}),
        'frames': {
            'sent_s': [round((frame.handed_over - frames[0].handed_over) / 1e9, 6)
                       for frame in frames],
            **{name: list(map(_rounded, times)) for name, times in columns.items()},
            'outcome': [frame.outcome for frame in frames],
            'rain_intensity': [
                None if frame.told is None else _rounded(
                    number(frame.told.values, 'rain_intensity'), None)
                for frame in frames]},
    }


def _loss(sent: int, received: int) -> float | None:
    return round(1 - received / sent, 6) if sent else None


def _rounded(value: float, digits: int | None = 3) -> float | None:
    return None if math.isnan(value) else value if digits is None else round(value, digits)


# The search for the highest rate

class Trial(NamedTuple):
    """The result of trying a factor.

    ``loss`` is the share of the frames sent that were not received (0–1; None if none was sent);
    ``sustained`` is true if it was within the limit and the player kept the rate.
    """

    factor: float
    loss: float | None
    sustained: bool

    @staticmethod
    def of(run: Mapping[str, Any], limit: float) -> 'Trial':
        """Judge the figures of a run."""
        loss = run['loss']
        return Trial(run['factor'], loss,
                     loss is not None and loss <= limit and run['pacing']['kept'])


def measure(
    play: Callable[[float, float], dict[str, Any]], period: float, *, factor: float,
    seconds: float | None, loss_limit: float, trial_seconds: float | None,
    told: Callable[[str, dict], None],
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Play a bag in full, and optionally search for the highest sustained factor.

    ``play`` takes a factor and a duration in seconds, and returns figures; the bag is ``period``
    seconds long. The run is ``factor`` times as fast as recorded and takes ``seconds``, None to
    play the bag once, but no shorter than a trial; each trial of the search takes
    ``trial_seconds``, None for no search. A factor counts as sustained if the share of lost frames
    is at most ``loss_limit``, 0–1. ``told`` is called with ``run`` or ``trial`` and the figures of
    each when it is done. Returns ``runs`` and ``search`` for the run file of kind ``replay``.
    """
    def in_full(factor: float) -> dict[str, Any]:
        # A bag played faster ends sooner, but a run should not be shorter than a trial.
        run = play(factor, seconds or max(period / factor, trial_seconds or 0.0))
        told('run', run)
        return run

    def attempt(factor: float) -> Trial:
        figures = play(factor, trial_seconds)
        told('trial', figures)
        return Trial.of(figures, loss_limit)

    first = in_full(factor)
    if trial_seconds is None:
        return [first], None
    tried = search(attempt, Trial.of(first, loss_limit))
    runs, highest = [first], first if tried[0].sustained else None
    for candidate in to_confirm(tried, factor):
        run = in_full(candidate)
        tried.append(Trial.of(run, loss_limit))
        if tried[-1].sustained:
            runs, highest = [first, run], run
            break
    return runs, {
        'loss_limit': loss_limit,
        'highest_factor': highest and highest['factor'],
        'highest_fps': highest and highest['fps'],
        'tried': [one._asdict() for one in tried]}


def search(measure: Callable[[float], Trial], first: Trial) -> list[Trial]:
    """Search for the highest sustained factor; returns all trials in order, ``first`` included.

    From ``first`` on, the factor is doubled until one fails (or halved until one is sustained),
    then the interval is bisected until its ends are within 10 %, then the best one is raised in
    steps of 5 %, like the binary and linear searches of ros2_benchmark.
    """
    tried = [first]

    def sustained(factor: float) -> bool:
        tried.append(measure(round(factor, 4)))
        return tried[-1].sustained

    good, bad = (first.factor, None) if first.sustained else (None, first.factor)
    while bad is None and good * 2 <= HIGHEST:
        good, bad = (good * 2, None) if sustained(good * 2) else (good, good * 2)
    while good is None and bad / 2 >= LOWEST:
        good, bad = (bad / 2, bad) if sustained(bad / 2) else (None, bad / 2)
    if good is None or bad is None:
        return tried
    while bad / good > _BINARY_RATIO + 1e-9:
        middle = (good + bad) / 2
        good, bad = (middle, bad) if sustained(middle) else (good, middle)
    while good * _LINEAR_STEP < bad and sustained(good * _LINEAR_STEP):
        good *= _LINEAR_STEP
    return tried


def best(tried: Sequence[Trial]) -> float | None:
    """Return the highest factor that was sustained, None if there is none."""
    return max((one.factor for one in tried if one.sustained), default=None)


def to_confirm(tried: Sequence[Trial], known: float) -> Iterator[float]:
    """Yield factors to play in full until one is sustained: the best one, then steps below it.

    ``known`` was played in full already; if it was sustained, only higher factors are yielded.
    """
    factor = best(tried) or 0.0
    lowest = known if any(one.sustained and one.factor == known for one in tried) else 0.0
    for _ in range(_CONFIRMATIONS):
        if factor <= lowest:
            return
        yield round(factor, 4)
        factor /= _LINEAR_STEP


def facts_of(model: str, engine: Mapping[str, str]) -> dict[str, str | None]:
    """Return the facts of a model from its name and from the engine status of the node."""
    values = {key: engine.get(key) or None for key in ('engine', 'device', 'precision')}
    known = dict.fromkeys(('model', 'file', 'sha256'))
    info = EngineInfo(**{key: text or '' for key, text in values.items()}, model=model, reason='')
    try:
        facts = model_facts(model, SimpleNamespace(info=info))
    except (ModelError, OSError):
        return {**known, 'model': model, **values}
    return {**{key: getattr(facts, key) for key in known}, **values}


# For a terminal

_HEAD = ('camera', 'offered', 'fps', 'loss', 'latency p50', 'p95', 'p99', 'age p50', 'p95', 'p99',
         *COUNTS[2:])


def run_table(run: Mapping[str, Any]) -> str:
    """Return the figures of a run as text: a line for each camera, and one for the process."""
    rows = [_HEAD, *(_row(camera) for camera in run['cameras'])]
    # Leave out these three columns if they are 0 for every camera.
    shown = [column for column in zip(*rows, strict=True)
             if column[0] not in ('failed', 'idle', 'passed_through')
             or set(column[1:]) != {'0'}]
    widths = [max(map(len, column)) for column in shown]
    lines = [f'at {run["factor"]:g}x the recorded rate, {run["seconds"]:.1f} s '
             '(fps, ms; the node counts dropped and what follows)']
    for cells in zip(*shown, strict=True):
        name, *others = map(str.rjust, cells, widths)
        lines.append('  ' + '  '.join([cells[0].ljust(len(name)), *others]))
    per_frame = run['cpu_ms_per_frame']
    lines.append(
        f'  node: {run["cpu_percent"]:.0f} % of a core, '
        f'{"-" if per_frame is None else f"{per_frame:.1f}"} ms CPU a frame, '
        f'RSS {run["rss_mib"]["median"]:.0f} MiB, at most {run["rss_mib"]["max"]:.0f}')
    return '\n'.join(lines + [f'  note: {note}' for note in notes(run)])


def _row(camera: Mapping[str, Any]) -> Sequence[str]:
    times = [camera[name][share] for name in ('latency_ms', 'age_ms')
             for share in ('p50', 'p95', 'p99')]
    loss = camera['loss']
    return (
        camera['camera'], f'{camera["offered_fps"]:.1f}', f'{camera["fps"]:.1f}',
        '-' if loss is None else f'{100 * loss:.1f} %',
        *('-' if time is None else f'{time:.1f}' for time in times),
        *(str(camera['counts'][name]) for name in COUNTS[2:]))


def notes(run: Mapping[str, Any]) -> list[str]:
    """Return notes that help to interpret the figures of a run, one sentence each."""
    found = []
    pacing = run['pacing']
    if not pacing['kept']:
        slow = ', as the disk did not keep up' if pacing['starved'] else ''
        found.append(f'the bag could not be published as fast as requested{slow}: the offered '
                     'rates are those that were reached')
    elif pacing['starved']:
        found.append(f'{pacing["starved"]} messages came from the disk too late, and were sent up '
                     f'to {pacing["late_ms"]["max"]:.0f} ms late')
    for camera in run['cameras']:
        counts = camera['counts']
        if counts['bypassed']:
            found.append(
                f'{camera["camera"]}: {counts["bypassed"]} of {counts["published"]} frames were '
                'bypassed, as the rain gate found it dry; --param rain_gate:=false derains all')
        if counts['failed']:
            found.append(f'{camera["camera"]}: the node could not read or derain '
                         f'{counts["failed"]} frames of {camera["topic"]}')
        lost = camera['sent'] - counts['received']
        if lost > 0:
            found.append(f'{camera["camera"]}: {lost} frames did not reach the node')
    return found


def trial_line(run: Mapping[str, Any], limit: float) -> str:
    """Return a trial of the search on one line."""
    if run['loss'] is None:
        return f'  {run["factor"]:g}x: no frame in this time'
    held = 'sustained' if run['loss'] <= limit else 'too much'
    if not run['pacing']['kept']:
        held = 'the player could not keep this rate'
    return f'  {run["factor"]:g}x: {run["fps"]:.1f} fps, loss {100 * run["loss"]:.1f} %, {held}'


def search_note(found: Mapping[str, Any]) -> str:
    """Return the result of a search as one sentence."""
    limit = f'{100 * found["loss_limit"]:g} % loss'
    highest = found['highest_factor']
    if highest is None:
        lowest = min(one['factor'] for one in found['tried'])
        return f'not sustained at any factor tried, down to {lowest:g}x ({limit})'
    more = ', the highest that is tried' if highest * 2 > HIGHEST else ''
    return f'sustained up to {highest:g}x{more}: {found["highest_fps"]:.1f} fps ({limit})'
