"""Parameters of a shower: layers of streaks, wind, light, mist; drawn at random or given.

A drop of diameter d falls at its terminal speed v, is smeared by the exposure T and
projected from the distance Z with a focal length of f pixels: its streak is f·v·T/Z
long and f·d/Z wide (Garg and Nayar, "Vision and Rain", IJCV 75(1), 2007). So all
streaks of one picture share about one ratio of length to width, v·T/d, and near rain
is long, wide and sparse where far rain is short, thin and dense.
"""

import functools
from dataclasses import dataclass

import numpy as np

from derain_ros.rain.drops import MOUNTS, DropVolume, terminal_speed

LAYER_MODELS = ('additive', 'screen', 'occlusion')
"""How streaks are blended with the scene, see :func:`derain_ros.rain.renderer.compose`."""

STYLES = ('drawn', 'smeared', 'filtered')
"""How streaks are drawn, see :mod:`derain_ros.rain.streaks`."""

_KINDS = 'layers', 'drops', 'both', 'sparse'

LONGEST = 130.0
"""Largest mean length of the streaks of a drawn layer, in pixels."""


@dataclass(frozen=True)
class StreakLayer:
    """Streaks at about one distance.

    ``density`` is streaks per square pixel times their length: the mean number of streaks that
    cross a row per pixel of its width, 0 for none, 0.1 for dense rain. ``length`` and ``width``
    are means, pixels; ``angle`` is the inclination from the vertical, degrees,
    positive towards the lower right, and ``angle_spread`` its standard deviation. ``brightness``
    is the range of peak brightness, 0–1, ``softness`` the standard deviation of the defocus,
    pixels, and ``style`` one of :data:`STYLES`.
    """

    density: float
    length: float
    width: float
    angle: float
    angle_spread: float = 1.0
    brightness: tuple[float, float] = (0.2, 0.8)
    softness: float = 0.5
    style: str = 'drawn'


@dataclass(frozen=True)
class Shower:
    """The rain of one picture or clip, without the positions of its drops.

    ``layers`` of streaks are blended with the scene by ``model``, one of :data:`LAYER_MODELS`;
    ``drops`` is a volume of drops, drawn in addition. ``light`` is the light that drops refract,
    B, G, R, 0–1; ``mist`` the share of the scene that mist replaces at the horizon, 0–1;
    ``horizon`` the row of the horizon as a share of the height, 0 at the top.
    """

    layers: tuple[StreakLayer, ...]
    model: str = 'additive'
    light: tuple[float, float, float] = (0.9, 0.9, 0.9)
    mist: float = 0.0
    horizon: float = 0.4
    drops: DropVolume | None = None


def streak_size(
    diameter: float, distance: float, exposure: float, focal_length: float
) -> tuple[float, float]:
    """Length and width of the streak of a falling drop on the sensor, pixels.

    ``diameter``: of the drop, millimetres. ``distance``: from the camera, metres. ``exposure``:
    seconds. ``focal_length``: pixels.
    """
    scale = focal_length / distance
    return terminal_speed(diameter) * exposure * scale, 1e-3 * diameter * scale


def sample_shower(
    intensity: float, rng: np.random.Generator, *, wind: float | None = None,
    model: str | None = None, mist: float | None = None, moving: bool = False
) -> Shower:
    """Draw a shower of a given intensity.

    ``intensity`` is 0 for dry, 0.2 for light rain, 1 for a downpour that hides the scene. ``wind``
    is the inclination of the rain of the layers from the vertical, degrees, positive towards the
    lower right; by default drawn around 0. ``model`` is one of :data:`LAYER_MODELS`, by default
    drawn, mostly additive; ``mist`` see :class:`Shower`, by default none in most showers.
    ``moving`` is for cameras that may move: half of the showers lean at any angle, a quarter are
    those of :func:`sample_sparse_layer`, and over half of the others have a volume of drops, alone
    or together with layers. Raises ValueError where ``intensity`` or ``mist`` is outside 0–1,
    ``wind`` outside ±90, or ``model`` is not known.
    """
    if not 0 <= intensity <= 1:
        raise ValueError(f'intensity must be between 0 and 1, got {intensity}')
    if mist is not None and not 0 <= mist <= 1:
        raise ValueError(f'mist must be between 0 and 1, got {mist}')
    if wind is not None and not -90 <= wind <= 90:
        raise ValueError(f'wind must be between -90 and 90 degrees, got {wind}')
    if model is not None and model not in LAYER_MODELS:
        raise ValueError(f'unknown layer model {model!r}; known: {", ".join(LAYER_MODELS)}')
    drawn_wind = float(np.clip(18 * rng.standard_normal(), -45, 45))
    if moving and rng.random() < 0.5:
        drawn_wind = float(rng.uniform(-90, 90))
    if wind is None:
        wind = drawn_wind
    kinds = rng.choice(_KINDS, p=(0.34, 0.26, 0.15, 0.25)) if moving else 'layers'
    sparse = kinds == 'sparse'
    drawn_model = str(rng.choice(LAYER_MODELS, p=(0.3, 0.2, 0.5) if sparse else (0.7, 0.15, 0.15)))
    drawn_mist = 0.0 if sparse else max(0.0, float(rng.uniform(-1.0, 0.3))) * intensity
    low = 0.6 if kinds in ('drops', 'sparse') else 0.8
    light = rng.uniform(low, 1.0) + 0.015 * rng.standard_normal(3)
    layers, drops = (), None
    if intensity > 0 and sparse:
        layers = (sample_sparse_layer(wind, rng),)
    elif intensity > 0:
        if kinds != 'drops':
            share = intensity if kinds == 'layers' else 0.6 * intensity
            layers = tuple(sample_layers(share, wind, rng, moving=moving))
        if kinds != 'layers':
            drops = sample_volume(intensity, rng)
    return Shower(
        layers=layers,
        drops=drops,
        model=model or drawn_model,
        light=tuple(float(x) for x in np.clip(light, 0, 1)),
        mist=drawn_mist if mist is None else mist,
        horizon=float(rng.uniform(0.1, 0.6)))


def sample_volume(intensity: float, rng: np.random.Generator) -> DropVolume:
    """Draw a volume of drops and a camera, for a picture of any size.

    Ranges are wider than those of any one camera. Physically, rain is mostly too faint to
    see through a wide lens; here ``opacity`` makes it more visible. ``intensity``: above 0 to 1.
    """
    between = functools.partial(_between, rng)
    frame = between(480, 1920)
    focal = frame * between(0.7, 2.0)
    moves = rng.random() < 0.7
    exposure = between(1 / 2000, 1 / 40)
    near = rng.random() < 0.35
    # Longer exposures dim streaks; night cameras and near lamps make up for it.
    opacity = between(2, 8) * (exposure * 1000) ** 0.6 if rng.random() < 0.8 else between(1, 4)
    return DropVolume(
        rate=1.5 + 120 * intensity**1.6,
        focal_length=focal,
        offset=(float(rng.uniform(-0.5, 0.5) * frame), float(rng.uniform(-0.35, 0.35) * frame)),
        exposure=exposure,
        readout=between(5e-6, 5e-5) if rng.random() < 0.5 else 0.0,
        speed=float(rng.uniform(2, 38)) if moves else 0.0,
        mount=str(rng.choice(list(MOUNTS), p=(0.6, 0.15, 0.1, 0.15))),
        yaw_rate=float(0.2 * rng.standard_normal()) if moves and rng.random() < 0.3 else 0.0,
        wind=(float(3 * rng.standard_normal()), float(2 * rng.standard_normal())),
        aperture=float(rng.uniform(0, 0.004)),
        focus=between(3, 40),
        opacity=opacity,
        near_gain=between(2, 40) if near else 1.0,
        nearest=between(0.12, 0.5),
        farthest=between(1.5, 10),
        brightness=(float(np.exp(0.25 * rng.standard_normal())), float(rng.uniform(0, 0.4))),
        beads=float(rng.uniform(0, 0.7)) if rng.random() < 0.3 else 0.0,
        ground=float(rng.uniform(0.1, 0.8)))


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def sample_sparse_layer(wind: float, rng: np.random.Generator) -> StreakLayer:
    """Draw a layer of few streaks that are plain to see, such as drops from a roof.

    ``wind``: as for :func:`sample_shower`. Without such showers a network leaves streaks alone
    where there are few, since the rest of the picture is dry. They cover some 10 % of it at most.
    """
    between = functools.partial(_between, rng)
    wide = between(0.8, 6)
    long = min(wide * between(1.5, 16), LONGEST)
    low = between(0.06, 0.5)
    return StreakLayer(
        density=min(between(5e-5, 2e-3) * long, 0.1 / wide), length=long, width=wide, angle=wind,
        angle_spread=float(rng.uniform(0, 4)), brightness=(low, min(1.0, low * between(1.1, 2))),
        softness=float(rng.uniform(0.15, 0.35 + 0.2 * wide)),
        style=str(rng.choice(STYLES, p=(0.6, 0.4, 0))))


def wrap_angle(angle: float) -> float:
    """Return the inclination of a line, degrees, between −90 and 90."""
    return (angle + 90) % 180 - 90


def sample_layers(
    intensity: float, wind: float, rng: np.random.Generator, *, moving: bool = False
) -> list[StreakLayer]:
    """Draw layers from far to near; more intensity means more, denser, brighter ones.

    ``intensity``, ``wind``: as for :func:`sample_shower`. ``moving``: three in ten exposures may
    be as short as 1/1500 s instead of 1/250 s, for dashes. ``rng``: source of randomness.
    """
    if intensity == 0:
        return []
    count = 1 + rng.binomial(4, 0.15 + 0.6 * intensity)
    # Streaks of all layers together, as a share of the picture: 1.5 % to more than all.
    least, most = 0.03 + 0.45 * intensity**2, 0.12 + 1.9 * intensity**2
    cover = 0.5 * float(np.exp(rng.uniform(np.log(least), np.log(most))))
    shares = rng.dirichlet(np.full(count, 2.0))
    diameter = float(rng.uniform(1.0, 3.0))
    shortest = 1 / 1500 if moving and rng.random() < 0.3 else 1 / 250
    exposure = float(np.exp(rng.uniform(np.log(shortest), np.log(1 / 30))))
    length, width = streak_size(diameter, 1.0, exposure, 1.0)
    ratio = length / width
    reach = 0.45 + 0.55 * intensity
    spread = (1 + 14 * intensity) * float(rng.uniform(0, 1))
    layers = []
    for share in shares:
        wide = float(np.exp(rng.uniform(np.log(0.6), np.log(1.3 + 2.2 * intensity))))
        long = float(np.clip(wide * ratio * rng.uniform(0.6, 1.6), 2 if moving else 7, LONGEST))
        low = float(rng.uniform(0.03, 0.3)) * reach
        layers.append(StreakLayer(
            density=cover * float(share) * 2 / wide, length=long, width=wide,
            angle=wrap_angle(wind + spread * float(rng.standard_normal())),
            angle_spread=float(rng.uniform(0, 2 + 8 * intensity)),
            brightness=(low, min(1.0, low + float(rng.uniform(0.1, 0.75)) * reach)),
            softness=float(rng.uniform(0.15, 0.35 + 0.35 * wide)),
            style=str(rng.choice(STYLES, p=(0.4, 0.25, 0.35)))))
    return layers
