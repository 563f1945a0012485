"""What two frames tell: rain is in one of them and gone in the other, things stay.

A state is the result of the frame before, moved to where things are now
(:mod:`derain_ros.images.memory` does that on the vehicle, :func:`warp` in training). Where
the frame is brighter than it, rain is likely, and what rain covers was dry a moment ago.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from derain_ros.network.blocks import gated_blocks
from derain_ros.network.rain_mask import LUMINANCE_BGR

LEAST_KNOWN = 160
"""Fourth channel of a state, of 255: 255 where it was dry, 224 where rain was, and :data:`MOVED`
less where things moved, half of it less where only the camera turned; 0 where nothing is known.
Interpolation between known and unknown falls below, so that no darkened border passes."""

MOVED = 64
"""What the fourth channel is less by where things moved, of 255."""

_KNOWN, _STANDS, _STATIC = LEAST_KNOWN - 4, 255 - MOVED, 255 - MOVED // 2
"""What lies above is known, stands still in the world, and stands still in the picture as well;
numbers that bfloat16 holds."""

_MARGIN, _BALANCE = 0.45, 2
"""What the rule for rain on a static scene concedes to a camera that turns, whose state is aligned
to a few tenths of a pixel: the share of the contrast around a pixel by which it may be brighter,
and how much more it counts that as much became darker. Chosen on a shaken clip of real rain."""

_STEEPNESS = 8
"""Factor of the weights of single pixels: a few levels of 255 have to decide."""

_WINDOW = 9
"""Cells on a side of the window in which rain is told from things that moved."""


class SecondLook(nn.Module):
    """Features of a frame against its state, at a quarter of the resolution.

    ``cell`` is the number of channels of the network at that resolution.

    Input: change, the image less the colours of its state, N×3×H×W, and the state, N×4×H×W, both
    of the scale of the image; and thin, the top-hat of
    :class:`derain_ros.network.rain_mask.StreakResponse`, N×1×H/2×W/2, 0–1, or None. Output:
    features N×channels×H/4×W/4, zero where the state does not know all of a cell of 4×4 pixels, so
    that the network then gives what it gives for a single frame; N×1×H/4×W/4, where it does: 0 or
    1; and what each pixel tells, folded, N×16×H/4×W/4: logits to add to the trust, and others to
    add to the rain mask, zero where nothing is known.
    """

    def __init__(self, channels: int, cell: int) -> None:
        super().__init__()
        # Of the change, of how much brighter a pixel is, and of how wet it was.
        self.look = nn.Conv2d(5, channels, 4, stride=4)
        self.block = gated_blocks(channels, 1)
        self.to_cells, self.to_detail, self.to_streaks, self.to_mask = (
            nn.Conv2d(channels, out, 1, bias=False) for out in (cell, cell, 16, 16))
        self.past_gate = nn.Conv2d(channels, 16, 1, bias=False)
        self.gate = nn.Conv2d(cell, 16, 1)
        # Features of a cell are too few to tell its pixels apart; these see each for itself.
        self.pixels = nn.Conv2d(48, 32, 1, bias=False)
        # A pixel that rain covers is brighter than it was by more than noise, and thin.
        self.least_rise = nn.Parameter(torch.tensor(4 / 255))
        self.slopes = nn.Parameter(torch.tensor([2.6, 1.3]))
        self.certain = nn.Conv2d(channels + 3, 1, 1)
        for convolution in (self.to_cells, self.to_detail, self.to_streaks, self.to_mask,
                            self.past_gate, self.gate, self.pixels, self.certain):
            nn.init.zeros_(convolution.weight)
        # Where a pixel is brighter than it was, rain is likely, and the past better.
        for first, slope in ((0, 2.5), (16, 1.9)):
            self.pixels.weight.data[first : first + 16, 16:32, 0, 0].fill_diagonal_(slope)
        nn.init.constant_(self.gate.bias, -2.0)
        nn.init.constant_(self.certain.bias, -6.0)
        self.certain.weight.data[0, channels:, 0, 0] = torch.tensor([-5.0, -1.6, 10.0])
        # One channel for each pixel of a cell.
        each = torch.eye(16).reshape(16, 1, 4, 4)
        for name, factors in (('luminance', LUMINANCE_BGR), ('dryness', (0.0, 0.0, 0.0, 1.0))):
            factors = torch.tensor(factors).reshape(1, -1, 1, 1)
            self.register_buffer(name, each * factors, persistent=False)
        # The same of the pixels of half the resolution, four of which lie in a cell.
        halves = functional.avg_pool2d(each, 2) * 4
        self.register_buffer('halves', halves, persistent=False)
        # Luma of a state, and less than zero by as much: the largest of both are the largest and
        # the smallest luma.
        luma = torch.tensor([*LUMINANCE_BGR, 0.0])
        self.register_buffer(
            'luma', torch.stack([luma, -luma])[..., None, None], persistent=False)

    def forward(
        self, change: Tensor, state: Tensor, thin: Tensor | None = None, *, scale: float = 1.0,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compare; see the class for shapes. ``scale``: the largest value, 1 or 255."""
        # Of all four channels: OpenVINO takes milliseconds to part them.
        dry = functional.conv2d(state, self.dryness, stride=4)
        least = dry.amin(1, keepdim=True)
        known, stands, static = ((least > level / 255 * scale).to(change.dtype)
                                 for level in (_KNOWN, _STANDS, _STATIC))
        weight = self.look.weight
        brighter = functional.conv2d(change, self.luminance, stride=4)
        rise = functional.relu(brighter)
        wetness = functional.relu(
            ((255 - MOVED + MOVED // 2 * (stands + static)) * (scale / 255) - dry) * (255 / 31))
        found = (functional.conv2d(change, weight[:, :3], stride=4)
                 + functional.conv2d(rise, weight[:, 3].flatten(1)[:, :, None, None])
                 + functional.conv2d(wetness, weight[:, 4].flatten(1)[:, :, None, None]))
        features = functional.relu(found * known + self.look.bias[:, None, None])
        features = self.block(features) * known
        turns = stands - static
        noise = self.least_rise * scale + self._contrast(state) * (_MARGIN * turns)
        streaks = self._streaks(
            brighter, noise, wetness, thin, features, known, stands, turns, scale)
        pixels = torch.cat([brighter, rise, wetness], 1)
        trust, mask = (
            (functional.conv2d(pixels, _STEEPNESS * weight) + streaks * slope) * known
            for weight, slope in zip(self.pixels.weight.split(16), self.slopes, strict=True))
        return features, known, trust, mask

    def _contrast(self, state: Tensor) -> Tensor:
        """Half of the range of luma around each pixel, folded: N×4×H×W to N×16×H/4×W/4.

        Squares of 2×2 pixels and what surrounds them are taken together.
        """
        extremes = around(functional.conv2d(state, self.luma))
        return functional.conv2d(extremes, (self.halves / 2).expand(-1, 2, -1, -1), stride=2)

    def _streaks(
        self, brighter: Tensor, noise: Tensor, wetness: Tensor, thin: Tensor | None,
        features: Tensor, known: Tensor, stands: Tensor, turns: Tensor, scale: float,
    ) -> Tensor:
        """Return how far each pixel is covered by rain, folded, 0 to 256, N×16×H/4×W/4.

        Rain only brightens: where as much became darker about it, things moved. Rain is gone in
        the next frame: what was taken for it before and is still there is a thing, such as a lamp
        that was switched on.
        """
        dry = 1 - wetness * (1 / scale)
        rises = functional.relu(brighter - noise)
        falls = functional.relu(-brighter - noise) * dry
        # A convolution, in which OpenVINO takes means several times as fast.
        mean = rises.new_full((1, 16, 1, 1), 1 / 16)
        up, down = (_mean_around(functional.conv2d(plane, mean) * known)
                    for plane in (rises, falls))
        share = (down / (up + 1.6e-4 * scale)).clamp(0, 2) * (1 + _BALANCE * turns)
        # Of all of them as channels, but without moving the features next to the rest.
        weight = self.certain.weight
        of_share, of_up, of_stands = weight[:, -3:].split(1, 1)
        certain = torch.sigmoid(
            functional.conv2d(features, weight[:, :-3], self.certain.bias)
            + of_share * share + of_up * (32 / scale) * up + of_stands * stands)
        if thin is not None:
            thin = functional.conv2d(thin * scale, self.halves, stride=2)
            rises = functional.relu(torch.minimum(brighter, thin) - noise)
        return rises * dry * (certain * (256 / scale))


def _mean_around(plane: Tensor) -> Tensor:
    """Return the mean of the window of :data:`_WINDOW` cells around each, N×C×H×W to the same.

    One axis after the other, see :func:`_along_lines`.
    """
    return _along_lines(plane, lambda lines: functional.avg_pool2d(
        lines, (1, _WINDOW), 1, (0, _WINDOW // 2), count_include_pad=False))


def around(luma: Tensor) -> Tensor:
    """Return the maximum of each square of 2×2 pixels and its surroundings: N×C×H×W, halved.

    One axis after the other, see :func:`_along_lines`.
    """
    return _along_lines(luma, lambda lines: functional.max_pool2d(lines, (1, 4), (1, 2), (0, 1)))


def _along_lines(planes: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """Pool the rows, then the columns of N×C×H×W, given as channels, N×(C·H)×1×W.

    See :func:`derain_ros.network.rain_mask.dilate`.
    """
    for _ in range(2):
        channels = planes.shape[1]
        lines = pool(planes.flatten(1, 2).unsqueeze(2)).squeeze(2)
        planes = lines.unflatten(1, (channels, -1)).transpose(2, 3)
    return planes


def make_state(restored: Tensor, mask: Tensor) -> Tensor:
    """State after a frame, before things move on: N×3×H×W and N×1×H×W, 0–1, to N×4×H×W."""
    dryness = 1 - mask * (31 / 255)
    return torch.cat([restored.clamp(0, 1), dryness], 1)


def warp(state: Tensor, flow: Tensor, stands: Tensor | None = None) -> Tensor:
    """Move a state to where things are in the next frame.

    ``state``: N×4×H×W. ``flow``: pixels of the small picture, N×2×H/4×W/4, x then y: where a
    point of the next frame was in this one, less where it is, 0 where it stands. ``stands``: bool,
    N, which cameras stand; by default all. Returns N×4×H×W, 0 for what comes from beyond the
    border, the fourth channel less by :data:`MOVED` in 255 where things moved and next to it, and
    everywhere before a camera that moves.
    """
    height, width = state.shape[2:]
    full = functional.interpolate(
        4 * flow, (height, width), mode='bilinear', align_corners=False)
    rows, columns = (torch.arange(n, dtype=flow.dtype, device=flow.device)
                     for n in (height, width))
    x = (full[:, 0] + columns + 0.5) * (2 / width) - 1
    y = (full[:, 1] + rows[:, None] + 0.5) * (2 / height) - 1
    grid = torch.stack([x, y], -1)
    result = functional.grid_sample(state, grid, padding_mode='zeros', align_corners=False)
    moved = (flow != 0).any(1, keepdim=True)
    if stands is not None:
        moved = moved | ~stands[:, None, None, None]
    moved = functional.max_pool2d(moved.to(state.dtype), 5, 1, 2)
    moved = functional.interpolate(moved, (height, width)) * (MOVED / 255)
    return torch.cat([result[:, :3], (result[:, 3:] - moved).clamp(min=0)], 1)
