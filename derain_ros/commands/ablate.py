"""``derain ablate``: what each part of the network is worth.

Train a small network and, at equal cost, steps and data, the same without mask attention,
without morphology, without clustering and without stage 2; score all on pairs, once for
each seed, and print the means. The same command given again continues where it stopped.
Needs the extra `train` (torch).

examples:
  derain ablate photos -o runs/ablation --validation pairs
  derain ablate photos -o runs/quick --validation pairs --steps 300 --seeds 1
"""

import argparse
from pathlib import Path

from derain_ros.commands import UsageError, refusing
from derain_ros.commands.arguments import count, count_or_none


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('data', type=Path, metavar='DATA', help='folder or pack of dry pictures')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='RUN',
                        help='folder for the runs and the table')
    parser.add_argument('--validation', type=Path, required=True, metavar='DIR',
                        help='folder with clean/ and folders of rainy pictures of the same names')
    parser.add_argument('--steps', type=count, default=1500, metavar='N',
                        help='steps of each run (default: 1500)')
    parser.add_argument('--batch', type=count, default=4, metavar='N',
                        help='crops per step (default: 4)')
    parser.add_argument('--size', type=int, default=128, metavar='PIXELS',
                        help='side of a crop (default: 128)')
    parser.add_argument('--seeds', type=count_or_none, nargs='+', default=[1, 2, 3], metavar='N',
                        help='seeds (default: 1 2 3)')


def run(args: argparse.Namespace) -> int:
    from derain_ros.network.dual_stage import DualStageConfig
    from derain_ros.replacing import replace_file
    from derain_ros.training.ablation import run_ablation, table
    from derain_ros.training.config import ConfigError, make_config
    from derain_ros.training.picture_pack import PackError

    if not (args.validation / 'clean').is_dir():
        raise UsageError(f'{args.validation}: no folder clean/ with dry pictures')
    with refusing(ConfigError, FileNotFoundError, PackError):
        config = make_config({
            'data': args.data, 'out': args.output, 'validation': args.validation,
            'steps': args.steps, 'batch': args.batch, 'size': args.size, 'learning_rate': 2e-3,
            'ema': 0.995, 'warm_up': min(100, args.steps // 4)})
        rows = run_ablation(
            config, DualStageConfig(half_blocks=(0, 1)), args.seeds,
            log=lambda line: print(line, flush=True))
    text = table(rows)
    replace_file(args.output / 'ablation.md', text + '\n')
    print(text)
    return 0
