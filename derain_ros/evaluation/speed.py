"""How long an engine takes for a frame."""

import time
from dataclasses import dataclass

import cv2
import numpy as np

from derain_ros.engines import Engine

_WARM_UP_RUNS = 3
_LEAST_RUNS = 5


@dataclass(frozen=True)
class EngineTiming:
    """Times of one engine at one size, uint8 frame in to uint8 frame and mask out.

    Attributes
    ----------
    engine, device, precision
        What ran; see :class:`derain_ros.engines.EngineInfo`.
    width, height
        Frame size in pixels.
    runs
        Frames timed.
    median_ms, p95_ms
        Median and 95th percentile, milliseconds.

    """

    engine: str
    device: str
    precision: str
    width: int
    height: int
    runs: int
    median_ms: float
    p95_ms: float


def time_engine(engine: Engine, width: int, height: int, seconds: float) -> EngineTiming:
    """Time an engine on one frame after the other.

    Parameters
    ----------
    engine
        The engine.
    width, height
        Frame size in pixels.
    seconds
        How long to measure, after a warm-up; a slow engine gets a few runs all the same.

    """
    frame = _frame(width, height)
    for _ in range(_WARM_UP_RUNS):
        engine.infer(frame)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < _LEAST_RUNS:
        start = time.perf_counter()
        engine.infer(frame)
        times.append((time.perf_counter() - start) * 1e3)
    info = engine.info
    return EngineTiming(
        engine=info.engine, device=info.device, precision=info.precision,
        width=width, height=height, runs=len(times),
        median_ms=float(np.median(times)), p95_ms=float(np.percentile(times, 95)),
    )


def _frame(width: int, height: int) -> np.ndarray:
    """Return smooth coloured noise, 1×H×W×3: a picture with edges at every scale."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64):
        coarse = rng.random((cells, cells, 3), dtype=np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total * 85, 0, 255).astype(np.uint8)[np.newaxis]
