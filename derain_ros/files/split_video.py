"""Make a video that shows what deraining does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from derain_ros.engines import Engine
from derain_ros.files.clip_sources import ClipSource
from derain_ros.files.pairs import BadPair
from derain_ros.files.video_files import VideoError, new_video
from derain_ros.files.views import compose, pad_to_even, swept_divider
from derain_ros.images.pipeline import Frame
from derain_ros.text import printable


@dataclass
class SplitSummary:
    """What was written.

    Attributes
    ----------
    width, height
        Pixels of the video.
    padded
        A column or row was repeated, because a video has even sides.
    frames
        How many were written.
    failed
        Frames that could not be read or derained; they are left out.

    """

    width: int
    height: int
    padded: bool
    frames: int = 0
    failed: list[BadPair] = field(default_factory=list)


def make_video(
    source: ClipSource,
    destination: Path,
    *,
    view: str = 'split',
    engine: Engine | None = None,
    strength: float = 1.0,
    sweep: float | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> SplitSummary:
    """Write a clip with its derained version; it appears at the end, whole, or not at all.

    Parameters
    ----------
    source
        The clip; one frame is in memory at a time.
    destination
        As :func:`derain_ros.files.video_files.check_destination` has passed it.
    view
        See :data:`derain_ros.files.views.VIEWS`.
    engine
        What derains the frames that come without a derained version.
    strength
        Share of the derained image in the result, 0–1.
    sweep
        Seconds in which the divider of ``split`` goes to and fro; None keeps it in the middle.
    progress
        Called with 1 after each frame.

    Raises
    ------
    ValueError
        The destination cannot be written, frames change in size, the source is damaged, or not
        one frame could be shown.
    EngineError
        The back end failed.

    """
    facts = source.facts
    width = facts.width * (2 if view == 'side-by-side' else 1)
    summary = SplitSummary(
        width + width % 2, facts.height + facts.height % 2,
        bool(width % 2 or facts.height % 2))
    with new_video(destination, summary.width, summary.height, facts.rate) as video:
        for number, frame in enumerate(source.read()):
            progress(1)
            if isinstance(frame, BadPair):
                summary.failed.append(frame)
                continue
            height, width = frame.rainy.shape[:2]
            if (width, height) != (facts.width, facts.height):
                summary.failed.append(BadPair(frame.name, printable(
                    f'{frame.name}: has {width}x{height} pixels, the first frame '
                    f'{facts.width}x{facts.height}; all frames of a video must be of one size')))
                continue
            shown = Frame(bgr=frame.rainy)
            shown.derained, shown.rain_mask = frame.derained, frame.rain_mask
            try:
                if frame.derained is None:
                    shown.derain(engine.infer)
                if view == 'mask' and shown.rain_mask is None:
                    raise VideoError('has no rain mask beside it in the bag')
            except ValueError as error:
                summary.failed.append(BadPair(
                    frame.name, printable(f'{frame.name}: {error}')))
                continue
            divider = swept_divider(number / facts.rate, sweep) if sweep else 0.5
            picture = compose(
                view, frame.rainy, shown.blended(strength), shown.rain_mask, divider=divider)
            video.write(np.ascontiguousarray(pad_to_even(picture)))
        summary.frames = video.frames
        if not summary.frames:
            reason = summary.failed[0].reason if summary.failed else 'there is none'
            raise VideoError(f'not one frame could be shown: {reason}')
    return summary
