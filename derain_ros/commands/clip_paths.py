"""What a path stands for where a clip is asked for."""

import argparse
from pathlib import Path

from derain_ros.bags.fleet import is_bag
from derain_ros.commands import UsageError
from derain_ros.commands.arguments import rate, seconds, seconds_above_0
from derain_ros.files.clip_sources import BagClip, ClipSource, PictureClip
from derain_ros.files.image_files import VIDEO_SUFFIXES


def add_clip_options(parser: argparse.ArgumentParser, duration: str = 'all') -> None:
    """Add ``--start``, ``--duration``, ``--fps`` and ``--topic``."""
    parser.add_argument('--start', type=seconds, default=0.0, metavar='S',
                        help='leave out the first S seconds')
    parser.add_argument('--duration', type=seconds_above_0, metavar='S',
                        help=f'take S seconds (default: {duration})')
    parser.add_argument('--fps', type=rate, metavar='N',
                        help='frames a second, of pictures (default: 25) or of a bag (default: '
                             'by its stamps)')
    parser.add_argument('--topic', metavar='TOPIC',
                        help='image topic of a bag (default: the only one)')


def open_clip(
    path: Path, args: argparse.Namespace, derained_topic: str | None = None
) -> ClipSource:
    """Open a video, a folder of pictures, or an image topic of a rosbag2, told by what lies there.

    ``args`` has the options of :func:`add_clip_options`. Raises UserError where there is
    nothing, or an option does not fit what there is, ValueError where it cannot be read.
    """
    if not path.exists():
        raise UsageError(f'{path}: no such file or folder')
    if is_bag(path):
        return BagClip(path, args.topic, derained_topic, args.fps, args.start, args.duration)
    for option, value in (('--topic', args.topic), ('--derained-topic', derained_topic)):
        if value is not None:
            raise UsageError(f'{option} is for bags; {path} is not a bag')
    if path.is_dir():
        return PictureClip(path, args.fps, args.start, args.duration)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f'{path}: IN is a video ({", ".join(sorted(VIDEO_SUFFIXES))}), a folder '
                         'of pictures, or a rosbag2')
    if args.fps is not None:
        raise UsageError('--fps is for pictures and bags; a video keeps its rate')
    from derain_ros.files.video_files import VideoClip

    return VideoClip(path, args.start, args.duration)
