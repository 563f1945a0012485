"""``derain bag``: derain the image topics of a recorded rosbag2.

Copy a rosbag2 (mcap or sqlite3) and add derained images and rain masks.

Every recorded message is kept as it is. For an image topic /cam/image_raw the new bag
gains /cam/derained/image and /cam/derained/rain_mask (mono8, 255 = rain), at the same
times and with the same headers. The bag is read directly, without a clock: two runs give
the same files, byte for byte. No ROS installation is needed.

examples:
  derain bag drive -o drive_derained
  derain bag drive -o drive_derained --topics /front/image_raw /rear/image_raw/compressed
  derain bag drive -o drive_derained --no-mask --storage mcap
  derain bag drive -o minute_derained --start 120 --duration 60
  derain bag drive -o drive_derained --workers 4 --json drive.json
  derain bag drives -o derained --scheduler tcp://fleet:8786

OUT must not exist. It appears when it is complete: until then the work lies in OUT.partial.
After an interruption of any kind the same command continues where the work stopped, and the
result is the same.

Topics of depth and thermal cameras, and of rain masks, are named and left alone. A frame that
cannot be derained (a wrong length, a damaged JPEG) is named and left out. Ground truth that
`derain rain` has put beside a rainy topic (.../dry) is kept, and not derained unless it is named.

Of a damaged bag, such as an mcap file that ends where the power failed, everything that can be
read is derained, and the damage is named; `ros2 bag reindex` is not needed.

Of a folder with bags in it every bag becomes one of the same name below OUT. A bag that is there
already is passed over; one that fails is named, and the others are done all the same.

With --start, messages from before are left out, but for topics that late subscribers get
too (transient_local, and /tf_static): their last message is given at the beginning of the
stretch, and of transforms every one, as several nodes publish them.

With OpenVINO the result does not depend on --workers. torch on the CPU may round otherwise
with another number of threads: there, compare runs of the same --workers only.

exit status: 0 all done, 1 the bag or some frames failed, 2 wrong arguments, 130 interrupted
"""

import argparse
import time
from functools import partial
from pathlib import Path

from derain_ros.bags.derain import BagPlan, derain_bag
from derain_ros.bags.plan import plan_bag
from derain_ros.bags.pool import Pool
from derain_ros.commands import (
    UsageError,
    add_engine_options,
    add_strength_option,
    open_engine,
    print_notes,
    refusing,
    slow_bar,
)
from derain_ros.commands.arguments import between, count, seconds, whole
from derain_ros.commands.bag_pool import Bags, add_pool_options, write_bag
from derain_ros.engines import Engine
from derain_ros.files.bag_run_file import bag_figures
from derain_ros.files.image_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from derain_ros.files.run_files import bag_bytes, check_output, write_run
from derain_ros.node.process_memory import keep_large_buffers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', type=Path, metavar='IN',
                        help='rosbag2 folder (or a bare .mcap or .db3 file), or a folder with '
                             'bags in it at any depth')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='OUT',
                        help='folder of the new bag, or of the new bags')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC',
                        help='image topics to derain (default: all of them)')
    parser.add_argument('--no-mask', action='store_true', help='add no rain masks')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'),
                        help='storage of the new bag (default: that of IN)')
    parser.add_argument('--compress', action='store_true',
                        help='compress with zstd: the chunks of mcap, the messages of sqlite3 '
                             '(default: as IN, but chunks of mcap are not compressed)')
    parser.add_argument('--start', type=seconds, metavar='S',
                        help='start so many seconds after the beginning of IN (default: 0)')
    parser.add_argument('--duration', type=between(1e-9, 1e9, 'a duration above 0'), metavar='S',
                        help='seconds to take from there (default: to the end)')
    parser.add_argument('--every', type=count, default=1, metavar='N',
                        help='derain every N-th frame of each camera; all messages are kept '
                             '(default: 1)')
    parser.add_argument('--bits', type=whole(8, 16), metavar='N',
                        help='bits that 16-bit samples use, such as 12 (default: by the largest '
                             'sample of some frames)')
    add_pool_options(parser)
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='write the figures of all frames to this file, for `derain report`')
    add_strength_option(parser)
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    keep_large_buffers()
    for suffixes, command in ((VIDEO_SUFFIXES, 'video'), (IMAGE_SUFFIXES, 'image')):
        if args.source.suffix.lower() in suffixes and args.source.is_file():
            raise UsageError(f'{args.source}: is not a bag; for {command}s there is '
                             f'`derain {command}`')
    with refusing():
        bags = Bags(args, partial(
            plan_bag, topics=args.topics, storage=args.storage, compress=args.compress,
            start=args.start, duration=args.duration, every=args.every))
        if args.json and not bags.plan:
            raise UsageError('--json is for one bag; IN is a folder of bags')
        if args.json:
            if args.json.resolve().is_relative_to(args.output.resolve()):
                raise UsageError(f'--json {args.json}: is in OUT, which is only created when '
                                 'complete; name a file outside it')
            check_output(args.json)
    with open_engine(args) as engine:
        return bags.work(
            lambda plan, pool: _derain(args, plan, engine, pool), engine.info, 'derained')


def _derain(args: argparse.Namespace, plan: BagPlan, engine: Engine, pool: Pool | None) -> int:
    """Derain one bag and report the result; return the exit status."""
    begun = time.monotonic()
    summary = write_bag(plan, partial(
        derain_bag, plan, engine, mask=not args.no_mask, strength=args.strength, bits=args.bits,
        pool=pool), '{camera.source} -> {camera.image}: {frames} frames', 'failed', 'failed')
    seconds = time.monotonic() - begun
    for camera in plan.cameras:
        if summary.failed[camera.source] and not summary.made[camera.source]:
            print_notes(f'no frame of {camera.source} could be derained; '
                        'name the colour cameras with --topics')
    if args.json:
        total = bag_bytes(plan.source) + bag_bytes(plan.destination)
        with slow_bar(total, 'B', 'sha256 of both bags') as bar:
            figures = bag_figures(
                plan, summary, engine, mask=not args.no_mask, strength=args.strength,
                workers=pool.workers if pool else 1, seconds=seconds, progress=bar.update)
        write_run(args.json, figures)
    return 1 if summary.failed.total() or summary.damages else 0
