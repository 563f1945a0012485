"""Triton kernels for the torch network on an NVIDIA GPU.

torch runs a gated block as fourteen kernels, most of which only move features through memory:
biases, clamps, the product, the residual. Here it is a matrix product and one kernel, which
computes the depthwise convolutions, their clamps, their product, the merging convolution and the
residual in registers. Triton comes with torch for CUDA.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional

from derain_ros.network.blocks import BOUND, REACH, GatedBlock

MOST_CHANNELS = 128
"""Wider blocks are not fused, as their merging weights do not fit beside the features."""

_TILE = 4096
_WARPS = 8


def fuse(network: nn.Module) -> nn.Module:
    """Replace gated blocks and 1×1 convolutions with fused modules; returns ``network``.

    ``network``: changed in place; it must be in its final types, on its device, and with channels
    last.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, GatedBlock) and child.value.in_channels <= MOST_CHANNELS:
                setattr(parent, name, FusedGatedBlock(child))
            # Not subclasses, which do more, such as unfold.
            elif type(child) is nn.Conv2d and child.kernel_size == (1, 1):
                setattr(parent, name, Pointwise(child))
    return network


class Pointwise(nn.Module):
    """A 1×1 convolution as one matrix product, N×C×H×W to N×D×H×W, both channels last."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer('weight', convolution.weight.detach().flatten(1).contiguous())
        bias = convolution.bias
        self.register_buffer('bias', None if bias is None else bias.detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        """Multiply; see the class for shapes."""
        last = functional.linear(features.permute(0, 2, 3, 1), self.weight, self.bias)
        return last.permute(0, 3, 1, 2)


class FusedGatedBlock(nn.Module):
    """:class:`GatedBlock` in two kernels, for inference, N×C×H×W to the same, channels last."""

    def __init__(self, block: GatedBlock) -> None:
        super().__init__()
        channels = block.value.in_channels
        self.padded = max(16, triton.next_power_of_2(channels))
        more = self.padded - channels
        halves = (block.value, block.gate)

        def keep(name: str, value: Tensor) -> None:
            self.register_buffer(name, value.detach().contiguous())

        keep('weight', torch.cat([half.weight.flatten(1) for half in halves]))
        keep('bias', torch.cat([half.bias for half in halves]))
        depths = (block.value_depth, block.gate_depth)
        # A row for each of the nine neighbours and one for the bias.
        taps = [torch.cat([d.weight.flatten(1).t(), d.bias.unsqueeze(0)]) for d in depths]
        keep('taps', functional.pad(torch.stack(taps).float(), (0, more)))
        merge = block.merge.weight.flatten(1).t()
        keep('merge', functional.pad(merge, (0, more, 0, more)))
        keep('merge_bias', functional.pad(block.merge.bias.float(), (0, more)))

    def forward(self, features: Tensor) -> Tensor:
        """Add gated detail; see the class for shapes."""
        last = features.permute(0, 2, 3, 1).contiguous()
        both = functional.linear(last, self.weight, self.bias)
        height, width, channels = last.shape[1:]
        result = torch.empty_like(last)
        pixels, tile = last.numel() // channels, _TILE // self.padded
        _gate_and_merge[(triton.cdiv(pixels, tile),)](
            both, last, result, self.taps, self.merge, self.merge_bias,
            pixels, height, width, channels, BOUND, REACH, self.padded, tile, num_warps=_WARPS)
        return result.permute(0, 3, 1, 2)


@triton.jit
def _gate_and_merge(
    both, features, result, taps, merge, merge_bias, pixels, height, width,
    channels: tl.constexpr, bound: tl.constexpr, reach: tl.constexpr, padded: tl.constexpr,
    tile: tl.constexpr,
):
    """Run the part of a gated block after its first convolutions, for ``tile`` pixels.

    ``both`` is pixels × 2·channels, value and gate side by side; ``features`` and ``result`` are
    pixels × channels; ``taps`` is 2 × 10 × padded, ``merge`` padded × padded.
    """
    pixel = tl.program_id(0) * tile + tl.arange(0, tile)
    channel = tl.arange(0, padded)
    column, row = pixel % width, (pixel // width) % height
    there, used = pixel < pixels, channel < channels
    value = tl.zeros((tile, padded), tl.float32) + tl.load(taps + 9 * padded + channel)[None, :]
    gate = tl.zeros((tile, padded), tl.float32) + tl.load(taps + 19 * padded + channel)[None, :]
    # Not unrolled: nine copies of the body are more code than the GPU caches.
    for tap in range(9):
        down, right = tap // 3 - 1, tap % 3 - 1
        inside = there & (row + down >= 0) & (row + down < height)
        inside = inside & (column + right >= 0) & (column + right < width)
        # A batch of many large frames has more elements than an int32 can index.
        place = (pixel + down * width + right).to(tl.int64) * (2 * channels)
        source = both + place[:, None] + channel[None, :]
        mask = inside[:, None] & used[None, :]
        weights = taps + tap * padded + channel
        near = tl.load(source, mask=mask, other=0.0).to(tl.float32)
        value += near * tl.load(weights)[None, :]
        near = tl.load(source + channels, mask=mask, other=0.0).to(tl.float32)
        gate += near * tl.load(weights + 10 * padded)[None, :]
    value = tl.minimum(tl.maximum(value, -bound), bound)
    gate = tl.minimum(tl.maximum(gate, -bound), bound)
    matrix = tl.load(merge + channel[:, None] * padded + channel[None, :])
    merged = tl.dot((value * gate).to(matrix.dtype), matrix)
    place = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    mask = there[:, None] & used[None, :]
    before = tl.load(features + place, mask=mask, other=0.0).to(tl.float32)
    merged += before + tl.load(merge_bias + channel)[None, :]
    merged = tl.minimum(tl.maximum(merged, -reach), reach)
    tl.store(result + place, merged.to(result.dtype.element_ty), mask=mask)
