"""Rainy crops rendered on the device, from pictures that are kept there."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from derain_ros.rain import CameraEffects, Shower, sample_camera, sample_shower
from derain_ros.training.arithmetic import mix_seeds
from derain_ros.training.dataset import Crops
from derain_ros.training.device_camera import capture
from derain_ros.training.dry_pictures import DryPictures, sample_blur, sample_exposure
from derain_ros.training.gpu_filter import blur
from derain_ros.training.gpu_rain import render
from derain_ros.training.patterns import Pattern, lay, sample_pattern


class DevicePictures:
    """All sizes of all dry pictures in one tensor on a device.

    ``pictures``: pictures to copy. ``device``: where to keep them, as uint8.
    """

    def __init__(self, pictures: DryPictures, device: torch.device) -> None:
        self.scenes: list[list[list[tuple[int, int, int]]]] = []
        flat, begin = [], 0
        for scene in pictures.scenes:
            self.scenes.append([])
            for sizes in scene:
                self.scenes[-1].append([])
                for size in sizes:
                    height, width = size.shape[:2]
                    self.scenes[-1][-1].append((begin, height, width))
                    flat.append(torch.from_numpy(size.reshape(-1, 3)))
                    begin += height * width
        self.pixels = torch.cat(flat).to(device)

    def choose(self, size: int, rng: np.random.Generator) -> tuple[int, int, int]:
        """Choose a square of ``size`` pixels as :meth:`DryPictures.crop` does.

        Returns the index of its first pixel, and the index steps to the next row and to the
        next column, the latter being −1 for a mirrored crop.
        """
        scene = self.scenes[rng.integers(len(self.scenes))]
        sizes = scene[rng.integers(len(scene))]
        begin, height, width = sizes[rng.integers(len(sizes))]
        top = int(rng.integers(height - size + 1))
        left = int(rng.integers(width - size + 1))
        if rng.random() < 0.5:
            return begin + top * width + left + size - 1, width, -1
        return begin + top * width + left, width, 1

    def crops(self, chosen: list[tuple[int, int, int]], size: int) -> Tensor:
        """Cut chosen squares, uint8 N×3×size×size BGR."""
        device = self.pixels.device
        first, row, column = torch.tensor(chosen, device=device).reshape(-1, 3, 1, 1).unbind(1)
        along = torch.arange(size, device=device)
        index = first + along.reshape(1, -1, 1) * row + along * column
        cut = self.pixels.index_select(0, index.reshape(-1))
        return cut.reshape(-1, size, size, 3).permute(0, 3, 1, 2)


class _Plan(NamedTuple):
    """The random choices for a batch, except for those made on the device."""

    chosen: list[tuple[int, int, int]]
    exposures: list[float]
    blurs: list[float]
    showers: list[Shower]
    cameras: list[CameraEffects]
    patterns: list[Pattern | None]
    rng: np.random.Generator


@dataclass(eq=False)
class DeviceCrops(Crops):
    """Endless batches of rainy crops with their truth, made on :attr:`device`.

    They are those of :class:`derain_ros.training.dataset.Crops`, with these differences: the
    batches are on the device; dry crops are spread so that in the first n batches together
    exactly ``dry_share`` are dry, to the nearest whole number; and different kinds of device make
    different batches from one seed.
    """

    pictures: DryPictures | DevicePictures
    device: torch.device = field(kw_only=True)

    def __post_init__(self) -> None:
        """Copy the pictures to the device, unless they are already there."""
        if isinstance(self.pictures, DryPictures):
            self.pictures = DevicePictures(self.pictures, self.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Iterate over batches; the next is planned while the device is busy."""
        index = self.first
        with ThreadPoolExecutor(1) as planner:
            plan = planner.submit(self._plan, index)
            while True:
                ready = plan.result()
                plan = planner.submit(self._plan, index + self.stride)
                yield self._make(index, ready)
                index += self.stride

    def render(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Render batch ``index``; see the class for shapes."""
        return self._make(index, self._plan(index))

    def _plan(self, index: int) -> _Plan:
        rng = np.random.default_rng((self.seed, index))
        # Dry crops of all batches so far, and with this one, as whole numbers.
        before, after = (
            math.floor(n * self.batch * self.dry_share + 0.5) for n in (index, index + 1))
        dry = set(rng.permutation(self.batch)[: after - before].tolist())
        chosen = [self.pictures.choose(self.size, rng) for _ in range(self.batch)]
        exposures = [sample_exposure(rng) for _ in range(self.batch)]
        blurs = [sample_blur(self.blur_share, rng) for _ in range(self.batch)]
        low, high = self.intensity
        intensities = low + (high - low) * rng.random(self.batch) ** self.skew
        showers = [
            sample_shower(0.0 if i in dry else float(intensities[i]), rng, moving=True)
            for i in range(self.batch)
        ]
        cameras = [
            sample_camera(rng) if self.camera else CameraEffects() for _ in range(self.batch)]
        patterns = [
            sample_pattern(rng) if rng.random() < self.pattern_share else None
            for _ in range(self.batch)
        ]
        return _Plan(chosen, exposures, blurs, showers, cameras, patterns, rng)

    def _make(self, index: int, plan: _Plan) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator(self.device)
        generator.manual_seed(mix_seeds(self.seed, index))
        crops = self.pictures.crops(plan.chosen, self.size)
        exposures = torch.tensor(plan.exposures, device=self.device).reshape(-1, 1, 1, 1)
        dry = (crops * exposures).clamp(0, 255).to(torch.uint8)
        for number, sigma in enumerate(plan.blurs):
            if sigma:
                reach = math.ceil(3 * sigma)
                padded = functional.pad(dry[number].float(), (reach,) * 4, 'reflect')
                sigmas = torch.full((3,), sigma, device=self.device)
                dry[number] = blur(padded, sigmas, reach).round().to(torch.uint8)
        for number, pattern in enumerate(plan.patterns):
            if pattern:
                dry[number] = lay(dry[number], pattern)
        rainy, _, streaks = render(dry, plan.showers, rng=plan.rng, generator=generator)
        if self.camera:
            rainy, dry = capture([rainy, dry], plan.cameras, generator)
        return rainy, dry, streaks
