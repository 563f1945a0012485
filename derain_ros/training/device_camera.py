"""Camera effects over a whole batch, in torch: tone curve, noise, compression.

Compression follows JPEG: YCbCr, chroma at half resolution, DCT of 8×8 blocks,
quantisation with the tables of ITU-T T.81, annex K, scaled by quality as libjpeg does.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from derain_ros.rain import CameraEffects

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99),
)
# Y, Cb, Cr of B, G, R.
_YCBCR = (
    (0.114, 0.587, 0.299), (0.5, -0.331264, -0.168736), (-0.081312, -0.418688, 0.5),
)


def capture(
    pictures: Sequence[Tensor], cameras: Sequence[CameraEffects], generator: torch.Generator
) -> list[Tensor]:
    """Apply cameras to batches of pictures, see :meth:`derain_ros.rain.CameraEffects.capture`.

    ``pictures``: batches of one shape, uint8, N×3×H×W, BGR, H and W multiples of 16. Noise is the
    same in all of them. ``cameras``: one for each picture of a batch. ``generator``: of the noise,
    on the device of the pictures. Returns like ``pictures``.
    """
    device = generator.device

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device).reshape(-1, 1, 1, 1)

    gamma = column([camera.gamma for camera in cameras])
    noise = column([camera.noise for camera in cameras])
    grain = torch.randn(pictures[0].shape, generator=generator, device=device)
    packed = [i for i, camera in enumerate(cameras) if camera.jpeg is not None]
    quality = column([cameras[i].jpeg for i in packed])
    taken = []
    for batch in pictures:
        levels = (255 * (batch.float() / 255) ** gamma).round()
        levels = (levels + noise * (levels / 255).sqrt() * grain + 0.5).clamp(0, 255).floor()
        for i, camera in enumerate(cameras):
            if camera.resolution < 1:
                levels[i] = _enlarge(levels[i], camera.resolution)
        if packed:
            levels[packed] = _compress(levels[packed], quality)
        taken.append(levels.to(torch.uint8))
    return taken


def _enlarge(levels: Tensor, resolution: float) -> Tensor:
    """Lose resolution as :class:`derain_ros.rain.CameraEffects` does; levels 3×H×W, 0–255."""
    small = [max(1, round(resolution * side)) for side in levels.shape[1:]]
    reduced = functional.interpolate(levels[None], small, mode='bilinear', antialias=True)
    back = functional.interpolate(reduced, levels.shape[1:], mode='bicubic')
    return back[0].round().clamp(0, 255)


def _compress(levels: Tensor, quality: Tensor) -> Tensor:
    """Compress as JPEG and decompress; levels 0–255, quality N×1×1×1."""
    device = levels.device
    matrix = torch.tensor(_YCBCR, device=device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    luma = torch.tensor(_LUMA, dtype=torch.float32, device=device)
    chroma = torch.full((8, 8), 99.0, device=device)
    chroma[:4, :4] = torch.tensor(_CHROMA, dtype=torch.float32, device=device)
    planes = torch.einsum('ij,njhw->nihw', matrix, levels)
    y = _quantise(planes[:, :1] - 128, luma, scale) + 128
    colour = _quantise(functional.avg_pool2d(planes[:, 1:], 2), chroma, scale)
    colour = functional.interpolate(colour, scale_factor=2, mode='bilinear')
    back = torch.einsum('ij,njhw->nihw', torch.linalg.inv(matrix), torch.cat([y, colour], 1))
    return back.round().clamp(0, 255)


def _quantise(plane: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    """Round the cosine transform of 8×8 blocks to multiples of a scaled table."""
    count, channels, height, width = plane.shape
    steps = ((table * scale + 50) / 100).floor().clamp(1, 255).reshape(count, 1, 1, 1, 8, 8)
    cosines = _cosines(plane.device)
    blocks = plane.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    spectrum = cosines @ blocks @ cosines.t()
    blocks = cosines.t() @ ((spectrum / steps).round() * steps) @ cosines
    return blocks.transpose(3, 4).reshape(plane.shape)


def _cosines(device: torch.device) -> Tensor:
    """Matrix of the orthonormal cosine transform of eight values."""
    k = torch.arange(8, device=device, dtype=torch.float32)
    matrix = torch.cos(math.pi * (2 * k + 1) * k.unsqueeze(1) / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
