"""Latency windows, throttled logging, and the statuses that go to /diagnostics."""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from derain_ros.engines import EngineInfo
from derain_ros.node.mailbox import Counts

STAGES = ('wait', 'decode', 'infer', 'encode', 'publish', 'age')
"""Latencies of a frame: waiting to be taken, the steps of the work, and now minus its stamp."""

WINDOW = 300
"""Frames that the percentiles look back on."""

LOG_EVERY_SECONDS = 5.0
"""An error of one kind on one camera is logged at most this often."""

_PERCENTILES = (50, 95, 99)


class Latencies:
    """The last :data:`WINDOW` latencies of each stage; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = {stage: deque(maxlen=WINDOW) for stage in STAGES}

    def add(self, stage: str, seconds: float) -> None:
        """Record one latency."""
        with self._lock:
            self._seconds[stage].append(seconds)

    def percentiles(self) -> dict[str, float]:
        """Return ``<stage>_p50_ms``, ``_p95_ms`` and ``_p99_ms``; NaN without a frame."""
        with self._lock:
            recorded = {stage: list(seconds) for stage, seconds in self._seconds.items()}
        values = {}
        for stage, seconds in recorded.items():
            points = np.percentile(seconds, _PERCENTILES) * 1e3 if seconds else [np.nan] * 3
            for percentile, point in zip(_PERCENTILES, points, strict=True):
                values[f'{stage}_p{percentile}_ms'] = float(point)
        return values


class Throttle:
    """Lets one message of a kind through in a while."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last: dict[object, float] = {}

    def allows(self, kind: object) -> bool:
        """Return whether a message of this kind may be logged now."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(kind, -np.inf) < self._seconds:
                return False
            self._last[kind] = now
            return True


@dataclass(frozen=True)
class Failure:
    """Why a frame failed, and whether that was the engine's fault and not the frame's."""

    reason: str
    by_engine: bool


@dataclass(frozen=True)
class CameraReport:
    """What the status of one camera is made of.

    Attributes
    ----------
    name, image_topic, encoding, size, reliability, sync_group
        As in the status; ``size`` is ``<width>x<height>`` in pixels.
    active
        The node is active.
    counts, previous
        Counts now and at the last report.
    seconds
        Time between the two.
    latencies
        Values of :meth:`Latencies.percentiles`.
    faults
        Frames since the last report that the engine was to derain and did not.
    failure
        The last one of this camera.
    silence
        Why no frame comes in, with the remedy; empty while frames come.
    qos_problem
        Which publisher cannot be heard, with the remedy.
    rain_intensity
        0–1, NaN while unknown.
    gate
        ``wet``, ``dry`` or ``off``.

    """

    name: str
    image_topic: str
    active: bool
    counts: Counts
    previous: Counts
    seconds: float = 1.0
    encoding: str = ''
    size: str = ''
    reliability: str = ''
    sync_group: str = ''
    latencies: Mapping[str, float] = field(default_factory=dict)
    faults: int = 0
    failure: Failure | None = None
    silence: str = ''
    qos_problem: str = ''
    rain_intensity: float = math.nan
    gate: str = 'off'


def camera_status(report: CameraReport) -> DiagnosticStatus:
    """Return the status ``derain: <camera>``."""
    level, message = _camera_level(report)
    counts = report.counts
    fps = report.counts.since(report.previous).published / max(report.seconds, 1e-3)
    unknown = math.isnan(report.rain_intensity)
    return _status(f'derain: {report.name}', level, message, report.image_topic, {
        'received': counts.received,
        'published': counts.published,
        'dropped': counts.dropped,
        'failed': counts.failed,
        'idle': counts.idle,
        'derained': counts.derained,
        'bypassed': counts.bypassed,
        'passed_through': counts.passed_through,
        'fps': f'{fps:.1f}',
        **{key: f'{value:.2f}' for key, value in report.latencies.items()},
        'rain_intensity': '' if unknown else f'{report.rain_intensity:.4f}',
        'gate': report.gate,
        'image_topic': report.image_topic,
        'encoding': report.encoding,
        'size': report.size,
        'reliability': report.reliability,
        'sync_group': report.sync_group,
    })


def engine_status(
    info: EngineInfo | None, problem: str, idle_reason: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Return the status ``derain: engine``.

    Parameters
    ----------
    info
        The engine in use; None while the node is not configured.
    problem
        What the engine or the last attempt to configure failed with; empty if nothing did.
    idle_reason
        Why there is no engine, where that is no failure.
    values
        More of it, by key.

    """
    if problem:
        level, message = DiagnosticStatus.ERROR, problem
    elif info is None:
        level, message = DiagnosticStatus.WARN, idle_reason
    else:
        level, message = DiagnosticStatus.OK, f'{info.engine} on {info.device}'
    known = {key: getattr(info, key, '')
             for key in ('engine', 'device', 'model', 'precision', 'reason')}
    return _status('derain: engine', level, message, known['device'], {**known, **values})


def _camera_level(report: CameraReport) -> tuple[bytes, str]:
    if not report.active:
        return DiagnosticStatus.OK, 'inactive'
    new = report.counts.since(report.previous)
    bad = new.failed + report.faults
    if bad and report.failure is not None:
        level = DiagnosticStatus.ERROR if report.failure.by_engine else DiagnosticStatus.WARN
        what = 'failed' if not report.faults else 'were not derained'
        return level, f'{bad} frames {what}, the last one: {report.failure.reason}'
    if report.silence or report.qos_problem:
        return DiagnosticStatus.WARN, report.qos_problem or report.silence
    if not new.published and new.idle:
        return DiagnosticStatus.OK, 'idle: nobody subscribes to the outputs'
    return DiagnosticStatus.OK, (
        f'{new.published} published, {new.dropped} dropped since the last report')


def _status(
    name: str, level: bytes, message: str, hardware_id: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name, level=level, message=message, hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])
