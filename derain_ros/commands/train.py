"""``derain train``: train a network on dry pictures.

Train a network: rain is rendered over crops of dry pictures as they are needed. A run
that was interrupted, by Ctrl-C too, continues from its last checkpoint when the same
command is given again. Needs the extra `train` (torch).

The fields of a configuration file and of --set are those of
derain_ros.training.config.TrainingConfig; options beat --set, which beats the file.

examples:
  derain train photos -o runs/nano                             20,000 steps
  derain train data.pack -o runs/nano --validation pairs       with scores on the way
  derain train photos -o runs/try --steps 500 --size 64        a quick look
  derain train photos -o runs/base --config config/train/base.yaml --minutes 9
  derain train photos -o runs/base --config config/train/base.yaml --minutes 9 --fit
  derain train photos -o runs/try --set dry_share=0.4 --set ema=0.99
  torchrun --nproc-per-node 4 -m derain_ros.cli train photos -o runs/base

In RUN: checkpoint.pt, scores.jsonl (validation), samples/ (pictures), tensorboard/.
`derain export` makes model files of a run, `derain pack` one file of many pictures.

exit status: 0 done or stopped by --minutes or SIGTERM, 1 failed, 2 wrong arguments,
130 stopped by Ctrl-C; a stopped run has saved its checkpoint
"""

import argparse
import os
import sys
from pathlib import Path

from derain_ros.commands import refusing
from derain_ros.commands.arguments import count, positive_number

_FIELDS = ('validation', 'init', 'model', 'steps', 'batch', 'size', 'accumulate',
           'learning_rate', 'seed', 'workers', 'device', 'amp', 'render')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('data', nargs='?', type=Path, metavar='DATA',
                        help='folder of dry pictures, or a pack of them')
    parser.add_argument('-o', '--output', dest='out', type=Path, metavar='RUN',
                        help='folder of the run, for its checkpoint')
    parser.add_argument('--config', type=Path, metavar='FILE',
                        help='configuration, YAML; see config/train/')
    parser.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE',
                        help='set a field of the configuration; may be repeated')
    parser.add_argument('--validation', type=Path, metavar='DIR',
                        help='folder with clean/ and folders of rainy pictures of the same names')
    parser.add_argument('--init', type=Path, metavar='FILE',
                        help='start from the weights of a .safetensors file or a checkpoint')
    parser.add_argument('--model', metavar='NAME', help='network variant (default: nano)')
    parser.add_argument('--steps', type=count, metavar='N',
                        help='steps of the whole run (default: 20000)')
    parser.add_argument('--batch', type=count, metavar='N',
                        help='crops that a process holds at once (default: 8)')
    parser.add_argument('--size', type=count, metavar='PIXELS',
                        help='side of a crop, a multiple of 64 (default: 128)')
    parser.add_argument('--accumulate', type=count, metavar='N',
                        help='batches per step (default: 1)')
    parser.add_argument('--learning-rate', type=float, metavar='R',
                        help='peak learning rate (default: 0.002)')
    parser.add_argument('--seed', type=int, metavar='N',
                        help='seed of weights and data (default: 1)')
    parser.add_argument('--workers', type=int, metavar='N',
                        help='processes that render rain on the CPU (default: 1)')
    parser.add_argument('--device', choices=('auto', 'cpu', 'cuda'),
                        help='where to train (default: auto)')
    parser.add_argument('--amp', choices=('auto', 'off', 'bf16', 'fp16'),
                        help='arithmetic; auto is bf16 where that is fast (default: auto)')
    parser.add_argument('--render', choices=('auto', 'cpu', 'device'),
                        help='where to render rain (default: auto, on a GPU if there is one)')
    parser.add_argument('--minutes', type=positive_number, metavar='M',
                        help='train at most M minutes, save and stop')
    parser.add_argument('--fit', action='store_true',
                        help='set the steps of a new run so that its schedule ends within '
                             '--minutes')
    parser.add_argument('--profile', action='store_true',
                        help='print the share of time in which the device was busy')


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from derain_ros.training.config import ConfigError, make_config, parse_assignment, read_config

    with refusing():
        values = read_config(args.config) if args.config else {}
        for text in args.set:
            values |= parse_assignment(text)
        options = {name: getattr(args, name) for name in ('data', 'out', *_FIELDS)}
        values |= {name: value for name, value in options.items() if value is not None}
        config = make_config(values)

    from derain_ros.training.loop import UNKNOWN_STEPS, Trainer
    from derain_ros.training.picture_pack import PackError

    def show(line: str) -> None:
        bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def advance(step: int) -> None:
        steps = trainer.config.steps
        bar.total = steps if steps < UNKNOWN_STEPS else None
        bar.update(step - bar.n)

    # On a terminal only: in a log, the lines of the trainer show the same.
    hidden = not sys.stderr.isatty() or os.environ.get('RANK', '0') != '0'
    with (
        tqdm(total=config.steps, unit='step', disable=hidden) as bar,
        refusing(ConfigError, FileNotFoundError, PackError),
    ):
        trainer = Trainer(config, log=show, progress=advance)
        bar.initial = bar.n = trainer.step
        trainer.run(minutes=args.minutes, fit=args.fit, profile=args.profile)
    return 0
