"""What a shower is: layers of streaks, wind, light, mist; drawn at random or given.

A drop of diameter d falls at its terminal speed v, is smeared by the exposure T and
projected from the distance Z with a focal length of f pixels: its streak is f·v·T/Z
long and f·d/Z wide (Garg and Nayar, "Vision and Rain", IJCV 75(1), 2007). So all
streaks of one picture share about one ratio of length to width, v·T/d, and near rain
is long, wide and sparse where far rain is short, thin and dense.
"""

from dataclasses import dataclass

import numpy as np

LAYER_MODELS = ('additive', 'screen', 'occlusion')
"""How streaks meet the scene, see :func:`derain_ros.rain.renderer.compose`."""

STYLES = ('drawn', 'smeared', 'filtered')
"""How streaks are made, see :mod:`derain_ros.rain.streaks`."""

LONGEST = 130.0
"""Mean length in pixels beyond which no layer is drawn."""


@dataclass(frozen=True)
class StreakLayer:
    """Streaks of about one distance.

    Attributes
    ----------
    density
        Streaks per square pixel times their length: the mean number of streaks
        that a row of one pixel's width meets, 0 for none, 0.1 for dense rain.
    length
        Mean length of a streak, pixels.
    width
        Width of a streak, pixels.
    angle
        Inclination from the vertical, degrees, positive leaning right at the foot.
    angle_spread
        Standard deviation of the inclination, degrees.
    brightness
        Range of peak brightness, 0–1.
    softness
        Standard deviation of the defocus, pixels.
    style
        One of :data:`STYLES`.

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
    """Rain of one picture or clip, less the places of its drops.

    Attributes
    ----------
    layers
        Streak layers.
    model
        One of :data:`LAYER_MODELS`.
    light
        Light that drops refract, B, G, R, 0–1.
    mist
        Share of the scene that mist replaces at the horizon, 0–1.
    horizon
        Row of the horizon as a share of the height, 0 at the top.

    """

    layers: tuple[StreakLayer, ...]
    model: str = 'additive'
    light: tuple[float, float, float] = (0.9, 0.9, 0.9)
    mist: float = 0.0
    horizon: float = 0.4


def terminal_speed(diameter: float) -> float:
    """Speed at which a drop falls through still air, m/s.

    v = 9.65 − 10.3·exp(−0.6·d) (Atlas, Srivastava and Sekhon, "Doppler radar
    characteristics of precipitation at vertical incidence", Rev. Geophys. 11(1),
    1973), a fit for drops of 0.6 to 5.8 mm.

    Parameters
    ----------
    diameter
        Millimetres.

    """
    return 9.65 - 10.3 * float(np.exp(-0.6 * diameter))


def streak_size(
    diameter: float, distance: float, exposure: float, focal_length: float
) -> tuple[float, float]:
    """Length and width of the streak of a falling drop on the sensor, pixels.

    Parameters
    ----------
    diameter
        Of the drop, millimetres.
    distance
        From the camera, metres.
    exposure
        Seconds.
    focal_length
        Pixels.

    """
    scale = focal_length / distance
    return terminal_speed(diameter) * exposure * scale, 1e-3 * diameter * scale


def sample_shower(
    intensity: float,
    rng: np.random.Generator,
    *,
    wind: float | None = None,
    model: str | None = None,
    mist: float | None = None,
) -> Shower:
    """Draw a shower of a given intensity.

    Parameters
    ----------
    intensity
        0 for dry, 0.2 for light rain, 1 for a downpour that hides the scene.
    rng
        Source of randomness.
    wind
        Inclination of the rain from the vertical, degrees, positive leaning right at
        the foot; by default drawn about 0.
    model
        One of :data:`LAYER_MODELS`; by default drawn, mostly additive.
    mist
        See :class:`Shower`; by default drawn, none in most showers.

    Raises
    ------
    ValueError
        ``intensity`` or ``mist`` is outside 0–1, ``wind`` outside ±60, or ``model``
        is not known.

    """
    if not 0 <= intensity <= 1:
        raise ValueError(f'intensity must be between 0 and 1, got {intensity}')
    if mist is not None and not 0 <= mist <= 1:
        raise ValueError(f'mist must be between 0 and 1, got {mist}')
    if wind is not None and not -60 <= wind <= 60:
        raise ValueError(f'wind must be between -60 and 60 degrees, got {wind}')
    if model is not None and model not in LAYER_MODELS:
        raise ValueError(f'unknown layer model {model!r}; known: {", ".join(LAYER_MODELS)}')
    drawn_wind = float(np.clip(18 * rng.standard_normal(), -45, 45))
    drawn_model = str(rng.choice(LAYER_MODELS, p=(0.7, 0.15, 0.15)))
    drawn_mist = max(0.0, float(rng.uniform(-1.0, 0.3))) * intensity
    light = rng.uniform(0.8, 1.0) + 0.015 * rng.standard_normal(3)
    return Shower(
        layers=tuple(_sample_layers(intensity, drawn_wind if wind is None else wind, rng)),
        model=model or drawn_model,
        light=tuple(float(x) for x in np.clip(light, 0, 1)),
        mist=drawn_mist if mist is None else mist,
        horizon=float(rng.uniform(0.1, 0.6)),
    )


def _sample_layers(
    intensity: float, wind: float, rng: np.random.Generator
) -> list[StreakLayer]:
    """Draw layers from far to near; more intensity means more, denser, brighter ones."""
    if intensity == 0:
        return []
    count = 1 + rng.binomial(4, 0.15 + 0.6 * intensity)
    # Streaks of all layers together, as a share of the picture: 1.5 % to more than all.
    least, most = 0.03 + 0.45 * intensity**2, 0.12 + 1.9 * intensity**2
    cover = 0.5 * float(np.exp(rng.uniform(np.log(least), np.log(most))))
    shares = rng.dirichlet(np.full(count, 2.0))
    diameter = float(rng.uniform(1.0, 3.0))
    exposure = float(np.exp(rng.uniform(np.log(1 / 250), np.log(1 / 30))))
    length, width = streak_size(diameter, 1.0, exposure, 1.0)
    ratio = length / width
    reach = 0.45 + 0.55 * intensity
    spread = (1 + 14 * intensity) * float(rng.uniform(0, 1))
    layers = []
    for share in shares:
        wide = float(np.exp(rng.uniform(np.log(0.6), np.log(1.3 + 2.2 * intensity))))
        long = float(np.clip(wide * ratio * rng.uniform(0.6, 1.6), 7, LONGEST))
        low = float(rng.uniform(0.03, 0.3)) * reach
        layers.append(
            StreakLayer(
                density=cover * float(share) * 2 / wide,
                length=long,
                width=wide,
                angle=float(np.clip(wind + spread * rng.standard_normal(), -60, 60)),
                angle_spread=float(rng.uniform(0, 2 + 8 * intensity)),
                brightness=(low, min(1.0, low + float(rng.uniform(0.1, 0.75)) * reach)),
                softness=float(rng.uniform(0.15, 0.35 + 0.35 * wide)),
                style=str(rng.choice(STYLES, p=(0.4, 0.25, 0.35))),
            )
        )
    return layers
