"""The subcommands of ``derain``, and what they share.

The docstring of each command's module is its help: the line in the list of commands, the
description, and, from ``examples:`` on, the text after the options. The module defines
``add_arguments(parser)``, which declares the options, and ``run(args)``, which does the work and
returns the exit status. It is imported only when its command is given, and imports ROS and torch
only when the command runs, so that its help needs neither.
"""

import argparse
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derain_ros.commands.arguments import strength
from derain_ros.text import UserError, printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from derain_ros.engines import Engine

QUIET_SECONDS = 2.0
"""Work that takes less than this shows no progress bar."""

_SHOWN = 10
_CLIP = Path('test') / 'data' / 'driving_rain'


class UsageError(UserError):
    """Arguments of a command are invalid, individually or in combination."""

    exit_code = 2


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
    """Add ``--model`` and ``--engine`` for a node that the command starts."""
    parser.add_argument('--model', default='nano', metavar='NAME',
                        help='model of the node (default: nano)')
    parser.add_argument('--engine', default='auto', metavar='NAME',
                        help='back end of the node (default: auto)')


def add_strength_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--strength``."""
    parser.add_argument(
        '--strength', type=strength, default=1.0, metavar='S',
        help='share of the derained image in the result, 0 to 1.5; above 1 more faint rain is '
             'removed, at the cost of fine detail (default: 1)')


def told(error: Exception) -> str:
    """Return an error's message for the user; that of a RuntimeError may have several lines."""
    if isinstance(error, OSError) and error.filename is not None:
        return printable(f'{error.filename}: {error.strerror}')
    lines = str(error).split('\n') if isinstance(error, RuntimeError) else [error]
    return '\n'.join(map(printable, lines))


@contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Treat errors in the block as wrong arguments: by default UserError and OSError."""
    errors = errors or (UserError, OSError)
    try:
        yield
    except errors as error:
        error.exit_code = UsageError.exit_code
        raise


def print_notes(*notes: str) -> None:
    """Print notes for the user to stderr."""
    for note in notes:
        _say(f'derain: note: {note}')


def print_error(text: object) -> None:
    """Print an error message to stderr."""
    _say(f'derain: error: {text}')


def _say(line: str) -> None:
    """Print a line to stderr, above the progress bar if there is one."""
    module = sys.modules.get('tqdm')
    (module.tqdm.write if module else print)(line, file=sys.stderr)


def report_failed(reasons: Sequence[str], what: str, more: str = '') -> int:
    """Print why frames or other items (``what``) failed, ten at most; return the exit status.

    ``more`` is appended to the line that counts those not shown.
    """
    for reason in reasons[:_SHOWN]:
        print_error(printable(reason))
    if len(reasons) > _SHOWN:
        print_error(f'{len(reasons) - _SHOWN} more {what} failed{more}')
    return 1 if reasons else 0


def find_clip() -> Path:
    """Return the clip of a source checkout: that in the working directory, or around this file."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (root / _CLIP).is_dir():
            return root / _CLIP
    raise UserError(
        f'{_CLIP} is not here; run this in a source checkout of derain_ros, or name a clip '
        'with --bag')


def progress_bar(total: float | None, unit: str, **options: Any) -> 'tqdm':
    """Return a progress bar on stderr; if that is no terminal it updates every ten seconds."""
    from tqdm import tqdm

    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, unit=unit, mininterval=interval, maxinterval=interval, **options)


def slow_bar(total: float | None, unit: str, what: str) -> 'tqdm':
    """Return a progress bar that appears after two seconds, and disappears at the end."""
    from tqdm import tqdm

    # tqdm 4.57 of Ubuntu 22.04 has no delay option.
    quiet = {'delay': QUIET_SECONDS} if 'delay' in inspect.signature(
        tqdm.__init__).parameters else {}
    return progress_bar(total, unit, desc=f'derain: {what}', unit_scale=True, leave=False, **quiet)


@contextmanager
def open_engine(
    args: argparse.Namespace, model: str | None = None, *, clips: str = ''
) -> Iterator['Engine']:
    """Create the engine that the options request, or one of ``model``; close it at the end.

    A command that gives a model each picture by itself says in ``clips`` what is for the frames of
    a clip: a model that also uses the frame before does not show here what it can do.
    """
    from derain_ros.engines import check_engine, create_engine
    from derain_ros.engines.models import find_model, model_names

    model = args.model if model is None else model
    with refusing():
        check_engine(args.engine, args.precision)
        if model.endswith('.onnx') or model not in model_names():
            find_model(model)
    with closing(create_engine(args.engine, model, precision=args.precision)) as engine:
        info = engine.info
        print(f'derain: {info.model} on {info.engine}, {info.device}, {info.precision}',
              file=sys.stderr)
        if clips and info.remembers:
            print_notes(f'{info.model} also uses the frame before, but gets each picture by '
                        f'itself here; for the frames of a clip {clips}')
        yield engine
