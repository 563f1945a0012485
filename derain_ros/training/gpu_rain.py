"""Rain over a whole batch at once, in torch, on any device.

The showers are those of :func:`derain_ros.rain.sample_shower`; what
:mod:`derain_ros.rain.streaks` draws with OpenCV, streak after streak, is computed here
for all streaks of a batch together: for each row that a streak crosses, the few pixels
around its axis, each with its distance from the axis and along it. Profiles match what
OpenCV was measured to draw (its lines of thickness 1, 2, 3, 4, 5 are 1.4, 3.4, 5.4, 5.4
and 7.4 pixels wide). Streaks of the style ``filtered`` are made of noise, in
:mod:`derain_ros.training.gpu_filter`. Single pixels differ from those of the CPU renderer,
but the statistics agree.

The same arguments give the same batch on the same kind of device.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from derain_ros.network.rain_mask import LUMINANCE_BGR
from derain_ros.rain import Shower, StreakLayer
from derain_ros.rain.drops import BLURS, SPLAT_VARIANCE, DropVolume, sample_drops, trace
from derain_ros.rain.shower import LAYER_MODELS, wrap_angle
from derain_ros.training.gpu_filter import blur, filter_noise

STEEPEST = 75.0
"""Inclination from the vertical, degrees, to which streaks are limited."""

# Half width and softness, pixels, of OpenCV's antialiased line of thickness 1.
_EDGE, _EDGE_SCALE = 0.69, 2.0
# Variance that OpenCV's smearing kernel, a digital line, adds across the streak on average;
# for specks it comes with the rounding of their pixels.
_KERNEL_VARIANCE = {'drawn': 0.05, 'smeared': 0.0}
# Chords of OpenCV's discs of 1, 3 and 5 pixels at 0, 1, 2, ... pixels from the centre.
_CHORDS = ((1.0, 0.0, 0.0, 0.0), (3.0, 1.0, 0.0, 0.0), (5.0, 3.0, 3.0, 0.0))
# Sums are taken in fixed point, so that their order does not matter.
_FIXED_POINT = 2**16


class _Streaks(NamedTuple):
    """Streaks, one value per streak, lengths in pixels; each is drawn into one canvas."""

    canvas: Tensor
    row: Tensor
    column: Tensor
    angle: Tensor
    half: Tensor
    fade: Tensor
    level: Tensor
    across: Tensor


def draw_layers(
    layers: Sequence[StreakLayer | None],
    height: int,
    width: int,
    *,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> Tensor:
    """Draw layers of streaks.

    ``layers``: what to draw; None leaves a layer empty. ``height``, ``width``: size in pixels.
    ``rng``: draws how many streaks there are. ``generator``: draws all else, on its device.
    Returns brightness that the streaks add, float32, layers×H×W, 0–1, on the device of
    ``generator``. Raises ValueError: the style of a layer is unknown.
    """
    lying = [i for i, k in enumerate(layers) if k is not None and abs(k.angle) > 45]
    if lying:
        # Streaks are drawn row by row, so flat ones are drawn in the transposed picture.
        upright = [None if i in lying else layer for i, layer in enumerate(layers)]
        turned = [replace(layers[i], angle=wrap_angle(90 - layers[i].angle)) for i in lying]
        drawn = draw_layers(upright, height, width, rng=rng, generator=generator)
        drawn[lying] = draw_layers(
            turned, width, height, rng=rng, generator=generator).transpose(1, 2)
        return drawn
    device = generator.device
    by_style = {style: [] for style in ('drawn', 'smeared', 'filtered')}
    for i, layer in enumerate(layers):
        if layer is not None:
            if layer.style not in by_style:
                raise ValueError(
                    f'unknown streak style {layer.style!r}; known: {", ".join(by_style)}')
            by_style[layer.style].append((i, layer))
    filtered = by_style.pop('filtered')
    kinds = [chosen for group in by_style.values() for chosen in group]
    sigmas = torch.zeros(len(layers), device=device)
    if kinds:
        where = torch.tensor([i for i, _ in kinds], device=device)
        values = [math.sqrt(k.softness**2 + _KERNEL_VARIANCE[k.style]) for _, k in kinds]
        sigmas[where] = torch.tensor(values, device=device)
        reach = math.ceil(3 * max(values))
    else:
        reach = 0
    size = (height + 2 * reach, width + 2 * reach)
    canvas = torch.zeros(len(layers) * size[0] * size[1], device=device)
    for style, chosen in by_style.items():
        if chosen:
            streaks = _scatter(chosen, height, width, style, rng, generator)
            index, value = _pixels(streaks, size, reach, style)
            if style == 'drawn':
                canvas.scatter_reduce_(0, index, value, 'amax')
            else:
                whole = torch.zeros_like(canvas, dtype=torch.int32)
                whole.index_add_(0, index, (value * _FIXED_POINT).round().int())
                canvas += whole.float() / _FIXED_POINT
    drawn = blur(canvas.reshape(len(layers), *size), sigmas, reach).clamp(0, 1)
    if filtered:
        where = torch.tensor([i for i, _ in filtered], device=device)
        drawn[where] = filter_noise([k for _, k in filtered], height, width, generator)
    return drawn


def render(
    images: Tensor,
    showers: Sequence[Shower],
    *,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Render a shower over each picture.

    ``images`` are dry, uint8, N×3×H×W, BGR, on the device of ``generator``; one whose shower has
    no layers, drops or mist stays as it is. ``rng`` and ``generator`` are as for
    :func:`draw_layers`. Returns ``rainy``, uint8, N×3×H×W; ``scene``, like it, the pictures with
    the mist of their showers but without streaks; and ``streaks``, the visible change in
    brightness that streaks cause, float32, N×1×H×W, 0–1.
    """
    count, _, height, width = images.shape
    depth = max(1, *(len(shower.layers) for shower in showers))
    layers = [
        shower.layers[i] if i < len(shower.layers) else None
        for shower in showers
        for i in range(depth)
    ]
    drawn = draw_layers(layers, height, width, rng=rng, generator=generator)
    rain = drawn.reshape(count, depth, height, width).sum(1, keepdim=True).clamp(max=1)

    def per_picture(values: list) -> Tensor:
        table = torch.tensor(values, dtype=torch.float32, device=images.device)
        return table.reshape(count, -1, 1, 1)

    light = per_picture([shower.light for shower in showers])
    mist = per_picture([shower.mist for shower in showers])
    horizon = per_picture([shower.horizon for shower in showers])
    scene = add_mist(images, mist, horizon, light)
    models = per_picture([LAYER_MODELS.index(shower.model) for shower in showers])
    rainy = _compose(scene.float() / 255, rain, light, models)
    rainy = (rainy.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    falling = [i for i, shower in enumerate(showers) if shower.drops]
    if falling:
        volumes = [showers[i].drops for i in falling]
        cover, radiance = draw_volumes(volumes, height, width, rng=rng, device=images.device)
        ground = torch.tensor([volume.ground for volume in volumes], device=images.device)
        ground = ground.float().reshape(-1, 1, 1, 1)
        rainy[falling] = refract(rainy[falling], cover, radiance, light[falling], ground)
    weights = torch.tensor(LUMINANCE_BGR, device=images.device).reshape(1, 3, 1, 1)
    added = (rainy.float() - scene.float()).abs()
    return rainy, scene, (added * weights).sum(1, keepdim=True).round() / 255


def draw_volumes(
    volumes: Sequence[DropVolume],
    height: int,
    width: int,
    *,
    rng: np.random.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Draw the drops of one exposure each, as :func:`derain_ros.rain.drops.draw_drops` does.

    ``volumes``: one for each picture. ``height``, ``width``: size in pixels. ``rng``: draws the
    drops: the same state gives those of the CPU renderer. ``device``: where to draw. Returns
    ``cover``, ``radiance`` (Tensor): float32, N×1×H×W.
    """
    traced = [trace(sample_drops(v, height, width, rng), v, height, width) for v in volumes]
    number = np.repeat(np.arange(len(volumes)), [len(points.row) for points in traced])
    columns = [np.concatenate(values) for values in zip(*traced, strict=True)]
    column, row, mass, radiance, blur_kind = (torch.from_numpy(v).to(device) for v in columns)
    reach = math.ceil(3 * BLURS[-1]) + 1
    tall, broad = height + 2 * reach, width + 2 * reach
    x, y = column + (reach - 0.5), row + (reach - 0.5)
    left, top = x.floor(), y.floor()
    inside = (left >= 0) & (left < broad - 1) & (top >= 0) & (top < tall - 1)
    canvas = torch.from_numpy(number).to(device) * len(BLURS) + blur_kind
    planes = torch.zeros(2, len(volumes) * len(BLURS) * tall * broad, dtype=torch.int32,
                         device=device)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = mass * (1 - (y - top - down).abs()) * (1 - (x - left - right).abs()) * inside
        index = (canvas * tall + (top + down).clamp(0, tall - 1).long()) * broad
        index = index + (left + right).clamp(0, broad - 1).long()
        for plane, value in zip(planes, (part, part * radiance), strict=True):
            plane.index_add_(0, index, (value * _FIXED_POINT).round().int())
    sigmas = torch.tensor(BLURS, device=device).square().sub(SPLAT_VARIANCE).sqrt()
    shape = (2 * len(volumes) * len(BLURS), tall, broad)
    drawn = blur(planes.reshape(shape) / _FIXED_POINT, sigmas.repeat(2 * len(volumes)), reach)
    hidden, glow = drawn.reshape(2, len(volumes), len(BLURS), height, width).sum(2, keepdim=True)
    return 1 - torch.exp(-hidden), glow / hidden.clamp(min=1e-6)


def refract(
    images: Tensor, cover: Tensor, radiance: Tensor, light: Tensor, ground: Tensor
) -> Tensor:
    """Blend drops over pictures, as :func:`derain_ros.rain.drops.refract` does.

    ``images`` is uint8 N×3×H×W; ``light`` is N×3×1×1, ``ground`` N×1×1×1.
    """
    scene = images.float() / 255
    small = functional.adaptive_avg_pool2d(scene, 8)
    around = functional.avg_pool2d(functional.pad(small, (1, 1, 1, 1), 'reflect'), 3, 1)
    around = functional.interpolate(around, images.shape[2:], mode='bilinear')
    seen = radiance * ((1 - ground) * light + ground * around)
    rainy = scene + cover * (seen - scene)
    return (rainy.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def add_mist(images: Tensor, mist: Tensor, horizon: Tensor, light: Tensor) -> Tensor:
    """Add mist to pictures as :func:`derain_ros.rain.renderer.add_mist` does.

    ``images`` is uint8 N×3×H×W; ``mist`` and ``horizon`` are N×1×1×1, ``light`` N×3×1×1.
    A picture whose mist is 0 stays as it is.
    """
    height = images.shape[2]
    rows = (torch.arange(height, device=images.device).reshape(1, 1, -1, 1) + 0.5) / height
    distance = 1 / (1 + 8 * (rows - horizon).clamp(min=0))
    transmission = (1 - mist).clamp(min=1e-3) ** distance
    veiled = images * transmission + 255 * light * (1 - transmission)
    return (veiled + 0.5).to(torch.uint8)


def _compose(scene: Tensor, rain: Tensor, light: Tensor, models: Tensor) -> Tensor:
    """Composite streaks over scenes, 0–1; see :func:`derain_ros.rain.renderer.compose`."""
    lit = light * rain
    mixed = torch.where(models == LAYER_MODELS.index('screen'), lit * (1 - scene), lit)
    occluded = rain * (light - scene)
    return scene + torch.where(models == LAYER_MODELS.index('occlusion'), occluded, mixed)


def _scatter(
    layers: list[tuple[int, StreakLayer]],
    height: int,
    width: int,
    style: str,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> _Streaks:
    """Place the streaks of layers of one style, each with the number of its canvas."""
    table = np.array([
        (i, k.density, k.length, k.width, k.angle, k.angle_spread, *k.brightness, k.softness)
        for i, k in layers
    ])
    _, density, length, broad, angle, spread, _, _, softness = table.T
    # Streaks whose middle lies outside may reach in; see derain_ros.rain.streaks.
    lean = np.deg2rad(np.minimum(80, np.abs(angle) + 2 * spread))
    far = (0.875 if style == 'drawn' else 0.5) * length
    above = np.ceil(far + broad + 4 * softness)
    beside = np.ceil(far * np.sin(lean) + broad + 4 * softness)
    counts = rng.poisson(density * (height + 2 * above) * (width + 2 * beside) / length)
    device = generator.device
    columns = torch.from_numpy(np.column_stack([table, above, beside])).float().to(device)
    counts = torch.from_numpy(counts)
    total = int(counts.sum())
    each = columns.repeat_interleave(counts.to(device), 0, output_size=total)
    canvas, _, length, broad, angle, spread, low, high, _, above, beside = each.unbind(1)
    random = torch.rand(5, total, generator=generator, device=device)
    row = random[0] * (height + 2 * above) - above
    column = random[1] * (width + 2 * beside) - beside
    level = low + random[2] * (high - low)
    if style == 'smeared':
        # Specks of one pixel, dilated by a disc, then smeared over a digital line whose
        # pixels share the sum that the length gives.
        disc = torch.where(broad > 1, (broad.ceil() / 2).floor(), torch.zeros_like(broad))
        radians = torch.deg2rad(angle.clamp(-STEEPEST, STEEPEST))
        # The line runs between whole pixels.
        side = (length / 2 * radians.sin()).round()
        down = (length / 2 * radians.cos()).round().clamp(min=1)
        digital = torch.rad2deg(torch.atan2(side, down))
        level = level / broad.clamp(min=1) * length / (2 * torch.maximum(side.abs(), down) + 1)
        return _Streaks(canvas.long(), row.floor(), column.floor(), digital, length / 2 + 0.5,
                        torch.full_like(length, 1e-3), level, disc.clamp(max=2))
    turn = spread * torch.randn(total, generator=generator, device=device)
    steep = (angle + turn).clamp(-STEEPEST, STEEPEST)
    thick = (broad * (0.7 + 0.6 * random[3])).round().clamp(min=1)
    core = torch.where(thick > 1, ((thick + 1) / 2).floor(), torch.zeros_like(thick))
    half = 0.5 * length * (0.5 + random[4])
    half = half + torch.where(core > 0, 0.65 + 0.45 * core, torch.zeros_like(core))
    # Drawn streaks are smeared along the angle of their layer, which widens those at
    # another angle.
    own, smear = 2 * (core + _EDGE), length / 4 * torch.deg2rad(turn).sin().abs()
    level = level * broad.clamp(max=1) * (own / smear.clamp(min=1e-6)).clamp(max=1)
    across = torch.maximum(own, smear) / 2 - _EDGE
    return _Streaks(canvas.long(), row, column, steep, half, length / 4 + 1, level, across)


def _pixels(
    streaks: _Streaks, size: tuple[int, int], reach: int, style: str
) -> tuple[Tensor, Tensor]:
    """List the pixels that streaks light: index into the flat canvases, and brightness."""
    height, width = size
    radians = torch.deg2rad(streaks.angle)
    sine, cosine = radians.sin(), radians.cos()
    row, column = streaks.row + reach, streaks.column + reach
    end = streaks.half + streaks.fade / 2
    beside = streaks.across + (1.6 if style == 'drawn' else 1.0)
    tall = end * cosine + beside * sine.abs()
    wide = end * sine.abs() + beside * cosine
    first = (row - tall).ceil().clamp(0, height)
    last = (row + tall).floor().clamp(-1, height - 1)
    seen = (column + wide >= 0) & (column - wide <= width - 1)
    side = (beside / cosine).ceil()
    per_row = 2 * side + 1
    counts = ((last - first + 1).clamp(min=0) * per_row * seen).long()
    total = int(counts.sum())
    which = torch.repeat_interleave(counts, output_size=total)
    begins = counts.cumsum(0) - counts
    place = torch.arange(total, device=counts.device) - begins[which]
    per_row = per_row.long()[which]
    down = place // per_row
    y = first[which] + down
    fall = y - row[which]
    sine, cosine = sine[which], cosine[which]
    axis = column[which] + fall * sine / cosine
    x = axis.round() + (place - down * per_row) - side[which]
    shift = x - column[which]
    across = (shift * cosine - fall * sine).abs()
    along = (shift * sine + fall * cosine).abs()
    fade = streaks.fade[which]
    value = ((streaks.half[which] + fade / 2 - along) / fade).clamp(0, 1)
    if style == 'drawn':
        value = value * 0.5 * torch.erfc(
            _EDGE_SCALE * (across - streaks.across[which] - _EDGE))
    else:
        chords = torch.tensor(_CHORDS, device=across.device)[streaks.across[which].long()]
        # Across the steps of the digital line: by columns up to 45 degrees, else by rows.
        steps = (x - axis.round()).abs() / (sine / cosine).abs().clamp(min=1)
        near = steps.clamp(max=2.999)
        floor = near.floor().long().unsqueeze(1)
        below, above = chords.gather(1, floor), chords.gather(1, floor + 1)
        value = value * torch.lerp(below[:, 0], above[:, 0], near - floor[:, 0])
    inside = (x >= 0) & (x < width)
    value = value * streaks.level[which] * inside
    index = (streaks.canvas[which] * height + y.long()) * width + x.clamp(0, width - 1).long()
    return index, value
