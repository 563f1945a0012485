"""The topics of one camera, and what is known of it."""

import time
from collections.abc import Callable, Iterable

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from derain_ros.node.calibration import Calibration
from derain_ros.node.camera_record import CameraRecord, CameraSnapshot
from derain_ros.node.input_topic import InputTopic
from derain_ros.node.messages import Received
from derain_ros.node.output_topics import OutputTopics
from derain_ros.node.parameters import CameraSettings, LiveSettings, Settings
from derain_ros.node.qos import Notice

INFO_SECONDS = 3.0
"""How long frames come without a camera_info before that is told."""


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
    live
        Settings at the start.

    Attributes
    ----------
    settings
        As given in ``camera``.
    record
        What is known of its frames.
    outputs
        Its publishers.

    """

    def __init__(
        self, node: Node, camera: CameraSettings, settings: Settings, live: LiveSettings
    ):
        self.settings = camera
        self.record = CameraRecord(live.gate)
        self.outputs = OutputTopics(node, camera.outputs, settings.output_reliability)
        self._node = node
        self._reliability = settings.input_reliability
        self._image: InputTopic | None = None
        self._info: InputTopic | None = None
        self._calibration = Calibration(camera.camera_info_topic)
        self._without_info_since: float | None = None
        self._told_without_info = False
        logger = node.get_logger()
        self._notices = [
            Notice(lambda text: logger.warning(f'{camera.name}: {text}'),
                   lambda text: logger.info(f'{camera.name}: {text}'), end)
            for end in ('frames come in again', 'camera_info fits again', '')]

    @property
    def name(self) -> str:
        """Name of the camera."""
        return self.settings.name

    @property
    def image_topic(self) -> str:
        """Topic that images come from."""
        return self.settings.image_topic if self._image is None else self._image.topic

    @property
    def message_type(self) -> type:
        """Class of the image messages that are subscribed to."""
        return self._image.message_type

    @property
    def reliability(self) -> str:
        """Reliability of the image subscription; empty without one."""
        return '' if self._image is None else self._image.reliability

    def start(self, on_image: Callable[[str, bytes, bool], None]) -> None:
        """Subscribe; ``on_image`` gets name, serialized image, and whether it is compressed."""
        def on_message(message: bytes, message_type: type) -> None:
            on_image(self.name, message, message_type is CompressedImage)

        self._info = InputTopic(
            self._node, [(self.settings.camera_info_topic, CameraInfo)],
            lambda message, message_type: self._calibration.take(message), self._reliability)
        self._image = InputTopic(
            self._node, [(topic, CompressedImage if compressed else Image)
                         for topic, compressed in self.settings.inputs],
            on_message, self._reliability)

    def stop(self) -> None:
        """Unsubscribe, and forget the latest camera_info."""
        for topic in (self._image, self._info):
            if topic is not None:
                topic.close()
        self._image = self._info = self._without_info_since = None
        self._calibration.forget()

    def close(self) -> None:
        """Unsubscribe and take the outputs down."""
        self.stop()
        self.outputs.close()

    def follow_publishers(self) -> None:
        """Fit the subscriptions to the publishers there are now."""
        for topic in (self._image, self._info):
            if topic is not None:
                topic.follow_publishers()

    def problems(
        self, live: LiveSettings, frames: CameraSnapshot, *, silent_seconds: float | None,
        ever: bool,
    ) -> list[str]:
        """Say what is wrong with the topics and what to do, and log what is new or over.

        Parameters
        ----------
        live, frames
            Settings and frames at this moment.
        silent_seconds
            Since the last image, if that is too long; else None.
        ever
            An image has come.

        """
        if self._image is None:
            return []
        silence = '' if silent_seconds is None else self._image.silence(silent_seconds, ever=ever)
        found = [silence, self._info_problem(live, frames), self.outputs.problem(live)]
        for notice, problem in zip(self._notices, found, strict=True):
            notice.look(problem)
        found = [self._image.qos_problem(), self._info.qos_problem(), *found]
        return [problem for problem in dict.fromkeys(found) if problem]

    def publish_info(self, received: Received, size: tuple[int, int] | None) -> bool:
        """Publish the latest camera_info under the header of a frame it fits, if there is one."""
        info = self._calibration.fit(received, size)
        if info is not None:
            self.outputs.publish('camera_info', info)
        return info is not None

    def _info_problem(self, live: LiveSettings, frames: CameraSnapshot) -> str:
        if problem := self._info.type_problem():
            return problem
        if self._calibration.known or not frames.size:
            self._without_info_since = None
            return self._calibration.problem(frames.size, frames.frame_id, self.image_topic)
        now = time.monotonic()
        if self._without_info_since is None:
            self._without_info_since = now
        seconds = now - self._without_info_since
        if seconds < INFO_SECONDS:
            return ''
        problem = (f'images come without a camera_info: {self._info.silence(seconds, ever=False)}'
                   f'; name its topic as {self.name}.camera_info_topic')
        wanted = self.settings.camera_info_named or 'camera_info' in self.outputs.wanted(live)
        # A camera without calibration is no fault where nobody asks for one.
        if wanted or 'did you mean' in problem:
            return problem
        if not self._told_without_info:
            self._told_without_info = True
            self._node.get_logger().info(f'{self.name}: {problem}')
        return ''


def is_wet(camera: Camera, cameras: Iterable[Camera]) -> bool:
    """Tell whether it may be raining before a camera, or before another one of its group."""
    group = camera.settings.sync_group
    return camera.record.may_be_wet or (bool(group) and any(
        other.record.may_be_wet for other in cameras if other.settings.sync_group == group))
