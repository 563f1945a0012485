"""``derain train``: train a network on a folder of dry pictures."""

import argparse
from pathlib import Path

from derain_ros.commands import CommandError

_DESCRIPTION = """\
Train a network: rain is rendered over crops of dry pictures as they are needed. A run
that was interrupted goes on from its last checkpoint when the same command is given
again. Needs the extra `train` (torch).
"""

_EPILOG = """\
examples:
  derain train photos -o runs/nano                          20,000 steps
  derain train photos -o runs/nano --validation pairs       with scores on the way
  derain train photos -o runs/try --steps 500 --size 64     a quick look

`derain export` makes model files of a run.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        'train', help='train a network on dry pictures', description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, metavar='DATA', help='folder of dry pictures')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='RUN',
                        help='folder of the run, for its checkpoint')
    parser.add_argument('--validation', type=Path, metavar='DIR',
                        help='folder with clean/ and folders of rainy pictures of the same names')
    parser.add_argument('--model', default='nano', metavar='NAME',
                        help='network variant (default: nano)')
    parser.add_argument('--steps', type=_positive, default=20000, metavar='N',
                        help='steps of the whole run (default: 20000)')
    parser.add_argument('--batch', type=_positive, default=8, metavar='N',
                        help='crops in a step (default: 8)')
    parser.add_argument('--size', type=_positive, default=128, metavar='PIXELS',
                        help='side of a crop (default: 128)')
    parser.add_argument('--learning-rate', type=float, default=1.5e-3, metavar='R',
                        help='peak learning rate (default: 0.0015)')
    parser.add_argument('--seed', type=int, default=1, metavar='N',
                        help='seed of weights and data (default: 1)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train as ``args`` say, from the last checkpoint on."""
    from derain_ros.network.dual_stage import VARIANTS
    from derain_ros.training.loop import Trainer, TrainingConfig

    if args.model not in VARIANTS:
        raise CommandError(f'unknown variant {args.model!r}; known: {", ".join(VARIANTS)}')
    config = TrainingConfig(
        data=args.data, out=args.output, validation=args.validation, model=args.model,
        steps=args.steps, batch=args.batch, size=args.size,
        learning_rate=args.learning_rate, seed=args.seed)
    try:
        Trainer(config, log=lambda line: print(line, flush=True)).run()
    except FileNotFoundError as error:
        raise CommandError(str(error)) from error
    return 0


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive whole number')
    return int(text)
