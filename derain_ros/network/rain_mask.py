"""Stage 1, first half: find the rain.

A rain streak is bright, thin and long. Mathematical morphology finds it without any
weights: a white top-hat across the streak keeps what is bright and thin, an
opening along the streak keeps what is long (Soille, *Morphological Image Analysis*,
2nd ed., 2003, chapters 4 and 8). A small learned head refines the response.

All operators are built from max-pool, min, max, pad and slice, so that they carry
gradients and export to ONNX unchanged.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LUMINANCE_BGR = (0.114, 0.587, 0.299)
"""Weights of blue, green and red in the ITU-R BT.601 luma."""


def dilate(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Grey dilation by a flat rectangle.

    ``image``: float, N×C×H×W. ``size``: odd height and width of the rectangle, in pixels. Returns
    N×C×H×W; pixels outside the image count as −∞.
    """
    rows, columns = size
    if rows > 1:
        image = _dilate_rows(image.transpose(2, 3), rows).transpose(2, 3)
    return _dilate_rows(image, columns) if columns > 1 else image


def _dilate_rows(image: Tensor, length: int) -> Tensor:
    """Dilate along the rows, with the rows as channels: OpenVINO pools eight channels at once."""
    rows = image.flatten(1, 2).unsqueeze(2)
    return functional.max_pool2d(rows, (1, length), 1, (0, length // 2)).reshape(image.shape)


def halve(image: Tensor) -> Tensor:
    """Max-pool N×C×H×W by 2×2, with pairs of rows as channels; see :func:`_dilate_rows`."""
    batch, channels, height, width = image.shape
    pairs = image.reshape(batch, channels * height // 2, 2, width)
    return functional.max_pool2d(pairs, 2).reshape(batch, channels, height // 2, width // 2)


def erode(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Grey erosion by a flat rectangle; see :func:`dilate` for the arguments."""
    return -dilate(-image, size)


def white_top_hat(image: Tensor, width: int) -> Tensor:
    """Keep what is bright and thinner than ``width`` in some direction.

    The opening by a square leaves what the square fits into; thinner lines of any
    direction, and smaller dots, remain in the difference.

    ``image``: float in 0–1, N×C×H×W. ``width``: odd side of the square, in pixels. Returns
    ``image`` − opening(``image``), N×C×H×W, never negative.
    """
    # The square is decomposed into a column and a row.
    eroded = erode(erode(image, (width, 1)), (1, width))
    return image - dilate(dilate(eroded, (1, width)), (width, 1))


def line_steps(angle: float, length: int) -> list[tuple[int, int]]:
    """Row and column offsets whose sums form a digital line.

    ``angle``: from the vertical, degrees, −90 to 90, positive towards the lower right.
    ``length``: rows covered up to 45°, columns beyond; a power of two. Returns offsets (2^k,
    round(2^k · tan angle)), or (round(2^k / tan angle), 2^k) beyond 45°; the 2^n sums of their
    subsets are the pixels of the line. Raises ValueError: ``length`` is not a power of two greater
    than one.
    """
    if length < 2 or length & (length - 1):
        raise ValueError(f'length must be a power of two of at least 2, got {length}')
    steps = [2**k for k in range(length.bit_length() - 1)]
    if abs(angle) <= 45:
        return [(step, round(step * math.tan(math.radians(angle)))) for step in steps]
    slope = math.tan(math.radians(90 - abs(angle)))
    return [(round(step * slope), step if angle > 0 else -step) for step in steps]


def open_along(image: Tensor, angle: float, length: int) -> Tensor:
    """Grey opening by a digital line: what is shorter than the line disappears.

    ``image``: float in 0–1, N×C×H×W. Pixels outside the image count as 1, so that
    streaks survive at the border. ``angle``, ``length``: the line, as in :func:`line_steps`.
    Returns N×C×H×W, never above ``image``.
    """
    steps = line_steps(angle, length)
    rows, columns = (sum(abs(step[axis]) for step in steps) for axis in (0, 1))
    padded = functional.pad(image, (columns, columns, rows, rows), value=1.0)
    eroded = padded
    for step in steps:
        eroded = torch.minimum(*_shifted_pair(eroded, step))
    opened = eroded
    for step in steps:
        opened = torch.maximum(*_shifted_pair(opened, step))
    return opened


def _shifted_pair(image: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two views, one ``step`` apart, both cropped to the rows and columns they share."""
    row, column = step
    height, width = image.shape[-2:]
    first, second = image[..., : height - row, :], image[..., row:, :]
    # Offsets lead down, or along the row to the left or right.
    if column > 0:
        return first[..., : width - column], second[..., column:]
    if column < 0:
        return first[..., -column:], second[..., : width + column]
    return first, second


class StreakResponse(nn.Module):
    """Oriented morphological response to rain streaks, at half resolution.

    Brightness is downsampled by 2×2 max-pooling, which keeps streaks of one pixel at full
    contrast. To a moving camera, streaks lean in every direction, so the directions are evenly
    spaced, and rows and columns are treated alike. ``angles`` are degrees from the vertical, see
    :func:`line_steps`; ``widths`` are the sides of the squares of the top-hats, which respond to
    thinner streaks and dots; ``length`` is that of the line that must fit into a streak; both in
    half-resolution pixels.

    ``unit`` is that of :class:`derain_ros.network.dual_stage.DualStageConfig`; shapes are for 1.

    Input: BGR in 0–1, N×3×H×W with even H and W. Output: N×(1 + len(angles))×H/2×W/2 in 0–1: the
    top-hat, which also responds to dashes and dots, then its openings along each direction.
    """

    def __init__(
        self,
        angles: tuple[float, ...] = (-67.5, -45.0, -22.5, 0.0, 22.5, 45.0, 67.5, 90.0),
        widths: tuple[int, ...] = (5, 9),
        length: int = 8,
        unit: int = 1,
    ) -> None:
        super().__init__()
        self.angles = angles
        self.widths = widths
        self.length = length
        # One channel for each pixel of a cell, 2×2 for a unit of 1.
        side = 2 * unit
        pixels = torch.eye(side**2).reshape(-1, 1, side, side)
        weights = pixels * torch.tensor(LUMINANCE_BGR).reshape(1, 3, 1, 1)
        self.register_buffer('luminance', weights, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Respond to streaks; see the class for shapes."""
        cells = functional.conv2d(image, self.luminance, stride=self.luminance.shape[2])
        brightness = cells.amax(1, keepdim=True)
        hats = [white_top_hat(brightness, width) for width in self.widths]
        thin = sum(hats[1:], hats[0]) / len(hats)
        # A real streak seldom covers the exact pixels of a digital line, so neighbours across
        # the line count too; the result is limited to the top-hat itself.
        upright, lying = dilate(thin, (1, 3)), dilate(thin, (3, 1))
        oblique = torch.maximum(upright, lying)
        lines = torch.cat([
            open_along(
                oblique if abs(angle) == 45 else upright if abs(angle) < 45 else lying,
                angle, self.length)
            for angle in self.angles], 1)
        return torch.cat([thin, torch.minimum(lines, thin)], 1)


class DryFill(nn.Module):
    """Fill what rain covers from the dry cells around it, at a quarter of the resolution.

    A normalised mean, pool(x·d)/pool(d) with d = 1 − m, over a wide and a tall window, 3 cells of
    4×4 pixels broad and ``reach`` (odd) long: the partial convolution of Liu et al. (arXiv
    1804.07723) with equal weights. The mask m is the morphological response alone.

    Input: BGR in 0–1, N×3×H×W with H and W multiples of 4; thin N×1×H/4×W/4, the top-hat of
    :class:`StreakResponse` at a quarter of the resolution. Output: N×3×H/4×W/4: the filled picture
    minus the picture.
    """

    def __init__(self, reach: int = 9, unit: int = 1) -> None:
        super().__init__()
        self.reach = reach
        self.steepness = nn.Parameter(torch.tensor(10.0))
        side = 4 * unit
        mean = torch.eye(3).reshape(3, 3, 1, 1).expand(3, 3, side, side) / side**2
        self.register_buffer('mean', mean.contiguous(), persistent=False)

    def forward(self, image: Tensor, thin: Tensor) -> Tensor:
        """Fill; see the class for shapes."""
        small = functional.conv2d(image, self.mean, stride=self.mean.shape[2])
        dry = (1 - functional.relu(self.steepness) * thin).clamp(min=0.02)
        weighed = torch.cat([small * dry, dry], 1)
        half = self.reach // 2
        sums = functional.avg_pool2d(weighed, (3, self.reach), 1, (1, half))
        sums = sums + functional.avg_pool2d(weighed, (self.reach, 3), 1, (half, 1))
        return sums[:, :3] / sums[:, 3:] - small


class RainMaskHead(nn.Module):
    """Refine the streak response into a rain mask.

    The strongest orientation passes a soft threshold and a dilation that adds the soft margin of a
    streak; 1×1 convolutions then combine it with the features, which are used alone without
    ``use_response``. The mask is kept folded: one channel for each of the 4×4 pixels of a cell of
    the quarter-resolution feature map, which :func:`torch.nn.functional.pixel_shuffle` unfolds.

    Input: features N×channels×H/4×W/4, response N×K×H/2×W/2. Output: logits N×16×H/4×W/4.
    """

    def __init__(self, channels: int, *, use_response: bool = True, unit: int = 1) -> None:
        super().__init__()
        self.use_response = use_response
        self.threshold = nn.Parameter(torch.tensor(0.02))
        self.head = nn.Conv2d(channels, 16 * unit**2, 1)
        if use_response:
            self.prior = nn.Conv2d(4, 16 * unit**2, 1, bias=False)

    def forward(self, features: Tensor, response: Tensor | None) -> Tensor:
        """Return mask logits; see the class for shapes."""
        logits = self.head(features)
        if not self.use_response:
            return logits
        strongest = response[:, 1:].amax(1, keepdim=True)
        marked = dilate(functional.relu(strongest - self.threshold), (3, 3))
        return logits + self.prior(functional.pixel_unshuffle(marked, 2))
