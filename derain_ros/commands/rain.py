"""``derain rain``: put rendered rain into pictures, videos and bags.

Put rendered rain into dry pictures, videos or bags: test data with a known truth.

IN                          OUT
picture, folder of them     a folder with <name>.png, lossless; every picture has rain of
                            its own, drawn from the seed and its name
video                       a video of the same size, times and sound: .mp4 (H.264,
                            lossy) or .avi (FFV1, lossless); the wind goes on from frame
                            to frame
rosbag2, folder of them     a bag with rain on the image topics, same types, encodings,
                            headers and times; what was recorded there is kept byte for
                            byte on <topic>/dry, everything else on its own topic

The same IN and seed give the same OUT. Whatever of --wind, --model and --mist is not
given is drawn from the seed.

examples:
  derain rain photos -o rainy --intensity 0.6             then: derain image rainy -o derained
  derain rain photos -o rainy --streaks streaks --seed 2  with the true streaks
  derain rain drive.mp4 -o drive_rainy.mp4 --wind 15
  derain rain drive.mp4 -o motorway.mp4 --speed 28 --intensity 0.4
  derain rain drive -o drive_rainy --topics /front/image_raw

In a bag all cameras share one wind, and each sees drops of its own. /cam/image_raw/compressed
is kept on /cam/image_raw/dry/compressed. Compressed messages stay JPEG (quality 95) or PNG.
Depth and other images that are not pictures are named and left alone. A new bag or video
must not exist; it appears when it is complete.

exit status: 0 all done, 1 the bag or some frames failed, 2 wrong arguments
"""

import argparse
from functools import partial
from pathlib import Path

from derain_ros.bags.fleet import holds_bags
from derain_ros.bags.plan import BagPlan, plan_bag
from derain_ros.bags.pool import Pool
from derain_ros.commands import UsageError, printable, refusing
from derain_ros.commands.arguments import between, count_or_none, share
from derain_ros.commands.bag_pool import Bags, add_pool_options, write_bag
from derain_ros.commands.image import report_images
from derain_ros.files import check_folder
from derain_ros.files.image_files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    check_outputs,
    collect_images,
)
from derain_ros.rain import CameraMotion
from derain_ros.rain.apply.rainy_bags import choose_to_rain, rain_bag
from derain_ros.rain.apply.rainy_images import rain_images
from derain_ros.rain.apply.weather import Weather

_WIND = between(-90, 90, 'a number from -90 to 90')
_SPEED = between(0, 100, 'a speed from 0 to 100 m/s')
_FOV = between(10, 150, 'an angle from 10 to 150 degrees')
_RATE = between(0, 300, 'a rain rate from 0 to 300 mm/h')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', type=Path, metavar='IN',
                        help='picture, folder of pictures, video, or rosbag2')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='OUT',
                        help='folder for pictures, file of the video, or folder of the bag')
    parser.add_argument('--intensity', type=share, metavar='I',
                        help='0 dry, 0.2 light rain, 1 a downpour (default: 0.5)')
    parser.add_argument('--seed', type=count_or_none, default=1, metavar='N',
                        help='seed of the rain, a whole number from 0 (default: 1)')
    parser.add_argument('--wind', type=_WIND, metavar='DEG',
                        help='lean of the rain from the vertical, -90 to 90, positive to the '
                             'right at the foot (default: random)')
    parser.add_argument('--model', choices=('additive', 'screen', 'occlusion'),
                        help='how streaks are blended with the scene (default: random, mostly '
                             'additive)')
    parser.add_argument('--mist', type=share, metavar='M',
                        help='share of the scene that mist hides at the horizon, 0 to 1 (default: '
                             'random, mostly none)')
    moving = parser.add_argument_group(
        'a camera on a vehicle', 'any of these renders all rain as a volume of drops, in '
                                 'perspective')
    moving.add_argument('--speed', type=_SPEED, metavar='M/S',
                        help='speed of the vehicle, 0 to 100 m/s (default: 0)')
    moving.add_argument('--speed-topic', metavar='TOPIC',
                        help='topic of a bag with the speed at each frame, nav_msgs/Odometry or '
                             'geometry_msgs/TwistStamped')
    moving.add_argument('--mount', choices=('front', 'left', 'right', 'rear'),
                        help='where the camera looks to (default: front)')
    moving.add_argument('--fov', type=_FOV, metavar='DEG',
                        help='horizontal field of view, 10 to 150 (default: 49)')
    moving.add_argument('--rate-mm-h', type=_RATE, metavar='R',
                        help='rain rate, 0 to 300 mm/h, as faint as it physically is, instead of '
                             '--intensity')
    parser.add_argument('--streaks', type=Path, metavar='DIR',
                        help='also write the true streaks of pictures and videos to this folder, '
                             'grey PNG, 255 = 1.0 (frames of a video as 000000.png ...)')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC',
                        help='image topics of a bag to put rain on (default: all of them)')
    add_pool_options(parser)


def run(args: argparse.Namespace) -> int:
    kind = _kind(args.source)
    if _same(args.source, args.output):
        raise UsageError(f'{args.output}: is the input; name another output')
    for option, value in (('--topics', args.topics), ('--speed-topic', args.speed_topic)):
        if value and kind is not _rain_bag:
            raise UsageError(f'{option} is for bags; {args.source} is not a bag')
    if args.speed_topic and args.speed is not None:
        raise UsageError('--speed-topic replaces --speed; give one of them')
    if args.rate_mm_h is not None and args.intensity is not None:
        raise UsageError('--rate-mm-h replaces --intensity; give one of them')
    if args.streaks:
        if kind is _rain_bag:
            raise UsageError(
                f'--streaks is for pictures and videos; the truth of the bag {args.source} '
                'goes to <topic>/dry')
        if _same(args.streaks, args.output) or _same(args.streaks, args.source):
            raise UsageError(f'{args.streaks}: streaks need a folder of their own; name another')
    motion = {'speed': args.speed, 'mount': args.mount, 'fov': args.fov, 'rate': args.rate_mm_h}
    given = {name: value for name, value in motion.items() if value is not None}
    weather = Weather(
        intensity=0.5 if args.intensity is None else args.intensity, seed=args.seed,
        wind=args.wind, model=args.model, mist=args.mist,
        camera=CameraMotion(**given) if given or args.speed_topic else None)
    return kind(args, weather)


def _kind(source: Path):
    """Return the function that processes the input, chosen by the kind of file or folder."""
    if not source.exists():
        raise UsageError(f'{source}: no such file or folder')
    if holds_bags(source):
        return _rain_bag
    if source.is_dir():
        return _rain_images
    return _rain_video if source.suffix.lower() in VIDEO_SUFFIXES else _rain_images


def _rain_images(args: argparse.Namespace, weather: Weather) -> int:
    if args.output.suffix.lower() in IMAGE_SUFFIXES and not args.output.is_dir():
        raise UsageError(f'{args.output}: for pictures, OUT is a folder; name it without '
                         f'{args.output.suffix}')
    folders = list(filter(None, [args.output, args.streaks]))
    with refusing():
        jobs = collect_images([args.source], *folders)
        for folder in folders:
            check_outputs(jobs, folder, mask=False, overlay=False)
    failed = report_images(
        rain_images(jobs, args.output, weather, streaks=args.streaks), len(jobs))
    print(f'{len(jobs) - failed} of {len(jobs)} pictures in rain to {printable(args.output)}')
    return 1 if failed else 0


def _rain_video(args: argparse.Namespace, weather: Weather) -> int:
    from derain_ros.commands.video import report_video
    from derain_ros.files.video_files import VideoClip, check_destination
    from derain_ros.rain.apply.rainy_videos import rain_video

    with refusing():
        check_destination(args.output)
        if args.streaks:
            check_folder(args.streaks)
        source = VideoClip(args.source)
    return report_video(args.output, source, lambda progress: rain_video(
        source, args.output, weather.clip(), streaks=args.streaks, progress=progress))


def _rain_bag(args: argparse.Namespace, weather: Weather) -> int:
    with refusing():
        bags = Bags(args, partial(plan_bag, topics=args.topics, choose=choose_to_rain))
    return bags.work(
        lambda plan, pool: _rain_one(plan, weather, args.speed_topic, pool), None,
        'put into rain')


def _rain_one(plan: BagPlan, weather: Weather, speed_topic: str | None, pool: Pool | None) -> int:
    summary = write_bag(
        plan, partial(rain_bag, plan, weather, speed_topic=speed_topic, pool=pool),
        '{camera.source}: {frames} frames in rain, dry on {camera.kept}', 'kept as they are',
        'cannot be read')
    return 1 if summary.failed.total() or summary.damages else 0


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()
