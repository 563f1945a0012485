"""``derain export``: make model files of a training run."""

import argparse
from pathlib import Path

from derain_ros.commands import CommandError

_DESCRIPTION = """\
Make model files of a training run: NAME.safetensors (weights), NAME.onnx (what engines
run) and NAME.json (its facts and checksums). Needs the extra `train` (torch).
"""

_EPILOG = """\
examples:
  derain export runs/nano -o models --validation pairs
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        'export', help='make model files of a training run', description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run_folder', type=Path, metavar='RUN', help='folder of the run')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='DIR',
                        help='folder for the model files')
    parser.add_argument('--validation', type=Path, metavar='DIR',
                        help='score on these pairs, as in `derain train`, and keep the figures')
    parser.add_argument('--model', default='nano', metavar='NAME',
                        help='network variant of the run (default: nano)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export the run that ``args`` name."""
    from derain_ros.network.dual_stage import VARIANTS
    from derain_ros.training.export import DESCRIPTIONS, write_model
    from derain_ros.training.loop import Trainer, TrainingConfig
    from derain_ros.training.validation import score

    if args.model not in VARIANTS:
        raise CommandError(f'unknown variant {args.model!r}; known: {", ".join(VARIANTS)}')
    if not (args.run_folder / 'checkpoint.pt').is_file():
        raise CommandError(f'{args.run_folder}: no checkpoint.pt; give the folder of a run')
    config = TrainingConfig(data=Path(), out=args.run_folder, model=args.model)
    try:
        network = Trainer(config).averaged()
        figures = score(network, args.validation) if args.validation else {}
    except (FileNotFoundError, RuntimeError) as error:
        raise CommandError(f'{args.run_folder}: {error}') from error
    for name, value in figures.items():
        print(f'{name} {value}')
    write_model(
        network, args.output, args.model, description=DESCRIPTIONS[args.model], figures=figures)
    print(f'{args.output / args.model}.onnx, .safetensors and .json written')
    return 0
