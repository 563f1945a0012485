"""The topics of one camera."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from derain_ros.images.cdr import CdrUnsupportedError, check_camera_info
from derain_ros.images.message_fields import ImageFormatError
from derain_ros.node.camera_record import CameraRecord
from derain_ros.node.diagnostics import LOG_EVERY_SECONDS, Throttle
from derain_ros.node.input_topic import BEST_EFFORT, RELIABLE, InputTopic
from derain_ros.node.messages import Received
from derain_ros.node.parameters import (
    COMPRESSED,
    OUTPUTS,
    CameraSettings,
    LiveSettings,
    Settings,
)
from derain_ros.node.qos_events import join_problems, output_events, output_problem
from derain_ros.rain_gate import GateSettings

OUTPUT_DEPTH = 5

_TYPES = {
    'camera_info': CameraInfo, COMPRESSED: CompressedImage, 'status': DiagnosticArray,
}


class Camera:
    """Inputs, outputs and record of one camera.

    Publishers exist from the start, subscriptions between :meth:`start` and :meth:`stop`.

    Parameters
    ----------
    node
        Owner of publishers and subscriptions.
    camera
        Topics of this camera.
    settings
        Settings of the node.
    gate
        When it counts as wet and as dry.

    Attributes
    ----------
    settings
        As given in ``camera``.
    record
        What is known of its frames.

    """

    def __init__(
        self, node: Node, camera: CameraSettings, settings: Settings, gate: GateSettings
    ):
        self.settings = camera
        self.record = CameraRecord(gate)
        self._node = node
        self._input_reliability = settings.input_reliability
        self._image: InputTopic | None = None
        self._info: InputTopic | None = None
        self._latest_info: bytes | None = None
        self._throttle = Throttle(LOG_EVERY_SECONDS)
        self._publishers = {}
        self._misfit_outputs: set[str] = set()
        reliability = BEST_EFFORT if settings.output_reliability == 'best_effort' else RELIABLE
        qos = QoSProfile(depth=OUTPUT_DEPTH, reliability=reliability)
        try:
            for output in OUTPUTS:
                topic = camera.outputs[output]
                self._publishers[output] = node.create_publisher(
                    _TYPES.get(output, Image), topic, qos, event_callbacks=output_events(
                        node, topic, partial(self._on_output_problem, topic)))
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
            self._input_reliability, raw=True)
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

    def qos_problem(self) -> str:
        """Say whose QoS does not fit, on either side; empty while all is well."""
        problems = [topic.qos_problem() for topic in (self._image, self._info)
                    if topic is not None]
        for topic in tuple(self._misfit_outputs):
            problem = output_problem(self._node, topic)
            if not problem:
                self._misfit_outputs.discard(topic)
            problems.append(problem)
        return join_problems(problem for problem in problems if problem)

    def silence(self) -> str:
        """Say why no image may come in, and what to do; empty while not subscribed."""
        return '' if self._image is None else self._image.silence()

    def wanted(self, live: LiveSettings) -> set[str]:
        """Return the outputs that are switched on and that somebody subscribes to.

        Empty where nothing but the status is listened to: it tells of frames published.
        """
        off = {name for name, switched_on in (
            ('rain_mask', live.publish_mask), ('overlay', live.publish_overlay),
            (COMPRESSED, live.publish_compressed)) if not switched_on}
        wanted = {output for output, publisher in self._publishers.items()
                  if output not in off and publisher.get_subscription_count()}
        return wanted if wanted != {'status'} else set()

    def publish(self, output: str, message: Any) -> None:
        """Publish a message, serialized or not."""
        self._publishers[output].publish(message)

    def publish_info(self, received: Received) -> bool:
        """Publish the latest camera_info under the header of a frame, if any came in."""
        latest = self._latest_info
        if latest is None:
            return False
        try:
            info = deserialize_message(latest, CameraInfo)
        except Exception as error:  # of several types; the frame goes out without
            self._latest_info = None
            self._warn_of_info(f'a message of {len(latest)} bytes is no CameraInfo ({error}); '
                               'check its publisher')
            return False
        info.header = received.header_message()
        self._publishers['camera_info'].publish(info)
        return True

    def _on_output_problem(self, topic: str, problem: str) -> None:
        self._misfit_outputs.add(topic)
        self._node.get_logger().warning(problem)

    def _on_info(self, message: bytes) -> None:
        try:
            check_camera_info(message)
        except CdrUnsupportedError:
            pass  # rclpy may be able to read it
        except ImageFormatError as error:
            self._warn_of_info(str(error))
            return
        self._latest_info = message

    def _warn_of_info(self, reason: str) -> None:
        topic = self.settings.camera_info_topic
        if self._throttle.allows(topic):
            self._node.get_logger().warning(f'{topic}: {reason}')


def is_wet(camera: Camera, cameras: Iterable[Camera]) -> bool:
    """Tell whether it may be raining before a camera, or before another one of its group."""
    group = camera.settings.sync_group
    return camera.record.may_be_wet or (bool(group) and any(
        other.record.may_be_wet for other in cameras if other.settings.sync_group == group))
