"""What became of a bag that was derained: counts, failures, and figures of each frame."""

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field

from derain_ros.bags.damage import Damage
from derain_ros.rain_gate import FAST_SECONDS, FORGET_SECONDS


@dataclass(frozen=True)
class BadFrame:
    """An image message that could not be derained: where, when (ns), and why."""

    topic: str
    time: int
    reason: str


@dataclass
class CameraFrames:
    """The derained frames of a camera, in the order of the bag.

    ``time`` is that of recording, ``stamp`` the header's, ns; ``rain_intensity``, 0 to 1, is what
    the node would publish, see :class:`derain_ros.rain_gate.RainGate`; ``mask_coverage`` is the
    share of the pixels that the mask calls rain.
    """

    time: array = field(default_factory=lambda: array('q'))
    stamp: array = field(default_factory=lambda: array('q'))
    rain_intensity: array = field(default_factory=lambda: array('d'))
    mask_coverage: array = field(default_factory=lambda: array('d'))

    def add(self, time: int, stamp: int, response: float, coverage: float) -> None:
        """Take in a frame; ``response`` is :func:`derain_ros.rain_gate.mask_response`."""
        intensity = response
        if self.time:
            elapsed = max(0, time - self.time[-1]) / 1e9
            if elapsed <= FORGET_SECONDS:
                # As an open rain gate does.
                before = self.rain_intensity[-1]
                intensity = before - math.expm1(-elapsed / FAST_SECONDS) * (response - before)
        self.time.append(min(time, 2**63 - 1))
        self.stamp.append(stamp)
        self.rain_intensity.append(intensity)
        self.mask_coverage.append(coverage)


@dataclass
class BagSummary:
    """What :func:`derain_ros.bags.making.make_bag` did.

    ``messages`` of the source were kept, ``written`` are in the new bag. By image topic, ``made``
    counts the frames derained, or put into rain, ``failed`` those that could not be, of which
    ``bad_frames`` has the first, and ``frames`` has what is known of each derained one. Of
    ``undefined_types`` the source holds no definition; what cannot be read at its ``damages`` is
    not in the new bag; ``notes``, printable, are for the user. Of all ``segments``, an earlier,
    interrupted run had done ``resumed_segments`` with ``resumed_frames`` in them.
    """

    messages: int = 0
    written: int = 0
    made: Counter = field(default_factory=Counter)
    failed: Counter = field(default_factory=Counter)
    bad_frames: list[BadFrame] = field(default_factory=list)
    frames: dict[str, CameraFrames] = field(default_factory=dict)
    undefined_types: list[str] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resumed_segments: int = 0
    resumed_frames: int = 0
    segments: int = 0
