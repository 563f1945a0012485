"""A frame on its way through the node, and what is published for it."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from derain_ros.images.pipeline import Frame
from derain_ros.node.camera import Camera
from derain_ros.node.mailbox import Outcome, Taken
from derain_ros.node.messages import Messages, Received
from derain_ros.node.parameters import COMPRESSED, LiveSettings
from derain_ros.node.supervisor import FaultError

_SAID = {
    Outcome.DERAINED: 'derained', Outcome.BYPASSED: 'bypassed', Outcome.PASSED_THROUGH: 'fault',
    Outcome.DROPPED: 'dropped',
}
_JPEG_START = b'\xff\xd8\xff'


@dataclass(eq=False)
class Work:
    """What is known of a frame so far.

    Attributes
    ----------
    camera, taken, live
        Where it comes from, and the settings that hold for it.
    wanted
        Outputs that are subscribed to.
    received, frame
        Its message, and its pixels; decoded only where somebody needs them.
    needs_engine
        It is to be derained.
    reason
        Why it is not to be derained.
    infer_seconds
        How long the engine took.
    fault
        Why the engine has no result for it.
    outcome
        Set once nothing remains to be done.

    """

    camera: Camera
    taken: Taken
    live: LiveSettings
    wanted: set[str] = field(default_factory=set)
    received: Received | None = None
    frame: Frame | None = None
    needs_engine: bool = False
    reason: str = ''
    infer_seconds: float | None = None
    fault: FaultError | None = None
    outcome: Outcome | None = None

    @property
    def way(self) -> Outcome:
        """How it is published."""
        if self.frame.derained is not None:
            return Outcome.DERAINED
        return Outcome.BYPASSED if self.fault is None else Outcome.PASSED_THROUGH


class Outputs:
    """Reads and writes the messages of a frame.

    Parameters
    ----------
    messages
        Way to read and write image messages.
    encoding
        Choice for :func:`derain_ros.images.codec.output_encoding`.
    node
        Full name of the node, for statuses.

    """

    def __init__(self, messages: Messages, encoding: str, node: str):
        self._messages = messages
        self._node = node
        self._encoding = encoding

    def read(self, work: Work) -> None:
        """Read the message of a frame; raises ImageFormatError."""
        work.received = self._messages.read(
            work.taken.data, compressed=work.taken.compressed)
        work.frame = Frame(work.received.fields, compressed=work.received.compressed)

    def need_pixels(self, work: Work) -> bool:
        """Tell whether what is wanted needs the pixels even if the frame is not derained."""
        without = {'status', 'camera_info'}
        if work.frame.repeats(0, self._encoding):
            without |= {'image', 'rain_mask'}
        return bool(work.wanted - without)

    def write(self, work: Work) -> dict[str, Any]:
        """Return the image messages that are wanted, by output."""
        found = {}
        frame, wanted, strength = work.frame, work.wanted, work.live.strength
        if 'image' in wanted:
            if frame.repeats(strength, self._encoding):
                found['image'] = self._messages.same(work.received)
            else:
                found['image'] = self._message(work, *frame.image(strength, self._encoding))
        if COMPRESSED in wanted:
            if frame.untouched(strength) and frame.compressed and (
                    bytes(frame.message.data[:3]) == _JPEG_START):
                found[COMPRESSED] = self._messages.same(work.received)
            else:
                found[COMPRESSED] = self._messages.jpeg(
                    work.received, frame.jpeg(strength, work.live.jpeg_quality))
        if 'rain_mask' in wanted:
            found['rain_mask'] = self._message(work, frame.mask(), 'mono8')
        if 'overlay' in wanted:
            found['overlay'] = self._message(work, frame.overlay(), 'bgr8')
        return found

    def _message(self, work: Work, pixels: np.ndarray, encoding: str) -> Any:
        return self._messages.image(work.received, pixels, work.frame.size[1], encoding)

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
            'rain_intensity': _number(work.camera.record.rain_intensity),
        }
        return DiagnosticArray(
            header=work.received.header_message(),
            status=[DiagnosticStatus(
                name=f'{self._node}: {work.camera.name}', level=level, message=said,
                hardware_id=work.camera.image_topic,
                values=[KeyValue(key=key, value=value) for key, value in values.items()])])


def _milliseconds(seconds: float | None) -> str:
    return '' if seconds is None else f'{seconds * 1e3:.2f}'


def _number(value: float) -> str:
    return '' if math.isnan(value) else f'{value:.4f}'
