"""The processing steps of a frame: decode, derain, blend with the input, encode.

The node and the tools for bags, images and videos all use it; it needs neither ROS nor a
particular engine. Each step runs only if its result is requested, and avoids copies of pixels.
"""

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from derain_ros.images.codec import (
    arrange_pixels,
    check_image,
    decode_image,
    extract_alpha,
    extract_samples,
    output_encoding,
)
from derain_ros.images.compressed import compressed_size, decode_compressed
from derain_ros.images.overlay import blend, draw_overlay
from derain_ros.images.pixel_formats import Bits

Infer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``Engine.infer``: maps a batch of frames to derained frames and rain masks."""


class Frame:
    """A frame and its results; not thread-safe.

    It is given as a message with the fields of a ``sensor_msgs/Image``, or ``CompressedImage``
    if ``compressed`` is set (of rclpy or rosbags, or a view of :mod:`derain_ros.images.cdr`),
    or by its pixels ``bgr``, uint8, H×W×3, BGR; for a message, ``bgr`` is None before
    :meth:`decode`. With ``whole``, a JPEG in which the decoder notices damage is refused.

    ``bits``, see :data:`derain_ros.images.pixel_formats.Bits`, may be set until :meth:`decode`,
    after which it is a number. ``encoding`` is that of the input, ``bgr8`` for compressed images
    and ``bgr``. ``derained``, uint8, H×W×3, BGR, and ``rain_mask``, uint8, H×W, 255 = rain, hold
    the engine's result, None before :meth:`derain`; they may be set to results from elsewhere.
    """

    def __init__(
        self, message: Any = None, *, compressed: bool = False, bgr: np.ndarray | None = None,
        bits: Bits = 16, whole: bool = False,
    ):
        self.message = message
        self.bits = bits
        self.whole = whole
        self.compressed = compressed
        self.bgr = bgr
        self.encoding = 'bgr8' if compressed or message is None else message.encoding
        self.derained: np.ndarray | None = None
        self.rain_mask: np.ndarray | None = None
        self._blended: tuple[float, np.ndarray] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels; raises ImageFormatError for compressed data without them."""
        if self.bgr is not None:
            return self.bgr.shape[:2]
        if self.compressed:
            return compressed_size(self.message)
        return self.message.height, self.message.width

    def decode(self) -> np.ndarray:
        """Return the pixels, uint8, H×W×3, BGR, C-contiguous, read from the message once.

        Raises ImageFormatError as :func:`derain_ros.images.codec.decode_image` and
        :func:`derain_ros.images.compressed.decode_compressed` do.
        """
        if self.bgr is None:
            decode = functools.partial(
                decode_compressed, whole=self.whole) if self.compressed else decode_image
            self.bgr = decode(
                self.message, self._choose_bits if callable(self.bits) else self.bits)
        return self.bgr

    def _choose_bits(self, samples: np.ndarray) -> int:
        self.bits = self.bits(samples)
        return self.bits

    def check(self) -> None:
        """Raise ImageFormatError if the frame cannot be read; decodes only if necessary."""
        if self.compressed:
            self.decode()
        else:
            check_image(self.message)

    def derain(self, infer: Infer, size: tuple[int, int] | None = None) -> None:
        """Run an engine on the frame; raises its errors and those of :meth:`decode`.

        A frame smaller than ``size``, height and width, is padded to it by mirroring at the lower
        and right edges, and the result is cropped.
        """
        bgr = self.decode()
        height, width = bgr.shape[:2]
        if size is not None and size != (height, width):
            bgr = cv2.copyMakeBorder(
                bgr, 0, size[0] - height, 0, size[1] - width, cv2.BORDER_REFLECT)
        images, masks = infer(bgr[np.newaxis])
        self.derained = np.ascontiguousarray(images[0, :height, :width])
        self.rain_mask = np.ascontiguousarray(masks[0, :height, :width])

    def untouched(self, strength: float) -> bool:
        """Return whether the output image is the input image."""
        return self.derained is None or strength == 0

    def repeats(self, strength: float, choice: str = 'same') -> bool:
        """Return whether :meth:`image` would equal the message, which can then be forwarded."""
        return (not self.compressed and self.message is not None and self.untouched(strength)
                and output_encoding(self.encoding, choice) == self.encoding)

    def blended(self, strength: float = 1.0) -> np.ndarray:
        """Return the output image, uint8, H×W×3, BGR.

        At strength 1 it is the derained frame; at strength 0, or if the frame was not derained,
        it is the input, not copied.
        """
        if self.untouched(strength):
            return self.decode()
        if self._blended is None or self._blended[0] != strength:
            self._blended = strength, blend(self.decode(), self.derained, strength)
        return self._blended[1]

    def image(self, strength: float = 1.0, choice: str = 'same') -> tuple[np.ndarray, str]:
        """Return the output image for a ``sensor_msgs/Image``, and its :func:`output_encoding`.

        The pixels are in the layout of the message, uint8, C-contiguous, H rows. The alpha channel
        of the input is kept. For mono16 of fewer than 16 bits the change made by deraining, with
        8-bit resolution, is added to the input samples, which keeps their levels and range.
        """
        encoding = output_encoding(self.encoding, choice)
        if encoding == self.encoding == 'mono16':
            self.decode()
            if self.bits < 16:
                return self._mono16(strength), encoding
        alpha = None
        if encoding in ('bgra8', 'rgba8') and self.message is not None:
            alpha = extract_alpha(self.message)
        return arrange_pixels(self.blended(strength), encoding, alpha=alpha), encoding

    def _mono16(self, strength: float) -> np.ndarray:
        grey, before = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.int32)
                        for image in (self.blended(strength), self.decode()))
        samples = extract_samples(self.message)
        # A sample above the range of the bits is kept unless deraining changes it.
        most = np.maximum(samples, (1 << self.bits) - 1)
        changed = samples + ((grey - before) << (self.bits - 8))
        return np.clip(changed, 0, most).astype('<u2').view(np.uint8)

    def mask(self) -> np.ndarray:
        """Return the rain mask, uint8, H×W, 255 = rain; all 0 if the frame was not derained."""
        return _dry_mask(*self.size) if self.rain_mask is None else self.rain_mask

    def overlay(self) -> np.ndarray:
        """Return the frame with its rain tinted, uint8, H×W×3, BGR."""
        return draw_overlay(self.decode(), self.mask())

    def jpeg(self, strength: float, quality: int) -> np.ndarray:
        """Return the output image as a JPEG file, uint8, with a quality from 1 to 100."""
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        return cv2.imencode('.jpg', self.blended(strength), options)[1]


@functools.lru_cache(maxsize=4)
def _dry_mask(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask.flags.writeable = False
    return mask
