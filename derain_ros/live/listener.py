"""Listens to the outputs of the node, its frame statuses and its diagnostics."""

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from derain_ros.images.cdr import read_stamp

CAMERA = '/camera'
_TYPES = {'image': Image, 'rain_mask': Image, 'camera_info': CameraInfo}
DIAGNOSTICS = '/diagnostics'
COUNTS = ('received', 'published', 'dropped', 'failed', 'idle')
"""Keys of the frame counts in a status of /diagnostics."""


def output_topics(camera: str, outputs: Iterable[str] = tuple(_TYPES)) -> dict[str, type]:
    """Return the topics of a camera's outputs in its default namespace, with their types."""
    return {f'{camera}/derained/{output}': _TYPES[output] for output in outputs}


class Recorded(NamedTuple):
    """A received message.

    ``time`` is its arrival and ``stamp`` that of its header, in ns since the epoch; ``data`` is
    the serialized message, empty if contents are not kept.
    """

    topic: str
    time: int
    stamp: int
    data: bytes


class Told(NamedTuple):
    """The status of a frame on ``<camera>/derained/status``.

    ``message`` is ``derained``, ``bypassed``, ``dropped`` or ``fault``; ``values`` are those of
    the status, to which the plain node of the benchmarks adds some of its own.
    """

    message: str
    values: Mapping[str, str]


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    """Return the values of a status by key."""
    return {pair.key: pair.value for pair in status.values}


def number(values: Mapping[str, str], key: str) -> float:
    """Return a value of a status as a number; NaN if it is missing or not a number."""
    try:
        return float(values.get(key, 'nan'))
    except ValueError:
        return float('nan')


class Listener(Node):
    """Subscribes to the node's outputs, to its status of each frame, and to its diagnostics.

    ``topics`` are the outputs to listen to with their types, ``cameras`` the namespaces of the
    cameras. On the topics in ``keep`` whole messages are kept, on others only arrival and stamp.
    ``reliable`` is what the outputs are.
    """

    def __init__(
        self, context: Context, topics: Mapping[str, type], cameras: Iterable[str],
        keep: Collection[str], *, reliable: bool = True,
    ):
        super().__init__('listener', context=context)
        self._keep = set(keep)
        self._lock = threading.Condition()
        self._recorded: list[Recorded] = []
        self._told: dict[str, dict[int, Told]] = {camera: {} for camera in cameras}
        self._reports: list[dict[str, DiagnosticStatus]] = []
        self._topics = tuple(topics)
        self.report_count = 0
        # Deep enough that the listener itself never drops a message of the node.
        qos = QoSProfile(depth=100, reliability=(
            QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT))
        for topic, message_type in topics.items():
            self.create_subscription(
                message_type, topic, partial(self._record, topic), qos, raw=True)
        for camera in self._told:
            self.create_subscription(DiagnosticArray, f'{camera}/derained/status',
                                     partial(self._tell, camera), qos)
        self.create_subscription(DiagnosticArray, DIAGNOSTICS, self._on_diagnostics, 10)
        self._state = self.create_client(GetState, '/derain/get_state')

    def _record(self, topic: str, data: bytes) -> None:
        arrival = time.time_ns()
        kept = data if topic in self._keep else b''
        with self._lock:
            self._recorded.append(Recorded(topic, arrival, read_stamp(data), kept))
            self._lock.notify_all()

    def _tell(self, camera: str, message: DiagnosticArray) -> None:
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        with self._lock:
            for status in message.status:
                self._told[camera][stamp] = Told(status.message, values_of(status))
            self._lock.notify_all()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self._lock:
            self._reports.append({status.name: status for status in message.status})
            self.report_count += 1

    def keep(self, topic: str) -> None:
        """Keep the messages of a topic from now on."""
        self._keep.add(topic)

    def recorded(self, topic: str) -> list[Recorded]:
        """Return a topic's messages since the last :meth:`drain`, in order of arrival."""
        with self._lock:
            return [found for found in self._recorded if topic == found.topic]

    def wait_for(self, topic: str, stamp: int, timeout: float) -> Recorded | None:
        """Wait for the message with a stamp; return None after ``timeout`` seconds."""
        with self._lock:
            return self._lock.wait_for(lambda: next((
                last for last in reversed(self._recorded)
                if (last.topic, last.stamp) == (topic, stamp)), None), timeout)

    def wait_until_told(self, stamp: int, timeout: float, camera: str = CAMERA) -> Told | None:
        """Wait for the status of the frame with a stamp; return None after ``timeout`` seconds."""
        with self._lock:
            return self._lock.wait_for(lambda: self._told[camera].get(stamp), timeout)

    def told(self, camera: str = CAMERA) -> dict[int, Told]:
        """Return the statuses of frames since the last :meth:`drain`, by stamp."""
        with self._lock:
            return dict(self._told[camera])

    def drain(self) -> list[Recorded]:
        """Return all messages since the last call; discard statuses and all older reports."""
        with self._lock:
            drained, self._recorded = self._recorded, []
            for told in self._told.values():
                told.clear()
            del self._reports[:-1]
        return drained

    def reports(self, name: str) -> list[Mapping[str, str]]:
        """Return the values of a status from every message on /diagnostics that contained it."""
        with self._lock:
            return [values_of(report[name]) for report in self._reports if name in report]

    def status(self, name: str) -> DiagnosticStatus:
        """Return the newest status with a name on /diagnostics; an empty one before the first."""
        with self._lock:
            return next((report[name] for report in reversed(self._reports) if name in report),
                        DiagnosticStatus())

    def values(self, name: str) -> dict[str, str]:
        """Return the newest values of a status on /diagnostics; empty before the first."""
        return values_of(self.status(name))

    def outputs_found(self) -> bool:
        """Return whether every output to listen to has a publisher."""
        return all(self.count_publishers(topic) for topic in self._topics)

    def node_state(self) -> str:
        """Return the lifecycle state of the node, ``unknown`` if it does not answer."""
        if not self._state.service_is_ready():
            return 'unknown'
        answer = self._state.call_async(GetState.Request())
        deadline = time.monotonic() + 2.0
        while not answer.done() and time.monotonic() < deadline:
            time.sleep(0.02)
        return answer.result().current_state.label if answer.done() else 'unknown'
