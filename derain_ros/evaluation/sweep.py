"""How far deraining helps a camera, by direction of the rain, speed, or rain rate.

Rain is rendered over the user's own dry pictures, the same drops at every point of a sweep,
so that what changes along it is what the sweep names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from derain_ros.engines.contract import Engine
from derain_ros.evaluation.metrics import counted_psnr_y
from derain_ros.rain import CameraMotion, RainClip, Shower, render
from derain_ros.rain.shower import sample_layers
from derain_ros.rain_gate import MASK_THRESHOLD

VISIBLE = 8 / 255
"""Brightness, 0–1, from which on a streak counts as rain in the mask."""

INTENSITY = 0.45
"""Of the rain of a sweep, but for that by rate."""


@dataclass(frozen=True)
class Sweep:
    """What varies.

    Attributes
    ----------
    title, unit
        Of the axis.
    values
        Along it.

    """

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

    Attributes
    ----------
    value
        In the unit of the sweep.
    rainy, derained
        PSNR of the luma against the dry picture, dB, 60 at most.
    f1
        Of the rain mask against streaks that are plain to see; None where there are none.

    """

    value: float
    rainy: float
    derained: float
    f1: float | None


def rain_at(kind: str, value: float, image: np.ndarray, seed: int):
    """Render the rain of one point over one picture.

    Parameters
    ----------
    kind
        One of :data:`SWEEPS`.
    value
        In its unit.
    image
        uint8, H×W×3, BGR.
    seed
        Of the rain.

    Returns
    -------
    derain_ros.rain.RainyImage

    """
    if kind == 'direction':
        rng = np.random.default_rng(seed)
        layers = sample_layers(INTENSITY, 0.0, rng)
        tilted = tuple(replace(layer, angle=float(value), angle_spread=1.0) for layer in layers)
        return render(image, Shower(tilted, 'occlusion'), rng)
    motion = CameraMotion(rate=value) if kind == 'rate' else CameraMotion(speed=value / 3.6)
    return RainClip(INTENSITY, seed, wind=0.0, mist=0.0, camera=motion).render(image, 0)


def sweep(
    kind: str,
    pictures: Sequence[np.ndarray],
    engine: Engine,
    progress: Callable[[], None] = lambda: None,
) -> list[SweepPoint]:
    """Measure an engine along a sweep.

    Parameters
    ----------
    kind
        One of :data:`SWEEPS`.
    pictures
        Dry, uint8, H×W×3, BGR.
    engine
        What derains.
    progress
        Called after each picture at each point.

    """
    points = []
    for value in SWEEPS[kind].values:
        scores, hits, marked, true = [], 0, 0, 0
        for seed, picture in enumerate(pictures):
            rainy = rain_at(kind, value, picture, seed)
            output = engine.infer(rainy.image[None])
            scores.append([
                counted_psnr_y(image, picture) for image in (rainy.image, output.image[0])])
            mask, streaks = output.rain_mask[0] >= MASK_THRESHOLD, rainy.streaks > VISIBLE
            hits += int((mask & streaks).sum())
            marked += int(mask.sum())
            true += int(streaks.sum())
            progress()
        before, after = np.mean(scores, 0)
        f1 = 2 * hits / (marked + true) if true else None
        points.append(SweepPoint(value, float(before), float(after), f1))
    return points
