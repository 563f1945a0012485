"""The sub-commands of ``derain``, and what they share.

The docstring of each module is its help: the line of the list of commands, the description,
and from ``examples:`` on what stands behind the options. It has ``add_arguments(parser)`` and
``run(args) -> int``, and imports what it needs only when it runs.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from derain_ros.commands.arguments import strength

if TYPE_CHECKING:
    from tqdm import tqdm

    from derain_ros.engines import Engine

FAILURE = 1
USAGE = 2

QUIET_SECONDS = 2.0
"""Work that is done in less shows no bar."""

_SHOWN = 10
_CLIP = Path('test') / 'data' / 'driving_rain'


class CommandError(Exception):
    """A sub-command gives up; the message is for the user.

    Parameters
    ----------
    message
        What is wrong and what to do.
    exit_code
        Exit status of ``derain``.

    """

    def __init__(self, message: str, exit_code: int = FAILURE):
        super().__init__(message)
        self.exit_code = exit_code


def printable(value: object) -> str:
    """Return a path, an error or the like as one line that is safe to print on a terminal."""
    from derain_ros.text import printable as one_line

    return one_line(str(value))


def add_command(subparsers: argparse._SubParsersAction, module: ModuleType) -> None:
    """Register the command that a module is."""
    first, _, rest = (module.__doc__ or '').partition('\n')
    description, examples, more = rest.strip().partition('examples:\n')
    parser = subparsers.add_parser(
        module.__name__.rpartition('.')[2].replace('_', '-'),
        help=first.partition(': ')[2].rstrip('.'), description=description.strip(),
        epilog=examples + more, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``, ``--engine`` and ``--precision``."""
    group = parser.add_argument_group('inference')
    group.add_argument(
        '--model', default='nano', metavar='NAME',
        help='model to run, a name that `derain info` lists or an .onnx file (default: nano)')
    group.add_argument(
        '--engine', default='auto', metavar='NAME',
        help='back end: auto, openvino, torch or tensorrt (default: auto, which is openvino '
             'where it works, else torch)')
    group.add_argument(
        '--precision', default='auto', metavar='TYPE',
        help='arithmetic: auto, f16, bf16 or f32 (default: auto)')


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` and ``--engine`` of a node that the command starts."""
    parser.add_argument('--model', default='nano', metavar='NAME',
                        help='model of the node (default: nano)')
    parser.add_argument('--engine', default='auto', metavar='NAME',
                        help='back end of the node (default: auto)')


def add_strength_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--strength``."""
    parser.add_argument(
        '--strength', type=strength, default=1.0, metavar='S',
        help='share of the derained image in the result, 0 to 1.5; above 1 faint rain is removed '
             'further, at the cost of fine detail (default: 1)')


@contextmanager
def giving_up(*errors: type[Exception], exit_code: int = FAILURE) -> Iterator[None]:
    """Turn errors, whose messages are for users, into a CommandError."""
    try:
        yield
    except errors as error:
        # What fails while it runs may bring lines of a log.
        lines = str(error).split('\n') if isinstance(error, RuntimeError) else [error]
        raise CommandError('\n'.join(map(printable, lines)), exit_code) from error


def refusing(*errors: type[Exception]) -> AbstractContextManager[None]:
    """Turn errors into a CommandError that says that the arguments are wrong."""
    return giving_up(*errors, exit_code=USAGE)


def print_notes(*notes: str) -> None:
    """Print what the user should know."""
    for note in notes:
        print(f'derain: note: {note}', file=sys.stderr)


def report_failed(reasons: Sequence[str], what: str, more: str = '') -> int:
    """Print why frames or the like (``what``) failed, ten at most; returns the exit status.

    ``more`` is said of those that are not shown.
    """
    for reason in reasons[:_SHOWN]:
        print(f'derain: error: {printable(reason)}', file=sys.stderr)
    if len(reasons) > _SHOWN:
        print(f'derain: error: {len(reasons) - _SHOWN} more {what} failed{more}', file=sys.stderr)
    return FAILURE if reasons else 0


def require_ros() -> None:
    """Raise CommandError where rclpy is missing."""
    if util.find_spec('rclpy') is None:
        raise CommandError(
            'rclpy is not installed; source a ROS 2 installation, or run `make setup` in the '
            'source checkout, which installs the ROS 2 wheels')


def find_clip() -> Path:
    """Return the clip of a source checkout, from the working directory or the package."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (root / _CLIP).is_dir():
            return root / _CLIP
    raise CommandError(
        f'{_CLIP} is not here; run this in a source checkout of derain_ros, or name a clip '
        'with --bag')


def progress_bar(total: int, unit: str) -> 'tqdm':
    """Return a progress bar on stderr; in a log it moves every ten seconds only."""
    from tqdm import tqdm

    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, unit=unit, mininterval=interval, maxinterval=interval)


class SlowBar:
    """A bar on stderr that is seen only once the work has taken two seconds, and while it does.

    tqdm has that itself since 4.58; Ubuntu 22.04 has 4.57.

    Attributes
    ----------
    n
        How much is done.

    """

    def __init__(self, total: float | None, unit: str, what: str):
        self.n = 0.0
        self._begun = time.monotonic()
        self._options = {'total': total, 'unit': unit, 'desc': f'derain: {what}'}
        self._bar: tqdm | None = None

    def update(self, count: float = 1) -> None:
        """Go on by so much."""
        self.n += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._begun >= QUIET_SECONDS:
            from tqdm import tqdm

            interval = 0.1 if sys.stderr.isatty() else 5.0
            self._bar = tqdm(initial=self.n, unit_scale=True, leave=False, mininterval=interval,
                             maxinterval=interval, **self._options)

    def close(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> 'SlowBar':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def open_engine(args: argparse.Namespace) -> Iterator['Engine']:
    """Create the engine that the options ask for, and close it at the end.

    Raises
    ------
    CommandError
        There is no such engine or model, or it failed.

    """
    from derain_ros.engines import EngineError, create_engine

    try:
        with closing(create_engine(args.engine, args.model, precision=args.precision)) as engine:
            info = engine.info
            print(f'derain: {info.model} on {info.engine}, {info.device}, {info.precision}',
                  file=sys.stderr)
            yield engine
    except EngineError as error:
        raise CommandError(str(error)) from error
