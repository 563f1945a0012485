"""``derain pack``: put dry pictures into one file for training.

Put the pictures of a folder into one file for `derain train`, with their scenes and the
file that credits them. If they exceed the limit, the largest are reduced in size and
encoded anew, until all fit.

examples:
  derain pack photos -o data.pack                       at most 40 MiB
  derain pack photos -o small.pack --limit 8
  derain pack photos -o data.pack --attribution CREDITS.txt
  derain train data.pack -o runs/nano
"""

import argparse
import sys
from pathlib import Path

from derain_ros.commands import UsageError, print_notes, refusing
from derain_ros.commands.arguments import between

_MEBIBYTE = 2**20
_LIMIT = between(1e-3, 2**20, 'a size in MiB')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('photos', type=Path, metavar='PHOTOS', help='folder of dry pictures')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FILE',
                        help='the pack; must not exist')
    parser.add_argument('--limit', type=_LIMIT, default=40.0, metavar='MIB',
                        help='largest size in MiB (default: 40)')
    parser.add_argument('--attribution', type=Path, metavar='FILE',
                        help='sources and licences (default: PHOTOS/ATTRIBUTION.*)')


def run(args: argparse.Namespace) -> int:
    from derain_ros.training.picture_pack import PackError, write_pack

    if args.output.exists():
        raise UsageError(f'{args.output} exists; remove it or choose another name')
    if not args.output.parent.is_dir():
        raise UsageError(f'{args.output.parent}: no such folder; make it first')
    with refusing(PackError):
        done = write_pack(
            args.photos, args.output, limit=int(args.limit * _MEBIBYTE),
            attribution=args.attribution,
            progress=lambda line: print(f'derain: {line}', file=sys.stderr, flush=True))
    print_notes(*(f'{args.photos / name}: not readable, left out' for name in done.unreadable))
    if done.attribution is None:
        print_notes(f'{args.photos} has no ATTRIBUTION file, so the pack has no credits; name one '
                    'with --attribution FILE')
    reduced = f', long sides reduced to {done.longest} px' if done.longest else ''
    print(f'{args.output}: {done.pictures} pictures of {done.scenes} scenes, '
          f'{done.size / _MEBIBYTE:.1f} MiB{reduced}')
    return 0
