"""The thread that turns frames into outputs, one frame at a time."""

import threading
import time
import traceback
from collections.abc import Callable, Mapping

import numpy as np
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from derain_ros.engines import Derained, Engine, EngineError
from derain_ros.engines.contract import MINIMUM_SIDE
from derain_ros.image_codec import (
    ImageFormatError,
    decode_compressed,
    decode_image,
    encode_image,
    encode_mono8,
    extract_alpha,
    output_encoding,
)
from derain_ros.overlay import blend, draw_overlay
from derain_ros.ros.camera import Camera
from derain_ros.ros.diagnostics import Failure, Throttle
from derain_ros.ros.mailbox import Mailbox, Outcome
from derain_ros.ros.settings import LiveSettings

LOG_EVERY_SECONDS = 5.0
"""An error of one kind on one camera is logged at most this often."""


class Worker:
    """Takes frames from the mailbox, derains them and publishes what is listened to.

    Parameters
    ----------
    node
        For its clock and its log.
    cameras
        Cameras by name.
    mailbox
        Where the frames are.
    engine
        The derainer; used by this thread alone while it runs.
    encoding
        Choice for :func:`derain_ros.image_codec.output_encoding`.
    live
        Returns the settings to use for the next frame.

    """

    def __init__(
        self,
        node: Node,
        cameras: Mapping[str, Camera],
        mailbox: Mailbox,
        engine: Engine,
        encoding: str,
        live: Callable[[], LiveSettings],
    ):
        self._node = node
        self._cameras = cameras
        self._mailbox = mailbox
        self._engine = engine
        self._encoding = encoding
        self._live = live
        self._throttle = Throttle(LOG_EVERY_SECONDS)
        self._warm_sizes: set[tuple[int, int]] = set()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        """Start the thread and open the mailbox."""
        self._stopping = False
        self._mailbox.open()
        # A daemon, so that an engine that hangs cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name='derain', daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Close the mailbox and wait for the frame in work.

        Parameters
        ----------
        timeout
            Seconds to wait at most; None waits for as long as it takes.

        Returns
        -------
        bool
            The thread has ended.

        """
        self._stopping = True
        self._mailbox.close()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def _run(self) -> None:
        while (taken := self._mailbox.take()) is not None:
            name, data = taken
            outcome = Outcome.FAILED
            try:
                outcome = self._serve(self._cameras[name], data)
            except Exception as error:
                outcome = self._failed(self._cameras[name], error)
            finally:
                self._mailbox.finish(name, outcome)

    def _serve(self, camera: Camera, data: bytes) -> Outcome:
        live = self._live()
        wanted = camera.wanted(live)
        if not wanted:
            return Outcome.IDLE
        start = time.perf_counter()
        message = self._deserialize(camera, data)
        if wanted == {'camera_info'}:
            return Outcome.PUBLISHED if camera.publish_info(message.header) else Outcome.IDLE
        frame = _decode(message)
        height, width = frame.shape[:2]
        camera.size = f'{width}x{height}'
        camera.encoding = _source(message)
        camera.latencies.add('decode', time.perf_counter() - start)
        derained = self._infer(camera, frame) if _needs_engine(wanted, live) else None
        start = time.perf_counter()
        self._publish(camera, message, frame, derained, live, wanted)
        camera.latencies.add('publish', time.perf_counter() - start)
        age = self._age(message.header)
        if age is not None:
            camera.latencies.add('age', age)
        return Outcome.PUBLISHED

    def _deserialize(self, camera: Camera, data: bytes) -> Image | CompressedImage:
        try:
            return deserialize_message(data, camera.message_type)
        except Exception as error:
            raise ImageFormatError(
                f'the message of {len(data)} bytes is no {camera.message_type.__name__} ({error});'
                ' check the publisher') from error

    def _infer(self, camera: Camera, frame: np.ndarray) -> Derained:
        self._warm_up(camera, frame)
        start = time.perf_counter()
        result = self._engine.infer(frame[np.newaxis])
        camera.latencies.add('infer', time.perf_counter() - start)
        return Derained(result.image[0], result.rain_mask[0])

    def _warm_up(self, camera: Camera, frame: np.ndarray) -> None:
        height, width = frame.shape[:2]
        if min(height, width) < MINIMUM_SIDE:
            raise ImageFormatError(
                f'the image is {width}x{height} pixels, but the network needs at least '
                f'{MINIMUM_SIDE} on each side; set the camera driver to a larger size')
        if (height, width) not in self._warm_sizes:
            start = time.perf_counter()
            self._engine.warm_up(height, width)
            self._warm_sizes.add((height, width))
            self._node.get_logger().info(
                f'{camera.name}: ready for {width}x{height} after '
                f'{time.perf_counter() - start:.2f} s of warm-up')

    def _publish(
        self,
        camera: Camera,
        message: Image | CompressedImage,
        frame: np.ndarray,
        derained: Derained | None,
        live: LiveSettings,
        wanted: set[str],
    ) -> None:
        header = message.header
        if 'image' in wanted:
            encoding = output_encoding(_source(message), self._encoding)
            if derained is not None and live.enabled and live.strength > 0:
                image = blend(frame, derained.image, live.strength)
                camera.publish('image', _encode(message, image, encoding), header)
            elif isinstance(message, Image) and message.encoding == encoding:
                camera.publish_message('image', message)
            else:
                camera.publish('image', _encode(message, frame, encoding), header)
        if wanted & {'rain_mask', 'overlay'}:
            mask = np.zeros(frame.shape[:2], np.uint8) if derained is None else derained.rain_mask
            if 'rain_mask' in wanted:
                camera.publish('rain_mask', encode_mono8(mask), header)
            if 'overlay' in wanted:
                camera.publish('overlay', encode_image(draw_overlay(frame, mask), 'bgr8'), header)
        if 'camera_info' in wanted:
            camera.publish_info(header)

    def _age(self, header: Header) -> float | None:
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
        age = self._node.get_clock().now().nanoseconds - stamp
        # Nothing to learn from a stamp that was left out, or lies ahead after a jump back.
        return age * 1e-9 if stamp > 0 and age >= 0 else None

    def _failed(self, camera: Camera, error: Exception) -> Outcome:
        if self._stopping:
            # When the process ends while the engine is busy, the publishers go before it.
            return Outcome.DROPPED
        topic = camera.settings.image_topic
        if isinstance(error, (ImageFormatError, EngineError)):
            reason = log = f'{topic}: {error}'
        else:
            reason = f'{topic}: {type(error).__name__}: {error}'
            log = f'{topic}:\n{"".join(traceback.format_exception(error))}'
        camera.failure = Failure(reason, isinstance(error, EngineError))
        if self._throttle.allows((camera.name, type(error))):
            self._node.get_logger().error(f'camera {camera.name}: a frame failed: {log}')
        return Outcome.FAILED


def _needs_engine(wanted: set[str], live: LiveSettings) -> bool:
    if not live.enabled:
        return False
    return bool(wanted & {'rain_mask', 'overlay'}) or ('image' in wanted and live.strength > 0)


def _decode(message: Image | CompressedImage) -> np.ndarray:
    return decode_image(message) if isinstance(message, Image) else decode_compressed(message)


def _source(message: Image | CompressedImage) -> str:
    return message.encoding if isinstance(message, Image) else 'bgr8'


def _encode(message: Image | CompressedImage, image: np.ndarray, encoding: str):
    alpha = None
    if isinstance(message, Image) and encoding in ('bgra8', 'rgba8'):
        alpha = extract_alpha(message)
    return encode_image(image, encoding, alpha=alpha)
