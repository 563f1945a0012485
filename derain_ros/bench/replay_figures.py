"""Figures of a run of a bag through the node, for JSON and for a terminal."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from derain_ros.bench.stream_statistics import KINDS, percentile, rate
from derain_ros.live.listener import COUNTS as FATES
from derain_ros.live.listener import number
from derain_ros.live.played import Played, PlayedCamera, PlayedFrame

COUNTS = (*FATES, *KINDS)
"""Keys of the node's counts, in a status of /diagnostics."""

_SHARES = {'p50': 50, 'p90': 90, 'p95': 95, 'p99': 99, 'max': 100}
# The player has fallen behind where the last message was later than this share of the run,
_LATE_SHARE = 0.01
# and than this, which the scheduler of a busy machine may take.
_LATE_SECONDS = 0.1

_HEAD = ('camera', 'offered', 'fps', 'loss', 'latency p50', 'p95', 'p99', 'age p50', 'p95', 'p99',
         *COUNTS[2:])


class ProcessSample(NamedTuple):
    """The node's process at a moment: monotonic seconds, CPU seconds so far, MiB resident."""

    time: float
    cpu: float
    rss: float


def run_figures(
    factor: float, seconds: float, played: Played, samples: Sequence[ProcessSample],
    cameras: Sequence[PlayedCamera],
) -> dict[str, Any]:
    """Return the figures of a run, ready for JSON.

    Parameters
    ----------
    factor, seconds
        How much faster than recorded it was to be played, and how long.
    played
        What was sent, and what came of it.
    samples
        The node's process, first at the first message and last after the last one.
    cameras
        What was played.

    Returns
    -------
    dict
        ``factor``, ``seconds`` (as it took), ``sent``, ``received``, ``loss`` (0–1), ``fps``,
        ``cpu_percent`` (of one core), ``cpu_ms_per_frame`` (received), ``rss_mib``,
        ``samples``, ``pacing`` (whether the player kept the rate: ``kept``, how late messages
        were, and how many the disk had not given in time), and ``cameras``.

    """
    listed = [_camera_figures(camera, played) for camera in cameras]
    sent = sum(camera['sent'] for camera in listed)
    received = sum(camera['received'] for camera in listed)
    cpu, passed = samples[-1].cpu - samples[0].cpu, samples[-1].time - samples[0].time
    memory = [sample.rss for sample in samples]
    # The first share is of nothing yet.
    steps = list(pairwise(_even(samples)))
    return {
        'factor': factor,
        'seconds': round(played.seconds, 4),
        'sent': sent,
        'received': received,
        'loss': _loss(sent, received),
        'fps': round(sum(camera['fps'] for camera in listed), 3),
        'cpu_percent': round(100 * cpu / max(passed, 1e-3), 1),
        'cpu_ms_per_frame': round(1e3 * cpu / received, 2) if received else None,
        'rss_mib': {'median': round(float(np.median(memory)), 1), 'max': round(max(memory), 1)},
        'samples': {
            'time_s': [round(now.time - samples[0].time, 3) for _, now in steps],
            'cpu_percent': [
                round(100 * (now.cpu - before.cpu) / max(now.time - before.time, 1e-3), 1)
                for before, now in steps],
            'rss_mib': [round(now.rss, 1) for _, now in steps]},
        'pacing': {
            'kept': kept_pace(played.late_ns, seconds),
            'late_ms': percentiles([lateness / 1e6 for lateness in played.late_ns]),
            'starved': played.starved},
        'cameras': listed,
    }


def _even(samples: Sequence[ProcessSample]) -> list[ProcessSample]:
    """Leave out the last sample but one where the last comes soon after: too few ticks of CPU."""
    if len(samples) > 2 and (
            samples[-1].time - samples[-2].time < (samples[-2].time - samples[-3].time) / 2):
        return [*samples[:-2], samples[-1]]
    return list(samples)


def kept_pace(late: Sequence[int], seconds: float) -> bool:
    """Tell whether messages, each so many ns after it was due, kept the rate of a run."""
    # A single hiccup is made up for; a player that is too slow is late for good.
    tail = late[-max(1, len(late) // 20):]
    return bool(tail) and min(tail) / 1e9 <= max(_LATE_SECONDS, _LATE_SHARE * seconds)


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return p50, p90, p95, p99 and the maximum of the values that are no NaN; None of none."""
    return {name: _rounded(percentile(values, share)) for name, share in _SHARES.items()}


def _camera_figures(camera: PlayedCamera, played: Played) -> dict[str, Any]:
    frames: Sequence[PlayedFrame] = played.frames[camera.namespace]
    received = sum(frame.arrival is not None for frame in frames)
    offered = rate([frame.handed_over for frame in frames])
    columns = {
        'latency_ms': [frame.latency_ms for frame in frames],
        'age_ms': [frame.age_ms for frame in frames],
        'infer_ms': [frame.infer_ms for frame in frames]}
    begin = frames[0].handed_over if frames else 0
    return {
        'topic': camera.topic,
        'camera': camera.name,
        'sent': len(frames),
        'received': received,
        'loss': _loss(len(frames), received),
        'offered_fps': round(offered, 3),
        # Of the time that was offered: what comes late comes, what is lost is lost.
        'fps': round(offered * received / len(frames), 3) if frames else 0.0,
        'counts': played.counts(camera.namespace, COUNTS),
        **{name: percentiles(times) for name, times in columns.items()},
        **({'infer_ms': None} if all(map(math.isnan, columns['infer_ms'])) else {}),
        'frames': {
            'sent_s': [round((frame.handed_over - begin) / 1e9, 6) for frame in frames],
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


def run_table(run: Mapping[str, Any]) -> str:
    """Return what came of a run: a line for each camera, and the node's process."""
    rows = [_HEAD, *(_row(camera) for camera in run['cameras'])]
    # The counts that are 0 for every camera say nothing, but for those that users ask for.
    shown = [column for column, name in enumerate(_HEAD)
             if name not in ('failed', 'idle', 'passed_through')
             or any(row[column] != '0' for row in rows[1:])]
    widths = [max(len(row[column]) for row in rows) for column in shown]
    lines = [f'at {run["factor"]:g}x the recorded rate, {run["seconds"]:.1f} s '
             '(fps, ms; the node counts dropped and what follows)']
    for row in rows:
        cells = [row[column].ljust(width) if column == 0 else row[column].rjust(width)
                 for column, width in zip(shown, widths, strict=True)]
        lines.append('  ' + '  '.join(cells))
    per_frame = run['cpu_ms_per_frame']
    lines.append(
        f'  node: {run["cpu_percent"]:.0f} % of a core, '
        f'{"-" if per_frame is None else f"{per_frame:.1f}"} ms CPU a frame, '
        f'RSS {run["rss_mib"]["median"]:.0f} MiB, at most {run["rss_mib"]["max"]:.0f}')
    return '\n'.join(lines + [f'  note: {note}' for note in notes(run)])


def notes(run: Mapping[str, Any]) -> list[str]:
    """Say what a reader of a run's figures should know besides, one sentence each."""
    found = []
    pacing = run['pacing']
    if not pacing['kept']:
        slow = ', as the disk did not keep up' if pacing['starved'] else ''
        found.append('the bag could not be published as fast as was asked for'
                     f'{slow}: the offered rates are those that were reached')
    elif pacing['starved']:
        found.append(f'{pacing["starved"]} messages came from the disk too late, and went out up '
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


def _row(camera: Mapping[str, Any]) -> Sequence[str]:
    times = [camera[name][share] for name in ('latency_ms', 'age_ms')
             for share in ('p50', 'p95', 'p99')]
    loss = camera['loss']
    return (
        camera['camera'], f'{camera["offered_fps"]:.1f}', f'{camera["fps"]:.1f}',
        '-' if loss is None else f'{100 * loss:.1f} %',
        *('-' if time is None else f'{time:.1f}' for time in times),
        *(str(camera['counts'][name]) for name in COUNTS[2:]))
