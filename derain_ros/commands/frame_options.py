"""Options for the sources of frames: matching rainy, derained and clean frames, and clips."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from derain_ros.bags.fleet import is_bag
from derain_ros.bags.recording import Recording
from derain_ros.bags.topics import image_topics
from derain_ros.commands import UsageError, printable, refusing
from derain_ros.commands.arguments import rate, seconds, seconds_above_0
from derain_ros.files.clip_sources import BagClip, ClipSource, PictureClip
from derain_ros.files.image_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from derain_ros.files.run_files import check_output, write_run

_HELP = {'rainy': 'with rain', 'derained': 'derained', 'clean': 'without rain'}


def add_source_options(parser: argparse.ArgumentParser, *versions: str) -> None:
    """Add BAG, and for each version ``--<version>-topic`` and the folder ``--<version>``."""
    parser.add_argument('bag', nargs='?', type=Path, metavar='BAG',
                        help='rosbag2 folder (or a bare .mcap or .db3 file)')
    for version in versions:
        usual = (' (default: the one of `derain bag`, <namespace>/derained/image, if there is '
                 'one)' if version == 'derained' else '')
        parser.add_argument(f'--{version}-topic', metavar='TOPIC',
                            help=f'image topic of BAG, {_HELP[version]}{usual}')
    for version in versions:
        same = 'pictures' if version == 'rainy' else 'the same pictures'
        parser.add_argument(f'--{version}', type=Path, metavar='DIR',
                            help=f'folder of {same} (or one file), {_HELP[version]}')


def check_sources(
    args: argparse.Namespace, versions: Sequence[str], required: Sequence[str]
) -> None:
    """Reject picture options with a bag, bag options without one, and missing options."""
    given, other = ('_topic', '') if args.bag else ('', '_topic')
    choose = ('name the pictures with ' + ' and '.join(f'--{one}' for one in required)
              + ', or a bag with ' + ' and '.join(f'--{one}-topic' for one in required))
    for version in versions:
        if getattr(args, version + other) is not None:
            raise UsageError(
                f'--{version}{other.replace("_", "-")} does not go with '
                f'{"a bag" if args.bag else "pictures"}; {choose}')
    for version in required:
        if getattr(args, version + given) is None:
            if args.bag:
                with refusing(), Recording(args.bag) as recording:
                    choose = printable(f'image topics of {args.bag}: ' + ', '.join(
                        sorted(image_topics(recording.topics, args.bag))))
            raise UsageError(f'--{version}{given.replace("_", "-")} is missing; {choose}')


def check_outputs(*paths: Path | None) -> None:
    """Check, before the work begins, that its results can be written."""
    with refusing():
        for path in filter(None, paths):
            check_output(path)


def write_figures(path: Path | None, figures: dict) -> None:
    """Write the run file of ``--json``, if requested."""
    if path:
        write_run(path, figures)
        print(f'{printable(path)} written')


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
    """Open a video, a folder of pictures, or an image topic of a rosbag2, whichever it is.

    ``args`` has the options of :func:`add_clip_options`. Raises UserError if there is nothing
    there, or an option does not apply to it, ValueError if it cannot be read.
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
        picture = path.suffix.lower() in IMAGE_SUFFIXES
        hint = '; a picture is for `derain image` or `derain gate --pan`' * picture
        raise UsageError(f'{path}: IN is a video ({", ".join(sorted(VIDEO_SUFFIXES))}), a folder '
                         f'of pictures, or a rosbag2{hint}')
    if args.fps is not None:
        raise UsageError('--fps is for pictures and bags; a video keeps its own rate')
    from derain_ros.files.video_files import VideoClip

    return VideoClip(path, args.start, args.duration)
