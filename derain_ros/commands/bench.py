"""``derain bench``: measure the speed of engines and node.

Time the engines alone, then the node in scenarios as a vehicle meets them: another process
offers frames, a third listens to images and masks, over real DDS. Where a figure has a target,
that is printed beside it, and whether it was met. All figures are of this machine as it
is: close what else runs on it.

scenarios:

examples:
  derain bench
  derain bench --only vga overhead --json bench.json
  derain bench --only engine --sizes 640x480 1280x720 --seconds 10
  derain bench --engines openvino --skip-node
  derain bench --only engine --engines torch --models nano base --peer --plot speed.svg
  derain bench --only bag --seconds 60

exit status: 0 all was measured, 1 a scenario failed; a missed target is no failure
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from derain_ros.bench import MODULES, SCENARIOS, WITHOUT_ROS
from derain_ros.commands import UsageError, find_clip, print_error, told
from derain_ros.commands.arguments import positive_number, size_in_pixels
from derain_ros.commands.frame_options import check_outputs
from derain_ros.replacing import replace_file
from derain_ros.text import UserError

if TYPE_CHECKING:
    from derain_ros.bench.measures import Result

CLEAN_TOPIC = '/camera_clean/image_raw/compressed'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += ''.join(f'\n  {name:<10}{text}' for name, text in SCENARIOS.items())
    parser.add_argument('--only', nargs='+', choices=SCENARIOS,
                        default=[name for name in SCENARIOS if name != 'bag'],
                        metavar='SCENARIO', help='scenarios to run (default: all but bag)')
    parser.add_argument('--quick', action='store_true',
                        help='as short as possible: shows that everything works, not how fast')
    parser.add_argument('--seconds', type=positive_number, metavar='N',
                        help='seconds per measurement (default: that of each scenario)')
    parser.add_argument('--sizes', nargs='+', type=size_in_pixels, metavar='WxH',
                        default=[(640, 480), (1280, 720), (1920, 1080)],
                        help='frame sizes of engine and stages '
                             '(default: 640x480 1280x720 1920x1080)')
    parser.add_argument('--engines', nargs='+', default=['auto'], metavar='NAME',
                        help='engines to time; auto takes all that can run. If only one is given, '
                             'the node uses it too (default: auto)')
    parser.add_argument('--model', default='nano', metavar='NAME', help='model (default: nano)')
    parser.add_argument('--models', nargs='+', default=[], metavar='NAME',
                        help='models for the scenario engine (default: that of --model)')
    parser.add_argument('--kernels', choices=('plain', 'fused', 'compiled'), default='plain',
                        help='kernels that the torch engine runs on a GPU (default: plain)')
    parser.add_argument('--peer', action='store_true',
                        help='in the scenario engine time PReNet as well, by torch: on a GPU in '
                             'the precision of the engines, on a CPU in f32 (seconds a frame)')
    parser.add_argument('--profile', action='store_true',
                        help='in the scenario engine time each layer of OpenVINO on one thread')
    parser.add_argument('--plot', type=Path, metavar='FILE',
                        help='write a plot of the times of the scenario engine, SVG')
    parser.add_argument('--rate', type=positive_number, default=30.0, metavar='HZ',
                        help='frames a second to offer in vga; its targets hold at 30 (default)')
    parser.add_argument('--skip-node', action='store_true',
                        help='time the engines only, which needs no ROS')
    parser.add_argument('--bag', type=Path, metavar='BAG',
                        help='rosbag2 with a dry clip (default: test/data/driving_rain)')
    parser.add_argument('--topic', default=CLEAN_TOPIC, metavar='TOPIC',
                        help=f'image topic of the dry clip (default: {CLEAN_TOPIC})')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='also write the figures to this file')


def run(args: argparse.Namespace) -> int:
    names = [name for name in args.only if name in WITHOUT_ROS or not args.skip_node]
    if not names:
        raise UsageError('--skip-node leaves none of the scenarios of --only')
    own = args.models or args.peer or args.profile or args.plot or args.kernels != 'plain'
    if 'engine' not in names and own:
        raise UsageError(
            '--models, --kernels, --peer, --profile and --plot are for the scenario engine')
    check_outputs(args.json, args.plot)
    if args.plot:
        from derain_ros.report.plots import require

        require()
    scenarios = {name: getattr(importlib.import_module(f'derain_ros.bench.{MODULES[name]}'), name)
                 for name in names}
    bag = Path() if WITHOUT_ROS.issuperset(names) else args.bag or find_clip()

    from derain_ros.bench.setting import Setting, instruction_set
    from derain_ros.live.processes import terminate_cleanly

    machine = {'cores': os.cpu_count(), 'instruction set': instruction_set(),
               'load before the start': round(os.getloadavg()[0], 1)}
    print(', '.join(f'{key}: {value}' for key, value in machine.items()))
    results, failures = {}, {}
    with tempfile.TemporaryDirectory(prefix='derain_bench_') as folder, terminate_cleanly():
        setting = Setting(
            bag=bag, folder=Path(folder), topic=args.topic,
            parameters={
                'model': args.model,
                'engine': args.engines[0] if len(args.engines) == 1 else 'auto'},
            engines=() if args.engines == ['auto'] else tuple(args.engines),
            sizes=tuple(args.sizes), rate=args.rate, duration=args.seconds, quick=args.quick,
            models=tuple(args.models), kernels=args.kernels, peer=args.peer, profile=args.profile)
        for name in names:
            try:
                results[name] = scenarios[name](setting)
                print(f'\n{results[name].table()}', flush=True)
            except (UserError, ValueError, OSError) as error:
                failures[name] = told(error)
                print_error(f'{name}: {failures[name]}')
    _summarize(results, failures)
    if args.plot and 'engine' in results:
        _draw(results['engine'], args.plot)
    if args.json:
        replace_file(args.json, json.dumps({
            'machine': machine, 'quick': args.quick, 'failed': failures,
            'scenarios': {name: result.as_json() for name, result in results.items()},
        }, indent=2) + '\n')
    return 1 if failures else 0


def _draw(result: 'Result', path: Path) -> None:
    from derain_ros.bench.engine_scenario import plot_rows
    from derain_ros.report.plots import speed_plot

    rows = plot_rows(result)
    if not rows:
        print(f'derain: nothing to draw: {path} is not written', file=sys.stderr)
        return
    devices = dict.fromkeys(timing['device'] for timing in result.details['timings'])
    replace_file(path, speed_plot(rows, ', '.join(devices)) + '\n')


def _summarize(results: dict[str, 'Result'], failures: dict[str, str]) -> None:
    verdicts = [(name, figure) for name, result in results.items()
                for figure in result.figures if figure.bar]
    if not verdicts:
        return
    met = sum(figure.verdict == 'met' for _, figure in verdicts)
    print(f'\n{met} of {len(verdicts)} targets met')
    for name, figure in verdicts:
        if figure.verdict != 'met':
            what, value, bar, verdict = figure.cells()
            print(f'  {verdict}: {name}: {what} {value}, {bar}')
    for name in failures:
        print(f'  failed: {name}')
