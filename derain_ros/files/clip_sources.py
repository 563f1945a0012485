"""Clips to make a video of: folders of pictures, and image topics of bags."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from rosbags.serde import SerdeError

from derain_ros.bags.damage import BagError, show_time
from derain_ros.bags.frames import decode_frame, header_stamp
from derain_ros.bags.recording import Recording
from derain_ros.bags.topics import find_image_topic, output_namespace
from derain_ros.files.frame_sources import BagFrames, FrameSet, bits_of, damages_of
from derain_ros.files.image_files import ImageFileError, PictureReader, collect_images
from derain_ros.files.pairs import BadPair
from derain_ros.text import printable

PICTURE_RATE = 25.0
"""Frames a second of pictures, unless another is asked for."""

_SLOWEST, _FASTEST = 0.1, 1000.0


class VideoError(ValueError):
    """A video cannot be read or written as asked; the message says what to do."""


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a clip.

    Attributes
    ----------
    width, height
        Pixels, upright.
    rate
        Frames a second; the fastest of them where the rate varies.
    frames
        How many there are, about; 0 where that is not known.
    length
        Seconds; None where that is not known.
    time_base
        Seconds that times are multiples of; None for 1/rate.
    aspect
        Width of a pixel by its height.

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


class ClipSource(Protocol):
    """Frames of one size, one after the other.

    Attributes
    ----------
    facts
        Size, rate, and how many frames there are about.
    notes
        What the user should know; printable.
    has_derained
        The frames come with their derained versions.
    sound
        What is to be heard beside them.

    """

    facts: VideoFacts
    notes: list[str]
    has_derained: bool
    sound: Sound | None

    def read(self) -> Iterator[FrameSet | BadPair]:
        """Yield the frames; one that cannot be read gives a BadPair.

        Raises
        ------
        ValueError
            The source is damaged.

        """


class PictureClip:
    """Pictures of a folder by name, numbers in names being sorted as numbers.

    Raises
    ------
    VideoError
        There is no picture that can be read, or none from ``start`` on.

    """

    has_derained = False
    sound = None

    def __init__(
        self, folder: Path, rate: float | None = None, start: float = 0.0,
        duration: float | None = None,
    ):
        rate = rate or PICTURE_RATE
        try:
            files = [job.source for job in collect_images([folder])]
        except ImageFileError as error:
            raise VideoError(str(error)) from error
        first = round(start * rate)
        last = None if duration is None else first + max(1, round(duration * rate))
        self._folder, self._files = folder, files[first:last]
        if not self._files:
            raise VideoError(f'{folder}: has {len(files)} pictures, which at {rate:g} Hz end '
                             f'before {start:g} s')
        height, width = _first_size(self.read(), str(folder))
        self.facts = VideoFacts(width, height, _fraction(rate), len(self._files))
        self.notes: list[str] = []

    def read(self) -> Iterator[FrameSet | BadPair]:
        """Yield the pictures by name."""
        reader = PictureReader()
        for file in self._files:
            name = printable(file.relative_to(self._folder).as_posix())
            try:
                yield FrameSet(name, None, *reader.read(file))
            except ImageFileError as error:
                yield BadPair(name, printable(str(error)))


class BagClip:
    """An image topic of a rosbag2, in recorded order.

    Parameters
    ----------
    bag
        rosbag2 folder, or a bare ``.mcap`` or ``.db3`` file.
    topic
        Image topic with or without ``/compressed`` and the leading slash; None takes the only
        one there is.
    derained_topic
        Topic of the derained frames in the bag; empty for the one of ``derain bag``; None if
        they are not to be taken from it.
    rate
        Frames a second; None takes that of the stamps.
    start, duration
        Seconds from the first frame of the topic on, by the time of recording.

    Raises
    ------
    BagError
        The bag cannot be read, or a topic is not an image topic of it.
    VideoError
        There is no frame, or the rate cannot be told.

    """

    sound = None

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
            times, stamps = [], []
            for _, time, data in recording.read(self._topic):
                times.append(time)
                stamps.append(header_stamp(data))
            self._bits = bits_of(recording, self._topic)
        if not times:
            raise VideoError(f'{bag}: there is no frame on {self._topic}')
        self._start = times[0] + round(start * 1e9)
        self._stop = 2**63 - 1 if duration is None else self._start + round(duration * 1e9)
        chosen = [number for number, time in enumerate(times)
                  if self._start <= time < self._stop]
        if not chosen:
            raise VideoError(f'{bag}: no frame on {self._topic} in the seconds asked for; they '
                             f'span {(times[-1] - times[0]) / 1e9:.1f} s')
        self._derained: BagFrames | None = None
        self._outside = {show_time(stamp) for stamp in (
            set(stamps) - {stamps[number] for number in chosen} - {None})}
        count = len(chosen)
        if derained_topic is not None:
            usual = f'{output_namespace(self._topic)}/image'
            self._derained = BagFrames(bag, self._topic, derained_topic or usual)
            count = min(count, len(self._derained))
        clock = stamps if None not in stamps else times
        clock = [clock[number] for number in chosen]
        self.notes = list(self._derained.notes) if self._derained else []
        rate = rate or _rate(clock, f'{bag}: {self._topic}')
        gaps = _gaps(clock)
        if gaps:
            self.notes.append(printable(
                f'{self._topic}: {gaps} gaps between the stamps; the video shows the frames one '
                'after another'))
        height, width = _first_size(self.read(), f'{bag}: {self._topic}')
        self.facts = VideoFacts(width, height, _fraction(rate), count)

    @property
    def has_derained(self) -> bool:
        """The derained frames are those of the bag."""
        return self._derained is not None

    @property
    def has_masks(self) -> bool:
        """Rain masks lie beside the derained frames."""
        return self._derained is not None and self._derained.has_masks()

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
                except (SerdeError, ValueError) as error:
                    yield BadPair(name, printable(f'{connection.topic} at {name}: {error}'))
            yield from damages_of(recording)


def _fraction(rate: float) -> Fraction:
    return Fraction(rate).limit_denominator(1001)


def _first_size(frames: Iterator[FrameSet | BadPair], where: str) -> tuple[int, int]:
    """Return height and width of the first frame that can be read."""
    reason = 'there is none'
    for frame in frames:
        if isinstance(frame, FrameSet):
            return frame.rainy.shape[:2]
        reason = frame.reason
    raise VideoError(f'{where}: no frame can be read ({reason})')


def _steps(clock: Sequence[int]) -> np.ndarray:
    steps = np.diff(np.sort(np.array(clock, dtype=np.int64)))
    return steps[steps > 0]


def _rate(clock: Sequence[int], where: str) -> float:
    """Return frames a second from times in ns: of the median step, to a hundredth."""
    steps = _steps(clock)
    rate = 1e9 / float(np.median(steps)) if len(steps) else math.nan
    if not _SLOWEST <= rate <= _FASTEST:
        raise VideoError(f'{where}: the stamps do not tell the rate; name it with --fps')
    return round(rate, 2)


def _gaps(clock: Sequence[int]) -> int:
    """Count the steps that are longer than one and a half of the median."""
    steps = _steps(clock)
    return int(np.count_nonzero(steps > 1.5 * np.median(steps))) if len(steps) else 0
