"""The ``derain`` command."""

import argparse
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from derain_ros.commands import print_error, print_notes, told
from derain_ros.text import UserError, why_not_imported

_COMMANDS = (
    'image', 'bag', 'info', 'demo', 'top', 'bench', 'soak', 'replay-bench', 'rain', 'evaluate',
    'detections', 'report', 'video', 'gate', 'pack', 'train', 'export', 'ablate', 'build-engine',
    'policy')

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


def make_parser(command: str | None) -> argparse.ArgumentParser:
    """Build the parser of ``derain``; only ``command`` gets its description and options."""
    parser = argparse.ArgumentParser(
        prog='derain', description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for name in _COMMANDS:
        file = name.replace('-', '_')
        with (Path(__file__).with_name('commands') / f'{file}.py').open(encoding='utf-8') as text:
            about = next(text).partition(': ')[2].rstrip('.\n')
        chosen = subparsers.add_parser(
            name, help=about, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == command:
            module = importlib.import_module(f'derain_ros.commands.{file}')
            description, examples, more = module.__doc__.partition('examples:\n')
            chosen.description = description.partition('\n')[2].strip()
            chosen.epilog = examples + more.rstrip()
            module.add_arguments(chosen)
            chosen.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``derain`` with ``argv``, by default the arguments of the process.

    Returns the exit status: 0 success, 1 failure, 2 wrong arguments, 130 Ctrl-C, 141 broken pipe.
    """
    # OpenCV would print errors about damaged files to stderr in addition to our own message.
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
    # The name of a file may have letters that a terminal or pipe of another encoding lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')
    # Log messages, such as on files that are left out, are shown as notes to the user.
    notes = logging.Handler()
    notes.emit = lambda record: print_notes(record.getMessage())
    logging.getLogger('derain_ros').handlers = [notes]
    try:
        try:
            argv = sys.argv[1:] if argv is None else argv
            args = make_parser(next(iter(argv), None)).parse_args(argv)
            return args.run(args)
        finally:
            sys.stdout.flush()
    except ImportError as error:
        problem = why_not_imported(error)
        if not problem:
            raise
        print_error(problem)
        return 1
    except KeyboardInterrupt:
        print('derain: interrupted', file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output is gone; without this, Python prints an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (UserError, OSError) as error:
        print_error(told(error))
        return getattr(error, 'exit_code', 1)


def derain_top(argv: Sequence[str] | None = None) -> int:
    """Run ``derain_top``, a shortcut for ``derain top``."""
    return main(['top', *(sys.argv[1:] if argv is None else argv)])


if __name__ == '__main__':
    sys.exit(main())
