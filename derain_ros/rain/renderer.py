"""Put rain into a picture."""

from typing import NamedTuple

import cv2
import numpy as np

from derain_ros.rain.streaks import StreakLayer, draw_streaks, scatter_streaks

LAYER_MODELS = ('additive', 'screen', 'occlusion')
"""How streaks meet the scene, see :func:`compose`."""


class RainyImage(NamedTuple):
    """A rendered picture and its truth.

    Attributes
    ----------
    image
        Rainy picture, uint8, H×W×3, BGR.
    streaks
        Brightness that streaks add to the scene where it shows, float32, H×W, 0–1;
        0 where no streak is visible.

    """

    image: np.ndarray
    streaks: np.ndarray


def add_rain(
    image: np.ndarray,
    intensity: float,
    rng: np.random.Generator,
    *,
    layers: list[StreakLayer] | None = None,
    model: str | None = None,
) -> RainyImage:
    """Render rain over a picture.

    Parameters
    ----------
    image
        Dry picture, uint8, H×W×3, BGR.
    intensity
        0 for dry, 0.2 for light rain, 1 for a downpour that hides the scene.
    rng
        Source of all randomness: the same state gives the same rain.
    layers
        Streak layers; by default drawn by :func:`sample_layers`.
    model
        One of :data:`LAYER_MODELS`; by default drawn, mostly additive.

    Returns
    -------
    RainyImage
        Of the size of ``image``.

    Raises
    ------
    ValueError
        ``image`` is not uint8 H×W×3, ``intensity`` is outside 0–1, or ``model`` is
        not known.

    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'expected uint8 H×W×3, got {image.dtype} of shape {image.shape}')
    if not 0 <= intensity <= 1:
        raise ValueError(f'intensity must be between 0 and 1, got {intensity}')
    height, width = image.shape[:2]
    if layers is None:
        layers = sample_layers(intensity, rng)
    if model is None:
        model = str(rng.choice(LAYER_MODELS, p=(0.6, 0.2, 0.2)))
    streaks = np.zeros((height, width), np.float32)
    for layer in layers:
        draw = draw_streaks if rng.random() < 0.5 else scatter_streaks
        streaks += draw(height, width, layer, rng)
    rainy = compose(image, np.minimum(streaks, 1), rng, model)
    added = cv2.cvtColor(cv2.absdiff(rainy, image), cv2.COLOR_BGR2GRAY)
    return RainyImage(rainy, added.astype(np.float32) / 255)


def sample_layers(intensity: float, rng: np.random.Generator) -> list[StreakLayer]:
    """Draw streak layers for a given intensity.

    More intensity means more layers, denser, longer and brighter; all layers of one
    picture share a wind, about which near layers scatter more than far ones.

    Parameters
    ----------
    intensity
        0–1, see :func:`add_rain`.
    rng
        Source of randomness.

    Returns
    -------
    list of StreakLayer
        Empty for intensity 0.

    """
    if intensity <= 0:
        return []
    wind = float(np.clip(15 * rng.standard_normal(), -40, 40))
    count = 1 + rng.binomial(4, 0.2 + 0.7 * intensity)
    reach = 0.4 + 0.6 * intensity
    layers = []
    for _ in range(count):
        width = float(np.exp(rng.uniform(np.log(0.6), np.log(1.2 + 2.8 * intensity))))
        length = float(width * rng.uniform(8, 30) + rng.uniform(4, 40))
        cover = np.exp(rng.uniform(np.log(0.015), np.log(0.1 + 0.15 * intensity)))
        density = float(intensity**0.5 * cover / width)
        low = rng.uniform(0.03, 0.3) * reach
        layers.append(
            StreakLayer(
                density=density,
                length=min(length, 110.0),
                width=width,
                angle=wind + float((2 + 10 * intensity) * rng.standard_normal()),
                angle_spread=float(rng.uniform(0, 2 + 4 * intensity)),
                brightness=(float(low), float(low + rng.uniform(0.15, 0.75) * reach)),
                softness=float(rng.uniform(0.2, 0.5 + 0.35 * width)),
            )
        )
    return layers


def compose(
    image: np.ndarray, streaks: np.ndarray, rng: np.random.Generator, model: str
) -> np.ndarray:
    """Lay streaks over a picture.

    With scene B, streaks S and the light A that drops refract (grey, slightly
    tinted), all 0–1: ``additive`` B + A·S (Li et al., "Rain Streak Removal Using
    Layer Priors", CVPR 2016), ``screen`` 1 − (1 − B)(1 − A·S), ``occlusion``
    (1 − S)·B + S·A (a drop hides what is behind it).

    Parameters
    ----------
    image
        uint8, H×W×3, BGR.
    streaks
        float32, H×W, 0–1.
    rng
        Draws A.
    model
        One of :data:`LAYER_MODELS`.

    Returns
    -------
    ndarray
        uint8, H×W×3, BGR.

    Raises
    ------
    ValueError
        ``model`` is not known.

    """
    light = (rng.uniform(0.8, 1.0) + 0.02 * rng.standard_normal(3)).astype(np.float32)
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
