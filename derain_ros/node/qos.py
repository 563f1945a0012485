"""QoS that does not fit: whose, which policy, and what to set; and QoS that the user sets.

DDS connects a publisher and a subscription only if the publisher offers at least what the
subscription asks for. Otherwise no message passes, and nothing else tells why.
"""

import time
from collections.abc import Callable, Iterable

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSLivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    QoSReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.topic_endpoint_info import TopicEndpointInfo

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

__all__ = [
    'Notice', 'PublisherEventCallbacks', 'SubscriptionEventCallbacks', 'join_problems', 'misfits',
    'node_name', 'overrides', 'type_name',
]

NOTICE_SECONDS = 0.5
"""How long a problem lasts before it is logged.

Fast DDS knows the name of a node some 0.1 s after its endpoints (Cyclone DDS as well).
"""

_LEVELS = (
    ('reliability', QoSReliabilityPolicy.BEST_EFFORT, QoSReliabilityPolicy.RELIABLE),
    ('durability', QoSDurabilityPolicy.VOLATILE, QoSDurabilityPolicy.TRANSIENT_LOCAL),
    ('liveliness', QoSLivelinessPolicy.AUTOMATIC, QoSLivelinessPolicy.MANUAL_BY_TOPIC),
)
_UNKNOWN_NAME = '_NODE_NAME_UNKNOWN_'
_LONGEST = 2**63 - 1


class Notice:
    """Logs a problem once it has lasted for a while, and then its end.

    Parameters
    ----------
    warn, relieve
        Log a text: the problem, and ``end``.
    end
        What to say when all is well again; nothing if empty.

    """

    def __init__(self, warn: Callable[[str], object], relieve: Callable[[str], object], end: str):
        self._warn, self._relieve, self._end = warn, relieve, end
        self._seen = self._told = ''
        self._since = 0.0

    def look(self, problem: str) -> None:
        """Take note of the problem there is now; empty is none. To be called again and again."""
        now = time.monotonic()
        if problem != self._seen:
            self._seen, self._since = problem, now
        if problem == self._told or now - self._since < NOTICE_SECONDS:
            return
        self._told = problem
        if problem:
            self._warn(problem)
        elif self._end:
            self._relieve(self._end)


def overrides(node: Node, topic: str, kind: str) -> dict[QoSPolicyKind, object]:
    """Return what parameters ``qos_overrides.<topic>.<kind>.<policy>`` are given, by policy.

    ``kind`` is ``publisher`` or ``subscription``, ``topic`` a full name.
    """
    given = getattr(node, '_parameter_overrides', {})  # rclpy has no public name for these
    start = f'qos_overrides.{topic}.{kind}.'
    return {policy: given[start + policy.name.lower()].value for policy in QoSPolicyKind
            if start + policy.name.lower() in given}


def overriding_options(node: Node, topic: str, kind: str) -> QoSOverridingOptions:
    """Return what makes rclpy apply :func:`overrides` to a new publisher or subscription."""
    # Only what is given: rclpy would keep the first value of all others for ever.
    return QoSOverridingOptions(tuple(overrides(node, topic, kind)))


def misfits(offered: QoSProfile, requested: QoSProfile) -> dict[str, tuple[str, str]]:
    """Return what is offered and what is asked for, by policy, where the one is too little.

    Policies are ``reliability``, ``durability``, ``deadline`` and ``liveliness``.
    """
    found = {}
    for policy, weak, strong in _LEVELS:
        if getattr(offered, policy) == weak and getattr(requested, policy) == strong:
            found[policy] = weak.name.lower(), strong.name.lower()
    for policy, limit in (('deadline', 'deadline'), ('liveliness', 'liveliness_lease_duration')):
        has, wants = _nanoseconds(getattr(offered, limit)), _nanoseconds(getattr(requested, limit))
        if has > wants:
            found.setdefault(policy, (_seconds(has), _seconds(wants)))
    return found


def node_name(endpoint: TopicEndpointInfo) -> str:
    """Return the full name of the node that an endpoint belongs to; empty if not known yet."""
    if _UNKNOWN_NAME in endpoint.node_name:
        return ''
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


def type_name(message_type: type) -> str:
    """Return the name of a message class as the graph has it: ``sensor_msgs/msg/Image``."""
    package = message_type.__module__.partition('.')[0]
    return f'{package}/msg/{message_type.__name__}'


def join_problems(sentences: Iterable[str]) -> str:
    """Put sentences into one line, each once, always in the same order."""
    return '; '.join(sorted(set(sentences)))


def _nanoseconds(duration: Duration) -> int:
    # Zero is the default, and stands for no limit.
    return duration.nanoseconds or _LONGEST


def _seconds(nanoseconds: int) -> str:
    return 'no limit' if nanoseconds == _LONGEST else f'{nanoseconds / 1e9:g} s'
