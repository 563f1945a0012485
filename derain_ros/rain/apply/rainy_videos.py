"""Render rain into video files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from derain_ros.files.clip_sources import ClipSource
from derain_ros.files.frame_sources import FrameSet
from derain_ros.files.image_files import write_png
from derain_ros.files.split_video import ClipSummary, write_clip
from derain_ros.rain import RainClip
from derain_ros.rain.apply.rainy_images import streak_picture


def rain_video(
    source: ClipSource, destination: Path, clip: RainClip, *, streaks: Path | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> ClipSummary:
    """Render rain over a clip; see :func:`derain_ros.files.split_video.write_clip`.

    The true streaks of its frames go to ``000000.png`` and so on in the folder ``streaks``, see
    :func:`derain_ros.rain.apply.rainy_images.streak_picture`.
    """
    def show(frame: FrameSet, seconds: float) -> np.ndarray:
        rainy = clip.render(frame.rainy, frame.position, seconds)
        if streaks is not None:
            write_png(streaks / f'{frame.position:06d}.png', streak_picture(rainy.streaks))
        return rainy.image

    return write_clip(source, destination, show, progress=progress)
