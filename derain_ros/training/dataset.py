"""Rainy crops of dry pictures, rendered on the CPU on the fly."""

from dataclasses import KW_ONLY, dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset

from derain_ros.rain import Shower, render, sample_camera, sample_shower
from derain_ros.training.dry_pictures import DryPictures, sample_blur
from derain_ros.training.patterns import add_pattern


@dataclass(eq=False)
class Crops:
    """Parameters of endless batches of rainy crops with their ground truth.

    Batches are tensors rainy, dry (uint8, N×3×H×W, BGR) and streaks (float32, N×1×H×W, 0–1). Batch
    ``i`` depends on the seed and ``i`` alone, so that a resumed run sees what an uninterrupted one
    would have seen. Patterns and camera effects are in the ground truth as well; only streaks and
    mist are to be removed.

    ``first`` is the index of the first batch, ``stride`` the difference from one to the next;
    intensities are drawn over their range as uniform numbers to the power ``skew``. All
    else is as in :class:`derain_ros.training.config.TrainingConfig`.
    """

    pictures: DryPictures
    _: KW_ONLY
    batch: int
    size: int
    dry_share: float
    seed: int
    first: int = 0
    stride: int = 1
    intensity: tuple[float, float] = (0.05, 1.0)
    skew: float = 1.0
    pattern_share: float = 0.0
    blur_share: float = 0.0
    camera: bool = True


class RainyCrops(Crops, IterableDataset):
    """Renders rainy crops on the CPU; see :class:`Crops`."""

    def __iter__(self):
        """Iterate over batches; workers take turns."""
        worker = torch.utils.data.get_worker_info()
        turn, turns = (worker.id, worker.num_workers) if worker else (0, 1)
        index = self.first + turn * self.stride
        while True:
            yield self.render(index)
            index += turns * self.stride

    def render(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Render batch ``index``; see the class for shapes."""
        rng = np.random.default_rng((self.seed, index))
        triples = [self._one(rng) for _ in range(self.batch)]
        rainy, dry, streaks = (np.stack(planes) for planes in zip(*triples, strict=True))
        images = [torch.from_numpy(p.transpose(0, 3, 1, 2).copy()) for p in (rainy, dry)]
        return images[0], images[1], torch.from_numpy(streaks[:, None])

    def _one(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dry = self._scene(self.size, rng)
        rainy, streaks = render(dry, self._shower(rng), rng)
        if self.camera:
            camera, grain = sample_camera(rng), int(rng.integers(2**32))
            rainy, dry = camera.capture(rainy, grain), camera.capture(dry, grain)
        return rainy, dry, streaks

    def _scene(self, size: int, rng: np.random.Generator) -> np.ndarray:
        scene = self.pictures.crop(size, rng)
        blur = sample_blur(self.blur_share, rng)
        if blur:
            scene = cv2.GaussianBlur(scene, (0, 0), blur)
        return add_pattern(scene, rng) if rng.random() < self.pattern_share else scene

    def _shower(self, rng: np.random.Generator) -> Shower:
        low, high = self.intensity
        intensity = low + (high - low) * float(rng.random()) ** self.skew
        return sample_shower(
            0.0 if rng.random() < self.dry_share else intensity, rng, moving=True)
