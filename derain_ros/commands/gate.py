"""``derain gate``: try the rain gate on dry clips.

Run the rain gate of the node over dry clips: how much rain the network sees in them, how long
the gate stays open, and how often it opens. Whenever it has closed, rendered rain is tried on a
copy of it, to see how soon it opens.

IN is a video, a folder of pictures (by name, --fps a second), or a rosbag2 with an image topic.
With --pan every picture is a clip of its own, over which a camera pans and zooms.

examples:
  derain gate drive.mp4
  derain gate drive --topic /cam/image_raw --wet-above 0.04 --dry-below 0.024
  derain gate photos --pan --json gate.json
  derain gate drive.mp4 --rain                  no rain: the dry figures alone

Thresholds for the node: `rain_gate_wet_above`, `rain_gate_dry_below`, `rain_gate_dry_after`;
what they do: docs/rain_gate.md of the source.

exit status: 0 all done, 1 a clip or some frames failed (ten are named), 2 wrong arguments
"""

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from derain_ros.commands import (
    UsageError,
    add_engine_options,
    open_engine,
    print_notes,
    printable,
    refusing,
    report_failed,
    slow_bar,
)
from derain_ros.commands.arguments import between, count_or_none, seconds, share
from derain_ros.commands.frame_options import (
    add_clip_options,
    check_outputs,
    open_clip,
    write_figures,
)
from derain_ros.evaluation.gate_trial import GateTrial, as_text, summarise, try_gate
from derain_ros.files.clip_sources import ClipSource, PannedClip
from derain_ros.files.image_files import collect_images
from derain_ros.files.run_files import host, versions
from derain_ros.rain_gate import GateSettings
from derain_ros.text import UserError

_PANNED_SECONDS = 36.0
_GAP = between(8, 1e9, 'a number of seconds, 8 or more')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('sources', type=Path, nargs='+', metavar='IN',
                        help='video, folder of pictures, or rosbag2, without rain')
    parser.add_argument('--pan', action='store_true',
                        help='IN are pictures or folders of them; pan over each')
    parser.add_argument('--rain', type=share, nargs='*', default=[0.1, 0.2, 0.3, 0.5, 0.8],
                        metavar='I', help='intensities of the rain to try (default: 0.1 0.2 0.3 '
                                          '0.5 0.8)')
    parser.add_argument('--every', type=_GAP, default=20.0, metavar='S',
                        help='seconds from one such rain to the next, at least 8 (default: 20)')
    parser.add_argument('--seed', type=count_or_none, default=1, metavar='N',
                        help='seed of the first rain (default: 1)')
    add_clip_options(parser, f'all; with --pan {_PANNED_SECONDS:g}')
    group = parser.add_argument_group('thresholds of the gate (default: those of the node)')
    group.add_argument('--wet-above', type=share, metavar='R',
                       help='intensity above which it opens')
    group.add_argument('--dry-below', type=share, metavar='R',
                       help='intensity below which it closes')
    group.add_argument('--dry-after', type=seconds, metavar='S',
                       help='seconds that it must be dry before the gate closes')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='also write the figures of every clip to this file')
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    try:
        settings = GateSettings(**{
            name: getattr(args, name) for name in ('wet_above', 'dry_below', 'dry_after')
            if getattr(args, name) is not None})
    except ValueError as error:
        raise UsageError(re.sub(
            '(wet|dry)_(above|below|after)', r'--\1-\2', str(error))) from error
    trials: dict[str, GateTrial] = {}
    broken = []
    seed = args.seed
    # Report wrong arguments before an engine is loaded.
    clips = list(_clips(args))
    with open_engine(args) as engine:
        for name, open_source in clips:
            try:
                source = open_source()
                print_notes(*source.notes)
                with slow_bar(source.facts.frames, 'frame', name) as bar:
                    trials[name] = try_gate(
                        source, engine, settings, intensities=args.rain, every=args.every,
                        seed=seed, progress=bar.update)
            except (ValueError, OSError, UsageError) as error:
                broken.append(printable(error))
                continue
            seed += max(1, len(trials[name].showers))
        info = engine.info
    failed = broken + [bad.reason for trial in trials.values() for bad in trial.failed]
    status = report_failed(failed, 'clips or frames')
    if not trials:
        raise UserError('no clip could be read')
    summary = summarise(trials.values())
    print(as_text(trials, summary, settings))
    write_figures(args.json, {
        'versions': versions(), 'host': host(),
        'model': info.model, 'engine': info.engine, 'precision': info.precision,
        'settings': asdict(settings), 'seed': args.seed, 'summary': summary,
        'clips': {name: trial.describe() for name, trial in trials.items()}})
    return status


def _clips(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], ClipSource]]]:
    """Yield the name of each clip, and a function that opens it."""
    for path in args.sources:
        if not path.exists():
            raise UsageError(f'{path}: no such file or folder')
    if not args.pan:
        for path in args.sources:
            yield printable(path), lambda path=path: open_clip(path, args)
        return

    for option in ('topic', 'fps'):
        if getattr(args, option) is not None:
            raise UsageError(f'--{option} does not go with --pan')
    if args.start:
        raise UsageError('--start does not go with --pan')
    with refusing():
        jobs = [job for path in args.sources for job in collect_images([path])]
    for job in jobs:
        yield printable(job.source), lambda job=job: PannedClip(
            job.source, args.duration or _PANNED_SECONDS)
