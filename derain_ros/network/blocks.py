"""What the stages are built from: gated blocks, and the level of tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional

BOUND = 4.0
"""Largest absolute value of either half of a gated block."""

REACH = 8.0
"""Largest absolute value of the features that a block or a level hands on."""


class GatedBlock(nn.Module):
    """Convolution block with a multiplicative gate in place of an activation, N×C×H×W to the same.

    The gate is that of NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022);
    its halves are convolutions of their own, which spares the engines a split, and no
    normalisation breaks the chain that they fuse. Both halves are bounded, and so is the sum:
    products of products would otherwise grow from block to block on pictures far from those of the
    training, such as blinds. In rainy crops one feature in ten thousand that a block hands on was
    beyond, before.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Conv2d(channels, channels, 1)
        self.value_depth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.gate = nn.Conv2d(channels, channels, 1)
        self.gate_depth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.merge = nn.Conv2d(channels, channels, 1)
        nn.init.ones_(self.gate_depth.bias)
        nn.init.normal_(self.merge.weight, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Add gated detail; see the class for shapes."""
        value = functional.hardtanh(self.value_depth(self.value(features)), -BOUND, BOUND)
        gate = functional.hardtanh(self.gate_depth(self.gate(features)), -BOUND, BOUND)
        return reach(features + self.merge(value * gate))


def reach(features: Tensor) -> Tensor:
    """Bound features of any shape to ±:data:`REACH`; OpenVINO fuses that into the sum before."""
    return functional.hardtanh(features, -REACH, REACH)


def unfold(folded: Tensor, factor: int) -> Tensor:
    """Turn channels that lie pixel by pixel into pixels, N×(f·f·C)×H×W to N×fH×fW×C.

    Engines move whole runs of channels so, where a pixel shuffle gathers single numbers.
    """
    batch, channels, height, width = folded.shape
    runs = folded.permute(0, 2, 3, 1).reshape(batch, height, width, factor, channels // factor)
    return runs.transpose(2, 3).reshape(
        batch, height * factor, width * factor, channels // factor**2)


def order_by_pixel(convolution: nn.Conv2d, *factors: int) -> None:
    """Put the output channels, made for pixel shuffles one after another, as :func:`unfold` wants.

    One unfolding by the product of ``factors`` then takes the place of all shuffles.
    """
    places = torch.arange(convolution.out_channels).reshape(1, -1, 1, 1)
    for factor in factors:
        places = functional.pixel_shuffle(places, factor)
    order = places.permute(0, 2, 3, 1).flatten()
    convolution.weight.data = convolution.weight.data[order]
    convolution.bias.data = convolution.bias.data[order]


class SubpixelConv(nn.Conv2d):
    """1×1 convolution whose channels become squares of pixels: N×C×H×W to N×out×fH×fW.

    f is ``factor``. :meth:`deploy` orders its weights for engines; the result stays the same.
    """

    def __init__(self, channels: int, out: int, factor: int = 2) -> None:
        super().__init__(channels, factor**2 * out, 1)
        self.factor = factor
        self.deployed = False

    def deploy(self) -> None:
        """Order the weights by pixel."""
        order_by_pixel(self, self.factor)
        self.deployed = True

    def forward(self, features: Tensor) -> Tensor:
        """Convolve and unfold; see the class for shapes."""
        folded = super().forward(features)
        if self.deployed:
            return unfold(folded, self.factor).permute(0, 3, 1, 2)
        return functional.pixel_shuffle(folded, self.factor)


def gated_blocks(channels: int, count: int) -> nn.Sequential:
    """Put ``count`` blocks one after another."""
    return nn.Sequential(*[GatedBlock(channels) for _ in range(count)])


def plain_blocks(channels: int, count: int) -> nn.Sequential:
    """Put ``count`` 3×3 convolutions with ReLUs one after another, N×C×H×W to the same.

    They start as the identity of what is not negative. Each is one pass over maps so large that
    engines spend more time on moving than on arithmetic; a :class:`GatedBlock` takes five.
    """
    blocks = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(count)]
    for block in blocks:
        nn.init.dirac_(block.weight)
        nn.init.zeros_(block.bias)
    return nn.Sequential(*[part for block in blocks for part in (block, nn.ReLU())])


class TokenLevel(nn.Module):
    """Go down to an eighth of the resolution, attend there, and come back up.

    ``cell`` and ``token`` are the channels at a quarter and an eighth of the resolution,
    ``blocks`` the numbers of convolution blocks before and after the attention, ``attentions``
    modules called as ``module(features, covered)``, one after another.

    Input: cells N×cell×H/4×W/4, covered N×1×H/8×W/8, optional tokens of an earlier level
    N×token×H/8×W/8. Output: cells and tokens of the same shapes.
    """

    def __init__(
        self, cell: int, token: int, blocks: tuple[int, int], attentions: list[nn.Module]
    ) -> None:
        super().__init__()
        self.down = nn.Conv2d(cell, token, 2, stride=2)
        self.before = gated_blocks(token, blocks[0])
        self.attentions = nn.ModuleList(attentions)
        self.after = gated_blocks(token, blocks[1])
        self.up = SubpixelConv(token, cell)

    def forward(
        self, cells: Tensor, covered: Tensor, earlier: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend; see the class for shapes."""
        tokens = self.down(cells)
        if earlier is not None:
            tokens = tokens + earlier
        tokens = self.before(tokens)
        for attention in self.attentions:
            tokens = attention(tokens, covered)
        tokens = self.after(tokens)
        return reach(cells + self.up(tokens)), tokens


class Overview(nn.Module):
    """What the whole picture tells of its rain: N×channels×H×W to N×out×1×1, 0 at first.

    A streak alone looks like a wire or a marking; many that lean alike do not. So features of all
    places are averaged, ``width`` of them, and two linear layers make of these means what to do.
    """

    def __init__(self, channels: int, width: int, out: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, width, 1)
        self.judge = nn.Conv2d(width, width, 1)
        self.tell = nn.Conv2d(width, out, 1)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Judge; see the class for shapes."""
        seen = functional.relu(self.look(features))
        # A sum over the places of a large picture may exceed the range of float16.
        means = seen.float().mean((2, 3), keepdim=True).to(seen.dtype)
        return self.tell(functional.relu(self.judge(means)))
