"""QoS that does not fit: whose, which policy, and what to set.

DDS connects a publisher and a subscription only if the publisher offers at least what the
subscription asks for. Otherwise no message passes, and nothing else tells why.
"""

from collections.abc import Callable, Iterable

from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSLivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    QoSReliabilityPolicy,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

__all__ = [
    'NAME_SECONDS', 'SubscriptionEventCallbacks', 'join_problems', 'misfits', 'node_name',
    'output_events', 'output_problem', 'policy_name',
]

NAME_SECONDS = 0.5
"""How long to wait for the name of a node: Fast DDS knows it some 0.1 s after its endpoints."""

_LEVELS = (
    ('reliability', QoSReliabilityPolicy.BEST_EFFORT, QoSReliabilityPolicy.RELIABLE),
    ('durability', QoSDurabilityPolicy.VOLATILE, QoSDurabilityPolicy.TRANSIENT_LOCAL),
    ('liveliness', QoSLivelinessPolicy.AUTOMATIC, QoSLivelinessPolicy.MANUAL_BY_TOPIC),
)
_UNKNOWN_NAME = '_NODE_NAME_UNKNOWN_'
_LONGEST = 2**63 - 1
_OUTPUT_REMEDIES = {
    'reliability': 'set output_reliability to reliable, or let it ask for best_effort',
    'durability': 'let it ask for durability volatile: images are not kept for late subscribers',
    'deadline': 'take the deadline out of its QoS',
    'liveliness': 'let it ask for liveliness automatic, without a lease duration',
}


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
    if endpoint.node_name == _UNKNOWN_NAME:
        return ''
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


def policy_name(event: object) -> str:
    """Return the policy that an incompatible-QoS event was about, as in :func:`misfits`."""
    # An int on some distributions, an enum of the same values on others.
    return QoSPolicyKind(int(event.last_policy_kind)).name.lower()


def output_problem(node: Node, topic: str) -> str:
    """Say which nodes subscribe to an output in a way that it cannot serve, and what to set.

    Parameters
    ----------
    node
        Owner of the publisher.
    topic
        Full topic name.

    Returns
    -------
    str
        One sentence for each such node; empty if there is none, or no publisher of the node.

    """
    own = node.get_namespace(), node.get_name()
    offers = [publisher for publisher in node.get_publishers_info_by_topic(topic)
              if (publisher.node_namespace, publisher.node_name) == own]
    if not offers:
        return ''
    return join_problems(
        _output_sentence(topic, node_name(subscription) or 'a subscriber', misfit)
        for subscription in node.get_subscriptions_info_by_topic(topic)
        if subscription.topic_type == offers[0].topic_type
        and (misfit := misfits(offers[0].qos_profile, subscription.qos_profile)))


def output_events(
    node: Node, topic: str, on_problem: Callable[[str], None]
) -> PublisherEventCallbacks:
    """Make the event callbacks of a publisher, which tell of subscribers that get nothing.

    Parameters
    ----------
    node
        Owner of the publisher.
    topic
        Full topic name.
    on_problem
        Gets a sentence, in the executor's thread, half a second after a subscriber came whose
        QoS does not fit; never an empty one.

    """
    pending = {}

    def tell() -> None:
        policy, timer = pending.pop('event')
        node.destroy_timer(timer)
        # It may have gone already, or the middleware may not tell its QoS.
        on_problem(output_problem(node, topic) or (
            f'{topic}: a subscriber asked for a {policy} that is not offered (incompatible QoS); '
            f'{_OUTPUT_REMEDIES.get(policy, f"change its {policy}")}'))

    def on_event(event: object) -> None:
        if 'event' not in pending:
            # Not the node's clock, which may be simulated and stand still.
            timer = node.create_timer(
                NAME_SECONDS, tell, clock=Clock(clock_type=ClockType.STEADY_TIME))
            pending['event'] = policy_name(event), timer

    return PublisherEventCallbacks(incompatible_qos=on_event)


def join_problems(sentences: Iterable[str]) -> str:
    """Put sentences into one line, each once, always in the same order."""
    return '; '.join(sorted(set(sentences)))


def _output_sentence(topic: str, name: str, misfit: dict[str, tuple[str, str]]) -> str:
    policies = ' and '.join(
        f'{policy} {wants} where {has} is offered' for policy, (has, wants) in misfit.items())
    remedies = ', and '.join(_OUTPUT_REMEDIES[policy] for policy in misfit)
    return f'{topic}: {name} gets nothing, as it asks for {policies}; {remedies}'


def _nanoseconds(duration: Duration) -> int:
    # Zero is the default, and stands for no limit.
    return duration.nanoseconds or _LONGEST


def _seconds(nanoseconds: int) -> str:
    return 'no limit' if nanoseconds == _LONGEST else f'{nanoseconds / 1e9:g} s'
