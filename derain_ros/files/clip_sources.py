"""Clips to make videos from: images of a folder, a pan over one image, image topics of bags."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from derain_ros.bags.damage import BagError, show_time
from derain_ros.bags.frames import bits_of, decode_frame, header_stamp
from derain_ros.bags.recording import Recording
from derain_ros.bags.topics import find_image_topic, image_topics
from derain_ros.files import FileError
from derain_ros.files.frame_sources import BagFrames, FolderFrames, FrameSet, damages_of
from derain_ros.files.image_files import PictureReader
from derain_ros.files.pairs import BadPair
from derain_ros.text import printable

PICTURE_RATE = 25.0
"""Default frame rate of a folder of images, Hz."""

PANNED_RATE = Fraction(30)
"""Frame rate of a pan over one image, Hz."""

_PERIODS = (23.0, 31.0, 17.0)
"""Periods in s of the horizontal, vertical and zoom motion; no view repeats within minutes."""
_SHARES = (0.62, 0.82)
"""Narrowest and widest view, as fractions of the largest that fits."""
_SLOWEST, _FASTEST = 0.1, 1000.0


@dataclass(frozen=True)
class VideoFacts:
    """Properties of a clip.

    ``width`` and ``height`` in pixels, upright; ``rate`` in frames per second, the highest if it
    varies; ``frames`` is the approximate number of frames, 0 if unknown; ``length`` in seconds,
    None if unknown; ``time_base`` in seconds, None for 1/rate; ``aspect`` is that of a pixel.
    """

    width: int
    height: int
    rate: Fraction
    frames: int
    length: Fraction | None = None
    time_base: Fraction | None = None
    aspect: Fraction = Fraction(1)


@dataclass(frozen=True)
class Sound:
    """The sound of a video file from ``start`` to ``stop`` in seconds, None for its end."""

    source: Path
    start: Fraction
    stop: Fraction | None


class ClipSource(ABC):
    """A sequence of frames and its properties.

    ``facts`` holds size, rate and number of frames; ``notes``, printable, are for the user;
    ``has_derained`` and ``has_masks`` say what comes with the frames; ``sound`` is the soundtrack.
    """

    facts: VideoFacts
    notes: Sequence[str] = ()
    has_derained = has_masks = False
    sound: Sound | None = None

    @abstractmethod
    def read(self) -> Iterator[FrameSet | BadPair]:
        """Yield the frames, a BadPair for each that cannot be read.

        Raises ValueError if the source as a whole is damaged.
        """

    def _first_size(self, where: str) -> tuple[int, int]:
        """Return width and height of the first readable frame; FileError if there is none."""
        reason = 'there is none'
        for frame in self.read():
            if isinstance(frame, FrameSet):
                return frame.rainy.shape[1::-1]
            reason = frame.reason
        raise FileError(f'{where}: no frame can be read ({reason})')


class PictureClip(ClipSource):
    """The images of a folder in order of name, from ``start`` on for ``duration`` seconds.

    Raises ValueError if there is no readable image.
    """

    def __init__(
        self, folder: Path, rate: float | None = None, start: float = 0.0,
        duration: float | None = None,
    ):
        rate = rate or PICTURE_RATE
        self._frames = FolderFrames(folder)
        first = round(start * rate)
        last = None if duration is None else first + max(1, round(duration * rate))
        self._part = slice(first, last)
        count = len(range(len(self._frames))[self._part])
        if not count:
            raise FileError(f'{folder}: has {len(self._frames)} pictures, which at {rate:g} Hz '
                             f'end before {start:g} s')
        self.facts = VideoFacts(*self._first_size(str(folder)), _fraction(rate), count)

    def read(self) -> Iterator[FrameSet | BadPair]:
        """Yield the images in order of name."""
        yield from self._frames.read(self._part)


class PannedClip(ClipSource):
    """A pan and zoom over one image, 640×480, ``duration`` seconds; FileError if unreadable."""

    def __init__(self, picture: Path, duration: float):
        self._name = printable(picture.name)
        self._picture, = PictureReader().read(picture)
        self.facts = VideoFacts(640, 480, PANNED_RATE, max(1, round(duration * PANNED_RATE)))

    def read(self) -> Iterator[FrameSet]:
        """Yield the views."""
        for number in range(self.facts.frames):
            time = number / float(PANNED_RATE)
            rows, columns = self._view(time)
            view = cv2.resize(
                self._picture[rows, columns], (self.facts.width, self.facts.height),
                interpolation=cv2.INTER_AREA)
            yield FrameSet(f'{self._name} at {time:.1f} s', None, view)

    def _view(self, time: float) -> tuple[slice, slice]:
        """Return the rows and columns in view at a time in seconds."""
        height, width = self._picture.shape[:2]
        across, down, into = (0.5 + 0.5 * math.sin(2 * math.pi * time / p) for p in _PERIODS)
        largest = min(width / self.facts.width, height / self.facts.height)
        scale = largest * (_SHARES[0] + (_SHARES[1] - _SHARES[0]) * into)
        wide = max(1, int(scale * self.facts.width))
        tall = max(1, int(scale * self.facts.height))
        left, top = int(across * (width - wide)), int(down * (height - tall))
        return slice(top, top + tall), slice(left, left + wide)


class BagClip(ClipSource):
    """An image topic of a rosbag2, in recorded order.

    ``topic`` is with or without ``/compressed`` and the leading slash; None takes the only image
    topic. ``derained_topic`` has the derained frames; an empty name means the topic of ``derain
    bag``, None leaves them out. ``rate`` is in Hz, None to estimate it from the stamps; ``start``
    and ``duration`` are in seconds from the first frame on, by the time of recording.

    Raises BagError if the bag cannot be read or a topic is not an image topic of it, FileError if
    there is no frame or the rate cannot be determined.
    """

    def __init__(
        self, bag: Path, topic: str | None, derained_topic: str | None = None,
        rate: float | None = None, start: float = 0.0, duration: float | None = None,
    ):
        self._bag = bag
        with Recording(bag) as recording:
            images = image_topics(recording.topics, bag)
            if topic is None and len(images) != 1:
                raise BagError(f'--topic is missing; image topics of {bag}: '
                               f'{", ".join(sorted(images))}')
            self._topic = find_image_topic(
                images[0] if topic is None else topic, images, bag)
            rows = [(time, header_stamp(data)) for _, time, data in recording.read(self._topic)]
            self._bits = bits_of(recording, self._topic)
        if not rows:
            raise FileError(f'{bag}: there is no frame on {self._topic}')
        self._start = rows[0][0] + round(start * 1e9)
        self._stop = 2**63 - 1 if duration is None else self._start + round(duration * 1e9)
        chosen = [row for row in rows if self._start <= row[0] < self._stop]
        if not chosen:
            raise FileError(f'{bag}: no frame on {self._topic} in the requested seconds; '
                            f'its frames span {(rows[-1][0] - rows[0][0]) / 1e9:.1f} s')
        count, notes = len(chosen), recording.notes
        self._derained: BagFrames | None = None
        if derained_topic is not None:
            self._derained = BagFrames(bag, self._topic, derained_topic)
            self.has_derained, self.has_masks = True, self._derained.has_masks()
            notes = self._derained.notes
            count = min(count, len(self._derained))
        stamps = {stamp for _, stamp in rows}
        self._outside = {show_time(stamp) for stamp in (
            stamps - {stamp for _, stamp in chosen} - {None})}
        steps = np.diff(np.sort([row[None not in stamps] for row in chosen]))
        steps = steps[steps > 0]
        rate = rate or _rate(steps, f'{bag}: {self._topic}')
        gaps = int(np.count_nonzero(steps > 1.5 * np.median(steps))) if len(steps) else 0
        if gaps:
            notes.append(printable(
                f'{self._topic}: {gaps} gaps between the stamps; the video shows the frames one '
                'after another'))
        self.notes = notes
        self.facts = VideoFacts(*self._first_size(f'{bag}: {self._topic}'), _fraction(rate), count)

    def read(self) -> Iterator[FrameSet | BadPair]:
        """Yield the frames, named by their stamps, or else by their time of recording."""
        if self._derained is not None:
            yield from (frame for frame in self._derained.read()
                        if frame.name not in self._outside)
            return
        with Recording(self._bag) as recording:
            for connection, time, data in recording.read(
                    self._topic, start=self._start, stop=self._stop):
                stamp = header_stamp(data)
                name = show_time(time if stamp is None else stamp)
                try:
                    yield FrameSet(name, stamp, decode_frame(connection, data, self._bits))
                except ValueError as error:
                    yield BadPair(name, printable(f'{connection.topic} at {name}: {error}'))
            yield from damages_of(recording)


def _fraction(rate: float) -> Fraction:
    return Fraction(rate).limit_denominator(1001)


def _rate(steps: np.ndarray, where: str) -> float:
    """Return the frame rate in Hz, to a hundredth, from the median of time steps in ns."""
    rate = 1e9 / float(np.median(steps)) if len(steps) else math.nan
    if not _SLOWEST <= rate <= _FASTEST:
        raise FileError(f'{where}: the rate does not follow from the stamps; give it with --fps')
    return round(rate, 2)
