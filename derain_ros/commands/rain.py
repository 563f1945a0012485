"""``derain rain``: put rendered rain into pictures, videos and bags."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from derain_ros.commands import FAILURE, USAGE, CommandError, progress_bar
from derain_ros.commands.arguments import number, share

if TYPE_CHECKING:
    from derain_ros.rain.apply.rainy_bags import RainyBagPlan, RainyBagSummary
    from derain_ros.rain.apply.weather import Weather

_DESCRIPTION = """\
Put rendered rain into dry pictures, videos or bags: test data with a known truth.

IN                          OUT
picture, folder of them     a folder with <name>.png, lossless; every picture has rain of
                            its own, drawn from the seed and its name
video                       a video of the same size and rate, without sound: .mp4
                            (MPEG-4, lossy) or .avi (FFV1, lossless); the wind goes on
                            from frame to frame
rosbag2                     a bag with rain on the image topics, same types, encodings,
                            headers and times; what was recorded there is kept byte for
                            byte on <topic>/dry, everything else on its own topic

The same IN and seed give the same OUT. Whatever of --wind, --model and --mist is not
given is drawn from the seed.
"""

_EPILOG = """\
examples:
  derain rain photos -o rainy --intensity 0.6             then: derain image rainy -o derained
  derain rain photos -o rainy --streaks streaks --seed 2  with the true streaks
  derain rain drive.mp4 -o drive_rainy.mp4 --wind 15
  derain rain drive -o drive_rainy --topics /front/image_raw

In a bag all cameras share one wind, and each sees drops of its own. /cam/image_raw/compressed
is kept on /cam/image_raw/dry/compressed. Compressed messages stay JPEG (quality 95) or PNG.
Depth and other images that are not pictures are named and left alone. A new bag or video
must not exist; it appears when it is complete.

exit status: 0 all done, 1 the bag or some frames failed, 2 wrong arguments
"""

_SHOWN_PER_TOPIC = 10


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        'rain', help='put rendered rain into pictures, videos and bags',
        description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, metavar='IN',
                        help='picture, folder of pictures, video, or rosbag2')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='OUT',
                        help='folder for pictures, file of the video, or folder of the bag')
    parser.add_argument('--intensity', type=share, default=0.5, metavar='I',
                        help='0 dry, 0.2 light rain, 1 a downpour (default: 0.5)')
    parser.add_argument('--seed', type=_seed, default=1, metavar='N',
                        help='which rain, a whole number from 0 (default: 1)')
    parser.add_argument('--wind', type=_wind, metavar='DEG',
                        help='lean of the rain from the vertical, -60 to 60, positive to the '
                             'right at the foot (default: drawn)')
    parser.add_argument('--model', choices=('additive', 'screen', 'occlusion'),
                        help='how streaks meet the scene (default: drawn, mostly additive)')
    parser.add_argument('--mist', type=share, metavar='M',
                        help='share of the scene that mist hides at the horizon, 0 to 1 '
                             '(default: drawn, mostly none)')
    parser.add_argument('--streaks', type=Path, metavar='DIR',
                        help='also write the true streaks of pictures and videos there, '
                             'grey PNG, 255 = 1.0 (frames of a video as 000000.png ...)')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC',
                        help='image topics of a bag to put rain on (default: all of them)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Put rain into what ``args`` names; 1 if a frame failed."""
    from derain_ros.rain.apply.weather import Weather

    kind = _kind(args.source)
    if _same(args.source, args.output):
        raise CommandError(f'{args.output}: is the input; name another output', USAGE)
    if args.topics and kind is not _rain_bag:
        raise CommandError(f'--topics is for bags; {args.source} is none', USAGE)
    if args.streaks:
        if kind is _rain_bag:
            raise CommandError(
                f'--streaks is for pictures and videos; the truth of the bag {args.source} '
                'goes to <topic>/dry', USAGE)
        if _same(args.streaks, args.output) or _same(args.streaks, args.source):
            raise CommandError(
                f'{args.streaks}: streaks need a folder of their own; name another', USAGE)
    weather = Weather(
        intensity=args.intensity, seed=args.seed, wind=args.wind, model=args.model,
        mist=args.mist)
    return kind(args, weather)


def _kind(source: Path):
    """Tell what the input is by what lies there: the function that works on it."""
    from derain_ros.rain.apply.rainy_videos import VIDEO_SUFFIXES

    bags = {'.mcap', '.db3'}
    if source.is_dir():
        here = list(source.iterdir())
        if any(file.name == 'metadata.yaml' or bags & set(file.suffixes) for file in here):
            return _rain_bag
        return _rain_images
    if not source.exists():
        raise CommandError(f'{source}: no such file or folder', USAGE)
    if bags & set(source.suffixes) or source.suffix == '.bag':
        return _rain_bag
    return _rain_video if source.suffix.lower() in VIDEO_SUFFIXES else _rain_images


def _rain_images(args: argparse.Namespace, weather: 'Weather') -> int:
    from derain_ros.files.image_files import (
        IMAGE_SUFFIXES,
        ImageFileError,
        check_outputs,
        collect_images,
    )
    from derain_ros.rain.apply.rainy_images import rain_images

    if args.output.suffix.lower() in IMAGE_SUFFIXES and not args.output.is_dir():
        raise CommandError(
            f'{args.output}: OUT is a folder for pictures; name it without '
            f'{args.output.suffix}', USAGE)
    folders = [args.output] + ([args.streaks] if args.streaks else [])
    try:
        jobs = collect_images([args.source], args.output)
        if args.streaks and args.source.is_dir():
            own = args.streaks.resolve()
            jobs = [job for job in jobs if own not in job.source.resolve().parents]
        for folder in folders:
            check_outputs(jobs, folder, mask=False, overlay=False)
    except ImageFileError as error:
        raise CommandError(str(error), USAGE) from error
    failed = 0
    with progress_bar(len(jobs), 'image') as bar:
        for result in rain_images(jobs, args.output, weather, streaks=args.streaks):
            if result.error:
                failed += 1
                bar.write(f'derain: error: {result.error}', file=sys.stderr)
            bar.update()
    print(f'{len(jobs) - failed} of {len(jobs)} pictures in rain to {args.output}')
    return FAILURE if failed else 0


def _rain_video(args: argparse.Namespace, weather: 'Weather') -> int:
    from derain_ros.rain.apply.rainy_videos import VideoError, inspect_video, rain_video

    try:
        facts = inspect_video(args.source, args.output)
    except VideoError as error:
        raise CommandError(str(error), USAGE) from error
    try:
        with progress_bar(facts.frames, 'frame') as bar:
            summary = rain_video(
                args.source, args.output, facts, weather.clip(), streaks=args.streaks,
                progress=bar.update)
    except (VideoError, OSError) as error:
        raise CommandError(str(error)) from error
    print('derain: note: sound is not carried over', file=sys.stderr)
    if args.output.suffix.lower() == '.mp4':
        print('derain: note: MPEG-4 loses detail of scene and streaks; name an .avi to keep '
              'every pixel', file=sys.stderr)
    print(f'{args.output}: {summary.frames} frames of {facts.width}x{facts.height} at '
          f'{facts.rate:g} Hz')
    if summary.cut_short:
        print(f'derain: error: {args.source}: announces {facts.frames} frames, only '
              f'{summary.frames} can be read; it may be damaged', file=sys.stderr)
    return FAILURE if summary.cut_short else 0


def _rain_bag(args: argparse.Namespace, weather: 'Weather') -> int:
    from derain_ros.bags.damage import BagError
    from derain_ros.rain.apply.rainy_bags import plan_rainy_bag, rain_bag

    try:
        plan = plan_rainy_bag(args.source, args.output, topics=args.topics)
    except BagError as error:
        raise CommandError(str(error), USAGE) from error
    for topic, reason in plan.left_alone.items():
        print(f'derain: note: {topic} is left alone: {reason}', file=sys.stderr)
    try:
        with progress_bar(plan.message_count, 'message') as bar:
            summary = rain_bag(plan, weather.clip(), progress=bar.update)
    except BagError as error:
        raise CommandError(str(error)) from error
    _report(plan, summary)
    return FAILURE if summary.unchanged or summary.damages else 0


def _report(plan: 'RainyBagPlan', summary: 'RainyBagSummary') -> None:
    from derain_ros.bags.topics import dry_topic

    for msgtype in summary.undefined_types:
        print(f'derain: note: the bag holds no definition of {msgtype}; '
              'its messages are kept all the same', file=sys.stderr)
    for damage in summary.damages:
        print(f'derain: error: {plan.source}: damaged: {damage}', file=sys.stderr)
    for topic in plan.topics:
        bad = [frame for frame in summary.unchanged_frames if frame.topic == topic]
        for frame in bad[:_SHOWN_PER_TOPIC]:
            seconds, nanoseconds = divmod(frame.time, 10**9)
            print(f'derain: error: {frame.topic} at {seconds}.{nanoseconds:09d}: '
                  f'{frame.reason}', file=sys.stderr)
        more = summary.unchanged[topic] - len(bad[:_SHOWN_PER_TOPIC])
        if more > 0:
            print(f'derain: error: {topic}: {more} more frames cannot be read',
                  file=sys.stderr)
    print(f'{plan.destination}: {summary.messages} messages kept')
    for topic in plan.topics:
        line = f'  {topic}: {summary.rainy[topic]} frames in rain, dry on {dry_topic(topic)}'
        if summary.unchanged[topic]:
            line += f', {summary.unchanged[topic]} kept as they are'
        print(line)


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


def _wind(text: str) -> float:
    return number(text, -60, 60, 'a number from -60 to 60')


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0')
    return int(text)
