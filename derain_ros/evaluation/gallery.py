"""The worst pictures of an evaluation, kept small."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from derain_ros.evaluation.scores import ImageScore
from derain_ros.images.overlay import draw_overlay

LONGEST_SIDE = 960
"""Pictures are reduced to this many pixels on the longer side."""

JPEG_BYTES = 96 * 1024
"""Most bytes of one JPEG: fifteen pairs of four, in base64, stay under 8 MB."""

_QUALITIES = (92, 85, 75, 60, 45)


@dataclass(frozen=True)
class Exhibit:
    """The pictures of one pair, as JPEG files of one size.

    Attributes
    ----------
    score
        Its figures.
    width, height
        Size of the JPEGs in pixels; that of the originals stands in ``score``.
    rainy, derained, clean, overlay
        JPEG files; ``overlay`` is the rainy picture with the mask tinted.

    """

    score: ImageScore
    width: int
    height: int
    rainy: bytes
    derained: bytes
    clean: bytes
    overlay: bytes


class Gallery:
    """Keeps the pictures of the pairs with the lowest PSNR.

    Parameters
    ----------
    limit
        How many pairs to keep.

    """

    def __init__(self, limit: int):
        self._limit = limit
        self._kept: list[tuple[float, int, Exhibit]] = []
        self._offered = 0

    def offer(
        self, score: ImageScore, rainy: np.ndarray, derained: np.ndarray, clean: np.ndarray,
        mask: np.ndarray,
    ) -> None:
        """Keep a pair if it is among the worst so far.

        Parameters
        ----------
        score
            Its figures.
        rainy, derained, clean
            uint8, H×W×3, BGR.
        mask
            uint8, H×W, 255 = rain.

        """
        self._offered += 1
        rank = (-score.psnr, -self._offered)
        full = len(self._kept) >= self._limit
        if not self._limit or (full and rank < self._kept[0][:2]):
            return
        pictures = (rainy, derained, clean, draw_overlay(rainy, mask))
        height, width, files = encode_pictures(pictures)
        entry = (*rank, Exhibit(score, width, height, *files))
        if full:
            heapq.heapreplace(self._kept, entry)
        else:
            heapq.heappush(self._kept, entry)

    def worst_first(self) -> list[Exhibit]:
        """Return the pairs kept, the lowest PSNR first."""
        return [entry[2] for entry in sorted(self._kept, key=lambda entry: (-entry[0], -entry[1]))]


def encode_pictures(
    pictures: Sequence[np.ndarray], most: int = JPEG_BYTES
) -> tuple[int, int, list[bytes]]:
    """Write JPEGs of one size.

    Parameters
    ----------
    pictures
        uint8, H×W×3, BGR, of one size.
    most
        Bytes that each may have.

    Returns
    -------
    tuple
        Height and width of the JPEGs, and the files. Pictures are reduced until they fit.

    """
    height, width = pictures[0].shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    while True:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size != (width, height):
            reduced = [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures]
        else:
            reduced = list(pictures)
        files = [_jpeg(picture, most) for picture in reduced]
        if all(file is not None for file in files) or max(size) <= 64:
            return size[1], size[0], [file or b'' for file in files]
        scale *= 0.75


def _jpeg(picture: np.ndarray, most: int) -> bytes | None:
    """Write the best JPEG that is small enough; None where none is."""
    for quality in _QUALITIES:
        _, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if data.size <= most:
            return data.tobytes()
    return None
