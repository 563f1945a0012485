"""The ``derain`` command."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence

from derain_ros.commands import (
    CommandError,
    ablate,
    add_command,
    bag,
    bench,
    build_engine,
    demo,
    detections,
    evaluate,
    export,
    gate,
    image,
    info,
    pack,
    policy,
    print_notes,
    rain,
    replay_bench,
    report,
    soak,
    top,
    train,
    video,
)
from derain_ros.text import how_to_install

_COMMANDS = (
    image, bag, info, demo, top, bench, soak, replay_bench, rain, evaluate, detections, report,
    video, gate, pack, train, export, ablate, build_engine, policy)

_DESCRIPTION = """\
Take the rain out of camera images: files, recorded bags, or live ROS 2 topics.
"""

_EPILOG = """\
examples:
  derain info                                  what this machine can run
  derain image photos -o out --overlay         a folder of images
  derain bag drive -o drive_derained           a recorded rosbag2
  derain demo -o out/demo                      the ROS 2 node on a short rainy clip
  derain top                                   what the running nodes do
  derain bench                                 how fast it is here
  derain rain photos -o rainy                  rainy test data of your own
  derain detections --rainy a --clean b --detector d.yaml
                                               does it help your detector?
  derain video rainy.mp4 -o split.mp4          rain on the left, none on the right
  derain gate drive.mp4                        does the rain gate fit your roads?
  derain train photos -o runs/nano             a network of your own

`derain COMMAND --help` explains a command. The ROS 2 node itself is `derain_node`.
"""


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of ``derain`` and all its sub-commands."""
    parser = argparse.ArgumentParser(
        prog='derain', description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for command in _COMMANDS:
        add_command(subparsers, command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``derain``.

    Parameters
    ----------
    argv
        Arguments without the program name; None takes those of the process.

    Returns
    -------
    int
        Exit status: 0 success, 1 failure, 2 wrong arguments, 130 interrupted.

    """
    # OpenCV reports a damaged file on stderr by itself, beside our own message.
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
    # What is logged, such as files that are left out, is a note to the user.
    notes = logging.Handler()
    notes.emit = lambda record: print_notes(record.getMessage())
    logging.getLogger('derain_ros').handlers = [notes]
    try:
        try:
            args = make_parser().parse_args(argv)
            return args.run(args)
        finally:
            sys.stdout.flush()
    except CommandError as error:
        print(f'derain: error: {error}', file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition('.')[0] == 'derain_ros':
            raise
        print(f'derain: error: the Python package {error.name} is missing; '
              f'{how_to_install(_package_of(error.name))}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('derain: interrupted', file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Who read our output has gone; without this Python complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def derain_top(argv: Sequence[str] | None = None) -> int:
    """Run ``derain_top``, which is ``derain top``."""
    return main(['top', *(sys.argv[1:] if argv is None else argv)])


def _package_of(module: str) -> str:
    """Name under which pip knows a module."""
    name = module.partition('.')[0]
    return {'backports': 'backports.zstd', 'cv2': 'opencv-python-headless',
            'ruamel': 'ruamel.yaml', 'yaml': 'pyyaml'}.get(name, name)


if __name__ == '__main__':
    sys.exit(main())
