"""``derain export``: make model files of a training run.

Make model files of a training run: NAME.safetensors (weights), NAME.onnx and NAME_fp16.onnx
(what engines run, in float32 and float16) and NAME.json (its facts and checksums). Takes
some minutes. Needs the extra `train` (torch).

examples:
  derain export runs/nano -o models --validation pairs
  derain export runs/mine -o models --name mine
"""

import argparse
import re
from pathlib import Path

from derain_ros.commands import UsageError, refusing
from derain_ros.files import check_folder
from derain_ros.text import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('run_folder', type=Path, metavar='RUN', help='folder of the run')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='DIR',
                        help='folder for the model files')
    parser.add_argument('--validation', type=Path, metavar='DIR',
                        help='compute scores on these pairs, as in `derain train`, and store them')
    parser.add_argument('--model', metavar='NAME',
                        help='network variant of the run (default: the one it was started with)')
    parser.add_argument('--name', metavar='NAME',
                        help='name of the model (default: that of the variant)')


def run(args: argparse.Namespace) -> int:
    with refusing():
        check_folder(args.output)

    from derain_ros.network.dual_stage import VARIANTS
    from derain_ros.training.checkpoint import load_checkpoint
    from derain_ros.training.config import ConfigError, TrainingConfig
    from derain_ros.training.loop import Trainer
    from derain_ros.training.model_export import write_model
    from derain_ros.training.validation import score

    checkpoint = args.run_folder / 'checkpoint.pt'
    if not checkpoint.is_file():
        raise UserError(f'{args.run_folder}: no checkpoint.pt; give the folder of a run')
    try:
        trained = load_checkpoint(checkpoint).get('config', {})
        variant = args.model or trained.get('model', 'nano')
        if variant not in VARIANTS:
            raise UserError(f'unknown variant {variant!r}; known: {", ".join(VARIANTS)}')
        name = args.name or variant
        if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._-]*', name):
            raise UsageError(
                f'--name: {name!r} is not a valid name; use letters, digits, ".", "_" and "-"')
        config = TrainingConfig(data=Path(), out=args.run_folder, model=variant, device='cpu',
                                learn=trained.get('learn', ''))
        network = Trainer(config, log=lambda _line: None).averaged()
        figures = score(network, args.validation) if args.validation else {}
    except (ConfigError, FileNotFoundError, RuntimeError) as error:
        raise UserError(f'{args.run_folder}: {error}') from error
    for figure, value in figures.items():
        print(f'{figure} {value}')
    write_model(network, args.output, name, variant=variant, figures=figures)
    print(f'{args.output / name}.onnx, _fp16.onnx, .safetensors and .json written')
    return 0
