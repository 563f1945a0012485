"""``derain top``: live view of the running nodes.

Show what the derain nodes of this ROS domain report on /diagnostics: state, frames a second,
what became of the frames, latencies, rain, and what is the matter. q or Ctrl-C quits.

examples:
  derain top
  derain top --node /car/derain
  derain top --once          one picture, for scripts
  ros2 run derain_ros derain_top

columns: rates are frames a second since the report before; age is now minus stamp when a frame
was published, the stages are medians, all in ms over the last 300 frames; the bar is the root
of the rain intensity.

exit status: 0 success, 1 with --once: no node was heard
"""

import argparse

from derain_ros.commands import UsageError
from derain_ros.commands.arguments import seconds_above_0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--once', action='store_true', help='print one snapshot and exit')
    parser.add_argument('--node', default='', metavar='NAME',
                        help='show only this node, by its full name or the last part of it')
    parser.add_argument('--wait', type=seconds_above_0, default=5.0, metavar='S',
                        help='with --once: how long to listen at most (default: 5 seconds)')


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from derain_ros.live.monitor import show_live, show_once

    console = Console()
    if args.once:
        return show_once(console, args.node, args.wait)
    if not console.is_terminal:
        raise UsageError('the output is not a terminal; use --once')
    return show_live(console, args.node)
