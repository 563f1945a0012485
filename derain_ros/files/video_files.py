"""Video files, read and written through the FFmpeg of OpenCV."""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2

VIDEO_SUFFIXES = frozenset({'.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm'})
"""Suffixes, in lower case, of files that are read as videos."""

CODECS = {'.mp4': 'mp4v', '.avi': 'FFV1'}
"""What is written: MPEG-4, which plays everywhere and loses detail, or lossless FFV1."""

ESTIMATE_ERROR = 2
"""Frames by which the announced number may be off: without a list it is an estimate."""


class VideoError(ValueError):
    """A video cannot be read or written as asked; the message says what to do."""


@dataclass(frozen=True)
class VideoFacts:
    """Width and height in pixels, frames a second, and how many frames are announced."""

    width: int
    height: int
    rate: float
    frames: int


def probe_video(source: Path) -> VideoFacts:
    """Return what is known of a video.

    Raises
    ------
    VideoError
        It cannot be read, or does not say its frame rate.

    """
    with open_video(source) as capture:
        done, frame = capture.read()
        if not done:
            raise VideoError(f'{source}: not one frame can be read; it may be damaged')
        rate = capture.get(cv2.CAP_PROP_FPS)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    # The size comes from a frame, because OpenCV turns frames upright after it tells theirs.
    height, width = frame.shape[:2]
    if not (math.isfinite(rate) and rate > 0):
        raise VideoError(f'{source}: does not say its frame rate; convert it with ffmpeg first')
    return VideoFacts(width, height, rate, max(0, frames))


def check_destination(destination: Path) -> None:
    """Raise VideoError unless a video of this name can be written, and none is there."""
    if destination.suffix.lower() not in CODECS:
        kinds = ' or '.join(CODECS)
        raise VideoError(
            f'{destination}: a video is written as {kinds}; name one, such as '
            f'{destination.with_suffix(".mp4")}')
    if destination.exists() or destination.is_symlink():
        raise VideoError(f'{destination}: exists already; name a file that does not')


@contextmanager
def open_video(source: Path) -> Iterator[cv2.VideoCapture]:
    """Open a video to read; raises VideoError."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    with _name_for_opencv(source) as name:
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise VideoError(
                    f'{source}: not a video, damaged, or of a kind FFmpeg cannot read')
            yield capture
        finally:
            capture.release()


@contextmanager
def _name_for_opencv(path: Path) -> Iterator[str]:
    """Give a name to open a file by; OpenCV crashes on one that is not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix='derain_video_') as folder:
            link = Path(folder) / f'video{path.suffix}'
            link.symlink_to(path.absolute())
            yield str(link)
    else:
        yield str(path)


class VideoFile:
    """A video that is being written; see :func:`new_video`.

    Attributes
    ----------
    frames
        How many were written.

    """

    def __init__(self, writer: cv2.VideoWriter) -> None:
        self._writer = writer
        self.frames = 0

    def write(self, frame) -> None:
        """Add a frame, uint8, H×W×3, BGR, of the size of the video."""
        self._writer.write(frame)
        self.frames += 1


@contextmanager
def new_video(destination: Path, width: int, height: int, rate: float) -> Iterator[VideoFile]:
    """Write a video, which appears when the block is left, whole, or not at all.

    Parameters
    ----------
    destination
        As :func:`check_destination` has passed it.
    width, height
        Pixels, both even.
    rate
        Frames a second.

    Raises
    ------
    VideoError
        It cannot be written, or has appeared meanwhile.

    """
    # The container is chosen by the suffix, which therefore stays.
    partial = destination.with_name(
        f'.{destination.stem[:50]}.{os.getpid()}.partial{destination.suffix}')
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        codec = CODECS[destination.suffix.lower()]
        with _name_for_opencv(partial) as name:
            writer = cv2.VideoWriter(
                name, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), rate, (width, height))
            try:
                if not writer.isOpened():
                    raise VideoError(
                        f'{partial}: cannot be opened to write {codec}; check the folder, or use '
                        'opencv-python-headless from PyPI, which has this codec')
                video = VideoFile(writer)
                yield video
            finally:
                writer.release()
        _check_whole(partial, destination, video.frames)
        if destination.exists():
            raise VideoError(f'{destination}: has appeared meanwhile; it is left alone')
        partial.rename(destination)
    except OSError as error:
        raise VideoError(f'{destination}: cannot be written ({error})') from error
    finally:
        partial.unlink(missing_ok=True)


def _check_whole(partial: Path, destination: Path, frames: int) -> None:
    """OpenCV does not tell when a write fails, as on a full disk: count what is there."""
    found = 0
    with suppress(VideoError), open_video(partial) as capture:
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    if found != frames:
        raise VideoError(
            f'{destination}: only {found} of {frames} frames could be written; '
            'is the disk full?')
