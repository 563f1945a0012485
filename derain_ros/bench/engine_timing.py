"""How long an engine, or its peer, takes for a frame."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from derain_ros.engines import Engine

_WARM_UP_RUNS = 3
_LEAST_RUNS = 5
_DEVICE_RUNS = 200


@dataclass(frozen=True)
class EngineTiming:
    """Times of one engine at one size, in milliseconds.

    Median and 95th percentile are from the call with a uint8 frame in memory to the return of the
    uint8 frame and mask; those of the ``device`` are of the network alone, by events on the
    NVIDIA GPU, without copies, NaN where the engine does not tell. Of the peer there are also the
    quicker layout of its tensors, and why there is no CUDA graph.
    """

    engine: str
    device: str
    model: str
    precision: str
    on_gpu: bool
    width: int
    height: int
    runs: int
    median_ms: float
    p95_ms: float
    device_median_ms: float = math.nan
    device_p95_ms: float = math.nan
    layout: str = ''
    not_captured: str = ''

    @property
    def case(self) -> tuple[str, int, int]:
        """Precision and size."""
        return self.precision, self.width, self.height

    @property
    def what(self) -> str:
        """Engine, model, precision and size, in words."""
        return in_words(self.engine, self.model, *self.case)


def in_words(engine: str, model: str | None, precision: str, width: int, height: int) -> str:
    """Return what was timed in words."""
    return ' '.join(filter(None, (engine, model, precision, f'{width}x{height}')))


def time_engine(engine: Engine, width: int, height: int, seconds: float) -> EngineTiming:
    """Time an engine for some seconds, one frame after the other, after a warm-up."""
    frame = test_picture(width, height)
    times = time_calls(lambda: engine.infer(frame), seconds)
    device = engine.time_device(frame, min(len(times), _DEVICE_RUNS))
    info = engine.info
    return EngineTiming(
        info.engine, info.device, info.model, info.precision, engine.on_gpu, width, height,
        len(times), *median_and_p95(times), *median_and_p95(device))


def time_calls(call: Callable[[], object], seconds: float) -> list[float]:
    """Time a call in milliseconds, again and again after a warm-up; at least a few times."""
    for _ in range(_WARM_UP_RUNS):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < _LEAST_RUNS:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def median_and_p95(times: list[float]) -> tuple[float, float]:
    """Return median and 95th percentile; NaN for no times."""
    return tuple(map(float, np.percentile(times, (50, 95)))) if times else (math.nan, math.nan)


def test_picture(width: int, height: int) -> np.ndarray:
    """Return smooth coloured noise, uint8, 1×H×W×3: a picture with edges at every scale."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64):
        coarse = rng.random((cells, cells, 3), dtype=np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total * 85, 0, 255).astype(np.uint8)[np.newaxis]


test_picture.__test__ = False  # pytest takes it for a test otherwise
