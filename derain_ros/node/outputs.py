"""What is published for a frame."""

import functools
import math
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from derain_ros.images.codec import (
    arrange_pixels,
    check_image,
    extract_alpha,
    output_encoding,
)
from derain_ros.images.overlay import blend, draw_overlay
from derain_ros.node.mailbox import Outcome
from derain_ros.node.messages import Messages
from derain_ros.node.settings import COMPRESSED
from derain_ros.node.work import Work

_SAID = {
    Outcome.DERAINED: 'derained', Outcome.BYPASSED: 'bypassed', Outcome.PASSED_THROUGH: 'fault',
    Outcome.DROPPED: 'dropped',
}
_JPEG_START = b'\xff\xd8\xff'


class Outputs:
    """Writes the messages of a frame.

    Parameters
    ----------
    messages
        Way to write image messages.
    encoding
        Choice for :func:`derain_ros.images.codec.output_encoding`.

    """

    def __init__(self, messages: Messages, encoding: str):
        self._messages = messages
        self._encoding = encoding

    def can_repeat(self, work: Work) -> bool:
        """Tell whether, unless it is derained, all that is wanted needs no pixels."""
        image = not work.received.compressed and self._target(work) == work.source
        needs = work.wanted - {'status', 'camera_info'}
        if image:
            needs -= {'image', 'rain_mask'}
        return not needs

    def check(self, work: Work) -> None:
        """Check a frame that is repeated as it is; raises ImageFormatError."""
        fields = work.received.fields
        check_image(fields)
        work.camera.size = f'{fields.width}x{fields.height}'
        work.camera.encoding = fields.encoding

    def write(self, work: Work) -> dict[str, Any]:
        """Return the image messages that are wanted, by output."""
        found = {}
        wanted, received = work.wanted, work.received
        if wanted & {'image', COMPRESSED}:
            picture = self._picture(work)
            if 'image' in wanted:
                found['image'] = self._image(work, picture)
            if COMPRESSED in wanted:
                found[COMPRESSED] = self._jpeg(work, picture)
        if 'rain_mask' in wanted:
            mask = self._mask(work)
            found['rain_mask'] = self._messages.image(received, mask, mask.shape[1], 'mono8')
        if 'overlay' in wanted:
            overlay = draw_overlay(work.frame, self._mask(work))
            found['overlay'] = self._messages.image(received, overlay, overlay.shape[1], 'bgr8')
        return found

    def status(self, work: Work, age: float | None) -> DiagnosticArray:
        """Return what became of a frame, under its own header."""
        fault = work.fault
        level = DiagnosticStatus.OK
        if fault is not None:
            level = DiagnosticStatus.ERROR if fault.serious else DiagnosticStatus.WARN
        said = _SAID[work.outcome or work.way]
        values = {
            'reason': str(fault) if fault is not None else work.reason,
            'infer_ms': _milliseconds(work.infer_seconds),
            'age_ms': _milliseconds(age),
            'rain_intensity': _number(work.camera.gate.intensity),
        }
        return DiagnosticArray(
            header=work.received.header_message(),
            status=[DiagnosticStatus(
                name=f'derain: {work.camera.name}', level=level, message=said,
                hardware_id=work.camera.settings.image_topic,
                values=[KeyValue(key=key, value=value) for key, value in values.items()])])

    def _target(self, work: Work) -> str:
        return output_encoding(work.source, self._encoding)

    def _picture(self, work: Work) -> np.ndarray | None:
        """Return what is to be shown, None where that is the frame as it came in."""
        if work.derained is None or work.live.strength == 0:
            return None
        return blend(work.frame, work.derained.image, work.live.strength)

    def _image(self, work: Work, picture: np.ndarray | None) -> Any:
        received, encoding = work.received, self._target(work)
        if picture is None:
            if not received.compressed and encoding == work.source:
                return self._messages.same(received)
            picture = work.frame
        alpha = None
        if not received.compressed and encoding in ('bgra8', 'rgba8'):
            alpha = extract_alpha(received.fields)
        pixels = arrange_pixels(picture, encoding, alpha=alpha)
        return self._messages.image(received, pixels, picture.shape[1], encoding)

    def _jpeg(self, work: Work, picture: np.ndarray | None) -> Any:
        if picture is None:
            if work.received.compressed and bytes(work.received.fields.data[:3]) == _JPEG_START:
                return self._messages.same(work.received)
            picture = work.frame
        quality = [cv2.IMWRITE_JPEG_QUALITY, work.live.jpeg_quality]
        return self._messages.jpeg(work.received, cv2.imencode('.jpg', picture, quality)[1])

    def _mask(self, work: Work) -> np.ndarray:
        if work.derained is not None:
            return work.derained.rain_mask
        if work.frame is not None:
            return _dry_mask(*work.frame.shape[:2])
        return _dry_mask(work.received.fields.height, work.received.fields.width)


@functools.lru_cache(maxsize=4)
def _dry_mask(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask.flags.writeable = False
    return mask


def _milliseconds(seconds: float | None) -> str:
    return '' if seconds is None else f'{seconds * 1e3:.2f}'


def _number(value: float) -> str:
    return '' if math.isnan(value) else f'{value:.4f}'
