"""How much deraining gains, depending on direction of the rain, speed, or rain rate.

Rain is rendered over the user's own dry pictures, from the same seeds at every point of a
sweep, so that only the quantity that the sweep names changes along it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from derain_ros.engines.contract import Engine
from derain_ros.evaluation.metrics import counted_psnr_y
from derain_ros.evaluation.rain_metrics import MaskCounts, count_mask
from derain_ros.rain import CameraMotion, RainClip, RainyImage, Shower, render
from derain_ros.rain.shower import sample_layers

NOTICEABLE = 0.1
"""Gain in dB below which deraining counts as no help."""

INTENSITY = 0.45
"""Rain intensity, 0–1, of all sweeps except the one over the rain rate."""


@dataclass(frozen=True)
class Sweep:
    """The axis of a sweep: its title and unit, and the values along it."""

    title: str
    unit: str
    values: tuple[float, ...]


SWEEPS = {
    'direction': Sweep('lean of the rain from the vertical', '°', (0, 20, 40, 60, 75, 90)),
    'speed': Sweep('speed of the vehicle', 'km/h', (0, 25, 50, 75, 100, 130)),
    'rate': Sweep('rain rate', 'mm/h', (2, 5, 10, 25, 50, 100)),
}
"""Sweeps by the name that ``derain evaluate --sweep`` takes."""


@dataclass(frozen=True)
class SweepPoint:
    """Means over the pictures at one value of a sweep.

    ``rainy`` and ``derained`` are PSNR of the luma against the dry picture, dB, 60 at most;
    ``f1`` is that of the rain mask against the clearly visible streaks.
    """

    value: float
    rainy: float
    derained: float
    f1: float | None


def conclude(axis: Sweep, points: Sequence[SweepPoint]) -> str:
    """Say how much deraining gains along an axis, and where it does not help."""
    gains = [(point.derained - point.rainy, f'{point.value:g} {axis.unit}') for point in points]
    (least, where), (most, best) = min(gains), max(gains)
    useless = ', '.join(value for gain, value in gains if gain < NOTICEABLE)
    return (f'gains {least:.1f} dB at {where} to {most:.1f} dB at {best}; '
            + (f'no help at {useless}' if useless else 'it helps at every point'))


def rain_at(kind: str, value: float, image: np.ndarray, seed: int) -> RainyImage:
    """Render the rain of one point of a sweep, ``value`` in its unit, over uint8 H×W×3 BGR."""
    if kind == 'direction':
        rng = np.random.default_rng(seed)
        layers = sample_layers(INTENSITY, 0.0, rng)
        tilted = tuple(replace(layer, angle=float(value), angle_spread=1.0) for layer in layers)
        return render(image, Shower(tilted, 'occlusion'), rng)
    motion = CameraMotion(rate=value) if kind == 'rate' else CameraMotion(speed=value / 3.6)
    return RainClip(INTENSITY, seed, wind=0.0, mist=0.0, camera=motion).render(image, 0)


def sweep(
    kind: str, pictures: Iterable[np.ndarray], engine: Engine,
    progress: Callable[[], None] = lambda: None
) -> list[SweepPoint]:
    """Measure an engine along a sweep over dry pictures, uint8, H×W×3, BGR.

    ``progress`` is called after each picture at each point. Returns no points if there are no
    pictures.
    """
    scores, counts = defaultdict(list), defaultdict(MaskCounts)
    for seed, picture in enumerate(pictures):
        for value in SWEEPS[kind].values:
            rainy = rain_at(kind, value, picture, seed)
            output = engine.infer(rainy.image[None])
            scores[value].append([
                counted_psnr_y(image, picture) for image in (rainy.image, output.image[0])])
            counts[value] += count_mask(output.rain_mask[0], 255 * rainy.streaks)
            progress()
    return [SweepPoint(value, *np.mean(found, 0).tolist(), counts[value].f1)
            for value, found in scores.items()]
