"""Dry pictures to cut crops from, read from a folder or a pack."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from derain_ros.training.picture_pack import PICTURE_SUFFIXES, read_pack, scene_of

_HALVINGS = 2


def sample_exposure(rng: np.random.Generator) -> float:
    """Draw a factor on the brightness of a crop; one in four is dark, where rain stands out."""
    low, high = (-1.8, -0.4) if rng.random() < 0.25 else (-0.4, 0.25)
    return float(np.exp(rng.uniform(low, high)))


def sample_blur(share: float, rng: np.random.Generator) -> float:
    """Draw the blur of a dry crop, pixels; 0 for all but a ``share`` of them.

    Smooth backgrounds teach a network what rain looks like, textures what is mistaken for it.
    """
    return float(np.exp(rng.uniform(np.log(0.5), np.log(4)))) if rng.random() < share else 0.0


class DryPictures:
    """Dry pictures in memory, each at several sizes.

    ``source``: folder of pictures, not searched recursively, or a pack
    (:mod:`derain_ros.training.picture_pack`). ``shortest``: halve a picture as long as its short
    side stays at least this many pixels. ``scenes``: for each scene its pictures, for each picture
    its sizes: uint8, H×W×3, BGR. Raises FileNotFoundError: the folder or pack is missing or holds
    no readable picture large enough. Raises PackError: the pack is damaged.
    """

    def __init__(self, source: Path, shortest: int) -> None:
        if not source.exists():
            raise FileNotFoundError(f'{source}: no such folder or pack')
        scenes: dict[str, list[list[np.ndarray]]] = {}
        for scene, picture in _read(source):
            if min(picture.shape[:2]) < shortest:
                continue
            sizes = [picture]
            while min(sizes[-1].shape[:2]) >= 2 * shortest and len(sizes) <= _HALVINGS:
                height, width = sizes[-1].shape[:2]
                half = (width // 2, height // 2)
                sizes.append(cv2.resize(sizes[-1], half, interpolation=cv2.INTER_AREA))
            scenes.setdefault(scene, []).append(sizes)
        if not scenes:
            raise FileNotFoundError(
                f'{source}: no picture of at least {shortest}x{shortest} pixels; '
                f'known formats: {", ".join(sorted(PICTURE_SUFFIXES))}, and packs'
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
        return np.clip(crop * sample_exposure(rng), 0, 255).astype(np.uint8)


def _read(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the scene and the pixels of each picture."""
    if source.is_dir():
        for path in sorted(source.iterdir()):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                picture = cv2.imread(str(path))
                if picture is not None:
                    yield scene_of(path), picture
    else:
        yield from read_pack(source)
