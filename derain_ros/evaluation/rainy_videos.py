"""Rain on video files, read and written through the FFmpeg of OpenCV."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from derain_ros.evaluation.image_files import write_png
from derain_ros.evaluation.rainy_images import streak_picture
from derain_ros.rain import RainClip

VIDEO_SUFFIXES = frozenset({'.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm'})
"""Suffixes, in lower case, of files that are read as videos."""

CODECS = {'.mp4': 'mp4v', '.avi': 'FFV1'}
"""What is written: MPEG-4, which plays everywhere and loses detail, or lossless FFV1."""

# Where a container has no list of frames, their number is an estimate from the duration.
_ESTIMATE_ERROR = 2


class VideoError(ValueError):
    """A video cannot be read or written as asked; the message says what to do."""


@dataclass(frozen=True)
class VideoFacts:
    """Width and height in pixels, frames a second, and how many frames are announced."""

    width: int
    height: int
    rate: float
    frames: int


@dataclass(frozen=True)
class VideoSummary:
    """How many frames were written, and whether the source broke off before its end."""

    frames: int
    cut_short: bool


def inspect_video(source: Path, destination: Path) -> VideoFacts:
    """Check a request before any work is done.

    Raises
    ------
    VideoError
        The source cannot be read, or the destination exists or cannot be written.

    """
    if destination.suffix.lower() not in CODECS:
        kinds = ' or '.join(CODECS)
        raise VideoError(
            f'{destination}: a video is written as {kinds}; name one, such as '
            f'{destination.with_suffix(".mp4")}')
    if destination.exists() or destination.is_symlink():
        raise VideoError(f'{destination}: exists already; name a file that does not')
    with _opened(source) as capture:
        done, frame = capture.read()
        if not done:
            raise VideoError(f'{source}: not one frame can be read; it may be damaged')
        rate = capture.get(cv2.CAP_PROP_FPS)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    # The size comes from a frame, because OpenCV turns frames upright after it tells theirs.
    height, width = frame.shape[:2]
    if not (math.isfinite(rate) and rate > 0):
        raise VideoError(f'{source}: does not say its frame rate; convert it with ffmpeg first')
    if height % 2 or width % 2:
        raise VideoError(
            f'{source}: frames of {width}x{height} pixels; a side must be even to be '
            'written, crop it by one pixel')
    return VideoFacts(width, height, rate, max(0, frames))


def rain_video(
    source: Path,
    destination: Path,
    facts: VideoFacts,
    clip: RainClip,
    *,
    streaks: Path | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> VideoSummary:
    """Render rain over a video, frame by frame, at the same size and rate, without sound.

    The destination appears at the end, whole, or not at all.

    Parameters
    ----------
    source, destination
        As :func:`inspect_video` has passed them.
    facts
        What that found.
    clip
        The rain.
    streaks
        Folder for the true streaks, ``000000.png`` and so on, see
        :func:`derain_ros.evaluation.rainy_images.streak_picture`.
    progress
        Called with 1 after each frame.

    Raises
    ------
    VideoError
        The destination cannot be written, or frames change in size.

    """
    # The container is chosen by the suffix, which therefore stays.
    partial = destination.with_name(
        f'.{destination.stem}.{os.getpid()}.partial{destination.suffix}')
    number = 0
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _opened(source) as capture, _writing(partial, facts) as writer:
            while True:
                done, frame = capture.read()
                if not done:
                    break
                if frame.shape[:2] != (facts.height, facts.width):
                    raise VideoError(
                        f'{source}: frame {number} has another size than the first; '
                        'convert it with ffmpeg first')
                rainy = clip.render(frame, number, number / facts.rate)
                writer.write(rainy.image)
                if streaks is not None:
                    write_png(streaks / f'{number:06d}.png', streak_picture(rainy.streaks))
                number += 1
                progress(1)
        _check_whole(partial, destination, number)
        if destination.exists():
            raise VideoError(f'{destination}: has appeared meanwhile; it is left alone')
        partial.rename(destination)
    except OSError as error:
        raise VideoError(f'{destination}: cannot be written ({error})') from error
    finally:
        partial.unlink(missing_ok=True)
    return VideoSummary(number, number < facts.frames - _ESTIMATE_ERROR)


def _check_whole(partial: Path, destination: Path, frames: int) -> None:
    """OpenCV does not tell when a write fails, as on a full disk: count what is there."""
    with _opened(partial) as capture:
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    if found != frames:
        raise VideoError(
            f'{destination}: only {found} of {frames} frames could be written; '
            'is the disk full?')


@contextmanager
def _opened(source: Path) -> Iterator[cv2.VideoCapture]:
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    capture = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise VideoError(f'{source}: not a video, damaged, or of a kind FFmpeg cannot read')
        yield capture
    finally:
        capture.release()


@contextmanager
def _writing(path: Path, facts: VideoFacts) -> Iterator[cv2.VideoWriter]:
    codec = CODECS[path.suffix.lower()]
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), facts.rate,
        (facts.width, facts.height))
    try:
        if not writer.isOpened():
            raise VideoError(
                f'{path}: cannot be opened to write {codec}; check the folder, or use '
                'opencv-python-headless from PyPI, which has this codec')
        yield writer
    finally:
        writer.release()
