"""``derain bag``: derain the image topics of a recorded rosbag2."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from derain_ros.commands import (
    FAILURE,
    USAGE,
    CommandError,
    SlowBar,
    add_engine_options,
    add_strength_option,
    open_engine,
    progress_bar,
)
from derain_ros.commands.arguments import count, number

if TYPE_CHECKING:
    from tqdm import tqdm

    from derain_ros.bags.derain import BagPlan, BagSummary
    from derain_ros.engines import Engine

_DESCRIPTION = """\
Copy a rosbag2 (mcap or sqlite3) and add derained images and rain masks.

Every recorded message is kept as it is. For an image topic /cam/image_raw the new bag
gains /cam/derained/image and /cam/derained/rain_mask (mono8, 255 = rain), at the same
times and with the same headers. The bag is read directly, without a clock: two runs give
the same files, byte for byte. No ROS installation is needed.
"""

_EPILOG = """\
examples:
  derain bag drive -o drive_derained
  derain bag drive -o drive_derained --topics /front/image_raw /rear/image_raw/compressed
  derain bag drive -o drive_derained --no-mask --storage mcap
  derain bag drive -o minute_derained --start 120 --duration 60
  derain bag drive -o drive_derained --workers 4 --json drive.json

OUT must not exist. It appears when it is complete: until then the work lies in OUT.partial.
After an interruption of any kind the same command goes on where the work stopped, and the
result is the same.

An image that cannot be derained (an encoding of depth or thermal cameras, a wrong length)
is named and left out; --topics keeps such topics out of it. Truth that `derain rain` has put
beside a rainy topic (.../dry) is kept, and not derained unless it is named.

Of a damaged bag, such as an mcap file that ends where the power failed, everything before
the damage is derained, and the damage is named; `ros2 bag reindex` is not needed.

With --start, messages from before are left out, but for topics that late subscribers get
too (transient_local, and /tf_static): their last message is given at the beginning of the
stretch, and of transforms every one, as several nodes publish them.

With OpenVINO the result does not depend on --workers. torch on the CPU may round otherwise
with another number of threads: there, compare runs of the same --workers only.

exit status: 0 all done, 1 the bag or some frames failed, 2 wrong arguments, 130 interrupted
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
    parser.add_argument('--start', type=_seconds, metavar='S',
                        help='seconds from the beginning of IN to begin at (default: 0)')
    parser.add_argument('--duration', type=_duration, metavar='S',
                        help='seconds to take from there (default: to the end)')
    parser.add_argument('--every', type=count, default=1, metavar='N',
                        help='derain every N-th frame of each camera; all messages are kept '
                             '(default: 1)')
    parser.add_argument('--workers', type=count, metavar='N',
                        help='processes, each with an engine of its own (default: two for a long '
                             'bag on the CPU, as that is faster, else one)')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='write the figures of all frames there, for `derain report`')
    add_strength_option(parser)
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Derain the bag that ``args`` names; 1 if a frame failed or the bag is damaged."""
    import time

    from derain_ros.bags.damage import BagError
    from derain_ros.bags.derain import derain_bag, plan_bag
    from derain_ros.bags.workers import usual_workers
    from derain_ros.files.run_files import RunFileError, check_output
    from derain_ros.node.process_memory import keep_large_buffers

    keep_large_buffers()
    try:
        if args.json:
            check_output(args.json)
        plan = plan_bag(
            args.source, args.output, topics=args.topics, storage=args.storage,
            compress=args.compress, start=args.start, duration=args.duration, every=args.every)
    except (BagError, RunFileError) as error:
        raise CommandError(str(error), USAGE) from error
    for topic in plan.truths:
        print(f'derain: note: {topic} is the truth of a rainy topic and is not derained; '
              'name it with --topics if it shall be', file=sys.stderr)
    begun = time.monotonic()
    try:
        with open_engine(args) as engine, progress_bar(plan.frame_count, 'frame') as bar:
            workers = args.workers or usual_workers(plan.frame_count, engine.info)
            summary = derain_bag(
                plan, engine, mask=not args.no_mask, strength=args.strength,
                workers=workers, progress=bar.update,
                resumed=lambda count: _resume(bar, count))
            seconds = time.monotonic() - begun
            _finish(bar)
            if args.json:
                _write_json(args, plan, summary, engine, workers, seconds)
    except (BagError, RunFileError) as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        print(f'derain: the work is kept in {args.output}.partial; the same command goes on',
              file=sys.stderr)
        raise
    _report(plan, summary)
    return FAILURE if summary.failed.total() or summary.damages else 0


def _resume(bar: 'tqdm', count: int) -> None:
    """Show what an earlier run has done, and leave it out of the rate."""
    if count:
        bar.write(f'derain: going on, {count} frames are done already', file=sys.stderr)
        bar.initial = bar.n = count
        bar.refresh()


def _finish(bar: 'tqdm') -> None:
    """Show the whole of it, where a damaged bag had fewer frames than it listed."""
    bar.total = bar.n
    bar.refresh()


def _write_json(
    args: argparse.Namespace, plan: 'BagPlan', summary: 'BagSummary', engine: 'Engine',
    workers: int, seconds: float
) -> None:
    from derain_ros.files.bag_run_file import bag_figures
    from derain_ros.files.run_files import bag_bytes, write_run

    total = bag_bytes(plan.source) + bag_bytes(plan.destination)
    with SlowBar(total, 'B', 'sha256 of both bags') as bar:
        figures = bag_figures(
            plan, summary, engine, mask=not args.no_mask, strength=args.strength,
            workers=workers, seconds=seconds, progress=bar.update)
    write_run(args.json, figures)


def _report(plan: 'BagPlan', summary: 'BagSummary') -> None:
    for msgtype in summary.undefined_types:
        print(f'derain: note: the bag holds no definition of {msgtype}; '
              'its messages are kept all the same', file=sys.stderr)
    for damage in summary.damages:
        print(f'derain: error: {plan.source}: damaged: {damage}; everything before it was '
              'derained', file=sys.stderr)
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




def _seconds(text: str) -> float:
    return number(text, 0, 1e9, 'a number of seconds')


def _duration(text: str) -> float:
    value = _seconds(text)
    if value < 1e-9:
        raise argparse.ArgumentTypeError(f'{text!r} is no time at all')
    return value
