"""A subscription that fits its publishers, and says why nothing comes in."""

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

RELIABLE = QoSReliabilityPolicy.RELIABLE
BEST_EFFORT = QoSReliabilityPolicy.BEST_EFFORT

INPUT_DEPTH = 4
"""Messages that may wait for the executor, which only moves them to a newest-frame slot.

So they add no latency, and while Python is busy fewer are lost unseen: of 240 frames at 60 Hz,
640×480, on two busy cores, 240 came in, against 236 (reliable) and 213 (best effort) at depth 1.
"""


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
        if self._automatic:
            self._reliability = self._fitting()
        self._subscribe()

    @property
    def reliability(self) -> str:
        """The reliability in use, ``reliable`` or ``best_effort``."""
        return 'reliable' if self._reliability == RELIABLE else 'best_effort'

    def follow_publishers(self) -> None:
        """Subscribe anew if the publishers now ask for another reliability."""
        if not self._automatic:
            return
        fitting = self._fitting()
        if fitting != self._reliability:
            self._reliability = fitting
            self.close()
            self._subscribe()
            self._node.get_logger().info(
                f'{self._topic}: subscribing {self.reliability} now, as its publishers do not '
                'all offer reliable' if fitting == BEST_EFFORT else
                f'{self._topic}: subscribing reliable now, as every publisher offers it')

    def silence(self) -> str:
        """Say why no message may come in, and what to do."""
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        if not publishers:
            return (f'no publisher on {self._topic}; check that the camera driver runs and, '
                    'with ros2 topic list, what its topic is called')
        wanted = _type_name(self._message_type)
        types = {publisher.topic_type for publisher in publishers}
        if wanted not in types:
            return (f'publishers on {self._topic} send {", ".join(sorted(types))}, not {wanted}; '
                    'check image_topic and transport')
        offers = {publisher.qos_profile.reliability for publisher in publishers}
        if self._reliability == RELIABLE and RELIABLE not in offers:
            return (f'publishers on {self._topic} offer best effort only, but a reliable '
                    'subscription is asked for; set input_reliability to auto')
        return (f'no frame on {self._topic} although it has {len(publishers)} publisher(s); '
                'check the camera, and ROS_DOMAIN_ID and network if it is on another host')

    def close(self) -> None:
        """Stop receiving."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _fitting(self) -> QoSReliabilityPolicy:
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        if not publishers:
            return self._reliability
        offers = {publisher.qos_profile.reliability for publisher in publishers}
        return RELIABLE if offers == {RELIABLE} else BEST_EFFORT

    def _subscribe(self) -> None:
        self._subscription = self._node.create_subscription(
            self._message_type, self._topic, self._callback,
            QoSProfile(depth=INPUT_DEPTH, reliability=self._reliability), raw=self._raw,
            # Its warning of a misfit would be wrong a moment later.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False))


def _type_name(message_type: type) -> str:
    package = message_type.__module__.partition('.')[0]
    return f'{package}/msg/{message_type.__name__}'
