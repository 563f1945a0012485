"""The camera_info of a camera, given out with the frames that it belongs to."""

import threading
from collections import deque

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from derain_ros.images.cdr import CameraInfoView, CdrUnsupportedError, read_camera_info
from derain_ros.images.message_fields import ImageFormatError
from derain_ros.node.messages import Received

RECENT = 50
"""Messages whose frame_ids are remembered."""


class Calibration:
    """The latest camera_info; safe to use from several threads.

    What it says of the images is compared with those that come. One of another size is given
    out with none of them. A frame_id that names another frame is left as it is, but for a driver
    that changes it: the one of the image is among the last ones then.

    Parameters
    ----------
    topic
        Where it comes from.

    """

    def __init__(self, topic: str):
        self._topic = topic
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Know of none."""
        with self._lock:
            self._message: bytes | None = None
            self._view: CameraInfoView | None = None
            self._damage = ''
            self._frames: deque[str] = deque(maxlen=RECENT)

    def take(self, message: bytes) -> None:
        """Take in a serialized message."""
        view, damage = None, ''
        try:
            view = read_camera_info(message)
        except CdrUnsupportedError:
            pass  # rclpy may be able to read it
        except ImageFormatError as error:
            message, damage = None, f'{self._topic}: {error}'
        with self._lock:
            self._message, self._view, self._damage = message, view, damage
            if view is not None:
                self._frames.append(view.frame_id)

    @property
    def known(self) -> bool:
        """Whether a message has come, damaged or not."""
        with self._lock:
            return self._message is not None or bool(self._damage)

    def problem(self, size: tuple[int, int] | None, frame_id: str, image_topic: str) -> str:
        """Say what the camera_info contradicts in images of a size and frame, and what to do."""
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
                    f'have {frame_id!r}; it is left as it is; set camera_info_topic to that of '
                    'this camera, or one frame_id in its driver')
        return ''

    def fit(self, received: Received, size: tuple[int, int] | None) -> CameraInfo | None:
        """Return the camera_info for a frame of a size, None unless there is one."""
        with self._lock:
            message, view = self._message, self._view
        if message is None or (view is not None and _other_size(view, size)):
            return None
        try:
            info = deserialize_message(message, CameraInfo)
        except Exception as error:  # of several types; the frame goes out without
            with self._lock:
                self._message = None
                self._damage = (f'{self._topic}: a message of {len(message)} bytes is no '
                                f'CameraInfo ({error}); check its publisher')
            return None
        header = received.header_message()
        if self._other_frame(info.header.frame_id, header.frame_id):
            header.frame_id = info.header.frame_id
        info.header = header
        return info

    def _other_frame(self, own: str, frame_id: str) -> bool:
        with self._lock:
            known = {frame.lstrip('/') for frame in (own, *self._frames)}
        return bool(own and frame_id) and frame_id.lstrip('/') not in known


def _other_size(view: CameraInfoView, size: tuple[int, int] | None) -> bool:
    return bool(size and view.sizes) and size not in view.sizes
