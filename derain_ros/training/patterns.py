"""Regular patterns laid over dry crops, which look like rain but are not.

A streak filter responds to fences, blinds, gratings and fabric as to rain. They are rare
in photographs, so they are drawn: evenly spaced bars in a patch of the picture, both in the
rainy crop and in its ground truth.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Bars:
    """Parallel bars.

    ``angle``: direction across the bars, radians from the row; 0 for vertical bars. ``period``:
    from one bar to the next, pixels. ``phase``: radians. ``breadth``: −1 for bars without gaps to
    1 for no bars. ``edge``: softness, 0 for sharp edges. ``bend``, ``bend_rate``: how far bars
    wave, pixels, and how fast, radians per row. ``taper``: growth of the spacing along the
    bars by perspective, per pixel. ``dash``: period of dashes along the bars, pixels; 0 for none.
    """

    angle: float
    period: float
    phase: float
    breadth: float
    edge: float
    bend: float
    bend_rate: float
    taper: float = 0.0
    dash: float = 0.0


@dataclass(frozen=True)
class Pattern:
    """One or two sets of bars in a rectangle.

    ``top``, ``bottom``, ``left``, ``right``: sides of the rectangle as shares of the height or
    width. ``colour``: B, G, R, 0–255. ``opacity``: 0–1. ``bars``: sets of bars, the stronger of
    which shows. ``ground``: grey of a plain ground behind the bars, 0–255, or None for the
    picture. ``checkers``: the two sets of bars show only where they do not cross.
    """

    top: float
    bottom: float
    left: float
    right: float
    colour: tuple[float, float, float]
    opacity: float
    bars: tuple[Bars, ...]
    ground: float | None = None
    checkers: bool = False


def sample_pattern(rng: np.random.Generator) -> Pattern:
    """Draw a pattern: bars in all directions, 2 to 160 pixels apart.

    Three quarters are clearly visible, bright or dark on a plain ground, and half of these fill
    the picture, as a fence or blinds may fill the view. The others have any colour, may be
    faint, and stay in a patch, as such bars all over a picture would look like dense rain.
    One in eight are checkers.
    """
    plain = rng.random() < 0.75
    fills = plain and rng.random() < 0.5
    top, left = (0.0, 0.0) if fills else rng.uniform(0, 0.6, 2)
    tall, wide = (1.0, 1.0) if fills else rng.uniform(0.25, 1.0, 2)
    sets = 2 if rng.random() < 0.45 else 1
    colour = rng.uniform(0, 255) + 15 * rng.standard_normal(3)
    ground = float(rng.uniform(0, 160)) if rng.random() < 0.35 else None
    opacity = float(rng.uniform(0.15, 1.0))
    if plain:
        light, shade = rng.uniform(150, 255), rng.uniform(0, 100)
        if rng.random() < 0.25:
            light, shade = shade, light
        colour = light + 5 * rng.standard_normal(3)
        ground, opacity = float(shade), 1.0
    checkers = rng.random() < 0.125
    bars = _sample_checkers(rng) if checkers else _sample_sets(sets, rng)
    return Pattern(
        float(top),
        float(min(1, top + tall)),
        float(left),
        float(min(1, left + wide)),
        tuple(float(x) for x in colour),
        opacity,
        bars,
        ground,
        checkers,
    )


def _sample_checkers(rng: np.random.Generator) -> tuple[Bars, ...]:
    """Draw the bars of checkers of 1 to 6 pixels, half of them along the rows of pixels."""
    angle = 0.0 if rng.random() < 0.5 else float(rng.normal(0, 0.35))
    side = min(6, 1 + int(rng.exponential(1.5)))
    bars = Bars(angle, 2.0 * side, np.pi / 4, 0.0, 0.1, 0.0, 0.0)
    return (bars, replace(bars, angle=angle + np.pi / 2))


def _sample_sets(count: int, rng: np.random.Generator) -> tuple[Bars, ...]:
    first = _sample_bars(rng)
    if count == 1:
        return (first,)
    # A lattice, or two independent sets.
    if rng.random() < 0.6:
        return (first, replace(first, angle=first.angle + np.pi / 2, bend=0.0))
    return (first, _sample_bars(rng))


def _sample_bars(rng: np.random.Generator) -> Bars:
    """Draw bars, from the finest gratings to single wires, kerbs and lane markings."""
    angle = rng.normal(0, 0.35) if rng.random() < 0.4 else rng.uniform(0, np.pi)
    widest = 24 if rng.random() < 0.65 else 160
    period = float(np.exp(rng.uniform(np.log(2), np.log(widest))))
    thick = float(np.exp(rng.uniform(np.log(min(1.0, 0.3 * period)), np.log(0.7 * period))))
    # Softness of an edge in pixels, as a step of the wave there.
    soft = rng.uniform(0.3, 1.5) * 2 * np.pi / period * np.sin(np.pi * thick / period)
    # Fabric bends; roads and buildings recede.
    bend = 0.3 * period if rng.random() < 0.2 else 0.0
    recedes = not bend and rng.random() < 0.4
    return Bars(
        float(angle),
        period,
        float(rng.uniform(0, 2 * np.pi)),
        float(np.cos(np.pi * thick / period)),
        float(max(soft, 1e-3)),
        bend,
        float(rng.uniform(0.02, 0.1)),
        float(rng.uniform(-0.006, 0.006)) if recedes else 0.0,
        float(rng.uniform(8, 80)) if rng.random() < 0.15 else 0.0,
    )


def lay(image: Tensor, pattern: Pattern) -> Tensor:
    """Lay a pattern over a picture.

    ``image``: uint8, 3×H×W, BGR, on any device. ``pattern``: what to lay. Returns a new picture
    like ``image``.
    """
    height, width = image.shape[1:]
    y = torch.arange(height, device=image.device, dtype=torch.float32).reshape(-1, 1)
    x = torch.arange(width, device=image.device, dtype=torch.float32).reshape(1, -1)
    inside = (y >= pattern.top * height) & (y < pattern.bottom * height)
    inside = inside & (x >= pattern.left * width) & (x < pattern.right * width)
    shown = torch.zeros(height, width, device=image.device)
    crossing = torch.ones(height, width, device=image.device)
    for bars in pattern.bars:
        across = x * np.cos(bars.angle) + y * np.sin(bars.angle)
        along = y * np.cos(bars.angle) - x * np.sin(bars.angle)
        across = across + bars.bend * torch.sin(bars.bend_rate * y)
        if bars.taper:
            across = across / (1 + bars.taper * along).clamp(min=0.2)
        wave = torch.cos(2 * np.pi / bars.period * across + bars.phase)
        bar = ((wave - bars.breadth) / bars.edge + 0.5).clamp(0, 1)
        if bars.dash:
            bar = bar * (torch.sin(2 * np.pi / bars.dash * along) * 4 + 0.5).clamp(0, 1)
        shown, crossing = torch.maximum(shown, bar), torch.minimum(crossing, bar)
    if pattern.checkers:
        shown = shown - crossing
    share = pattern.opacity * shown * inside
    colour = torch.tensor(pattern.colour, device=image.device).reshape(3, 1, 1)
    if pattern.ground is not None:
        # A little of the picture stays, as no real ground is flat.
        image = torch.where(inside, pattern.ground + 0.15 * image, image)
    laid = image + share * (colour - image)
    return (laid + 0.5).clamp(0, 255).to(torch.uint8)


def add_pattern(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lay a random pattern over a picture, uint8 H×W×3 BGR; returns a new one."""
    planes = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    laid = lay(planes, sample_pattern(rng))
    return np.ascontiguousarray(laid.permute(1, 2, 0).numpy())
