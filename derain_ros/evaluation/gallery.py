"""The worst pictures of an evaluation, kept as small JPEGs."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from derain_ros.evaluation.rain_metrics import ImageScore
from derain_ros.images.overlay import draw_overlay

LONGEST_SIDE = 960
"""Pictures are reduced to this many pixels on the longer side."""

JPEG_BYTES = 96 * 1024
"""Most bytes of one JPEG: fifteen pairs of four pictures, in base64, stay under 8 MB."""

_QUALITIES = (92, 85, 75, 60, 45)


@dataclass(frozen=True)
class Exhibit:
    """The pictures of one pair as JPEG files of one size; ``overlay`` has the mask tinted."""

    score: ImageScore
    width: int
    height: int
    rainy: bytes
    derained: bytes
    clean: bytes
    overlay: bytes


class Gallery:
    """Keeps the pictures of the ``limit`` pairs with the lowest PSNR, ``worst_first``."""

    def __init__(self, limit: int):
        self._limit = limit
        self.worst_first: list[Exhibit] = []

    def offer(
        self, score: ImageScore, rainy: np.ndarray, derained: np.ndarray, clean: np.ndarray,
        mask: np.ndarray,
    ) -> None:
        """Keep a pair if it is among the worst: uint8, H×W×3, BGR; mask H×W, 255 = rain."""
        place = bisect.bisect(self.worst_first, score.psnr, key=lambda one: one.score.psnr)
        if place < self._limit:
            height, width, files = encode_pictures(
                [rainy, derained, clean, draw_overlay(rainy, mask)])
            self.worst_first.insert(place, Exhibit(score, width, height, *files))
            del self.worst_first[self._limit:]


def encode_pictures(
    pictures: Sequence[np.ndarray], most: int = JPEG_BYTES
) -> tuple[int, int, list[bytes]]:
    """Encode pictures of one size, uint8, H×W×3, BGR, as JPEGs of one size.

    They are reduced until none is larger than ``most`` bytes. Returns height and width of the
    JPEGs, and the files.
    """
    height, width = pictures[0].shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    while True:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        files = [_jpeg(picture if size == (width, height) else cv2.resize(
            picture, size, interpolation=cv2.INTER_AREA), most) for picture in pictures]
        if all(file is not None for file in files) or max(size) <= 64:
            return size[1], size[0], [file or b'' for file in files]
        scale *= 0.75


def _jpeg(picture: np.ndarray, most: int) -> bytes | None:
    """Encode the best JPEG that is small enough; None if none is."""
    for quality in _QUALITIES:
        _, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if data.size <= most:
            return data.tobytes()
    return None
