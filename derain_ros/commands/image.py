"""``derain image``: derain image files and folders.

Derain image files, and the images in folders (searched recursively), of any sizes.

Each result is DIR/<name>.png, or DIR/<path inside the folder>.png. Inputs are never
overwritten; results of an earlier run are. Images are read as viewers show them: 8-bit
colour, upright by their EXIF orientation; of 16-bit samples the upper eight of the bits in
use count, an alpha channel is dropped.

examples:
  derain image rainy.jpg -o out                     out/rainy.png
  derain image photos -o out --mask --overlay       out/..., with ..._mask.png, ..._overlay.png
  derain image a.png b.png -o out --strength 0.7    keep 30 % of the rain

exit status: 0 all done, 1 some images failed (each is named), 2 wrong arguments
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from derain_ros.commands import (
    add_engine_options,
    add_strength_option,
    open_engine,
    print_error,
    printable,
    progress_bar,
    refusing,
)
from derain_ros.commands.arguments import whole
from derain_ros.files.image_files import check_outputs, collect_images, derain_images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('paths', nargs='+', type=Path, metavar='PATH', help='image file or folder')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='DIR',
                        help='folder for the results')
    parser.add_argument('--mask', action='store_true',
                        help='also write the rain mask, ..._mask.png (255 = rain)')
    parser.add_argument('--overlay', action='store_true',
                        help='also write the input with the rain tinted, ..._overlay.png')
    parser.add_argument('--bits', type=whole(8, 16), metavar='N',
                        help='bits that 16-bit samples use, such as 12 (default: by the largest '
                             'sample so far)')
    add_strength_option(parser)
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    with refusing():
        jobs = collect_images(args.paths, args.output)
        check_outputs(jobs, args.output, mask=args.mask, overlay=args.overlay)
    with open_engine(args, clips='there is `derain video`') as engine:
        results = derain_images(
            jobs, engine, args.output, strength=args.strength, mask=args.mask,
            overlay=args.overlay, bits=args.bits)
        failed = report_images(results, len(jobs))
    print(f'{len(jobs) - failed} of {len(jobs)} images derained to {printable(args.output)}')
    return 1 if failed else 0


def report_images(results: Iterable[str | None], count: int) -> int:
    """Show the progress and print errors; return the number of images that failed."""
    failed = 0
    with progress_bar(count, 'image') as bar:
        for error in results:
            if error:
                failed += 1
                print_error(printable(error))
            bar.update()
    return failed
