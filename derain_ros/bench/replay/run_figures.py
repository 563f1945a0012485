"""Numbers of a run of a bag through the node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from derain_ros.bench.replay.played_bag import PlayedCamera

COUNTS = (
    'received', 'published', 'dropped', 'failed', 'idle', 'derained', 'bypassed',
    'passed_through')
"""Keys of the node's counts, in a status of /diagnostics."""

_SHARES = {'p50': 50, 'p90': 90, 'p95': 95, 'p99': 99, 'max': 100}
# The player has fallen behind where the last message was later than this share of the run,
_LATE_SHARE = 0.01
# and than this, which the scheduler of a busy machine may take.
_LATE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ReplayedFrame:
    """A frame from end to end; times in nanoseconds since the epoch.

    Attributes
    ----------
    stamp
        Of its header; None where the message is too short to have one.
    handed_over
        When the message was handed to the middleware.
    arrival
        When its derained image came in; None if it did not.
    outcome
        ``derained``, ``bypassed``, ``fault`` or ``dropped``, the node's word; None if there
        was none.
    infer_ms
        Time of the inference; None where the network did not run.
    rain_intensity
        0–1; None where unknown.

    """

    stamp: int | None
    handed_over: int
    arrival: int | None
    outcome: str | None = None
    infer_ms: float | None = None
    rain_intensity: float | None = None

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds from handing over to arrival."""
        return None if self.arrival is None else (self.arrival - self.handed_over) / 1e6

    @property
    def age_ms(self) -> float | None:
        """Milliseconds from the stamp to arrival."""
        return None if self.arrival is None else (self.arrival - self.stamp) / 1e6


@dataclass(frozen=True)
class ProcessSample:
    """The node's process at a moment: monotonic seconds, CPU seconds so far, MiB resident."""

    time: float
    cpu: float
    rss: float


def run_figures(
    factor: float, seconds: float, played: Mapping[str, Any], samples: Sequence[ProcessSample],
    cameras: Sequence[PlayedCamera], frames: Mapping[str, Sequence[ReplayedFrame]],
    statuses: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]],
) -> dict[str, Any]:
    """Return the figures of a run, ready for JSON.

    Parameters
    ----------
    factor, seconds
        How much faster than recorded it was to be played, and how long.
    played
        What :meth:`derain_ros.bench.replay.player.Player.play` returned.
    samples
        The node's process, first at the first message and last after the last one.
    cameras
        What was played.
    frames
        Frames in the order of sending, by topic.
    statuses
        Values of the camera in /diagnostics before and after, by topic.

    Returns
    -------
    dict
        ``factor``, ``seconds`` (as it took), ``sent``, ``received``, ``loss`` (0–1), ``fps``,
        ``cpu_percent`` (of one core), ``cpu_ms_per_frame`` (received), ``rss_mib``,
        ``samples``, ``pacing`` (whether the player kept the rate: ``kept``, how late messages
        were, and how many the disk had not given in time), and ``cameras``.

    """
    listed = [
        _camera_figures(camera, frames[camera.topic], *statuses[camera.topic])
        for camera in cameras]
    sent = sum(camera['sent'] for camera in listed)
    received = sum(camera['received'] for camera in listed)
    cpu, passed = samples[-1].cpu - samples[0].cpu, samples[-1].time - samples[0].time
    late = [lateness / 1e6 for lateness in played['late_ns']]
    memory = [sample.rss for sample in samples]
    # The first share is of nothing yet.
    steps = list(pairwise(_even(samples)))
    return {
        'factor': factor,
        'seconds': round(played['seconds'], 4),
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
            'kept': kept_pace(played['late_ns'], seconds),
            'late_ms': percentiles(late),
            'starved': played['starved']},
        'cameras': listed,
    }


def _even(samples: Sequence[ProcessSample]) -> list[ProcessSample]:
    """Leave out the last sample but one where the last comes soon after: too few ticks of CPU."""
    if len(samples) > 2 and (
            samples[-1].time - samples[-2].time < (samples[-2].time - samples[-3].time) / 2):
        return [*samples[:-2], samples[-1]]
    return list(samples)


def kept_pace(late: Sequence[int], seconds: float) -> bool:
    """Tell whether messages went out at the rate that was asked for.

    Parameters
    ----------
    late
        How long after it was due each was let go, ns.
    seconds
        Length of the run.

    """
    # A single hiccup is made up for; a player that is too slow is late for good.
    tail = late[-max(1, len(late) // 20):]
    return bool(tail) and min(tail) / 1e9 <= max(_LATE_SECONDS, _LATE_SHARE * seconds)


def percentiles(values: Sequence[float | None]) -> dict[str, float | None]:
    """Return p50, p90, p95, p99 and the maximum of the values that are known."""
    known = [value for value in values if value is not None]
    return {name: round(float(np.percentile(known, share)), 3) if known else None
            for name, share in _SHARES.items()}


def rate(times: Sequence[int]) -> float:
    """Return events a second, by the mean interval of times in ns; 0 for fewer than two."""
    if len(times) < 2 or times[-1] <= times[0]:
        return 0.0
    return (len(times) - 1) * 1e9 / (times[-1] - times[0])


def _camera_figures(
    camera: PlayedCamera, frames: Sequence[ReplayedFrame], before: Mapping[str, str],
    after: Mapping[str, str],
) -> dict[str, Any]:
    received = sum(frame.arrival is not None for frame in frames)
    offered = rate([frame.handed_over for frame in frames])
    inferences = [frame.infer_ms for frame in frames]
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
        'counts': {key: int(after[key]) - int(before[key]) for key in COUNTS},
        'latency_ms': percentiles([frame.latency_ms for frame in frames]),
        'age_ms': percentiles([frame.age_ms for frame in frames]),
        'infer_ms': None if all(one is None for one in inferences) else percentiles(inferences),
        'frames': {
            'sent_s': [round((frame.handed_over - begin) / 1e9, 6) for frame in frames],
            'latency_ms': [_rounded(frame.latency_ms) for frame in frames],
            'age_ms': [_rounded(frame.age_ms) for frame in frames],
            'infer_ms': inferences,
            'outcome': [frame.outcome for frame in frames],
            'rain_intensity': [frame.rain_intensity for frame in frames]},
    }


def _loss(sent: int, received: int) -> float | None:
    return round(1 - received / sent, 6) if sent else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
