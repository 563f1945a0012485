"""``derain soak``: load the node for long and see whether anything grows.

Offer rain to the node as fast as it can take it or faster, for as long as told, and write down
every few seconds what its process holds (memory, threads, file descriptors) and how old its
images are. Node, publisher and listener are processes of their own, over DDS.

OUT then holds soak.csv (every sample), soak.json, soak.svg (the curves) and the logs. What grows
after the first minute is held against targets: less than 5 MiB of memory, no thread and no
descriptor.

examples:
  derain soak --minutes 30
  derain soak --minutes 120 --size 1280x720 --rate 30 -o out/soak_hd

exit status: 0 every target met, 1 a target missed or a process failed
"""

import argparse
import sys
import tempfile
from pathlib import Path

from derain_ros.commands import add_node_options, find_clip
from derain_ros.commands.arguments import positive_number, size_in_pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--minutes', type=positive_number, default=30.0, metavar='M',
                        help='how long (default: 30)')
    parser.add_argument('-o', '--output', type=Path, default=Path('out/soak'), metavar='OUT',
                        help='folder for the results (default: out/soak)')
    parser.add_argument('--size', type=size_in_pixels, default=(640, 480), metavar='WxH',
                        help='frame size (default: 640x480)')
    parser.add_argument('--rate', type=positive_number, default=60.0, metavar='HZ',
                        help='frames a second to offer (default: 60)')
    parser.add_argument('--every', type=positive_number, default=5.0, metavar='S',
                        help='seconds between samples (default: 5)')
    add_node_options(parser)


def run(args: argparse.Namespace) -> int:
    from derain_ros.bench.setting import Setting
    from derain_ros.bench.soak_run import run_soak
    from derain_ros.commands.bench import CLEAN_TOPIC

    bag = find_clip()
    print(f'derain: loading derain_node for {args.minutes:g} minutes', file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix='derain_soak_') as folder:
        setting = Setting(bag=bag, folder=Path(folder), topic=CLEAN_TOPIC,
                          parameters={'model': args.model, 'engine': args.engine})
        result = run_soak(setting, args.output, size=args.size, rate=args.rate,
                          seconds=60 * args.minutes, every=args.every)
    print(result.table())
    print(f'Samples, figures and curves: {args.output}')
    return 0 if all(figure.verdict == 'met' for figure in result.figures if figure.bar) else 1
