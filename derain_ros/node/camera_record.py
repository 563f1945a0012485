"""Statistics and rain state of one camera's frames, shared between threads."""

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
"""Latencies: wait in the mailbox, the processing stages, and age (now minus the stamp)."""

WINDOW = 300
"""Number of most recent frames that the percentiles are computed over."""

FRESH_SECONDS = 2.0
"""How long after a mask the rain intensity is known: a controller is not to act on an old one."""

_PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Failure:
    """Why a frame failed, and whether that was the engine's fault and not the frame's."""

    reason: str
    by_engine: bool


@dataclass(frozen=True)
class CameraSnapshot:
    """The state of a camera at one moment.

    Size (height and width in pixels), encoding and frame_id are those of the last frame read,
    since which others have come if ``unread`` is true;
    ``faults`` counts the frames that the engine should have derained and did not; ``failure`` is
    the last one. Rain intensity is from 0 to 1, NaN while unknown. ``latencies`` has the keys
    ``<stage>_p50_ms``, ``_p95_ms``, ``_p99_ms`` for each of :data:`STAGES`, NaN without a frame.
    """

    size: tuple[int, int] | None = None
    encoding: str = ''
    frame_id: str = ''
    unread: bool = False
    faults: int = 0
    failure: Failure | None = None
    rain_intensity: float = math.nan
    latencies: Mapping[str, float] = field(default_factory=dict)


class CameraRecord:
    """Records what happens to the frames of a camera; safe to use from several threads."""

    def __init__(self, gate: GateSettings):
        self._lock = threading.Lock()
        self._gate = RainGate(gate)
        self._mask_time = -math.inf
        self._seconds = {stage: deque(maxlen=WINDOW) for stage in STAGES}
        self._known = CameraSnapshot()
        self._largest = self._bits = 0

    def snapshot(self) -> CameraSnapshot:
        """Return the current state."""
        with self._lock:
            seconds = {stage: list(found) for stage, found in self._seconds.items()}
            known = replace(self._known, rain_intensity=self._intensity())
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
            self._known = replace(
                self._known, size=size, encoding=encoding, frame_id=frame_id, unread=False)

    def idled(self) -> None:
        """Note that a frame was not read, as nobody subscribes to anything made of it."""
        with self._lock:
            self._known = replace(self._known, unread=True)

    def failed(self, reason: str, *, by_engine: bool, fault: bool = False) -> None:
        """Note why a frame could not be read or published or, with ``fault``, not be derained."""
        with self._lock:
            self._known = replace(self._known, faults=self._known.faults + fault,
                                  failure=Failure(reason, by_engine))

    def bits(self, samples: np.ndarray) -> tuple[int, bool]:
        """Return how many bits the samples so far, uint16, use, and whether that has changed."""
        with self._lock:
            self._largest = max(self._largest, int(samples.max()))
            before, self._bits = self._bits, bits_in_use(self._largest)
            return self._bits, self._bits != before

    # Rain

    @property
    def rain_intensity(self) -> float:
        """Rain intensity, 0–1; NaN while unknown."""
        with self._lock:
            return self._intensity()

    @property
    def may_be_wet(self) -> bool:
        """Whether it rains, or the rain state is unknown."""
        with self._lock:
            return self._gate.wet or self._is_older(FORGET_SECONDS)

    def _intensity(self) -> float:
        return math.nan if self._is_older(FRESH_SECONDS) else self._gate.intensity

    def _is_older(self, seconds: float) -> bool:
        """Return whether the last mask is older than that; there is no engine, say."""
        return time.monotonic() - self._mask_time > seconds

    def update_rain(self, mask: np.ndarray, settings: GateSettings) -> bool | None:
        """Process a rain mask, uint8, H×W; return whether it rains if that changed, else None."""
        with self._lock:
            gate, before = self._gate, self._gate.wet
            gate.settings = settings
            self._mask_time = time.monotonic()
            return gate.wet if gate.update(mask, self._mask_time) != before else None

    def probe_due(self) -> bool:
        """Return whether it is time to check for rain in a frame that was not derained."""
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
        """Return whether a probe's mask needs a second look before it counts."""
        with self._lock:
            return self._gate.doubts(mask)

    def next_patch(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns to probe next in a frame of this size, in pixels."""
        with self._lock:
            return self._gate.next_patch(height, width)

    def forget(self) -> None:
        """Restart the rain gate, and the search for the largest sample, with the next frame."""
        with self._lock:
            self._gate.reset()
            self._largest = self._bits = 0
