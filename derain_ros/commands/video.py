"""``derain video``: make a video that shows rainy and derained frames.

Derain a clip and write a video that shows it: the rainy frame left of a divider and the
derained one right of it, or both side by side, the derained one alone, or the rainy frame with
the rain tinted.

IN is a video, a folder of pictures (by name, --fps a second), or a rosbag2 with an image topic
(at the rate of its stamps). OUT is .mp4 (MPEG-4, plays everywhere, loses detail) or .avi
(FFV1, lossless), without sound. It must not exist, and appears when it is complete.

examples:
  derain video rainy.mp4 -o split.mp4
  derain video rainy.mp4 -o sweep.mp4 --sweep --start 10 --duration 20
  derain video frames -o both.avi --fps 10 --view side-by-side
  derain video drive -o drive.mp4 --topic /cam/image_raw
  derain video drive_derained -o drive.mp4 --topic /cam/image_raw --derained-topic

exit status: 0 all done, 1 some frames failed (each is named, and left out), 2 wrong arguments
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from derain_ros.commands import (
    FAILURE,
    USAGE,
    CommandError,
    add_engine_options,
    add_strength_option,
    open_engine,
    printable,
    progress_bar,
)
from derain_ros.commands.arguments import rate, seconds, seconds_above_0
from derain_ros.commands.clip_paths import open_clip

if TYPE_CHECKING:
    from derain_ros.files.clip_sources import ClipSource

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('source', type=Path, metavar='IN',
                        help='video, folder of pictures, or rosbag2')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='OUT',
                        help='video to write, .mp4 or .avi')
    parser.add_argument('--view', choices=('split', 'side-by-side', 'derained', 'mask'),
                        default='split', help='what to show (default: split)')
    parser.add_argument('--sweep', nargs='?', type=seconds_above_0, const=6.0, metavar='SECONDS',
                        help='move the divider to and fro in so many seconds (6 if not told)')
    parser.add_argument('--start', type=seconds, default=0.0, metavar='S',
                        help='leave out the first S seconds')
    parser.add_argument('--duration', type=seconds_above_0, metavar='S',
                        help='take S seconds (default: all)')
    parser.add_argument('--fps', type=rate, metavar='N',
                        help='frames a second, of pictures (default: 25) or of a bag (default: '
                             'by its stamps)')
    parser.add_argument('--topic', metavar='TOPIC',
                        help='image topic of a bag (default: the only one)')
    parser.add_argument('--derained-topic', nargs='?', const='', metavar='TOPIC',
                        help='take the derained frames from the bag too, from this topic or '
                             'from the one that `derain bag` has added')
    add_strength_option(parser)
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Make the video that ``args`` ask for; 1 if a frame failed."""
    from derain_ros.files.split_video import make_video
    from derain_ros.files.video_files import check_destination

    if args.sweep and args.view != 'split':
        raise CommandError(f'--sweep moves the divider of split; {args.view} has none', USAGE)
    try:
        check_destination(args.output)
        source = _open(args)
    except ValueError as error:
        raise CommandError(printable(error), USAGE) from error
    for note in source.notes:
        print(f'derain: note: {note}', file=sys.stderr)
    try:
        with ExitStack() as stack:
            engine = None
            if not source.has_derained:
                engine = stack.enter_context(open_engine(args))
            bar = stack.enter_context(progress_bar(source.facts.frames, 'frame'))
            summary = make_video(
                source, args.output, view=args.view, engine=engine, strength=args.strength,
                sweep=args.sweep, progress=bar.update)
    except (ValueError, OSError) as error:
        raise CommandError(printable(error)) from error
    for bad in summary.failed[:_SHOWN]:
        print(f'derain: error: {bad.reason}', file=sys.stderr)
    if len(summary.failed) > _SHOWN:
        print(f'derain: error: {len(summary.failed) - _SHOWN} more frames failed',
              file=sys.stderr)
    if summary.padded:
        print('derain: note: a side of the frames is odd; the last row or column is there twice, '
              'because a video has even sides', file=sys.stderr)
    if args.output.suffix.lower() == '.mp4':
        print('derain: note: MPEG-4 loses detail; name an .avi to keep every pixel',
              file=sys.stderr)
    left_out = f', {len(summary.failed)} left out' if summary.failed else ''
    print(f'{printable(args.output)}: {summary.frames} frames of {summary.width}x'
          f'{summary.height} at {source.facts.rate:g} Hz{left_out}')
    return FAILURE if summary.failed else 0


def _open(args: argparse.Namespace) -> 'ClipSource':
    """Open what IN is."""
    clip = open_clip(
        args.source, topic=args.topic, derained_topic=args.derained_topic, fps=args.fps,
        start=args.start, duration=args.duration)
    if args.view == 'mask' and clip.has_derained and not clip.has_masks:
        raise CommandError('the bag has no rain masks beside the derained frames; leave out '
                           '--derained-topic to make them', USAGE)
    return clip
