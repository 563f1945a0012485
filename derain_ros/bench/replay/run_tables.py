"""Runs of a bag, for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from derain_ros.bench.replay.run_figures import COUNTS

_HEAD = ('camera', 'offered', 'fps', 'loss', 'latency p50', 'p95', 'p99', 'age p50', 'p95', 'p99',
         *COUNTS[2:])


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
