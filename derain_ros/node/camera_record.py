"""What is known of the frames of one camera, shared between threads."""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from derain_ros.images.pixel_formats import bits_in_use
from derain_ros.rain_gate import FORGET_SECONDS, PROBE_SECONDS, GateSettings, RainGate

STAGES = ('wait', 'decode', 'infer', 'encode', 'publish', 'age')
"""Latencies of a frame: waiting to be taken, the steps of the work, and now minus its stamp."""

WINDOW = 300
"""Frames that the percentiles look back on."""

_PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Failure:
    """Why a frame failed, and whether that was the engine's fault and not the frame's."""

    reason: str
    by_engine: bool


@dataclass(frozen=True)
class CameraSnapshot:
    """What is known of a camera at one moment.

    Size (height and width in pixels), encoding and frame_id are of the last frame read; faults are
    frames so far that the engine was to derain and did not; the failure is the last one. Rain
    intensity is from 0 to 1, NaN while unknown. ``latencies`` has ``<stage>_p50_ms``, ``_p95_ms``
    and ``_p99_ms`` of each of :data:`STAGES`, NaN without a frame.
    """

    size: tuple[int, int] | None = None
    encoding: str = ''
    frame_id: str = ''
    faults: int = 0
    failure: Failure | None = None
    rain_intensity: float = math.nan
    may_be_wet: bool = True
    latencies: Mapping[str, float] = field(default_factory=dict)


class CameraRecord:
    """Takes in what happens to the frames of a camera; safe to use from several threads."""

    def __init__(self, gate: GateSettings):
        self._lock = threading.Lock()
        self._gate = RainGate(gate)
        self._mask_time = -math.inf
        self._seconds = {stage: deque(maxlen=WINDOW) for stage in STAGES}
        self._known = CameraSnapshot()
        self._largest = self._bits = 0

    def snapshot(self) -> CameraSnapshot:
        """Return all that is known at this moment."""
        with self._lock:
            seconds = {stage: list(found) for stage, found in self._seconds.items()}
            known = replace(self._known, rain_intensity=self._gate.intensity,
                            may_be_wet=self._may_be_wet())
        latencies = {}
        for stage, found in seconds.items():
            points = np.percentile(found, _PERCENTILES) * 1e3 if found else [math.nan] * 3
            for percentile, point in zip(_PERCENTILES, points, strict=True):
                latencies[f'{stage}_p{percentile}_ms'] = float(point)
        return replace(known, latencies=latencies)

    def took(self, stage: str, seconds: float) -> None:
        """Note how long a stage of a frame took."""
        with self._lock:
            self._seconds[stage].append(seconds)

    def read(self, size: tuple[int, int], encoding: str, frame_id: str) -> None:
        """Note height and width in pixels, encoding and frame_id of a frame."""
        with self._lock:
            self._known = replace(self._known, size=size, encoding=encoding, frame_id=frame_id)

    def failed(self, reason: str, *, by_engine: bool, fault: bool = False) -> None:
        """Note why a frame could not be read or published, or as a ``fault`` not be derained."""
        with self._lock:
            self._known = replace(self._known, faults=self._known.faults + fault,
                                  failure=Failure(reason, by_engine))

    def bits(self, samples: np.ndarray) -> tuple[int, bool]:
        """Tell how many bits the samples seen so far use, and whether that has changed.

        ``samples`` are of a new frame, uint16.
        """
        with self._lock:
            self._largest = max(self._largest, int(samples.max()))
            before, self._bits = self._bits, bits_in_use(self._largest)
            return self._bits, self._bits != before

    # Rain

    @property
    def rain_intensity(self) -> float:
        """Rain intensity, 0–1; NaN while unknown."""
        with self._lock:
            return self._gate.intensity

    @property
    def may_be_wet(self) -> bool:
        """Whether it rains, or is not known not to."""
        with self._lock:
            return self._may_be_wet()

    def _may_be_wet(self) -> bool:
        # A gate that has seen no mask for so long, as no engine makes any, knows nothing.
        return self._gate.wet or time.monotonic() - self._mask_time > FORGET_SECONDS

    def update_rain(self, mask: np.ndarray, settings: GateSettings) -> bool | None:
        """Take in a rain mask, uint8, H×W; return whether it rains if that changes, else None."""
        with self._lock:
            gate, before = self._gate, self._gate.wet
            gate.settings = settings
            self._mask_time = time.monotonic()
            return gate.wet if gate.update(mask, self._mask_time) != before else None

    def probe_due(self) -> bool:
        """Tell whether it is time to look at a frame that nobody has derained."""
        with self._lock:
            now = time.monotonic()
            if self._gate.wet:  # while only the rain intensity is subscribed to
                return now - self._mask_time >= PROBE_SECONDS
            return self._gate.probe_due(now)

    @property
    def looks_again(self) -> bool:
        """Whether the next probe is a second look, see :meth:`RainGate.doubts`."""
        with self._lock:
            return self._gate.looks_again

    def doubts(self, mask: np.ndarray) -> bool:
        """Tell whether the mask of a probe calls for a second look, and is no news before that."""
        with self._lock:
            return self._gate.doubts(mask)

    def next_patch(self, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns to probe in a frame of a size in pixels."""
        with self._lock:
            return self._gate.next_patch(height, width)

    def forget_rain(self) -> None:
        """Let the rain gate begin anew, with the next frame."""
        with self._lock:
            self._gate.reset()
