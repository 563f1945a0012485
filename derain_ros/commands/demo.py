"""``derain demo``: run the ROS 2 node on a short rainy clip.

Start derain_node as its own process, play a short rainy drive into it over DDS from
another, and record what it publishes.

DIR then holds bag/ (images, masks and camera_infos as the node published them, mcap),
frame_*.png (rainy, derained and mask side by side) and the logs. The table compares with
the clip before rain was added. Runs in a ROS domain of its own, on this host alone.

examples:
  derain demo -o out/demo
  derain demo -o out/demo --engine openvino

exit status: 0 success, 1 a process failed or frames are unaccounted for
"""

import argparse
import sys
from pathlib import Path

from derain_ros.commands import add_node_options, find_clip, print_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='DIR',
                        help='folder for the results; those of an earlier demo are replaced')
    parser.add_argument('--bag', type=Path, metavar='BAG',
                        help='clip to play (default: test/data/driving_rain of the source)')
    add_node_options(parser)


def run(args: argparse.Namespace) -> int:
    from derain_ros.live.demo_drive import run_demo

    bag = args.bag or find_clip()
    print(f'derain: playing {bag} into derain_node', file=sys.stderr)
    report = run_demo(bag, args.output, {'model': args.model, 'engine': args.engine})
    print(report.table())
    print(f'Recorded bag, side-by-side pictures and logs: {args.output}')
    problems = report.problems()
    for problem in problems:
        print_error(problem)
    return 1 if problems else 0
