"""A clip from one picture: the view of a camera that pans and zooms over it."""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2

from derain_ros.files.clip_sources import VideoFacts
from derain_ros.files.frame_sources import FrameSet
from derain_ros.files.image_files import read_image
from derain_ros.text import printable

RATE = 30.0
"""Frames a second."""

_PERIODS = (23.0, 31.0, 17.0)
"""Seconds of the ways across, down and into the picture; no view comes twice within minutes."""

_SHARES = (0.62, 0.82)
"""Narrowest and widest view, as shares of the largest that fits."""


class PannedClip:
    """Views of a picture, as a :class:`derain_ros.files.clip_sources.ClipSource`.

    Parameters
    ----------
    picture
        Image file.
    duration
        Seconds.
    size
        Width and height of a frame in pixels.

    Raises
    ------
    ImageFileError
        The picture cannot be read.

    """

    has_derained = False
    sound = None

    def __init__(
        self, picture: Path, duration: float, size: tuple[int, int] = (640, 480)
    ) -> None:
        self._name = printable(picture.name)
        self._picture = read_image(picture)
        self.facts = VideoFacts(*size, Fraction(RATE), max(1, round(duration * RATE)))
        self.notes: list[str] = []

    def read(self) -> Iterator[FrameSet]:
        """Yield the views, uint8, H×W×3, BGR."""
        for number in range(self.facts.frames):
            rows, columns = self._view(number / RATE)
            view = cv2.resize(
                self._picture[rows, columns], (self.facts.width, self.facts.height),
                interpolation=cv2.INTER_AREA)
            yield FrameSet(f'{self._name} at {number / RATE:.1f} s', None, view)

    def _view(self, time: float) -> tuple[slice, slice]:
        """Return the rows and columns that are seen at a time in seconds."""
        height, width = self._picture.shape[:2]
        across, down, into = (0.5 + 0.5 * math.sin(2 * math.pi * time / p) for p in _PERIODS)
        largest = min(width / self.facts.width, height / self.facts.height)
        scale = largest * (_SHARES[0] + (_SHARES[1] - _SHARES[0]) * into)
        wide = max(1, int(scale * self.facts.width))
        tall = max(1, int(scale * self.facts.height))
        left, top = int(across * (width - wide)), int(down * (height - tall))
        return slice(top, top + tall), slice(left, left + wide)
