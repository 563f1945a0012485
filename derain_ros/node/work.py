"""A frame on its way through the node."""

from dataclasses import dataclass, field

import numpy as np

from derain_ros.engines import Derained
from derain_ros.node.camera import Camera
from derain_ros.node.mailbox import Outcome, Taken
from derain_ros.node.messages import Received
from derain_ros.node.settings import LiveSettings
from derain_ros.node.supervisor import FaultError


@dataclass(eq=False)
class Work:
    """What is known of a frame so far.

    Attributes
    ----------
    camera, taken, live
        Where it comes from, and the settings that hold for it.
    wanted
        Outputs that are listened to.
    received
        Its message.
    frame
        Its pixels, uint8, H×W×3, BGR; None where nobody needs them.
    needs_engine
        It is to be derained.
    reason
        Why it is not.
    derained, infer_seconds
        Result of the engine, and how long that took.
    fault
        Why there is none.
    outcome
        Set once nothing remains to be done.

    """

    camera: Camera
    taken: Taken
    live: LiveSettings
    wanted: set[str] = field(default_factory=set)
    received: Received | None = None
    frame: np.ndarray | None = None
    needs_engine: bool = False
    reason: str = ''
    derained: Derained | None = None
    infer_seconds: float | None = None
    fault: FaultError | None = None
    outcome: Outcome | None = None

    @property
    def source(self) -> str:
        """Encoding that came in; compressed images unfold to bgr8."""
        return 'bgr8' if self.received.compressed else self.received.fields.encoding

    @property
    def way(self) -> Outcome:
        """How it is published."""
        if self.derained is not None:
            return Outcome.DERAINED
        return Outcome.BYPASSED if self.fault is None else Outcome.PASSED_THROUGH
