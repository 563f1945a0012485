"""What a path stands for where a clip is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING

from derain_ros.commands import USAGE, CommandError

if TYPE_CHECKING:
    from derain_ros.files.clip_sources import ClipSource


def open_clip(
    path: Path, *, topic: str | None = None, derained_topic: str | None = None,
    fps: float | None = None, start: float = 0.0, duration: float | None = None,
) -> 'ClipSource':
    """Open a video, a folder of pictures, or an image topic of a rosbag2, told by what lies there.

    Parameters
    ----------
    path
        What the user has named.
    topic, derained_topic, fps, start, duration
        Options of the same names; see :mod:`derain_ros.files.clip_sources`.

    Raises
    ------
    CommandError
        There is nothing, or an option does not fit what there is.
    ValueError
        It cannot be read.

    """
    from derain_ros.bags.fleet import is_bag
    from derain_ros.files.clip_sources import BagClip, PictureClip, VideoClip
    from derain_ros.files.video_files import VIDEO_SUFFIXES
    from derain_ros.text import printable

    shown = printable(str(path))
    if not path.exists():
        raise CommandError(f'{shown}: no such file or folder', USAGE)
    if is_bag(path):
        return BagClip(path, topic, derained_topic, fps, start, duration)
    for option, value in (('--topic', topic), ('--derained-topic', derained_topic)):
        if value is not None:
            raise CommandError(f'{option} is for bags; {shown} is none', USAGE)
    if path.is_dir():
        return PictureClip(path, fps, start, duration)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise CommandError(
            f'{shown}: IN is a video ({", ".join(sorted(VIDEO_SUFFIXES))}), a folder '
            'of pictures, or a rosbag2', USAGE)
    if fps is not None:
        raise CommandError('--fps is for pictures and bags; a video keeps its rate', USAGE)
    return VideoClip(path, start, duration)
