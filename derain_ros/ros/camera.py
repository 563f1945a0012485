"""The topics of one camera."""

import copy
from collections.abc import Callable
from functools import partial

from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from derain_ros.image_codec import EncodedImage
from derain_ros.ros.diagnostics import Failure, Latencies
from derain_ros.ros.input_topic import BEST_EFFORT, RELIABLE, InputTopic
from derain_ros.ros.settings import OUTPUTS, CameraSettings, LiveSettings, Settings

OUTPUT_DEPTH = 5


class Camera:
    """Inputs, outputs and figures of one camera.

    Publishers exist from the start, subscriptions between :meth:`start` and :meth:`stop`.

    Parameters
    ----------
    node
        Owner of publishers and subscriptions.
    camera
        Topics of this camera.
    settings
        Settings of the node.

    """

    def __init__(self, node: Node, camera: CameraSettings, settings: Settings):
        self.settings = camera
        self.latencies = Latencies()
        self.failure: Failure | None = None
        self.encoding = ''
        self.size = ''
        self._node = node
        self._input_reliability = settings.input_reliability
        self._image: InputTopic | None = None
        self._info: InputTopic | None = None
        self._latest_info: CameraInfo | None = None
        self._publishers = {}
        reliability = BEST_EFFORT if settings.output_reliability == 'best_effort' else RELIABLE
        qos = QoSProfile(depth=OUTPUT_DEPTH, reliability=reliability)
        try:
            for output in OUTPUTS:
                message_type = CameraInfo if output == 'camera_info' else Image
                self._publishers[output] = node.create_publisher(
                    message_type, camera.outputs[output], qos)
        except Exception:
            self.close()
            raise

    @property
    def name(self) -> str:
        """Name of the camera."""
        return self.settings.name

    @property
    def message_type(self) -> type:
        """Class of the image messages that come in."""
        return CompressedImage if self.settings.compressed else Image

    @property
    def reliability(self) -> str:
        """Reliability of the image subscription; empty without one."""
        return '' if self._image is None else self._image.reliability

    def start(self, on_image: Callable[[str, bytes], None]) -> None:
        """Subscribe; ``on_image`` gets the camera's name and each serialized image."""
        self._info = InputTopic(
            self._node, CameraInfo, self.settings.camera_info_topic, self._on_info,
            self._input_reliability)
        self._image = InputTopic(
            self._node, self.message_type, self.settings.image_topic,
            partial(on_image, self.name), self._input_reliability, raw=True)

    def stop(self) -> None:
        """Unsubscribe, and forget the latest camera_info."""
        for topic in (self._image, self._info):
            if topic is not None:
                topic.close()
        self._image = self._info = self._latest_info = None

    def close(self) -> None:
        """Unsubscribe and take the outputs down."""
        self.stop()
        while self._publishers:
            self._node.destroy_publisher(self._publishers.popitem()[1])

    def follow_publishers(self) -> None:
        """Fit the subscriptions to the publishers there are now."""
        for topic in (self._image, self._info):
            if topic is not None:
                topic.follow_publishers()

    def silence(self) -> str:
        """Say why no image may come in, and what to do; empty while not subscribed."""
        return '' if self._image is None else self._image.silence()

    def wanted(self, live: LiveSettings) -> set[str]:
        """Return the outputs that are switched on and that somebody subscribes to."""
        off = set()
        if not live.publish_mask:
            off.add('rain_mask')
        if not live.publish_overlay:
            off.add('overlay')
        return {output for output, publisher in self._publishers.items()
                if output not in off and publisher.get_subscription_count()}

    def publish(self, output: str, image: EncodedImage, header: Header) -> None:
        """Publish an image under the header of the frame that it was made of."""
        # The constructor copies the bytes at once; assigning them checks each one on Humble.
        self.publish_message(output, Image(
            header=header, height=image.height, width=image.width, encoding=image.encoding,
            is_bigendian=image.is_bigendian, step=image.step, data=image.data))

    def publish_message(self, output: str, message: Image) -> None:
        """Publish a message as it is."""
        self._publishers[output].publish(message)

    def publish_info(self, header: Header) -> bool:
        """Publish the latest camera_info under the header of a frame, if any came in."""
        latest = self._latest_info
        if latest is None:
            return False
        info = copy.copy(latest)
        info.header = header
        self._publishers['camera_info'].publish(info)
        return True

    def _on_info(self, message: CameraInfo) -> None:
        self._latest_info = message
