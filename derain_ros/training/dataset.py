"""Rainy crops from a folder of dry pictures, rendered on the fly."""

import re
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset

from derain_ros.rain import add_rain

PICTURE_SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'})


def scene_of(path: Path) -> str:
    """Name of the scene of a picture: its stem less trailing digits.

    Frames of one sequence share a scene, which keeps long sequences from
    outweighing single pictures.
    """
    return re.sub(r'[_\-]*\d+$', '', path.stem)


class DryPictures:
    """Dry pictures in memory, each at several sizes.

    Parameters
    ----------
    folder
        Searched for pictures, not recursively.
    shortest
        Halve a picture as long as its short side stays at least this many pixels.

    Raises
    ------
    FileNotFoundError
        The folder holds no readable picture large enough.

    """

    def __init__(self, folder: Path, shortest: int) -> None:
        scenes: dict[str, list[list[np.ndarray]]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in PICTURE_SUFFIXES:
                continue
            picture = cv2.imread(str(path))
            if picture is None or min(picture.shape[:2]) < shortest:
                continue
            sizes = [picture]
            while min(sizes[-1].shape[:2]) >= 2 * shortest and len(sizes) < 3:
                height, width = sizes[-1].shape[:2]
                half = (width // 2, height // 2)
                sizes.append(cv2.resize(sizes[-1], half, interpolation=cv2.INTER_AREA))
            scenes.setdefault(scene_of(path), []).append(sizes)
        if not scenes:
            raise FileNotFoundError(
                f'{folder}: no picture of at least {shortest}x{shortest} pixels; '
                f'known formats: {", ".join(sorted(PICTURE_SUFFIXES))}'
            )
        self.scenes = list(scenes.values())

    def crop(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Cut a random square of ``size`` pixels, uint8 BGR; scenes are equally likely."""
        scene = self.scenes[rng.integers(len(self.scenes))]
        sizes = scene[rng.integers(len(scene))]
        picture = sizes[rng.integers(len(sizes))]
        top = rng.integers(picture.shape[0] - size + 1)
        left = rng.integers(picture.shape[1] - size + 1)
        crop = picture[top : top + size, left : left + size]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        exposure = np.exp(rng.uniform(-0.4, 0.25))
        return np.clip(crop * exposure, 0, 255).astype(np.uint8)


class RainyCrops(IterableDataset):
    """Endless batches of rainy crops with their truth.

    Yields tensors rainy, dry (uint8, N×3×H×W, BGR) and streaks (float32, N×1×H×W,
    0–1). Batch ``i`` depends on the seed and ``i`` alone, so that a resumed run
    sees what an uninterrupted one would have seen.

    Parameters
    ----------
    pictures
        Where crops come from.
    batch, size
        Crops in a batch, and their side in pixels.
    dry_share
        Share of crops without rain.
    seed
        Any non-negative integer.
    first
        Index of the first batch.

    """

    def __init__(
        self,
        pictures: DryPictures,
        *,
        batch: int,
        size: int,
        dry_share: float,
        seed: int,
        first: int = 0,
    ) -> None:
        super().__init__()
        self.pictures = pictures
        self.batch = batch
        self.size = size
        self.dry_share = dry_share
        self.seed = seed
        self.first = first

    def __iter__(self):
        """Iterate over batches; workers take turns."""
        worker = torch.utils.data.get_worker_info()
        index, step = (worker.id, worker.num_workers) if worker else (0, 1)
        index += self.first
        while True:
            yield self.render(index)
            index += step

    def render(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Render batch ``index``; see the class for shapes."""
        rng = np.random.default_rng((self.seed, index))
        dry = [self.pictures.crop(self.size, rng) for _ in range(self.batch)]
        rainy = []
        for picture in dry:
            intensity = 0.0 if rng.random() < self.dry_share else rng.uniform(0.05, 1.0)
            rainy.append(add_rain(picture, intensity, rng))
        planes = [np.stack([r.image for r in rainy]), np.stack(dry)]
        images = [torch.from_numpy(p.transpose(0, 3, 1, 2).copy()) for p in planes]
        streaks = torch.from_numpy(np.stack([r.streaks for r in rainy])[:, None])
        return images[0], images[1], streaks
