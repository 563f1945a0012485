"""A plain rclpy deraining node, the yardstick of ``derain bench``.

It does what nodes around cv_bridge do: a typed subscription with a queue of ten, a callback that
converts, infers, converts back and publishes, a SingleThreadedExecutor. It has the topics of
``derain_node`` for the camera ``camera``.
"""

import time
from contextlib import suppress

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from derain_ros.engines import Engine, create_engine

_QUEUE = 10


class PlainNode(Node):
    """Derains ``/camera/image_raw`` in the callback of its subscription.

    Its parameters ``model`` and ``engine`` are those of ``derain_node``.
    """

    def __init__(self) -> None:
        super().__init__('plain')
        names = {'model': 'nano', 'engine': 'auto'}
        chosen = {name: self.declare_parameter(name, value).value for name, value in names.items()}
        self._engine: Engine = create_engine(chosen['engine'], chosen['model'])
        outputs = '/camera/derained'
        self._images = self.create_publisher(Image, f'{outputs}/image', _QUEUE)
        self._masks = self.create_publisher(Image, f'{outputs}/rain_mask', _QUEUE)
        self._statuses = self.create_publisher(DiagnosticArray, f'{outputs}/status', _QUEUE)
        self.create_subscription(Image, '/camera/image_raw', self._derain, _QUEUE)

    def _derain(self, message: Image) -> None:
        called = time.perf_counter()
        frame = to_array(message)
        start = time.perf_counter()
        derained = self._engine.infer(frame[np.newaxis])
        infer = time.perf_counter() - start
        image = to_message(derained.image[0], 'bgr8')
        mask = to_message(derained.rain_mask[0], 'mono8')
        image.header = mask.header = message.header
        self._images.publish(image)
        self._masks.publish(mask)
        stamp = message.header.stamp
        age = self.get_clock().now().nanoseconds - stamp.sec * 10**9 - stamp.nanosec
        times = {'infer_ms': infer * 1e3, 'callback_ms': (time.perf_counter() - called) * 1e3,
                 'age_ms': age / 1e6}
        self._statuses.publish(DiagnosticArray(header=message.header, status=[DiagnosticStatus(
            name='plain: camera', message='derained',
            values=[KeyValue(key=key, value=f'{value:.3f}') for key, value in times.items()])]))


def to_array(message: Image) -> np.ndarray:
    """Return the pixels of a bgr8 message as cv_bridge's imgmsg_to_cv2 does, without a copy."""
    pixels = np.ndarray((message.height, message.step // 3, 3), np.uint8, buffer=message.data)
    return np.ascontiguousarray(pixels[:, :message.width])


def to_message(pixels: np.ndarray, encoding: str) -> Image:
    """Return a message of uint8 pixels as cv_bridge's cv2_to_imgmsg does, using frombytes."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.data.frombytes(pixels.tobytes())
    message.step = len(message.data) // message.height
    return message


def main() -> None:
    """Run the node until SIGINT."""
    rclpy.init()
    executor = SingleThreadedExecutor()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.add_node(PlainNode())
        executor.spin()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
