"""The publishers of a camera's outputs, and what keeps subscribers from their messages."""

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSLivelinessPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RelativeHumidity
from std_msgs.msg import Header

from derain_ros.node.input_topic import BEST_EFFORT, RELIABLE
from derain_ros.node.parameters import COMPRESSED, SWITCHES, LiveSettings
from derain_ros.node.qos import (
    PublisherEventCallbacks,
    join_problems,
    misfits,
    node_name,
    overriding_options,
    type_name,
)

OUTPUT_DEPTH = 5

_TYPES = {
    'camera_info': CameraInfo, COMPRESSED: CompressedImage, 'status': DiagnosticArray,
    # The one standard message of a header and a share from 0 to 1.
    'rain_intensity': RelativeHumidity,
}
_REMEDIES = {
    'reliability': 'set output_reliability to reliable, or let it ask for best_effort',
    'durability': 'let it ask for durability volatile: images are not kept for late subscribers',
    'deadline': 'take the deadline out of its QoS',
    'liveliness': 'let it ask for liveliness automatic, without a lease duration',
}


class OutputTopics:
    """Publishers of a camera's outputs; they exist from the start.

    Parameters
    ----------
    node
        Owner of the publishers.
    topics
        Full topic name of each output.
    reliability
        ``reliable`` or ``best_effort``; parameters
        ``qos_overrides.<topic>.publisher.<policy>`` go before.

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
                self._publishers[output] = node.create_publisher(
                    _TYPES.get(output, Image), topic, self._qos[output],
                    event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
                    qos_overriding_options=overriding_options(node, topic, 'publisher'))
        except Exception:
            self.close()
            raise

    def wanted(self, live: LiveSettings) -> set[str]:
        """Return the outputs that are switched on and that somebody subscribes to.

        Empty where nothing but the status is subscribed to: it tells of frames published. The
        rain intensity needs no frame to be published, and is not among them.
        """
        wanted = {output for output, publisher in self._publishers.items()
                  if publisher.get_subscription_count() and _is_on(output, live)}
        wanted.discard('rain_intensity')
        return wanted if wanted != {'status'} else set()

    def wants_intensity(self) -> bool:
        """Tell whether somebody subscribes to the rain intensity of this camera."""
        return self._publishers['rain_intensity'].get_subscription_count() > 0

    def publish_intensity(self, header: Header, intensity: float) -> None:
        """Publish the rain intensity, 0–1, under the header of a frame."""
        self.publish('rain_intensity', RelativeHumidity(
            header=header, relative_humidity=intensity))

    def publish(self, output: str, message: Any) -> None:
        """Publish a message, serialized or not."""
        self._publishers[output].publish(message)

    def problem(self, live: LiveSettings) -> str:
        """Say who gets nothing, or not from this node alone, and what to do; else empty."""
        problems, rivals = [], {}
        for output, publisher in self._publishers.items():
            topic = self._topics[output]
            # Both counts cost little; the endpoints are asked for only where they differ.
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
        """Take the outputs down."""
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
        topic = self._topics[output]
        sentences = []
        for subscription in self._node.get_subscriptions_info_by_topic(topic):
            found = misfits(self._qos[output], subscription.qos_profile)
            if not found or subscription.topic_type != type_name(_TYPES.get(output, Image)):
                continue
            policies = ' and '.join(
                f'{policy} {wants} where {has} is offered'
                for policy, (has, wants) in found.items())
            remedies = ', and '.join(_REMEDIES[policy] for policy in found)
            sentences.append(f'{topic}: {node_name(subscription) or "a subscriber"} gets nothing, '
                             f'as it asks for {policies}; {remedies}')
        return sentences


def _is_on(output: str, live: LiveSettings) -> bool:
    return getattr(live, SWITCHES[output]) if output in SWITCHES else True
