"""The way of a frame: decoded, derained, blended with what came in, encoded.

The node, bags, pictures and videos all go this way; it needs neither ROS nor an engine of its
own. Each step is taken only where its result is asked for, and copies no pixels that it need not.
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
from derain_ros.images.compressed import decode_compressed
from derain_ros.images.overlay import blend, draw_overlay
from derain_ros.images.pixel_formats import Bits

Infer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``Engine.infer``: a batch of frames to derained frames and rain masks."""


class Frame:
    """A frame and what has been made of it; for one thread at a time.

    It is given as a message with the fields of a ``sensor_msgs/Image``, or ``CompressedImage``
    where ``compressed`` is set (of rclpy or rosbags, or a view of :mod:`derain_ros.images.cdr`),
    or by its pixels ``bgr``, uint8, H×W×3, BGR, which are None before :meth:`decode` otherwise.
    With ``whole``, a JPEG in which the decoder notices damage is refused.

    ``bits``, see :data:`derain_ros.images.pixel_formats.Bits`, may be set until :meth:`decode`,
    and is a number then. ``encoding`` is the one that came in, ``bgr8`` for compressed images and
    pictures. ``derained``, uint8, H×W×3, BGR, and ``rain_mask``, uint8, H×W, 255 = rain, are the
    result of the engine, None before :meth:`derain`; they may be set to results from elsewhere.
    """

    __slots__ = (
        '_blended', 'bgr', 'bits', 'compressed', 'derained', 'encoding', 'message', 'rain_mask',
        'whole')

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
        """Height and width in pixels; of a compressed image once it is decoded."""
        if self.bgr is not None:
            return self.bgr.shape[:2]
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
        """Raise ImageFormatError unless :meth:`decode` can read the frame, decoding if it must."""
        if self.compressed:
            self.decode()
        else:
            check_image(self.message)

    def derain(self, infer: Infer, size: tuple[int, int] | None = None) -> None:
        """Run an engine on the frame; lets its errors through, and those of :meth:`decode`.

        A frame that is smaller than ``size``, height and width, is mirrored at its lower and
        right edge up to it, and the result cropped.
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
        """Tell whether the picture to show is the one that came in."""
        return self.derained is None or strength == 0

    def repeats(self, strength: float, choice: str = 'same') -> bool:
        """Tell whether :meth:`image` would return what the message has, which can be sent on."""
        return (not self.compressed and self.message is not None and self.untouched(strength)
                and output_encoding(self.encoding, choice) == self.encoding)

    def blended(self, strength: float = 1.0) -> np.ndarray:
        """Return the picture to show, uint8, H×W×3, BGR.

        It is the derained frame at strength 1, and the frame as it came in, not copied, at
        strength 0 or where it was not derained.
        """
        if self.untouched(strength):
            return self.decode()
        if self._blended is None or self._blended[0] != strength:
            self._blended = strength, blend(self.decode(), self.derained, strength)
        return self._blended[1]

    def image(self, strength: float = 1.0, choice: str = 'same') -> tuple[np.ndarray, str]:
        """Encode the picture to show for a ``sensor_msgs/Image`` of an :func:`output_encoding`.

        Returns pixels as they lie in the message, uint8, C-contiguous, H rows, and their encoding.
        The alpha channel of the input is kept, and so are the grey levels and the range of mono16
        of fewer bits: what deraining has changed, in steps of 8 bits, is added.
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
        # A sample beyond the bits stays what it is unless it is changed.
        most = np.maximum(samples, (1 << self.bits) - 1)
        changed = samples + ((grey - before) << (self.bits - 8))
        return np.clip(changed, 0, most).astype('<u2').view(np.uint8)

    def mask(self) -> np.ndarray:
        """Return the rain mask, uint8, H×W, 255 = rain; 0 everywhere where it was not derained."""
        return _dry_mask(*self.size) if self.rain_mask is None else self.rain_mask

    def overlay(self) -> np.ndarray:
        """Return the frame with its rain tinted, uint8, H×W×3, BGR."""
        return draw_overlay(self.decode(), self.mask())

    def jpeg(self, strength: float, quality: int) -> np.ndarray:
        """Return the picture to show as JPEG, uint8, of a quality from 1 to 100."""
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        return cv2.imencode('.jpg', self.blended(strength), options)[1]


@functools.lru_cache(maxsize=4)
def _dry_mask(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask.flags.writeable = False
    return mask
