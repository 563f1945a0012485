"""Clips to make a video of: pictures of a folder, views of one picture, image topics of bags."""

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
from derain_ros.bags.topics import find_image_topic
from derain_ros.files import FileError
from derain_ros.files.frame_sources import BagFrames, FolderFrames, FrameSet, damages_of
from derain_ros.files.image_files import PictureReader
from derain_ros.files.pairs import BadPair
from derain_ros.text import printable

PICTURE_RATE = 25.0
"""Frames a second of pictures, unless another is asked for."""

PANNED_RATE = Fraction(30)
"""Frames a second of views of one picture."""

_PERIODS = (23.0, 31.0, 17.0)
"""Seconds of the ways across, down and into the picture; no view comes twice within minutes."""
_SHARES = (0.62, 0.82)
"""Narrowest and widest view, as shares of the largest that fits."""
_SLOWEST, _FASTEST = 0.1, 1000.0


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a clip.

    Its size in pixels, upright; frames a second, the fastest of them where the ``rate`` varies;
    how many frames there are about, 0 for unknown; its ``length`` in seconds, None for unknown;
    the seconds that its times are multiples of, None for 1/rate; width of a pixel by its height.
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
    """The sound of a video file from ``start`` to ``stop`` in seconds, None being its end."""

    source: Path
    start: Fraction
    stop: Fraction | None


class ClipSource(ABC):
    """Frames one after the other, and what is known of them.

    ``facts`` tell size, rate and number; ``notes``, printable, are for the user; ``has_derained``
    and ``has_masks`` say what comes with the frames; ``sound`` is to be heard beside them.
    """

    facts: VideoFacts
    notes: Sequence[str] = ()
    has_derained = has_masks = False
    sound: Sound | None = None

    @abstractmethod
    def read(self) -> Iterator[FrameSet | BadPair]:
        """Yield the frames; one that cannot be read gives a BadPair.

        Raises ValueError where the source is damaged as a whole.
        """

    def _first_size(self, where: str) -> tuple[int, int]:
        """Return width and height of the first frame that can be read."""
        reason = 'there is none'
        for frame in self.read():
            if isinstance(frame, FrameSet):
                return frame.rainy.shape[1::-1]
            reason = frame.reason
        raise FileError(f'{where}: no frame can be read ({reason})')


class PictureClip(ClipSource):
    """Pictures of a folder by name, from ``start`` on for ``duration`` seconds.

    Raises ValueError where there is no picture that can be read.
    """

    def __init__(
        self, folder: Path, rate: float | None = None, start: float = 0.0,
        duration: float | None = None,
    ):
        rate = rate or PICTURE_RATE
        self._frames = FolderFrames(folder, None, None)
        first = round(start * rate)
        last = None if duration is None else first + max(1, round(duration * rate))
        self._part = slice(first, last)
        count = len(range(len(self._frames))[self._part])
        if not count:
            raise FileError(f'{folder}: has {len(self._frames)} pictures, which at {rate:g} Hz '
                             f'end before {start:g} s')
        self.facts = VideoFacts(*self._first_size(str(folder)), _fraction(rate), count)

    def read(self) -> Iterator[FrameSet | BadPair]:
        """Yield the pictures by name."""
        yield from self._frames.read(self._part)


class PannedClip(ClipSource):
    """What a camera sees that pans and zooms over a picture, for ``duration`` seconds.

    ``size`` is width and height in pixels. Raises FileError where the picture cannot be read.
    """

    def __init__(self, picture: Path, duration: float, size: tuple[int, int] = (640, 480)):
        self._name = printable(picture.name)
        self._picture, = PictureReader().read(picture)
        self.facts = VideoFacts(*size, PANNED_RATE, max(1, round(duration * PANNED_RATE)))

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
        """Return the rows and columns that are seen at a time in seconds."""
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

    ``topic`` is with or without ``/compressed`` and the leading slash; None takes the only one.
    ``derained_topic`` is where the derained frames are in the bag, empty for the topic of ``derain
    bag``, None if they are not to be taken from it. ``rate`` in Hz, None for that of the stamps;
    ``start`` and ``duration`` in seconds from the first frame on, by the time of recording.

    Raises BagError where the bag cannot be read or a topic is not an image topic of it, FileError
    where there is no frame or the rate cannot be told.
    """

    def __init__(
        self, bag: Path, topic: str | None, derained_topic: str | None = None,
        rate: float | None = None, start: float = 0.0, duration: float | None = None,
    ):
        self._bag = bag
        with Recording(bag) as recording:
            images = recording.image_topics
            if topic is None and len(images) != 1:
                raise BagError(f'--topic is missing; image topics of {bag}: '
                               f'{", ".join(images) or "none"}')
            self._topic = find_image_topic(images[0] if topic is None else topic, images)
            rows = [(time, header_stamp(data)) for _, time, data in recording.read(self._topic)]
            self._bits = bits_of(recording, self._topic)
        if not rows:
            raise FileError(f'{bag}: there is no frame on {self._topic}')
        self._start = rows[0][0] + round(start * 1e9)
        self._stop = 2**63 - 1 if duration is None else self._start + round(duration * 1e9)
        chosen = [row for row in rows if self._start <= row[0] < self._stop]
        if not chosen:
            raise FileError(f'{bag}: no frame on {self._topic} in the seconds asked for; they '
                             f'span {(rows[-1][0] - rows[0][0]) / 1e9:.1f} s')
        count, notes = len(chosen), []
        self._derained: BagFrames | None = None
        if derained_topic is not None:
            self._derained = BagFrames(bag, self._topic, derained_topic)
            self.has_derained, self.has_masks = True, self._derained.has_masks()
            notes += self._derained.notes
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
        """Yield the frames, named by their stamps or else the time of recording."""
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
    """Return frames a second from steps in ns: of the median one, to a hundredth."""
    rate = 1e9 / float(np.median(steps)) if len(steps) else math.nan
    if not _SLOWEST <= rate <= _FASTEST:
        raise FileError(f'{where}: the stamps do not tell the rate; name it with --fps')
    return round(rate, 2)
