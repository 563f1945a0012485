"""``derain bag``: derain the image topics of a recorded rosbag2."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from derain_ros.commands import (
    FAILURE,
    USAGE,
    CommandError,
    add_engine_options,
    add_strength_option,
    open_engine,
    progress_bar,
)

if TYPE_CHECKING:
    from derain_ros.evaluation.bags import BagPlan, BagSummary

_DESCRIPTION = """\
Copy a rosbag2 (mcap or sqlite3) and add derained images and rain masks.

Every recorded message is kept as it is. For an image topic /cam/image_raw the new bag
gains /cam/derained/image and /cam/derained/rain_mask (mono8, 255 = rain), at the same
times and with the same headers. The bag is read directly, without a clock: two runs give
the same result. No ROS installation is needed.
"""

_EPILOG = """\
examples:
  derain bag drive -o drive_derained
  derain bag drive -o drive_derained --topics /front/image_raw /rear/image_raw/compressed
  derain bag drive -o drive_derained --no-mask --storage mcap

OUT must not exist. It appears when it is complete: until then the work lies in OUT.partial.
An image that cannot be derained (an encoding of depth or thermal cameras, a wrong length)
is named and left out; --topics keeps such topics out of it.

exit status: 0 all done, 1 the bag or some frames failed, 2 wrong arguments
"""

_SHOWN_PER_TOPIC = 10


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        'bag', help='derain the image topics of a recorded rosbag2', description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, metavar='IN',
                        help='rosbag2 folder (or a bare .mcap or .db3 file)')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='OUT',
                        help='folder of the new bag')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC',
                        help='image topics to derain (default: all of them)')
    parser.add_argument('--no-mask', action='store_true', help='add no rain masks')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'),
                        help='storage of the new bag (default: that of IN)')
    parser.add_argument('--compress', action='store_true',
                        help='write zstd: the chunks of mcap, the messages of sqlite3 (default: '
                             'as IN, but chunks of mcap are not compressed)')
    add_strength_option(parser)
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Derain the bag that ``args`` names; 1 if a frame failed."""
    from derain_ros.evaluation.bag_source import BagError
    from derain_ros.evaluation.bags import derain_bag, plan_bag

    try:
        plan = plan_bag(
            args.source, args.output, topics=args.topics, storage=args.storage,
            compress=args.compress)
    except BagError as error:
        raise CommandError(str(error), USAGE) from error
    try:
        with open_engine(args) as engine, progress_bar(plan.message_count, 'message') as bar:
            summary = derain_bag(
                plan, engine, mask=not args.no_mask, strength=args.strength, progress=bar.update)
    except BagError as error:
        raise CommandError(str(error)) from error
    _report(plan, summary)
    return FAILURE if summary.failed else 0


def _report(plan: 'BagPlan', summary: 'BagSummary') -> None:
    for msgtype in summary.undefined_types:
        print(f'derain: note: the bag holds no definition of {msgtype}; '
              'its messages are kept all the same', file=sys.stderr)
    for camera in plan.cameras:
        bad = [frame for frame in summary.bad_frames if frame.topic == camera.source]
        for frame in bad[:_SHOWN_PER_TOPIC]:
            seconds, nanoseconds = divmod(frame.time, 10**9)
            print(f'derain: error: {frame.topic} at {seconds}.{nanoseconds:09d}: '
                  f'{frame.reason}', file=sys.stderr)
        more = summary.failed[camera.source] - len(bad[:_SHOWN_PER_TOPIC])
        if more > 0:
            print(f'derain: error: {camera.source}: {more} more frames failed',
                  file=sys.stderr)
        if summary.failed[camera.source] and not summary.derained[camera.source]:
            print(f'derain: note: no frame of {camera.source} could be derained; '
                  'name the colour cameras with --topics', file=sys.stderr)
    print(f'{plan.destination}: {summary.messages} messages kept')
    for camera in plan.cameras:
        line = f'  {camera.source} -> {camera.image}: {summary.derained[camera.source]} frames'
        if summary.failed[camera.source]:
            line += f', {summary.failed[camera.source]} failed'
        print(line)
