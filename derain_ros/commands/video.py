"""``derain video``: make a video that shows rainy and derained frames.

Derain a clip and write a video that shows it: the rainy frame left of a divider and the
derained one right of it, or both side by side, the derained one alone, or the rainy frame with
the rain tinted.

IN is a video, a folder of pictures (by name, --fps a second), or a rosbag2 with an image topic
(at the rate of its stamps). OUT is .mp4 (H.264, which browsers play and which loses detail) or
.avi (FFV1, lossless). The frames of a video keep their times and their sound. OUT must not exist,
and appears when it is complete.

examples:
  derain video rainy.mp4 -o split.mp4
  derain video rainy.mp4 -o sweep.mp4 --sweep --start 10 --duration 20
  derain video frames -o both.avi --fps 10 --view side-by-side
  derain video drive -o drive.mp4 --topic /cam/image_raw
  derain video drive_derained -o drive.mp4 --topic /cam/image_raw --derained-topic

exit status: 0 all done, 1 some frames failed (each is named, and left out), 2 wrong arguments
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from derain_ros.commands import (
    UsageError,
    add_engine_options,
    add_strength_option,
    open_engine,
    print_notes,
    printable,
    progress_bar,
    refusing,
    report_failed,
)
from derain_ros.commands.arguments import seconds_above_0
from derain_ros.commands.frame_options import add_clip_options, open_clip
from derain_ros.files.clip_sources import ClipSource
from derain_ros.files.split_video import ClipSummary, make_video
from derain_ros.files.video_files import check_destination
from derain_ros.files.views import VIEWS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', type=Path, metavar='IN',
                        help='video, folder of pictures, or rosbag2')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='OUT',
                        help='video to write, .mp4 or .avi')
    parser.add_argument('--view', choices=VIEWS, default='split',
                        help='what to show (default: split)')
    parser.add_argument('--sweep', nargs='?', type=seconds_above_0, const=6.0, metavar='SECONDS',
                        help='move the divider from side to side and back within S seconds (6 if '
                             'no number is given)')
    add_clip_options(parser)
    parser.add_argument('--derained-topic', nargs='?', const='', metavar='TOPIC',
                        help='also take the derained frames from the bag, from this topic or the '
                             'one that `derain bag` has added')
    add_strength_option(parser)
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.sweep and args.view != 'split':
        raise UsageError(f'--sweep moves the divider of split; {args.view} has none')
    with refusing():
        check_destination(args.output)
        source = open_clip(args.source, args, args.derained_topic)
    if args.view == 'mask' and source.has_derained and not source.has_masks:
        raise UsageError('the bag has no rain masks beside the derained frames; leave out '
                         '--derained-topic to make them')
    with nullcontext() if source.has_derained else open_engine(args) as engine:
        return report_video(args.output, source, lambda progress: make_video(
            source, args.output, view=args.view, engine=engine, strength=args.strength,
            sweep=args.sweep, progress=progress))


def report_video(
    output: Path, source: ClipSource, make: Callable[[Callable[[int], object]], ClipSummary]
) -> int:
    """Make a video with a progress bar, and report the result; return the exit status."""
    print_notes(*source.notes)
    with progress_bar(source.facts.frames, 'frame') as bar:
        summary = make(bar.update)
    status = report_failed([bad.reason for bad in summary.failed], 'frames')
    print_notes(*summary.notes)
    print(f'{printable(output)}: {summary}')
    return status
