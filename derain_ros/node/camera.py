"""The topics, calibration and problems of one camera."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from derain_ros.images.cdr import CameraInfoView, CdrUnsupportedError, read_camera_info
from derain_ros.images.message_fields import ImageFormatError
from derain_ros.node.camera_record import CameraRecord, CameraSnapshot
from derain_ros.node.camera_topics import InputTopic, Notice, OutputTopics
from derain_ros.node.parameters import CameraSettings, LiveSettings, Settings

INFO_SECONDS = 3.0  # how long frames may come without a camera_info before it is reported
RECENT = 50  # number of camera_info messages whose frame_ids are remembered


class Calibration:
    """The latest camera_info of a topic; safe to use from several threads.

    It is compared with the images that arrive. A camera_info for another image size is not
    published. One with another frame_id takes that of the image if it was among the recent ones
    (a driver that alternates them); otherwise its own is kept and reported as a problem.
    """

    def __init__(self, topic: str):
        self._topic = topic
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Discard everything received so far."""
        with self._lock:
            self._message: bytes | None = None
            self._view: CameraInfoView | None = None
            self._damage = ''
            self._frames: deque[str] = deque(maxlen=RECENT)

    def take(self, message: bytes) -> None:
        """Store a serialized ``sensor_msgs/CameraInfo`` as the latest one."""
        view, damage = None, ''
        try:
            with suppress(CdrUnsupportedError):  # rclpy may be able to read it
                view = read_camera_info(message)
        except ImageFormatError as error:
            message, damage = None, f'{self._topic}: {error}'
        with self._lock:
            self._message, self._view, self._damage = message, view, damage
            if view is not None:
                self._frames.append(view.frame_id)

    @property
    def known(self) -> bool:
        """Whether a message has been received, damaged or not."""
        with self._lock:
            return self._message is not None or bool(self._damage)

    def problem(self, size: tuple[int, int] | None, frame_id: str, image_topic: str) -> str:
        """Return how the camera_info contradicts images of a size and frame, and the remedy."""
        with self._lock:
            view, damage = self._view, self._damage
        if damage or view is None:
            return damage
        if _other_size(view, size):
            sizes = ' or '.join(f'{width}x{height}' for height, width in sorted(view.sizes))
            return (f'{self._topic} is for images of {sizes} pixels, but those on {image_topic} '
                    f'have {size[1]}x{size[0]}; it is not published with them; set '
                    'camera_info_topic to that of this camera')
        if self._other_frame(view.frame_id, frame_id):
            return (f'{self._topic} has frame_id {view.frame_id!r}, but images on {image_topic} '
                    f'have {frame_id!r}; it is kept; set camera_info_topic to that of this '
                    'camera, or use one frame_id in its driver')
        return ''

    def fit(self, header: Header, size: tuple[int, int] | None) -> CameraInfo | None:
        """Return the camera_info for a frame with this header and size; None if none fits."""
        with self._lock:
            message, view = self._message, self._view
        if message is None or (view is not None and _other_size(view, size)):
            return None
        try:
            info = deserialize_message(message, CameraInfo)
        except Exception as error:  # of several types; the frame is published without it
            with self._lock:
                self._message = None
                self._damage = (f'{self._topic}: a message of {len(message)} bytes is not a '
                                f'CameraInfo ({error}); check its publisher')
            return None
        if self._other_frame(info.header.frame_id, header.frame_id):
            header.frame_id = info.header.frame_id
        info.header = header
        return info

    def _other_frame(self, own: str, frame_id: str) -> bool:
        with self._lock:
            known = {frame.lstrip('/') for frame in (own, *self._frames)}
        return bool(own and frame_id) and frame_id.lstrip('/') not in known


class Camera:
    """Inputs, outputs and record of one camera.

    Publishers exist from the start, subscriptions between :meth:`start` and :meth:`stop`.
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
        self._notices: list[Notice] = []

    @property
    def name(self) -> str:
        """Name of the camera."""
        return self.settings.name

    @property
    def image_topic(self) -> str:
        """Topic that images come from."""
        return self.settings.image_topic if self._image is None else self._image.topic

    @property
    def reliability(self) -> str:
        """Reliability of the image subscription; empty without one."""
        return '' if self._image is None else self._image.reliability

    def start(self, on_image: Callable[[str, bytes, bool], None]) -> type:
        """Subscribe, and return the message type of the images.

        ``on_image`` gets the camera name, the serialized image, and whether it is compressed.
        """
        self._info = InputTopic(
            self._node, [(self.settings.camera_info_topic, CameraInfo)],
            lambda message, _: self._calibration.take(message), self._reliability)
        self._image = InputTopic(
            self._node, [(topic, CompressedImage if compressed else Image)
                         for topic, compressed in self.settings.inputs],
            lambda message, kind: on_image(self.name, message, kind is CompressedImage),
            self._reliability)
        self._notices = [Notice(self._node, f'{self.name}: ', end) for end in (
            'frames arrive again', '', '')]
        return self._image.message_type

    def stop(self) -> None:
        """Unsubscribe, and forget the latest camera_info."""
        for topic in filter(None, (self._image, self._info)):
            topic.close()
        self._image = self._info = self._without_info_since = None
        self._calibration.forget()

    def close(self) -> None:
        """Unsubscribe and destroy the publishers."""
        self.stop()
        self.outputs.close()

    def follow_publishers(self) -> None:
        """Adapt the subscriptions to the QoS and types of the current publishers."""
        for topic in filter(None, (self._image, self._info)):
            topic.follow_publishers()

    def problems(
        self, live: LiveSettings, frames: CameraSnapshot, *, silent_seconds: float | None,
        ever: bool,
    ) -> list[str]:
        """Return problems with the topics and their remedies; log those that begin or end.

        ``silent_seconds`` is the time since the last image if the camera is overdue, else None;
        ``ever`` says whether any image has arrived.
        """
        if self._image is None:
            return []
        silence = '' if silent_seconds is None else self._image.silence(silent_seconds, ever=ever)
        found = [silence, self._info_problem(live, frames), self.outputs.problem(live)]
        for notice, problem in zip(self._notices, found, strict=True):
            notice.look(problem)
        found = [self._image.qos_problem(), self._info.qos_problem(), *found]
        return [problem for problem in dict.fromkeys(found) if problem]

    def publish_info(self, header: Header, size: tuple[int, int] | None) -> bool:
        """Publish the latest camera_info with a frame's header; return False if none fits."""
        info = self._calibration.fit(header, size)
        if info is not None:
            self.outputs.publish('camera_info', info)
        return info is not None

    def _info_problem(self, live: LiveSettings, frames: CameraSnapshot) -> str:
        if problem := self._info.type_problem():
            return problem
        if self._calibration.known or not frames.size:
            self._without_info_since = None
            size = None if frames.unread else frames.size  # it may have changed since
            return self._calibration.problem(size, frames.frame_id, self.image_topic)
        now = time.monotonic()
        if self._without_info_since is None:
            self._without_info_since = now
        seconds = now - self._without_info_since
        if seconds < INFO_SECONDS:
            return ''
        problem = ('images come without a camera_info '
                   f'({self._info.silence(seconds, ever=False)}); set '
                   f'{self.name}.camera_info_topic to its topic')
        wanted = self.settings.camera_info_named or 'camera_info' in self.outputs.wanted(live)
        # An uncalibrated camera is not a fault if nobody asks for its camera_info.
        if wanted or 'did you mean' in problem:
            return problem
        if not self._told_without_info:
            self._told_without_info = True
            self._node.get_logger().info(f'{self.name}: {problem}')
        return ''


def is_wet(camera: Camera, cameras: Iterable[Camera], live: LiveSettings) -> bool:
    """Return whether it may be raining in front of a camera or another one of its group.

    Others that nobody subscribes to do not count, as their frames are not looked at.
    """
    group = camera.settings.sync_group
    return camera.record.may_be_wet or (bool(group) and any(
        other.record.may_be_wet and other.outputs.wanted(live)
        for other in cameras if other.settings.sync_group == group))


def _other_size(view: CameraInfoView, size: tuple[int, int] | None) -> bool:
    return bool(size and view.sizes) and size not in view.sizes
