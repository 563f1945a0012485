"""``derain demo``: the node on a short rainy clip."""

import argparse
import sys
from importlib import util
from pathlib import Path

from derain_ros.commands import FAILURE, CommandError

_DESCRIPTION = """\
Start derain_node as its own process, play a short rainy drive into it over DDS from
another, and record what it publishes.

DIR then holds bag/ (images, masks and camera_infos as the node published them, mcap),
frame_*.png (rainy, derained and mask side by side) and the logs. The table compares with
the clip before rain was added. Runs in a ROS domain of its own, on this host alone.
"""

_EPILOG = """\
examples:
  derain demo -o out/demo
  derain demo -o out/demo --engine openvino

exit status: 0 success, 1 a process failed or frames are unaccounted for
"""

_CLIP = Path('test') / 'data' / 'driving_rain'


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        'demo', help='run the ROS 2 node on a short rainy clip', description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='DIR',
                        help='folder for the results; those of an earlier demo are replaced')
    parser.add_argument('--bag', type=Path, metavar='BAG',
                        help='clip to play (default: test/data/driving_rain of the source)')
    parser.add_argument('--model', default='nano', metavar='NAME',
                        help='model of the node (default: nano)')
    parser.add_argument('--engine', default='auto', metavar='NAME',
                        help='back end of the node (default: auto)')
    parser.set_defaults(run=run)


def find_clip() -> Path:
    """Return the clip of a source checkout, from the working directory or the package."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (root / _CLIP).is_dir():
            return root / _CLIP
    raise CommandError(
        f'{_CLIP} is not here; run this in a source checkout of derain_ros, or name a clip '
        'with --bag')


def require_ros() -> None:
    """Raise CommandError where rclpy is missing."""
    if util.find_spec('rclpy') is None:
        raise CommandError(
            'rclpy is not installed; source a ROS 2 installation, or run `make setup` in the '
            'source checkout, which installs the ROS 2 wheels')


def run(args: argparse.Namespace) -> int:
    """Run the demo and print its table."""
    require_ros()
    bag = args.bag or find_clip()

    from derain_ros.live.demo_drive import run_demo
    from derain_ros.live.processes import LiveRunError

    print(f'derain: playing {bag} into derain_node', file=sys.stderr)
    try:
        report = run_demo(bag, args.output, {'model': args.model, 'engine': args.engine})
    except (LiveRunError, ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    print(report.table())
    print(f'Recorded bag, side-by-side pictures and logs: {args.output}')
    problems = report.problems()
    for problem in problems:
        print(f'derain: error: {problem}', file=sys.stderr)
    return FAILURE if problems else 0
