"""Filters over many layers at once, each with a kernel of its own, in torch, on any device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from derain_ros.rain import StreakLayer

# Canvases grow in steps, as the FFT of each new size must be planned first.
_STEP = 64


def blur(layers: Tensor, sigmas: Tensor, reach: int) -> Tensor:
    """Blur each of L×H×W with a Gaussian of its own, cutting off ``reach`` pixels on each side."""
    if reach == 0:
        return layers
    offsets = torch.arange(-reach, reach + 1, device=layers.device)
    kernels = torch.exp(-(offsets**2) / (2 * sigmas.clamp(min=1e-3).unsqueeze(1) ** 2))
    kernels = kernels / kernels.sum(1, keepdim=True)
    count = len(layers)
    rows = functional.conv2d(
        layers.unsqueeze(0), kernels.reshape(count, 1, -1, 1), groups=count)
    return functional.conv2d(rows, kernels.reshape(count, 1, 1, -1), groups=count)[0]


def filter_noise(
    layers: Sequence[StreakLayer], height: int, width: int, generator: torch.Generator
) -> Tensor:
    """Draw layers of streaks as :func:`derain_ros.rain.streaks.filter_streaks` does.

    ``layers``: what to draw, at least one layer; their ``style`` is ignored. ``height``,
    ``width``: size in pixels. ``generator``: source of all randomness, on its device. Returns
    brightness that the streaks add, float32, layers×H×W, 0–1, on the device of ``generator``.
    """
    device = generator.device

    def per_layer(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).float().to(device)

    table = np.array([(k.density, k.length, k.width, k.angle, k.brightness[1]) for k in layers])
    density, length, broad, angle, brightness = table.T
    across = np.maximum(0.3, 0.4 * broad)
    reach = int(np.ceil(3 * across.max()))
    size = (height + 2 * reach, width + 2 * reach)
    noise = _smeared_noise(size, length, angle, generator)
    noise = blur(noise, per_layer(across), reach)
    # Most of what lies above the crest line is too faint to count as covered.
    cover = np.clip(1.6 * density * broad, 1e-3, 0.98)
    crest = _quantiles(noise.flatten(1), 1 - cover)
    steepness = 0.7 + 1.8 * torch.rand(len(layers), generator=generator, device=device)
    steepness = steepness / noise.flatten(1).std(1, correction=0).clamp(min=1e-6)
    crests = (noise - crest.reshape(-1, 1, 1)) * steepness.reshape(-1, 1, 1)
    return crests.clamp(0, 1) * per_layer(brightness).reshape(-1, 1, 1)


def _smeared_noise(
    size: tuple[int, int], lengths: np.ndarray, angles: np.ndarray, generator: torch.Generator
) -> Tensor:
    """Average white noise along a line for each layer; float32, L×``size``."""
    layer, row, column = _lines(lengths, angles)
    # The FFT joins opposite borders: the canvas is longer than the picture by the
    # longest line, so that no line reaches from one side of the picture to the other.
    torus = [
        -(-(side + int(np.ptp(line))) // _STEP) * _STEP
        for side, line in zip(size, (row, column), strict=True)
    ]
    device = generator.device
    noise = torch.randn(len(lengths), *torus, generator=generator, device=device)
    kernels = torch.zeros_like(noise)
    place = np.ravel_multi_index((layer, row % torus[0], column % torus[1]), noise.shape)
    weight = torch.from_numpy(1 / np.bincount(layer)[layer]).float()
    kernels.view(-1)[torch.from_numpy(place).to(device)] = weight.to(device)
    smeared = torch.fft.irfft2(torch.fft.rfft2(noise) * torch.fft.rfft2(kernels), s=torus)
    return smeared[:, : size[0], : size[1]]


def _lines(lengths: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the pixels of the digital lines that OpenCV draws into the kernels of streaks.

    Returns for each pixel its layer, and its row and column from the middle of the line. A
    pixel halfway between two columns may be in the other one, as in the line turned by 180
    degrees; noise smeared along either line has the same spectrum.
    """
    # OpenCV antialiases lines in 8-bit pictures only; in others it rounds the
    # ends, here in sixteenths of a pixel, and sets one pixel for each step between them.
    half = np.where(lengths > 1, lengths, 0) / 2
    radians = np.deg2rad(angles)
    ends = np.rint(16 * half * np.stack([np.cos(radians), np.sin(radians)])) / 16
    begin, end = np.floor(0.5 - ends), np.floor(0.5 + ends)
    steps = np.abs(end - begin).max(0)
    layer = np.repeat(np.arange(len(lengths)), steps.astype(int) + 1)
    step = np.arange(len(layer)) - np.searchsorted(layer, layer)
    slope = (end - begin) / np.maximum(1, steps)
    row, column = np.ceil(begin[:, layer] + step * slope[:, layer] - 0.5).astype(int)
    return layer, row, column


def _quantiles(values: Tensor, shares: np.ndarray) -> Tensor:
    """Compute one quantile, between 0 and 1, of each row, as ``numpy.quantile`` does."""
    # torch.quantile takes the same shares for all rows, and no large inputs.
    ranks = torch.from_numpy(shares * (values.shape[1] - 1)).to(values.device).unsqueeze(1)
    rising = values.sort(1).values
    below = rising.gather(1, ranks.floor().long())
    above = rising.gather(1, ranks.ceil().long())
    return torch.lerp(below, above, ranks.frac().float())[:, 0]
