"""Listens to what the node publishes, and to what it says of itself."""

import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

CAMERA = '/camera'
OUTPUTS = {
    f'{CAMERA}/derained/image': Image,
    f'{CAMERA}/derained/rain_mask': Image,
    f'{CAMERA}/derained/camera_info': CameraInfo,
}
DIAGNOSTICS = '/diagnostics'
COUNTS = ('received', 'published', 'dropped', 'failed', 'idle')
"""Keys of the frame counts in a status of /diagnostics."""


@dataclass(frozen=True)
class Recorded:
    """A message as it came in.

    Attributes
    ----------
    topic
        Full topic name.
    time
        Arrival, nanoseconds since the epoch.
    stamp
        Stamp of the header, nanoseconds since the epoch.
    data
        Serialized message; empty where contents are not kept.

    """

    topic: str
    time: int
    stamp: int
    data: bytes


class Listener(Node):
    """Subscribes to the node's outputs and its diagnostics."""

    def __init__(self, context: Context, topics: Iterable[str], keep: bool):
        super().__init__('listener', context=context)
        self._keep = keep
        self._lock = threading.Lock()
        self._recorded: list[Recorded] = []
        self._statuses: dict[str, DiagnosticStatus] = {}
        self._status_count = 0
        self._topics = tuple(topics)
        # Deep enough that the listener itself never drops what the node has published.
        qos = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.RELIABLE)
        for topic in self._topics:
            self.create_subscription(
                OUTPUTS[topic], topic, self._recorder(topic), qos, raw=True)
        self.create_subscription(DiagnosticArray, DIAGNOSTICS, self._on_diagnostics, 10)
        self._state = self.create_client(GetState, '/derain/get_state')

    def _recorder(self, topic: str) -> Callable[[bytes], None]:
        def record(data: bytes) -> None:
            arrival = time.time_ns()
            # A serialized message with a header starts with its stamp, behind four bytes
            # that say, among others, the byte order.
            order = '<' if data[1] & 1 else '>'
            seconds, nanoseconds = struct.unpack_from(order + 'iI', data, 4)
            kept = data if self._keep else b''
            with self._lock:
                self._recorded.append(
                    Recorded(topic, arrival, seconds * 10**9 + nanoseconds, kept))
        return record

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self._lock:
            for status in message.status:
                self._statuses[status.name] = status
            self._status_count += 1

    def recorded(self, topic: str | None = None) -> list[Recorded]:
        """Messages so far, of one topic or of all, in order of arrival."""
        with self._lock:
            return [found for found in self._recorded if topic in (None, found.topic)]

    def values(self, name: str) -> dict[str, str]:
        """Return the newest values of a status of /diagnostics; empty before the first."""
        with self._lock:
            status = self._statuses.get(name, DiagnosticStatus())
        return {pair.key: pair.value for pair in status.values}

    def error(self, name: str) -> str:
        """Return the message of a status of /diagnostics that is an error, else nothing."""
        with self._lock:
            status = self._statuses.get(name, DiagnosticStatus())
        return status.message if status.level == DiagnosticStatus.ERROR else ''

    def status_count(self) -> int:
        """Return how many messages came on /diagnostics."""
        with self._lock:
            return self._status_count

    def outputs_found(self) -> bool:
        """Whether the node offers every output that is listened to."""
        return all(self.count_publishers(topic) for topic in self._topics)

    def node_state(self) -> str:
        """Lifecycle state of the node, ``unknown`` while it does not answer."""
        if not self._state.service_is_ready():
            return 'unknown'
        answer = self._state.call_async(GetState.Request())
        deadline = time.monotonic() + 2.0
        while not answer.done() and time.monotonic() < deadline:
            time.sleep(0.02)
        return answer.result().current_state.label if answer.done() else 'unknown'
