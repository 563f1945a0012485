"""``derain bench``: how fast the engines and the node are on this machine."""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from derain_ros.commands import CommandError
from derain_ros.commands.demo import find_clip, require_ros

if TYPE_CHECKING:
    from derain_ros.evaluation.speed import EngineTiming
    from derain_ros.ros.bench import NodeTiming

_DESCRIPTION = """\
Time each engine on frames in memory (uint8 in, uint8 out), then the node as a whole:
another process offers 640x480 frames, a third listens to images and masks. The node keeps
the newest frame and drops older ones, so that offering more than it can take shows its
highest rate. All figures are of this machine as it is: close what else runs on it.
"""

_EPILOG = """\
examples:
  derain bench
  derain bench --sizes 640x480 1280x720 --seconds 10 --json bench.json
  derain bench --engines openvino --skip-node
"""

_NODE_SIZE = (640, 480)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        'bench', help='measure the speed of engines and node', description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='+', type=_size, default=[(640, 480)],
                        metavar='WxH', help='frame sizes for the engines (default: 640x480)')
    parser.add_argument('--engines', nargs='+', default=['auto'], metavar='NAME',
                        help='engines to time; auto takes all that can run (default: auto)')
    parser.add_argument('--model', default='nano', metavar='NAME', help='model (default: nano)')
    parser.add_argument('--seconds', type=_positive, default=5.0, metavar='N',
                        help='seconds per measurement (default: 5; the node gets twice that)')
    parser.add_argument('--rate', type=_positive, default=30.0, metavar='HZ',
                        help='frames a second to offer to the node (default: 30)')
    parser.add_argument('--skip-node', action='store_true', help='time the engines only')
    parser.add_argument('--bag', type=Path, metavar='BAG',
                        help='clip for the node (default: test/data/driving_rain)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there too')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if not args.skip_node:
        require_ros()
        args.bag = args.bag or find_clip()
    print(f'{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f} before the start')
    engines = _time_engines(args)
    node = None if args.skip_node else _time_node(args)
    if args.json:
        figures = {'engines': [asdict(timing) for timing in engines],
                   'node': node and asdict(node)}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + '\n')
    return 0


def _time_engines(args: argparse.Namespace) -> list['EngineTiming']:
    from derain_ros.engines import EngineError, create_engine, engine_report
    from derain_ros.evaluation.speed import time_engine

    names = args.engines
    if names == ['auto']:
        names = [status.engine for status in engine_report() if status.available]
    if not names:
        raise CommandError('no engine can run here; `derain info` says why')
    timings = []
    print(f'{"engine":<10} {"precision":<9} {"size":>10} {"median":>10} {"p95":>10} {"rate":>9}')
    for name in names:
        try:
            engine = create_engine(name, args.model)
            for width, height in args.sizes:
                timing = time_engine(engine, width, height, args.seconds)
                timings.append(timing)
                size = f'{width}x{height}'
                print(f'{timing.engine:<10} {timing.precision:<9} {size:>10} '
                      f'{timing.median_ms:>7.1f} ms {timing.p95_ms:>7.1f} ms '
                      f'{1e3 / timing.median_ms:>5.1f} fps', flush=True)
            engine.close()
        except EngineError as error:
            raise CommandError(f'{name}: {error}') from error
    return timings


def _time_node(args: argparse.Namespace) -> 'NodeTiming':
    from derain_ros.ros.bench import time_node
    from derain_ros.ros.demo import RAINY_TOPIC
    from derain_ros.ros.live_run import LiveRunError

    width, height = _NODE_SIZE
    engine = args.engines[0] if len(args.engines) == 1 else 'auto'
    with tempfile.TemporaryDirectory(prefix='derain_bench_') as logs:
        try:
            timing = time_node(
                args.bag, Path(logs), {'model': args.model, 'engine': engine},
                width=width, height=height, rate=args.rate, seconds=2 * args.seconds,
                topic=RAINY_TOPIC)
        except (LiveRunError, ValueError, OSError) as error:
            raise CommandError(str(error)) from error
    counts = timing.counts
    stages = ', '.join(f'{name} {value:.1f}' for name, value in timing.stages_ms.items())
    print(f'node, {width}x{height} bgr8, {timing.offered_fps:.1f} fps offered:')
    print(f'  published   {timing.published_fps:.1f} fps')
    print('  age         p50 {:.0f}, p95 {:.0f}, p99 {:.0f} ms, stamp to image received'.format(
        *timing.age_ms))
    print(f'  frames      {timing.sent} sent, {counts["received"]} received, '
          f'{counts["published"]} published, {counts["dropped"]} dropped, '
          f'{counts["failed"]} failed, {counts["idle"]} idle')
    print(f'  stages p50  {stages} ms')
    sys.stdout.flush()
    return timing


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'{text!r} is not a size such as 640x480')
    return int(width), int(height)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive number')
    return value
