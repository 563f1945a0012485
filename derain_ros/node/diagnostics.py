"""The statuses that go to /diagnostics, and throttled logging."""

import functools
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from derain_ros.engines import EngineInfo
from derain_ros.node.camera_record import CameraSnapshot
from derain_ros.node.mailbox import Counts

LOG_EVERY_SECONDS = 5.0
"""An error of one kind on one camera is logged at most this often."""

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
            if now - self._last.get(kind, -math.inf) < self._seconds:
                return False
            self._last[kind] = now
            return True


@dataclass(frozen=True)
class CameraReport:
    """What the status of one camera is made of.

    Attributes
    ----------
    node
        Full name of the node.
    name, image_topic, reliability, sync_group
        As in the status.
    active
        The node is active.
    counts, previous
        Counts now and at the last report.
    frames
        What is known of its frames.
    seconds
        Time between the two counts.
    faults
        Frames since the last report that the engine was to derain and did not.
    problems
        What is wrong with its topics, each with the remedy.
    gate
        ``wet``, ``dry`` or ``off``.
    switched_off
        Why no frame is derained, if that is by a parameter.

    """

    node: str
    name: str
    image_topic: str
    active: bool
    counts: Counts
    previous: Counts
    frames: CameraSnapshot
    seconds: float = 1.0
    reliability: str = ''
    sync_group: str = ''
    faults: int = 0
    problems: Sequence[str] = ()
    gate: str = 'off'
    switched_off: str = ''


def camera_status(report: CameraReport) -> DiagnosticStatus:
    """Return the status ``<node>: <camera>``."""
    level, message = _camera_level(report)
    counts = report.counts
    fps = report.counts.since(report.previous).published / max(report.seconds, 1e-3)
    intensity, size = report.frames.rain_intensity, report.frames.size
    return _status(f'{report.node}: {report.name}', level, message, report.image_topic, {
        'received': counts.received,
        'published': counts.published,
        'dropped': counts.dropped,
        'failed': counts.failed,
        'idle': counts.idle,
        'derained': counts.derained,
        'bypassed': counts.bypassed,
        'passed_through': counts.passed_through,
        'fps': f'{fps:.1f}',
        **{key: f'{value:.2f}' for key, value in report.frames.latencies.items()},
        'rain_intensity': '' if math.isnan(intensity) else f'{intensity:.4f}',
        'gate': report.gate,
        'image_topic': report.image_topic,
        'encoding': report.frames.encoding,
        'size': '' if size is None else f'{size[1]}x{size[0]}',
        'reliability': report.reliability,
        'sync_group': report.sync_group,
    })


def engine_status(
    node: str, info: EngineInfo | None, problem: str, idle_reason: str,
    values: Mapping[str, object],
) -> DiagnosticStatus:
    """Return the status ``<node>: engine``.

    Parameters
    ----------
    node
        Full name of the node.
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
    return _status(f'{node}: engine', level, message, known['device'],
                   {'node': node, **known, **values})


def _camera_level(report: CameraReport) -> tuple[bytes, str]:
    if not report.active:
        return DiagnosticStatus.OK, 'inactive'
    new = report.counts.since(report.previous)
    bad, failure = new.failed + report.faults, report.frames.failure
    if bad and failure is not None:
        level = DiagnosticStatus.ERROR if failure.by_engine else DiagnosticStatus.WARN
        what = 'failed' if not report.faults else 'were not derained'
        return level, f'{bad} frames {what}, the last one: {failure.reason}'
    if report.problems:
        return DiagnosticStatus.WARN, '; '.join(report.problems)
    off = f'switched off ({report.switched_off}): ' if report.switched_off else ''
    if not new.published and new.idle:
        return DiagnosticStatus.OK, f'{off}idle: nobody subscribes to the outputs'
    return DiagnosticStatus.OK, (
        f'{off}{new.published} published, {new.dropped} dropped since the last report')


def _status(
    name: str, level: bytes, message: str, hardware_id: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name, level=level, message=message, hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])


def gpu_values() -> dict[str, int]:
    """Return temperature and use of the first NVIDIA GPU, where its library answers.

    The keys are ``gpu_temperature_c`` and ``gpu_utilisation_percent``.
    """
    nvml, device = _device()
    if nvml is None:
        return {}
    try:
        return {
            'gpu_temperature_c': nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
            'gpu_utilisation_percent': nvml.nvmlDeviceGetUtilizationRates(device).gpu,
        }
    except nvml.NVMLError:  # a Jetson's library has not all of it
        return {}


@functools.cache
def _device() -> tuple[Any, Any]:
    try:
        import pynvml
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None, None
