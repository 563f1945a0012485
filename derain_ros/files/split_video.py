"""Write videos from clips: rainy and derained versions in one view, or any other view."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from derain_ros.engines import Engine
from derain_ros.files import FileError
from derain_ros.files.clip_sources import ClipSource
from derain_ros.files.frame_sources import FrameSet
from derain_ros.files.pairs import BadPair
from derain_ros.files.video_files import VideoFile, new_video
from derain_ros.files.views import compose, swept_divider
from derain_ros.images.memory import Memory
from derain_ros.images.pipeline import Frame
from derain_ros.text import printable


@dataclass
class ClipSummary:
    """The video that was written, and the frames that failed, which are not in it."""

    video: VideoFile
    failed: list[BadPair] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What could not be kept, for the user."""
        video, notes = self.video, list(self.video.notes)
        if video.resized:
            notes.append(f'{video.resized} frames of another size than the first were scaled to '
                         f'{video.facts.width}x{video.facts.height} pixels')
        if video.gaps and not self.failed:
            notes.append(f'{video.gaps} steps between frames are longer than at '
                         f'{float(video.facts.rate):g} Hz: the rate varies, or frames are lost; '
                         'times are kept')
        return notes

    def __str__(self) -> str:
        facts = self.video.facts
        left_out = f', {len(self.failed)} left out' if self.failed else ''
        return (f'{self.video.frames} frames of {facts.width}x{facts.height} at '
                f'{float(facts.rate):g} Hz{left_out}')


def write_clip(
    source: ClipSource, destination: Path, show: Callable[[FrameSet, float], np.ndarray], *,
    wide: int = 1, progress: Callable[[int], Any] = lambda count: None,
) -> ClipSummary:
    """Write the output of ``show`` for each frame of a clip, with its time and the clip's sound.

    The video appears only when it is complete; one frame is in memory at a time. ``destination``
    must have passed :func:`derain_ros.files.video_files.check_destination`. ``show`` takes a frame
    and its time in seconds from the start, and returns an image, uint8, H×W×3, BGR, ``wide``
    frames wide; if it raises ValueError the frame counts as failed. ``progress`` is called with 1
    for each frame.

    Raises ValueError if the destination cannot be written, the source is damaged, or every frame
    failed.
    """
    facts = replace(source.facts, width=source.facts.width * wide)
    with new_video(destination, facts, source.sound) as video:
        summary = ClipSummary(video)
        for number, frame in enumerate(source.read()):
            progress(1)
            if isinstance(frame, BadPair):
                summary.failed.append(frame)
                continue
            seconds = number / facts.rate if frame.seconds is None else frame.seconds
            try:
                picture = show(frame, float(seconds))
            except ValueError as error:
                summary.failed.append(BadPair(frame.name, printable(f'{frame.name}: {error}')))
            else:
                video.write(picture, seconds)
        if not video.frames:
            reason = summary.failed[0].reason if summary.failed else 'there is none'
            raise FileError(f'not one frame could be shown: {reason}')
    return summary


def make_video(
    source: ClipSource, destination: Path, *, view: str = 'split', engine: Engine | None = None,
    strength: float = 1.0, sweep: float | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> ClipSummary:
    """Write a clip with its derained version; for other arguments and errors see ``write_clip``.

    ``view`` is one of :data:`derain_ros.files.views.VIEWS`. ``engine`` derains the frames that
    come without a derained version; its EngineError is passed on. ``strength`` is the share of the
    derained image in the result, 0–1.5; ``sweep`` is the period, in seconds, in which the divider
    of ``split`` moves to and fro, None to keep it in the middle.
    """
    memory = Memory()

    def show(frame: FrameSet, seconds: float) -> np.ndarray:
        shown = Frame(bgr=frame.rainy)
        shown.derained, shown.rain_mask = frame.derained, frame.rain_mask
        if frame.derained is None:
            shown.derain(
                memory.through(engine.infer, seconds) if engine.info.remembers else engine.infer)
        if view == 'mask' and shown.rain_mask is None:
            raise FileError('has no rain mask beside it in the bag')
        return compose(
            view, frame.rainy, shown.blended(strength), shown.rain_mask,
            divider=swept_divider(seconds, sweep) if sweep else 0.5)

    return write_clip(
        source, destination, show, wide=2 if view == 'side-by-side' else 1, progress=progress)
