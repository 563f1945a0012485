"""A camera's subscriptions and publishers, and the reasons why messages do not get through.

DDS connects a publisher and a subscription only if the QoS that the publisher offers is at least
what the subscription requests. Otherwise no message passes, and nothing else reports why.
"""

import difflib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
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
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RelativeHumidity

from derain_ros.node.parameters import COMPRESSED, SWITCHES, LiveSettings, ParameterError

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

RELIABLE = QoSReliabilityPolicy.RELIABLE
BEST_EFFORT = QoSReliabilityPolicy.BEST_EFFORT
VOLATILE = QoSDurabilityPolicy.VOLATILE
TRANSIENT_LOCAL = QoSDurabilityPolicy.TRANSIENT_LOCAL

INPUT_DEPTH = 4
"""Queue depth of the subscriptions; the executor only moves messages to a newest-frame slot.

So the queue adds no latency, and fewer frames are lost unnoticed while Python is busy: of 240 at
60 Hz, 640×480, two busy cores, all arrived; at depth 1, 236 (reliable) and 213 (best effort) did.
"""

OUTPUT_DEPTH = 5

_TYPES = {
    'camera_info': CameraInfo, COMPRESSED: CompressedImage, 'status': DiagnosticArray,
    # The only standard message with a header and a ratio from 0 to 1.
    'rain_intensity': RelativeHumidity,
}
_OF_PUBLISHERS = {
    'reliability': 'set input_reliability to auto, or let it publish reliable',
    'durability': 'let it publish transient_local',
    'deadline': 'let it offer a shorter deadline',
    'liveliness': 'let it offer a stronger liveliness',
}
_OF_SUBSCRIBERS = {
    'reliability': 'set output_reliability to reliable, or let it ask for best_effort',
    'durability': 'let it ask for durability volatile: images are not kept for late subscribers',
    'deadline': 'take the deadline out of its QoS',
    'liveliness': 'let it ask for liveliness automatic, without a lease duration',
}

NOTICE_SECONDS = 0.5
"""How long a problem lasts before it is logged.

Fast DDS and Cyclone DDS discover the name of a node some 0.1 s after its endpoints.
"""

_LEVELS = (
    ('reliability', BEST_EFFORT, RELIABLE),
    ('durability', VOLATILE, TRANSIENT_LOCAL),
    ('liveliness', QoSLivelinessPolicy.AUTOMATIC, QoSLivelinessPolicy.MANUAL_BY_TOPIC),
)
_SECONDS = re.compile(r'\d+(\.\d+)? s\b')  # a changed duration is still the same problem
_COMPRESSED = '/compressed'
_UNKNOWN_NAME = '_NODE_NAME_UNKNOWN_'
_LONGEST = 2**63 - 1


class Notice:
    """Warns in a node's log of a problem that lasts, and says ``end`` once it is over.

    ``start`` precedes both.
    """

    def __init__(self, node: Node, start: str, end: str):
        self._node, self._start, self._end = node, start, end
        self._seen = self._told = ''
        self._since = 0.0

    def look(self, problem: str) -> None:
        """Process the current problem, empty for none; to be called regularly."""
        now, kind = time.monotonic(), _SECONDS.sub('', problem)
        if kind != self._seen:
            self._seen, self._since = kind, now
        if kind == self._told or now - self._since < NOTICE_SECONDS:
            return
        self._told = kind
        if problem:
            self._node.get_logger().warning(f'{self._start}{problem}')
        elif self._end:
            self._node.get_logger().info(f'{self._start}{self._end}')


class InputTopic:
    """A subscription to serialized messages that adapts to what the publishers offer.

    ``candidates`` are full topic names and message classes; ``topic`` and ``message_type`` are the
    first with a publisher of that type. The callback gets each message and its class.
    Reliability ``auto`` means reliable as long as every publisher offers that, since a reliable
    subscription gets nothing from a best-effort publisher. Durability is likewise transient_local
    if all offer it, so that what was published once, such as a calibration, also reaches late
    subscribers. Parameters ``qos_overrides.<topic>.subscription.…`` take precedence.
    """

    def __init__(
        self, node: Node, candidates: Sequence[tuple[str, type]],
        callback: Callable[[bytes, type], None], reliability: str,
    ):
        self._node = node
        self._candidates = candidates
        self._callback = callback
        self._wanted = reliability
        # Best effort would lose frames until a reliable publisher is discovered.
        self._policies = BEST_EFFORT if reliability == 'best_effort' else RELIABLE, VOLATILE
        self._subscription = None
        self.topic, self.message_type = '', type(None)
        self.topic, self.message_type = self._choice()
        self._policies = self._fitting(self._publishers())
        self._subscribe()
        self._notice = Notice(node, '', f'{self.topic}: the QoS of every publisher fits again')

    @property
    def reliability(self) -> str:
        """The reliability in use, ``reliable`` or ``best_effort``."""
        return 'reliable' if self._qos.reliability == RELIABLE else 'best_effort'

    def follow_publishers(self) -> None:
        """Resubscribe if the publishers' types or QoS have changed; warn of incompatible QoS."""
        if self._choice() != (self.topic, self.message_type):
            # A node cannot subscribe to a topic with two types, and the executor keeps the old
            # subscription alive until it spins, so the next call creates the new one.
            self.close()
            self.topic, self.message_type = self._choice()
            return
        publishers = self._publishers()
        before, self._policies = self._policies, self._fitting(publishers)
        if self._subscription is None or self._policies != before:
            try:
                self._subscribe()
            except RuntimeError as error:
                # The executor still holds the old subscription; the next call tries again.
                if self._node.executor:
                    self._node.executor.wake()
                self._node.get_logger().warning(
                    f'{self.topic}: {error}', throttle_duration_sec=5.0, skip_first=True)
                return
            self._node.get_logger().info(
                f'{self.topic}: subscribing to {type_name(self.message_type)}, '
                f'{self.reliability} and {self._qos.durability.name.lower()}, to fit its '
                'publishers')
        self._notice.look(self._problem(publishers))

    def qos_problem(self) -> str:
        """Return which publishers have too weak a QoS to be received, and what to set.

        Empty if there is none, or if only policies are affected that :meth:`follow_publishers`
        will adapt.
        """
        return self._problem(self._publishers())

    def type_problem(self) -> str:
        """Return a problem if all publishers send types other than those asked for, else empty."""
        types = {publisher.topic_type for topic in self._topics()
                 for publisher in self._node.get_publishers_info_by_topic(topic)}
        wanted = {type_name(message_type) for _, message_type in self._candidates}
        if not types or types & wanted:
            return ''
        return (f'publishers on {self.topic} send {", ".join(sorted(types))}, not '
                f'{" or ".join(sorted(wanted))}; name another topic')

    def silence(self, seconds: float, *, ever: bool) -> str:
        """Return why no message came for ``seconds``, or (not ``ever``) at all, with a remedy."""
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
        """Return a published topic of like name and type, unused by nodes of our name, or ``''``.

        Nodes of other namespaces count, too: their outputs, and the cameras of other vehicles.
        """
        node = self._node
        kinds = {type_name(kind) for kind in (
            (CameraInfo,) if self.message_type is CameraInfo else (Image, CompressedImage))}
        # In reverse order, so that a raw topic replaces its compressed one.
        there = {name.removesuffix(_COMPRESSED): name for name, types in sorted(
            node.get_topic_names_and_types(), reverse=True)
            if name != self.topic and not kinds.isdisjoint(types)}
        wanted = self.topic.removesuffix(_COMPRESSED)
        for name in map(there.get, difflib.get_close_matches(wanted, there, n=3, cutoff=0.7)):
            publishers = node.get_publishers_info_by_topic(name)
            others = [*publishers, *node.get_subscriptions_info_by_topic(name)]
            if publishers and node.get_name() not in {other.node_name for other in others}:
                return name
        return ''

    def _topics(self) -> list[str]:
        return list(dict.fromkeys(topic for topic, _ in self._candidates))

    def _choice(self) -> tuple[str, type]:
        """Return topic and class to subscribe to; the current ones while they have a publisher."""
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

    def _followed(self) -> set[str]:
        """Return the names of the policies that are adapted to the publishers."""
        given = {policy.name.lower() for policy in overrides(
            self._node, self.topic, 'subscription')}
        return {'durability', *['reliability'] * (self._wanted == 'auto')} - given

    def _fitting(
        self, publishers: list[TopicEndpointInfo]
    ) -> tuple[QoSReliabilityPolicy, QoSDurabilityPolicy]:
        """Return the strongest reliability and durability that every publisher offers."""
        found, followed = self._policies, self._followed() if publishers else ()
        offers = [publisher.qos_profile for publisher in publishers]
        if 'reliability' in followed:
            reliable = all(offer.reliability == RELIABLE for offer in offers)
            found = RELIABLE if reliable else BEST_EFFORT, found[1]
        if 'durability' in followed:
            kept = all(offer.durability == TRANSIENT_LOCAL for offer in offers)
            found = found[0], TRANSIENT_LOCAL if kept else VOLATILE
        return found

    def _subscribe(self) -> None:
        self.close()
        reliability, durability = self._policies
        self._qos = QoSProfile(
            depth=INPUT_DEPTH, reliability=reliability, durability=durability)
        kind = self.message_type
        with overriding(self._node, self.topic, 'subscription') as options:
            self._subscription = self._node.create_subscription(
                kind, self.topic, lambda message: self._callback(message, kind), self._qos,
                raw=True, qos_overriding_options=options,
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False))

    def _misfits(self, publisher: TopicEndpointInfo) -> dict[str, tuple[str, str]]:
        if self._subscription is None:
            return {}
        followed = self._followed()
        return {policy: values for policy, values in misfits(
            publisher.qos_profile, self._qos).items() if policy not in followed}

    def _problem(self, publishers: list[TopicEndpointInfo]) -> str:
        return join_problems(
            misfit_sentence(
                f'{self.topic}: {node_name(one) or "a publisher"} is not received, as it offers',
                '{has} where {wants} is requested', found, _OF_PUBLISHERS)
            for one in publishers if (found := self._misfits(one)))


class OutputTopics:
    """Publishers of a camera's outputs, by ``topics``; they are created at once.

    Parameters ``qos_overrides.<topic>.publisher.<policy>`` take precedence over ``reliability``.
    """

    def __init__(self, node: Node, topics: Mapping[str, str], reliability: str):
        self._node = node
        self._topics = topics
        self._publishers = {}
        reliability = BEST_EFFORT if reliability == 'best_effort' else RELIABLE
        self._qos = {
            output: QoSProfile(depth=OUTPUT_DEPTH, reliability=reliability,
                               liveliness=QoSLivelinessPolicy.AUTOMATIC) for output in topics}
        try:
            for output, topic in topics.items():
                with overriding(node, topic, 'publisher') as options:
                    self._publishers[output] = node.create_publisher(
                        _TYPES.get(output, Image), topic, self._qos[output],
                        event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
                        qos_overriding_options=options)
        except Exception:
            self.close()
            raise

    def wanted(self, live: LiveSettings) -> set[str]:
        """Return the outputs that are switched on and have a subscriber.

        Empty if only the status has one, as the status describes published frames. The rain
        intensity is not included, as it does not require a frame to be published.
        """
        wanted = {output for output, publisher in self._publishers.items()
                  if publisher.get_subscription_count() and _is_on(output, live)}
        wanted.discard('rain_intensity')
        return wanted if wanted != {'status'} else set()

    def wants_intensity(self) -> bool:
        """Return whether the rain intensity of this camera has a subscriber."""
        return self._publishers['rain_intensity'].get_subscription_count() > 0

    def publish(self, output: str, message: Any) -> None:
        """Publish a message, serialized or not."""
        self._publishers[output].publish(message)

    def problem(self, live: LiveSettings) -> str:
        """Return why subscribers get nothing or two nodes' frames, with a remedy; else empty."""
        problems, rivals = [], {}
        for output, publisher in self._publishers.items():
            topic = self._topics[output]
            # Both counts are cheap; the endpoints are queried only if they differ.
            subscriptions = self._node.count_subscribers(topic)
            if subscriptions and not _is_on(output, live):
                problems.append(f'{topic} is subscribed to, but switched off; set '
                                f'{SWITCHES[output]} to true, which takes effect at once')
            elif subscriptions > publisher.get_subscription_count():
                problems += self._misfits(output)
            if self._node.count_publishers(topic) > 1:
                for name in self._rivals(topic):
                    rivals.setdefault(name, []).append(topic)
        problems += [
            f'{name} publishes {", ".join(topics)} too, so that frames of both are mixed; stop '
            'one of them, or change output_namespace' for name, topics in rivals.items()]
        return join_problems(problems)

    def close(self) -> None:
        """Destroy the publishers."""
        while self._publishers:
            self._node.destroy_publisher(self._publishers.popitem()[1])

    def _rivals(self, topic: str) -> set[str]:
        own = self._node.get_fully_qualified_name()
        names = [node_name(found) for found in self._node.get_publishers_info_by_topic(topic)]
        if own in names:
            names.remove(own)
        return {f'another node named {own}' if name == own else name or 'another node'
                for name in names}

    def _misfits(self, output: str) -> list[str]:
        topic, kind = self._topics[output], type_name(_TYPES.get(output, Image))
        return [
            misfit_sentence(
                f'{topic}: {node_name(found) or "a subscriber"} receives nothing, as it requests',
                '{wants} where {has} is offered', policies, _OF_SUBSCRIBERS)
            if found.topic_type == kind else
            f'{topic}: {node_name(found) or "a subscriber"} gets nothing, as it asks for '
            f'{found.topic_type} where {kind} is published; let it ask for that'
            for found in self._node.get_subscriptions_info_by_topic(topic)
            if found.topic_type != kind
            or (policies := misfits(self._qos[output], found.qos_profile))]


def overrides(node: Node, topic: str, kind: str) -> dict[QoSPolicyKind, object]:
    """Return the values of ``qos_overrides.<topic>.<kind>.<policy>`` parameters, by policy.

    ``kind`` is ``publisher`` or ``subscription``, ``topic`` a full name.
    """
    given = getattr(node, '_parameter_overrides', {})  # rclpy has no public name for these
    start = f'qos_overrides.{topic}.{kind}.'
    return {policy: given[start + policy.name.lower()].value for policy in QoSPolicyKind
            if start + policy.name.lower() in given}


@contextmanager
def overriding(node: Node, topic: str, kind: str) -> Iterator[QoSOverridingOptions]:
    """Yield the options with which rclpy applies :func:`overrides` to a new endpoint.

    Raises ParameterError, naming the overrides, if the endpoint cannot be created with them.
    """
    given = overrides(node, topic, kind)
    try:
        # Only those given: rclpy would fix all others at their first value.
        yield QoSOverridingOptions(tuple(given))
    except Exception as error:  # of several types
        if not given:
            raise
        values = ', '.join(f'{policy.name.lower()} {value!r}' for policy, value in given.items())
        raise ParameterError(f'qos_overrides.{topic}.{kind} has {values}, which cannot be used: '
                             f'{error}') from error


def misfits(offered: QoSProfile, requested: QoSProfile) -> dict[str, tuple[str, str]]:
    """Return the offered and the requested value of each policy that is incompatible.

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


def misfit_sentence(
    start: str, end: str, found: Mapping[str, tuple[str, str]], remedies: Mapping[str, str]
) -> str:
    """Return a sentence of what :func:`misfits` found, worded by ``end``, and the remedies."""
    policies = ' and '.join(
        f'{policy} {end.format(has=has, wants=wants)}' for policy, (has, wants) in found.items())
    return f'{start} {policies}; {", and ".join(remedies[policy] for policy in found)}'


def node_name(endpoint: TopicEndpointInfo) -> str:
    """Return the full name of the node that an endpoint belongs to; empty if not known yet."""
    if _UNKNOWN_NAME in endpoint.node_name:
        return ''
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


def type_name(message_type: type) -> str:
    """Return a message class's name as in the ROS graph, such as ``sensor_msgs/msg/Image``."""
    package = message_type.__module__.partition('.')[0]
    return f'{package}/msg/{message_type.__name__}'


def join_problems(sentences: Iterable[str]) -> str:
    """Join the distinct sentences into one line, in sorted order."""
    return '; '.join(sorted(set(sentences)))


def _nanoseconds(duration: Duration) -> int:
    # Zero is the default and means no limit.
    return duration.nanoseconds or _LONGEST


def _seconds(nanoseconds: int) -> str:
    return 'no limit' if nanoseconds == _LONGEST else f'{nanoseconds / 1e9:g} s'


def _is_on(output: str, live: LiveSettings) -> bool:
    return getattr(live, SWITCHES[output]) if output in SWITCHES else True
