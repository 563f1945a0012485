"""``derain replay-bench``: play a recorded bag into the node and time it.

Publish a rosbag2 as its cameras did, over DDS, into derain_node in another process, and measure
what comes out of it: rate, loss, latency, age, CPU and memory, for each camera. Messages go out
as they were recorded, raw or compressed, with the time of sending for a stamp (one for messages
of one stamp, such as a stereo pair). The node has its default parameters but for what is asked
for here, and has warmed up before. Runs in a ROS domain of its own, on this host alone.

latency is the time from handing the message to DDS to the derained image in the listener, age
that from the stamp; loss is the share of the frames that never came back, wherever they went.

examples:
  derain replay-bench drive
  derain replay-bench drive --topics /front/image_raw --rate 2 --json replay.json
  derain replay-bench drive --search --trial-seconds 20 --param rain_gate:=false
  derain replay-bench drive --seconds 600 --param max_age_ms:=100

--search doubles the rate until more is lost than --loss allows, halves the gap, raises the best
one in steps of 5 %, and plays it once more in full.

Where it is dry the node passes frames through without the network, here as in the vehicle: they
are counted as bypassed. Truth that `derain rain` has put beside a rainy topic (.../dry) is not
played, unless it is named.

exit status: 0 measured, 1 a process failed or the bag is damaged (what can be read is played),
2 wrong arguments or a bag that cannot be read, 130 interrupted
"""

import argparse
import difflib
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from derain_ros.commands import (
    UsageError,
    add_node_options,
    print_error,
    printable,
    refusing,
    slow_bar,
)
from derain_ros.commands.arguments import between, positive_number
from derain_ros.files.run_files import bag_bytes, bag_facts, check_output, run_head, write_run

_PERCENT = between(0, math.nextafter(100, 0), 'a percentage from 0 to below 100')
_OURS = ('cameras', 'autostart', 'publish_mask')
_OURS_OF_CAMERA = ('image_topic', 'transport', 'camera_info_topic', 'output_namespace')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', type=Path, metavar='BAG',
                        help='rosbag2 folder (or a bare .mcap or .db3 file)')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC',
                        help='image topics to play (default: all of them)')
    parser.add_argument('--rate', type=positive_number, default=1.0, metavar='FACTOR',
                        help='how much faster than recorded to play (default: 1)')
    parser.add_argument('--seconds', type=positive_number, metavar='S',
                        help='how long to play, repeating or cutting the bag (default: once, '
                             'with --search for --trial-seconds at least)')
    parser.add_argument('--search', action='store_true',
                        help='search for the highest factor that the node keeps up with')
    parser.add_argument('--loss', type=_PERCENT, default=1.0, metavar='PERCENT',
                        help='loss up to which the node counts as keeping up (default: 1)')
    parser.add_argument('--trial-seconds', type=positive_number, default=10.0, metavar='S',
                        help='how long to play for each factor of the search (default: 10)')
    parser.add_argument('--no-mask', dest='mask', action='store_false',
                        help='do not subscribe to rain masks, so that the node makes none')
    add_node_options(parser)
    parser.add_argument('--param', action='append', default=[], metavar='NAME:=VALUE',
                        help='parameter of the node; may be given several times')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='write all figures to this file, including those of each frame, for '
                             '`derain report`')


def run(args: argparse.Namespace) -> int:
    from derain_ros.live.played import scan
    from derain_ros.live.processes import terminate_cleanly

    with refusing():
        if args.json:
            check_output(args.json)
        parameters = {'model': args.model, 'engine': args.engine, **_parameters(args.param)}
        print(f'derain: reading {args.bag}', file=sys.stderr)
        recording = scan(args.bag, args.topics, _reading)
        for damage in recording.damages:
            print_error(f'{args.bag}: damaged: {damage}')
        _check_cameras(parameters, [camera.name for camera in recording.cameras])
    with tempfile.TemporaryDirectory(prefix='derain_replay_') as folder, terminate_cleanly():
        return _measure(args, parameters, recording, Path(folder))


def _measure(args: argparse.Namespace, parameters: dict, recording, folder: Path) -> int:
    from derain_ros.bench.replay_runs import (
        facts_of,
        measure,
        play,
        run_table,
        search_note,
        trial_line,
    )
    from derain_ros.live.live_run import live_run

    limit = args.loss / 100
    bag = bar = None

    def told(kind: str, figures: dict) -> None:
        text = run_table(figures) if kind == 'run' else trial_line(figures, limit)
        print(text, flush=True)

    def show(played: float, seconds: float) -> None:
        nonlocal bar
        bar = bar or slow_bar(round(seconds, 1), 's', 'playing')
        bar.update(round(played - bar.n, 1))
        if played >= seconds:
            bar.close()
            bar = None

    if args.json:
        with slow_bar(bag_bytes(args.bag), 'B', 'sha256 of the bag') as read:
            bag = bag_facts(args.bag, read.update)
    names = ', '.join(camera.topic for camera in recording.cameras)
    print(f'derain: playing {names} into derain_node', file=sys.stderr)
    outputs = ('image', 'rain_mask') if args.mask else ('image',)
    with live_run(folder, recording, parameters, outputs=outputs) as node:
        model = facts_of(parameters['model'], node.listener.values('/derain: engine'))
        print(f'{model["model"]} on {model["engine"]}, {model["device"]}, {model["precision"]}',
              flush=True)
        runs, search = measure(
            partial(play, node, recording.cameras, progress=show),
            recording.period / 1e9, factor=args.rate, seconds=args.seconds, loss_limit=limit,
            trial_seconds=args.trial_seconds if args.search else None, told=told)
    if search is not None:
        print(search_note(search))
    if args.json:
        write_run(args.json, {
            **run_head('replay'), 'model': model, 'bag': bag, 'parameters': parameters,
            'mask': args.mask, 'runs': runs, 'search': search})
        print(f'Figures of all frames: {args.json}')
    return 1 if recording.damages else 0


def _reading(messages: Iterable, total: int) -> Iterator:
    """Yield messages, and show how much of the bag has been read."""
    with slow_bar(total, ' messages', 'reading') as bar:
        for message in messages:
            yield message
            bar.update()


def _parameters(given: list[str]) -> dict[str, str]:
    """Parse ``--param`` options; raises UserError for parameters that the node does not have."""
    from derain_ros.node.parameters import NODE_RULES, rule_of

    found = {}
    for text in given:
        name, separator, value = text.partition(':=')
        if not separator or not name or not value:
            raise UsageError(
                f'--param {printable(text)}: expected NAME:=VALUE, for example '
                'rain_gate:=false')
        if rule_of(name) is None:
            close = difflib.get_close_matches(name, NODE_RULES, n=1)
            hint = f'; did you mean {close[0]}?' if close else ''
            raise UsageError(f'--param {printable(name)} is not a parameter of derain_node{hint}')
        if name in _OURS or name.partition('.')[2] in _OURS_OF_CAMERA:
            raise UsageError(
                f'--param {name} is set by replay-bench itself; choose what is played with '
                '--topics and --no-mask')
        found[name] = value
    return found


def _check_cameras(parameters: dict[str, str], names: list[str]) -> None:
    for name in parameters:
        camera, dot, _ = name.partition('.')
        if dot and camera not in names:
            raise UsageError(
                f'--param {name}: there is no camera {camera}; the cameras of this bag are '
                f'{", ".join(names)}')
