"""A subscription that fits its publishers, and says why nothing comes in."""

import difflib
from collections.abc import Callable, Sequence
from functools import partial

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, QoSReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from derain_ros.node.qos import (
    Notice,
    SubscriptionEventCallbacks,
    join_problems,
    misfits,
    node_name,
    overrides,
    overriding_options,
    type_name,
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
    """A subscription to serialized messages that follows what the publishers offer.

    Parameters
    ----------
    node
        Owner of the subscription.
    candidates
        Full topic names and message classes, the likeliest first: the first with a publisher of
        its type is subscribed to.
    callback
        Gets each message, serialized, and its class.
    reliability
        ``auto``: reliable as long as every publisher offers that. A reliable subscription
        gets nothing from a best-effort publisher. Otherwise ``reliable`` or ``best_effort``.
        A parameter ``qos_overrides.<topic>.subscription.reliability`` goes before.

    Attributes
    ----------
    topic, message_type
        What is subscribed to.

    """

    def __init__(
        self, node: Node, candidates: Sequence[tuple[str, type]],
        callback: Callable[[bytes, type], None], reliability: str,
    ):
        self._node = node
        self._candidates = candidates
        self._callback = callback
        self._wanted = reliability
        # Best effort would lose frames until a reliable publisher is known to be one.
        self._reliability = BEST_EFFORT if reliability == 'best_effort' else RELIABLE
        self._subscription = None
        self.topic, self.message_type = '', type(None)
        self.topic, self.message_type = self._choice()
        self._reliability = self._fitting(self._publishers())
        self._subscribe()
        logger = node.get_logger()
        self._notice = Notice(
            logger.warning, logger.info, f'{self.topic}: the QoS of every publisher fits again')

    @property
    def reliability(self) -> str:
        """The reliability in use, ``reliable`` or ``best_effort``."""
        return 'reliable' if self._qos.reliability == RELIABLE else 'best_effort'

    def follow_publishers(self) -> None:
        """Subscribe anew if the publishers now ask for something else; warn of misfits."""
        if self._choice() != (self.topic, self.message_type):
            # A topic cannot be subscribed to with two types, and the executor holds the old
            # subscription until it spins: the next call makes the new one.
            self.close()
            self.topic, self.message_type = self._choice()
            return
        publishers = self._publishers()
        if self._subscription is None:
            self._reliability = self._fitting(publishers)
            self._subscribe()
            self._node.get_logger().info(
                f'{self.topic}: subscribing to {type_name(self.message_type)} now, as its '
                'publisher sends that')
        fitting = self._fitting(publishers)
        if fitting != self._reliability:
            self._reliability = fitting
            self._subscribe()
            self._node.get_logger().info(
                f'{self.topic}: subscribing {self.reliability} now, as its publishers do not '
                'all offer reliable' if fitting == BEST_EFFORT else
                f'{self.topic}: subscribing reliable now, as every publisher offers it')
        self._notice.look(self._problem(publishers))

    def qos_problem(self) -> str:
        """Say which publishers are not heard as their QoS is too weak, and what to set.

        Empty if there is none, and with ``auto`` while only their reliability is:
        :meth:`follow_publishers` puts that right.
        """
        return self._problem(self._publishers())

    def type_problem(self) -> str:
        """Say which other types the publishers send, if all of them do; else empty."""
        types = {publisher.topic_type for topic in self._topics()
                 for publisher in self._node.get_publishers_info_by_topic(topic)}
        wanted = {type_name(message_type) for _, message_type in self._candidates}
        if not types or types & wanted:
            return ''
        return (f'publishers on {self.topic} send {", ".join(sorted(types))}, not '
                f'{" or ".join(sorted(wanted))}; name another topic')

    def silence(self, seconds: float, *, ever: bool) -> str:
        """Say why no message may come in, and what to do.

        Parameters
        ----------
        seconds
            Since the last message, or since the start.
        ever
            A message has come.

        """
        if problem := self.type_problem():
            return problem
        publishers = self._publishers()
        if not publishers:
            close = self._like()
            hint = f'did you mean {close}, which has one?' if close else (
                'check that the camera driver runs and, with ros2 topic list, what its topic is '
                'called')
            return f'no publisher on {" or ".join(self._topics())}; {hint}'
        if problem := self._problem(publishers):
            return problem
        names = join_problems(node_name(publisher) or 'a node' for publisher in publishers)
        if ever:
            return (f'the last message on {self.topic} came {seconds:.1f} s ago, although '
                    f'{names} still publishes it; check the camera')
        return (f'no message on {self.topic} for {seconds:.0f} s, although {names} publishes it; '
                'check the camera. If its driver runs as another user or in another container, '
                'shared memory is what fails: run both as one user and with --ipc=host, or do '
                'without shared memory; if it runs on another host, check ROS_DOMAIN_ID and '
                'network')

    def close(self) -> None:
        """Stop receiving."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _like(self) -> str:
        """Return a topic of the type and a similar name that the node has nothing to do with."""
        own, node = self._node.get_fully_qualified_name(), self._node
        there = [name for name, types in node.get_topic_names_and_types()
                 if type_name(self.message_type) in types]
        for name in difflib.get_close_matches(self.topic, there, n=3, cutoff=0.7):
            publishers = node.get_publishers_info_by_topic(name)
            others = [*publishers, *node.get_subscriptions_info_by_topic(name)]
            if publishers and own not in map(node_name, others):
                return name
        return ''

    def _topics(self) -> list[str]:
        return list(dict.fromkeys(topic for topic, _ in self._candidates))

    def _choice(self) -> tuple[str, type]:
        """Return the topic and class to subscribe to: no other where the present one is served."""
        current = [(self.topic, self.message_type)] if self.topic else []
        if len(self._candidates) > 1:
            for topic, message_type in (*current, *self._candidates):
                if self._publishers_of(topic, message_type):
                    return topic, message_type
        return (*current, *self._candidates)[0]

    def _publishers(self) -> list[TopicEndpointInfo]:
        return self._publishers_of(self.topic, self.message_type)

    def _publishers_of(self, topic: str, message_type: type) -> list[TopicEndpointInfo]:
        return [publisher for publisher in self._node.get_publishers_info_by_topic(topic)
                if publisher.topic_type == type_name(message_type)]

    def _automatic(self) -> bool:
        return self._wanted == 'auto' and QoSPolicyKind.RELIABILITY not in overrides(
            self._node, self.topic, 'subscription')

    def _fitting(self, publishers: list[TopicEndpointInfo]) -> QoSReliabilityPolicy:
        if not publishers or not self._automatic():
            return self._reliability
        offers = {publisher.qos_profile.reliability for publisher in publishers}
        return RELIABLE if offers == {RELIABLE} else BEST_EFFORT

    def _subscribe(self) -> None:
        self.close()
        self._qos = QoSProfile(depth=INPUT_DEPTH, reliability=self._reliability)
        self._subscription = self._node.create_subscription(
            self.message_type, self.topic,
            partial(self._callback, message_type=self.message_type), self._qos, raw=True,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            qos_overriding_options=overriding_options(self._node, self.topic, 'subscription'))

    def _misfits(self, publisher: TopicEndpointInfo) -> dict[str, tuple[str, str]]:
        if self._subscription is None:
            return {}
        found = misfits(publisher.qos_profile, self._qos)
        if self._automatic():
            found.pop('reliability', None)
        return found

    def _problem(self, publishers: list[TopicEndpointInfo]) -> str:
        return join_problems(
            self._sentence(publisher, found) for publisher in publishers
            if (found := self._misfits(publisher)))

    def _sentence(
        self, publisher: TopicEndpointInfo, found: dict[str, tuple[str, str]]
    ) -> str:
        policies = ' and '.join(
            f'{policy} {has} where {wants} is asked for' for policy, (has, wants) in found.items())
        remedies = ', and '.join(_REMEDIES[policy] for policy in found)
        return (f'{self.topic}: {node_name(publisher) or "a publisher"} is not heard, as it '
                f'offers {policies}; {remedies}')
