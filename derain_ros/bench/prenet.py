"""PReNet, a classic lightweight deraining network, as a baseline for timing.

Architecture after Ren et al., "Progressive Image Deraining Networks: A Better and Simpler
Baseline", CVPR 2019: six recursions with shared weights, each of a convolution, a
convolutional LSTM, five residual blocks and a convolution. Written from the paper; the
weights are random, as only its run time is of interest, not its output.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

_RECURSIONS = 6
_CHANNELS = 32
_BLOCKS = 5
_TYPES = {'f32': torch.float32, 'f16': torch.float16, 'bf16': torch.bfloat16}
_convolution = partial(nn.Conv2d, kernel_size=3, padding=1)


class PReNet(nn.Module):
    """The recursive network; input and output are uint8, BGR, 0–255, N×H×W×3, as in our engines.

    The four gates of the LSTM are one convolution: the same arithmetic with a quarter of the
    kernel launches, in favour of the peer. ``precision`` is ``f32``, ``f16`` or ``bf16``.
    """

    def __init__(self, precision: str = 'f32') -> None:
        super().__init__()
        self.first = _convolution(6, _CHANNELS)
        self.gates = _convolution(2 * _CHANNELS, 4 * _CHANNELS)
        self.blocks = nn.ModuleList([_Block() for _ in range(_BLOCKS)])
        self.last = _convolution(_CHANNELS, 3)
        self.type = _TYPES[precision]
        self.to(self.type)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Derain a batch; see the class for shapes."""
        rainy = image.permute(0, 3, 1, 2).to(self.type) / 255
        batch, _, height, width = rainy.shape
        hidden = cell = rainy.new_zeros((batch, _CHANNELS, height, width))
        found = rainy
        for _ in range(_RECURSIONS):
            features = functional.relu(self.first(torch.cat([rainy, found], 1)))
            gates = self.gates(torch.cat([features, hidden], 1))
            let_in, forget, candidate, let_out = gates.chunk(4, 1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(let_in) * torch.tanh(candidate)
            features = hidden = torch.sigmoid(let_out) * torch.tanh(cell)
            for block in self.blocks:
                features = block(features)
            found = rainy + self.last(features)
        found = (found.permute(0, 2, 3, 1) * 255).clamp(0, 255).round()
        return (found.to(torch.uint8).contiguous(),)


class _Block(nn.Module):
    """A residual block: two convolutions, each with ReLU, and another ReLU after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = _convolution(_CHANNELS, _CHANNELS)
        self.second = _convolution(_CHANNELS, _CHANNELS)

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.relu_(self.second(functional.relu_(self.first(features))))
        return functional.relu_(inner + features)
