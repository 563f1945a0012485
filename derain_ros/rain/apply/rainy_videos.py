"""Rain on video files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain_ros.files.image_files import write_png
from derain_ros.files.video_files import (
    ESTIMATE_ERROR,
    VIDEO_SUFFIXES,
    VideoError,
    VideoFacts,
    check_destination,
    new_video,
    open_video,
    probe_video,
)
from derain_ros.rain import RainClip
from derain_ros.rain.apply.rainy_images import streak_picture

__all__ = [
    'VIDEO_SUFFIXES',
    'VideoError',
    'VideoFacts',
    'VideoSummary',
    'inspect_video',
    'rain_video',
]


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
    check_destination(destination)
    facts = probe_video(source)
    if facts.height % 2 or facts.width % 2:
        raise VideoError(
            f'{source}: frames of {facts.width}x{facts.height} pixels; a side must be even to '
            'be written, crop it by one pixel')
    return facts


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
        :func:`derain_ros.rain.apply.rainy_images.streak_picture`.
    progress
        Called with 1 after each frame.

    Raises
    ------
    VideoError
        The destination cannot be written, or frames change in size.

    """
    number = 0
    with (
        new_video(destination, facts.width, facts.height, facts.rate) as video,
        open_video(source) as capture,
    ):
        while True:
            done, frame = capture.read()
            if not done:
                break
            if frame.shape[:2] != (facts.height, facts.width):
                raise VideoError(
                    f'{source}: frame {number} has another size than the first; '
                    'convert it with ffmpeg first')
            rainy = clip.render(frame, number, number / facts.rate)
            video.write(rainy.image)
            if streaks is not None:
                write_png(streaks / f'{number:06d}.png', streak_picture(rainy.streaks))
            number += 1
            progress(1)
    return VideoSummary(number, number < facts.frames - ESTIMATE_ERROR)
