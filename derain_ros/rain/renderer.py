"""Render rain into a picture or a clip."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from derain_ros.rain.drops import MOUNTS, draw_drops, refract, terminal_speed
from derain_ros.rain.shower import (
    LAYER_MODELS,
    Shower,
    sample_shower,
    sample_volume,
    wrap_angle,
)
from derain_ros.rain.streaks import draw_streaks, filter_streaks, scatter_streaks

_DRAW = {'drawn': draw_streaks, 'smeared': scatter_streaks, 'filtered': filter_streaks}

_GUST_PERIODS = (3.1, 7.7)
"""Seconds; their ratio is such that gusts do not repeat within a clip."""


@dataclass(frozen=True)
class CameraMotion:
    """How a camera moves through rain, and its view; ValueError if a value is out of range.

    ``speed`` is that of the vehicle, m/s straight ahead, 0–100; ``mount`` one of
    :data:`derain_ros.rain.drops.MOUNTS`; ``fov`` the horizontal field of view, degrees, 10–150;
    ``rate`` the rain rate, mm/h, 0–300, rendered at its physical opacity; with None the amount
    of rain follows the intensity, and it is made clearly visible.
    """

    speed: float = 0.0
    mount: str = 'front'
    fov: float = 49.0
    rate: float | None = None

    def __post_init__(self) -> None:
        """Refuse values out of their range."""
        for name, low, high in (('speed', 0, 100), ('fov', 10, 150), ('rate', 0, 300)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f'{name} must be between {low} and {high}, got {value}')
        if self.mount not in MOUNTS:
            raise ValueError(f'unknown mount {self.mount!r}; known: {", ".join(MOUNTS)}')


class RainyImage(NamedTuple):
    """A rendered picture, ``image``, uint8, H×W×3, BGR, and its ground truth.

    ``streaks`` is the visible change in brightness that streaks cause, float32, H×W, 0–1; 0 where
    no streak is visible.
    """

    image: np.ndarray
    streaks: np.ndarray


def render(image: np.ndarray, shower: Shower, rng: np.random.Generator) -> RainyImage:
    """Render a shower over a picture, uint8, H×W×3, BGR; ``rng`` places its drops."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'expected uint8 H×W×3, got {image.dtype} of shape {image.shape}')
    if not shower.layers and not shower.drops and not shower.mist:
        return RainyImage(image.copy(), np.zeros(image.shape[:2], np.float32))
    light = np.array(shower.light, np.float32)
    scene = add_mist(image, shower.mist, shower.horizon, light) if shower.mist else image
    rainy = scene
    if shower.layers:
        streaks = np.zeros(image.shape[:2], np.float32)
        for layer in shower.layers:
            streaks += _DRAW[layer.style](*image.shape[:2], layer, rng)
        rainy = compose(scene, np.minimum(streaks, 1), light, shower.model)
    if shower.drops:
        cover, radiance = draw_drops(shower.drops, *image.shape[:2], rng)
        rainy = refract(rainy, cover, radiance, light, shower.drops.ground)
    added = cv2.cvtColor(cv2.absdiff(rainy, scene), cv2.COLOR_BGR2GRAY)
    return RainyImage(rainy, added.astype(np.float32) / 255)


class RainClip:
    """Rain over the frames of a clip: one shower, a wind that varies slowly, new drops each frame.

    Drops fall several metres between frames, so that no streak is seen twice. ``intensity``,
    ``model`` and ``mist`` are as for :func:`derain_ros.rain.shower.sample_shower`; the same
    ``seed``, not negative, gives the same rain on every run. ``wind`` is the mean inclination of
    the rain, degrees from the vertical, ±90, positive towards the lower right; by default drawn
    from the seed. With ``camera``, its motion and view, all rain is a volume of drops
    (:mod:`derain_ros.rain.drops`); by default it is layers of streaks before a static camera.
    Raises ValueError where an argument is out of its range.
    """

    def __init__(
        self, intensity: float, seed: int, *, wind: float | None = None, model: str | None = None,
        mist: float | None = None, camera: CameraMotion | None = None
    ) -> None:
        if seed < 0:
            raise ValueError(f'seed must not be negative, got {seed}')
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.camera = camera
        self.shower = sample_shower(intensity, rng, wind=wind, model=model, mist=mist)
        if camera and (intensity > 0 or camera.rate):
            drops = sample_volume(max(intensity, 0.01), rng)
            side = (0.0 if wind is None else
                    float(terminal_speed(2.0) * np.tan(np.deg2rad(np.clip(wind, -75, 75)))))
            drops = replace(
                drops, speed=camera.speed, mount=camera.mount, yaw_rate=0.0, wind=(side, 0.0))
            if camera.rate is not None:
                # The given rain rate, at physical opacity.
                drops = replace(drops, rate=camera.rate, opacity=1.0, near_gain=1.0, farthest=None)
            self.shower = replace(self.shower, layers=(), drops=drops)
        self._gusts = rng.uniform(0.5, 2.5, len(_GUST_PERIODS))
        self._phases = rng.uniform(0, 2 * np.pi, len(_GUST_PERIODS))

    def render(
        self, image: np.ndarray, index: int, time: float | None = None, *,
        speed: float | None = None, yaw_rate: float | None = None
    ) -> RainyImage:
        """Render frame ``index`` of the clip, from 0; the index determines where the drops are.

        ``image`` is a dry frame, uint8, H×W×3, BGR; ``time`` the seconds since the clip began, for
        the wind, by default at 30 frames a second; ``speed`` and ``yaw_rate`` those of the vehicle
        at this frame, m/s and rad/s to the left, by default those of the clip. Raises ValueError
        where ``image`` is not uint8 H×W×3, or ``index`` is negative.
        """
        if index < 0:
            raise ValueError(f'index must not be negative, got {index}')
        lean = self.lean(index / 30 if time is None else time)
        layers = tuple(
            replace(layer, angle=wrap_angle(layer.angle + lean)) for layer in self.shower.layers)
        drops = self.shower.drops
        if drops:
            width, fov = image.shape[1], np.deg2rad(self.camera.fov)
            # In a small picture, drops would be fainter than the intensity implies.
            plain = max(1.0, 640 / width) if self.camera.rate is None else 1.0
            side, along = drops.wind
            gust = float(terminal_speed(2.0) * np.tan(np.deg2rad(lean)))
            drops = replace(
                drops, offset=(0.0, 0.0), wind=(side + gust, along),
                focal_length=width / (2 * float(np.tan(fov / 2))), opacity=plain * drops.opacity,
                speed=drops.speed if speed is None else speed,
                yaw_rate=drops.yaw_rate if yaw_rate is None else yaw_rate)
        rng = np.random.default_rng((self.seed, index))
        return render(image, replace(self.shower, layers=layers, drops=drops), rng)

    def lean(self, time: float) -> float:
        """Degrees that gusts add to the inclination at a time in seconds."""
        angles = 2 * np.pi * time / np.array(_GUST_PERIODS) + self._phases
        return float((self._gusts * np.sin(angles)).sum())


def add_mist(image: np.ndarray, mist: float, horizon: float, light: np.ndarray) -> np.ndarray:
    """Add mist to a scene, denser with distance.

    I = B·t + A·(1 − t) with t = exp(−β·z) (Koschmieder, "Theorie der horizontalen
    Sichtweite", 1924). The distance z of a row is that of flat ground, relative to that of
    the horizon; above the horizon z = 1 and t = 1 − ``mist``.

    ``image``: uint8, H×W×3, BGR. ``mist``: 1 − t at the horizon, 0–1. ``horizon``: row of the
    horizon as a share of the height. ``light``: airlight A as B, G, R, 0–1. Returns uint8, H×W×3,
    BGR.
    """
    height = image.shape[0]
    below = np.maximum(0, (np.arange(height) + 0.5) / height - horizon)
    # A camera 1/8 of the horizon's distance up: rows far below the horizon are near.
    distance = 1 / (1 + 8 * below)
    transmission = (max(1e-3, 1 - mist) ** distance).astype(np.float32)[:, None, None]
    veiled = image * transmission + 255 * light * (1 - transmission)
    return (veiled + 0.5).astype(np.uint8)


def compose(image: np.ndarray, streaks: np.ndarray, light: np.ndarray, model: str) -> np.ndarray:
    """Composite streaks over a picture.

    With scene B, streaks S and the light A that drops refract, all 0–1:
    ``additive`` B + A·S (Li et al., "Rain Streak Removal Using Layer Priors", CVPR
    2016), ``screen`` 1 − (1 − B)(1 − A·S), ``occlusion`` (1 − S)·B + S·A (a drop
    hides what is behind it).

    ``image``: uint8, H×W×3, BGR. ``streaks``: float32, H×W, 0–1. ``light``: A as B, G, R, float32,
    0–1. ``model``: one of :data:`LAYER_MODELS`. Returns uint8, H×W×3, BGR. Raises ValueError:
    ``model`` is unknown.
    """
    scene = image.astype(np.float32) / 255
    rain = streaks[:, :, None]
    if model == 'additive':
        rainy = scene + light * rain
    elif model == 'screen':
        rainy = 1 - (1 - scene) * (1 - light * rain)
    elif model == 'occlusion':
        rainy = scene + rain * (light - scene)
    else:
        raise ValueError(f'unknown layer model {model!r}; known: {", ".join(LAYER_MODELS)}')
    return (np.clip(rainy, 0, 1) * 255 + 0.5).astype(np.uint8)
