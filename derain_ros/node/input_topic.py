"""A subscription that fits its publishers, and says why nothing comes in."""

import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from derain_ros.node.qos_events import (
    NAME_SECONDS,
    SubscriptionEventCallbacks,
    join_problems,
    misfits,
    node_name,
    policy_name,
)

RELIABLE = QoSReliabilityPolicy.RELIABLE
BEST_EFFORT = QoSReliabilityPolicy.BEST_EFFORT

INPUT_DEPTH = 4
"""Messages that may wait for the executor, which only moves them to a newest-frame slot.

So they add no latency, and while Python is busy fewer are lost unseen: of 240 frames at 60 Hz,
640×480, on two busy cores, 240 came in, against 236 (reliable) and 213 (best effort) at depth 1.
"""

_REMEDIES = {
    'reliability': 'set input_reliability to auto, or let it publish reliable',
    'durability': 'let it publish transient_local',
    'deadline': 'let it offer a shorter deadline',
    'liveliness': 'let it offer a stronger liveliness',
}


class InputTopic:
    """A subscription whose reliability follows what the publishers offer.

    Parameters
    ----------
    node
        Owner of the subscription.
    message_type
        Class of the messages.
    topic
        Full topic name.
    callback
        Gets each message, serialized if ``raw``.
    reliability
        ``auto``: reliable as long as every publisher offers that. A reliable subscription
        gets nothing from a best-effort publisher. Otherwise ``reliable`` or ``best_effort``.
    raw
        Leave messages serialized.

    """

    def __init__(
        self, node: Node, message_type: type, topic: str, callback: Callable, reliability: str,
        *, raw: bool = False,
    ):
        self._node = node
        self._message_type = message_type
        self._topic = topic
        self._callback = callback
        self._automatic = reliability == 'auto'
        self._raw = raw
        # Best effort would lose frames until a reliable publisher is known to be one.
        self._reliability = BEST_EFFORT if reliability == 'best_effort' else RELIABLE
        self._subscription = None
        self._refused = ''
        self._warned = ''
        self._nameless_since: float | None = None
        if self._automatic:
            self._reliability = self._fitting(self._publishers())
        self._subscribe()

    @property
    def reliability(self) -> str:
        """The reliability in use, ``reliable`` or ``best_effort``."""
        return 'reliable' if self._reliability == RELIABLE else 'best_effort'

    def follow_publishers(self) -> None:
        """Subscribe anew if the publishers now ask for another reliability; warn of misfits."""
        publishers = self._publishers()
        if self._automatic:
            self._follow_reliability(publishers)
        self._warn_of_misfits(publishers)

    def qos_problem(self) -> str:
        """Say which publishers are not heard as their QoS is too weak, and what to set.

        Empty if there is none, and with ``auto`` while only their reliability is:
        :meth:`follow_publishers` puts that right.
        """
        return self._problem(self._publishers())

    def silence(self) -> str:
        """Say why no message may come in, and what to do."""
        publishers = self._publishers()
        if not publishers:
            return (f'no publisher on {self._topic}; check that the camera driver runs and, '
                    'with ros2 topic list, what its topic is called')
        wanted = _type_name(self._message_type)
        types = {publisher.topic_type for publisher in publishers}
        if wanted not in types:
            return (f'publishers on {self._topic} send {", ".join(sorted(types))}, not {wanted}; '
                    'check image_topic and transport')
        problem = self._problem(publishers)
        if problem:
            return problem
        return (f'no frame on {self._topic} although it has {len(publishers)} publisher(s); '
                'check the camera, and ROS_DOMAIN_ID and network if it is on another host')

    def close(self) -> None:
        """Stop receiving."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _publishers(self) -> list[TopicEndpointInfo]:
        return self._node.get_publishers_info_by_topic(self._topic)

    def _follow_reliability(self, publishers: list[TopicEndpointInfo]) -> None:
        fitting = self._fitting(publishers)
        if fitting == self._reliability:
            return
        self._reliability = fitting
        self.close()
        self._subscribe()
        self._node.get_logger().info(
            f'{self._topic}: subscribing {self.reliability} now, as its publishers do not '
            'all offer reliable' if fitting == BEST_EFFORT else
            f'{self._topic}: subscribing reliable now, as every publisher offers it')

    def _fitting(self, publishers: list[TopicEndpointInfo]) -> QoSReliabilityPolicy:
        if not publishers:
            return self._reliability
        offers = {publisher.qos_profile.reliability for publisher in publishers}
        return RELIABLE if offers == {RELIABLE} else BEST_EFFORT

    def _subscribe(self) -> None:
        self._qos = QoSProfile(depth=INPUT_DEPTH, reliability=self._reliability)
        # No such event where the subscription is about to be replaced: rclpy's EventsExecutor
        # raises InvalidHandle for one that comes in just before.
        on_event = None if self._automatic else self._on_incompatible_qos
        self._subscription = self._node.create_subscription(
            self._message_type, self._topic, self._callback, self._qos, raw=self._raw,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=on_event, use_default_callbacks=False))

    def _on_incompatible_qos(self, event: object) -> None:
        # Whose it is may not be known yet; the next follow_publishers() tells.
        self._refused = policy_name(event)

    def _warn_of_misfits(self, publishers: list[TopicEndpointInfo]) -> None:
        if not all(map(node_name, self._misfitting(publishers))):
            if self._nameless_since is None:
                self._nameless_since = time.monotonic()
            if time.monotonic() - self._nameless_since < NAME_SECONDS:
                return
        self._nameless_since = None
        problem = self._problem(publishers)
        refused, self._refused = self._refused, ''
        if problem and problem != self._warned:
            self._node.get_logger().warning(problem)
        elif refused and not problem:
            # It has gone already, or the middleware does not tell its QoS.
            self._node.get_logger().warning(
                f'{self._topic}: a publisher offered too weak a {refused} (incompatible QoS) and '
                f'was not heard; {_REMEDIES.get(refused, f"change its {refused}")}')
        elif self._warned and not problem:
            self._node.get_logger().info(f'{self._topic}: the QoS of every publisher fits again')
        self._warned = problem

    def _misfitting(self, publishers: list[TopicEndpointInfo]) -> list[TopicEndpointInfo]:
        return [publisher for publisher in publishers if self._misfits(publisher)]

    def _misfits(self, publisher: TopicEndpointInfo) -> dict[str, tuple[str, str]]:
        found = {}
        if self._subscription is not None and (
                publisher.topic_type == _type_name(self._message_type)):
            found = misfits(publisher.qos_profile, self._qos)
            if self._automatic:
                found.pop('reliability', None)
        return found

    def _problem(self, publishers: list[TopicEndpointInfo]) -> str:
        return join_problems(map(self._sentence, self._misfitting(publishers)))

    def _sentence(self, publisher: TopicEndpointInfo) -> str:
        found = self._misfits(publisher)
        policies = ' and '.join(
            f'{policy} {has} where {wants} is asked for' for policy, (has, wants) in found.items())
        remedies = ', and '.join(_REMEDIES[policy] for policy in found)
        return (f'{self._topic}: {node_name(publisher) or "a publisher"} is not heard, as it '
                f'offers {policies}; {remedies}')


def _type_name(message_type: type) -> str:
    package = message_type.__module__.partition('.')[0]
    return f'{package}/msg/{message_type.__name__}'
