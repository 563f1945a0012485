"""Stage 1, first half: find the rain.

A rain streak is bright, thin across and long along. Morphology says so without a
single weight: a white top-hat across the streak keeps what is bright and thin, an
opening along the streak keeps what is long (Soille, *Morphological Image Analysis*,
2nd ed., 2003, chapters 4 and 8). A small learned head refines the response.

All operators are built from max-pool, min, max, pad and slice, so that they carry
gradients and export to ONNX as they stand.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

LUMINANCE_BGR = (0.114, 0.587, 0.299)
"""Weights of blue, green and red in the ITU-R BT.601 luma."""


def dilate(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Grey dilation by a flat rectangle.

    Parameters
    ----------
    image
        Float, N×C×H×W.
    size
        Odd height and width of the rectangle, in pixels.

    Returns
    -------
    Tensor
        N×C×H×W; pixels outside the image count as −∞.

    """
    return functional.max_pool2d(image, size, 1, (size[0] // 2, size[1] // 2))


def erode(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Grey erosion by a flat rectangle; see :func:`dilate` for the arguments."""
    return -dilate(-image, size)


def white_top_hat_across(image: Tensor, width: int) -> Tensor:
    """Keep what is bright and narrower than ``width`` along a row.

    Near-vertical streaks inclined by θ cut a row over w / cos θ, so that one
    horizontal element serves every orientation in use.

    Parameters
    ----------
    image
        Float, N×C×H×W.
    width
        Odd length of the horizontal element, in pixels.

    Returns
    -------
    Tensor
        ``image`` − opening(``image``), N×C×H×W, never negative.

    """
    return image - dilate(erode(image, (1, width)), (1, width))


def line_steps(slope: float, length: int) -> list[tuple[int, int]]:
    """Row and column offsets whose sums draw a digital line.

    Parameters
    ----------
    slope
        Columns gained per row; 0 is vertical, 1 is 45° from the vertical.
    length
        Rows covered, a power of two.

    Returns
    -------
    list of (int, int)
        Offsets (2^k, round(slope · 2^k)); the 2^n sums of their subsets are the
        pixels of the line.

    Raises
    ------
    ValueError
        ``length`` is not a power of two greater than one.

    """
    if length < 2 or length & (length - 1):
        raise ValueError(f'length must be a power of two of at least 2, got {length}')
    rows = [2**k for k in range(length.bit_length() - 1)]
    return [(row, round(slope * row)) for row in rows]


def open_along(image: Tensor, slope: float, length: int) -> Tensor:
    """Grey opening by a digital line: what is shorter than the line disappears.

    Parameters
    ----------
    image
        Float in 0–1, N×C×H×W. Pixels outside the image support a line that leaves
        it, so that streaks survive at the border.
    slope, length
        The line, as in :func:`line_steps`.

    Returns
    -------
    Tensor
        N×C×H×W, never above ``image``.

    """
    steps = line_steps(slope, length)
    rows, columns = length - 1, sum(abs(step[1]) for step in steps)
    padded = functional.pad(image, (columns, columns, rows, rows), value=1.0)
    eroded = padded
    for step in steps:
        eroded = torch.minimum(*_shifted_pair(eroded, step))
    opened = eroded
    for step in steps:
        opened = torch.maximum(*_shifted_pair(opened, step))
    return opened


def _shifted_pair(image: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two views, one ``step`` apart; both lose the rows and columns that only one has."""
    row, column = step
    height, width = image.shape[-2:]
    first, second = image[..., : height - row, :], image[..., row:, :]
    if column > 0:
        return first[..., : width - column], second[..., column:]
    if column < 0:
        return first[..., -column:], second[..., : width + column]
    return first, second


class StreakResponse(nn.Module):
    """Oriented morphological response to rain streaks, at half resolution.

    Brightness is halved in size by its 2×2 maximum, which keeps streaks of one
    pixel at full contrast.

    Parameters
    ----------
    slopes
        Orientations, columns per row.
    widths
        Lengths of the elements across the streak, in half-resolution pixels; a
        streak thinner than one of them answers.
    length
        Length of the element along the streak, in half-resolution rows.

    Shape
    -----
    Input: BGR in 0–1, N×3×H×W with even H and W.
    Output: N×len(slopes)×H/2×W/2 in 0–1.

    """

    def __init__(
        self,
        slopes: tuple[float, ...] = (-0.75, -0.375, 0.0, 0.375, 0.75),
        widths: tuple[int, ...] = (5, 9),
        length: int = 8,
    ) -> None:
        super().__init__()
        self.slopes = slopes
        self.widths = widths
        self.length = length
        # One channel for each pixel of a 2×2 cell.
        pixels = torch.eye(4).reshape(4, 1, 2, 2)
        weights = pixels * torch.tensor(LUMINANCE_BGR).reshape(1, 3, 1, 1)
        self.register_buffer('luminance', weights, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Respond to streaks; see the class for shapes."""
        cells = functional.conv2d(image, self.luminance, stride=2)
        brightness = cells.amax(1, keepdim=True)
        hats = [white_top_hat_across(brightness, width) for width in self.widths]
        thin = sum(hats[1:], hats[0]) / len(hats)
        # A real streak seldom meets the very pixels of a digital line: look for the line
        # among the neighbours too, and keep what was there before.
        near = dilate(thin, (1, 3))
        lines = torch.cat([open_along(near, slope, self.length) for slope in self.slopes], 1)
        return torch.minimum(lines, thin)


class RainMaskHead(nn.Module):
    """Refine the streak response to a rain mask.

    The strongest orientation passes a soft threshold and a dilation that adds the
    soft margin of a streak; 1×1 convolutions then weigh it against the features.
    The mask is held folded: one channel for each of the 4×4 pixels of a cell of
    the quarter-resolution feature map, which
    :func:`torch.nn.functional.pixel_shuffle` unfolds.

    Parameters
    ----------
    channels
        Channels of the feature map.
    use_response
        Look at the morphological response; without it the head works from the
        features alone.

    Shape
    -----
    Input: features N×channels×H/4×W/4, response N×K×H/2×W/2.
    Output: logits N×16×H/4×W/4.

    """

    def __init__(self, channels: int, *, use_response: bool = True) -> None:
        super().__init__()
        self.use_response = use_response
        self.threshold = nn.Parameter(torch.tensor(0.02))
        self.head = nn.Conv2d(channels, 16, 1)
        if use_response:
            self.prior = nn.Conv2d(4, 16, 1, bias=False)

    def forward(self, features: Tensor, response: Tensor | None) -> Tensor:
        """Return mask logits; see the class for shapes."""
        logits = self.head(features)
        if not self.use_response:
            return logits
        strongest = response.amax(1, keepdim=True)
        marked = dilate(functional.relu(strongest - self.threshold), (3, 3))
        return logits + self.prior(functional.pixel_unshuffle(marked, 2))
