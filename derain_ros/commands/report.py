"""``derain report``: make one HTML page of what was measured.

Make one HTML file from what other commands have measured: summary, latency, rain over time,
pictures before and after, quality against the truth, and what a detector makes of it. Several
runs stand side by side. The page holds all it needs and opens without a network.

RUN.json is what --json of `derain bag`, `evaluate`, `replay-bench` or `detections` has
written; any number and mix of them.

examples:
  derain bag drive -o drive_nano --json nano.json
  derain report nano.json -o report.html
  derain report nano.json base.json pairs.json -o report.html --title "Rain, 3 May"

Pictures are read from the bags that `derain bag` has written, which are looked for where the
run file says: below the working directory, the folder of the run file, or --bag-root. They are
shown only if the sha256 is still that of the run. PSNR comes from `derain evaluate` on the same
topic and stamps; without it, worst and best frames are those of the most and the least rain.

exit status: 0 done, 1 the page cannot be written, 2 wrong arguments or a bad run file
"""

import argparse
from pathlib import Path

from derain_ros.commands import UsageError, print_notes, printable, refusing, slow_bar
from derain_ros.commands.arguments import count_or_none
from derain_ros.files import FileError
from derain_ros.files.run_files import check_output
from derain_ros.replacing import replace_file
from derain_ros.report.page import make_page
from derain_ros.report.runs import load_entries


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN.json',
                        help='file written by --json of another command')
    parser.add_argument('-o', '--output', required=True, type=Path, metavar='FILE',
                        help='HTML page to write')
    parser.add_argument('--title', default='Deraining report', metavar='TEXT',
                        help='title of the page (default: Deraining report)')
    parser.add_argument('--label', action='append', default=[], metavar='TEXT',
                        help='label of a run instead of its file name; repeat it for each run, in '
                             'order')
    parser.add_argument('--bag-root', type=Path, metavar='DIR',
                        help='folder in which to look for the bags')
    parser.add_argument('--pictures', type=count_or_none, default=3, metavar='N',
                        help='frames shown of each camera, from the worst to the best '
                             '(default: 3; 0 shows none)')


def run(args: argparse.Namespace) -> int:
    if len(args.label) > len(args.runs):
        raise UsageError(f'{len(args.label)} times --label, but {len(args.runs)} run files; '
                         'give at most one for each')
    with refusing():
        check_output(args.output)
        if args.output.exists() and any(map(args.output.samefile, args.runs)):
            raise FileError(f'{args.output}: is one of the run files; name another output')
        entries = load_entries(args.runs, args.label)
    with slow_bar(None, 'B', 'checking the bags') as bar:
        page, notes = make_page(
            entries, title=printable(args.title), bag_root=args.bag_root,
            pictures=args.pictures, progress=bar.update)
    print_notes(*notes)
    replace_file(args.output, page)
    print(f'{printable(args.output)} written, {len(page.encode()) / 1e6:.1f} MB')
    return 0
