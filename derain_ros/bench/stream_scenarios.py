"""Rain at a steady rate, the gate off: one camera, too much of one camera, four cameras.

And streams through a running node, which other scenarios are made of, too.
"""

from collections.abc import Callable, Mapping, Sequence

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.setting import VGA, ClipFile, Setting, has_bf16
from derain_ros.bench.stream_statistics import (
    count_errors,
    evenness,
    percentile,
    rate,
    ratio,
    thirds,
)
from derain_ros.live.listener import CAMERA, number
from derain_ros.live.live_run import LiveRun, live_run
from derain_ros.live.played import Plan, Played, PlayedClip, PlayedFrame

_VGA_BARS_AT = 30.0
_VGA_SECONDS = 20.0
_OVERLOAD_SIZE = (1920, 1080)
_OVERLOAD_RATE = 60.0
_OVERLOAD_SECONDS = 60.0
_CAMERAS = ('/front', '/rear', '/left', '/right')
_CAMERAS_RATE = 10.0
_CAMERAS_SECONDS = 20.0


def even_plan(frames: Sequence[int], rate: float, seconds: float) -> Plan:
    """Plan to send frames, given by their indices, again and again at an even rate."""
    return [(frames[count % len(frames)], count / rate)
            for count in range(max(1, round(seconds * rate)))]


def play_stream(
    setting: Setting, name: str, clip: ClipFile, plan: Plan, parameters: Mapping[str, str], *,
    cameras: Sequence[str] = (CAMERA,), watch: Callable[[LiveRun], None] = lambda run: None,
) -> Played:
    """Play a clip through a fresh node, on every camera; images and masks are listened to.

    ``name`` is the folder for the logs, ``parameters`` are those beside the setting's, ``cameras``
    namespaces; ``watch`` is called some twenty times a second meanwhile. LiveRunError says that
    a process failed.
    """
    source = PlayedClip(clip.path, plan, tuple(camera.strip('/') for camera in cameras))
    with live_run(setting.folder / name, source, {**setting.parameters, **parameters}) as run:
        return run.play(plan[-1][1] + 1, watch=lambda _: watch(run))


def details(played: Played, camera: str = CAMERA) -> dict:
    """Return counts and latencies of a camera for the JSON file."""
    return {'sent': len(played.frames[camera]), 'arrived': len(played.arrived(camera)),
            'counts': played.counts(camera), 'diagnostics': dict(played.after[camera])}


def inference_ms(frames: Sequence[PlayedFrame], values: Mapping[str, str]) -> float:
    """Return the median inference time of frames; that of /diagnostics where none is told."""
    median = percentile([frame.infer_ms for frame in frames], 50)
    return median if median == median else number(values, 'infer_p50_ms')


def _play(
    setting: Setting, name: str, size: tuple[int, int], rate: float, seconds: float,
    cameras: tuple[str, ...] = (CAMERA,),
) -> Played:
    clip = setting.clip(*size)
    plan = even_plan(clip.rainy, rate, setting.seconds(seconds))
    return play_stream(setting, name, clip, plan, {'rain_gate': 'false'}, cameras=cameras)


def vga(setting: Setting) -> Result:
    """Measure how many frames come out of a camera of 640x480, and how old they are."""
    played = _play(setting, 'vga', VGA, setting.rate, _VGA_SECONDS)
    ages, figures = _figures(played)
    # Without bf16 most CPUs are too slow for every frame of a model that was not chosen for them;
    # what the node adds is judged then.
    fast = has_bf16() or setting.parameters['model'] == 'auto'
    whole, part = fast and setting.rate == _VGA_BARS_AT, not fast
    published, p95 = figures['published'].value, percentile(ages, 95)
    inference = figures['inference p50'].value
    found = [
        Figure('published', published, 'fps', Bar('>=', 29) if whole else None),
        Figure('age p95, stamp to image received', p95, 'ms', Bar('<=', 66) if whole else None),
        Figure('published / what inference alone allows',
               ratio(published, min(setting.rate, 1e3 / inference)), '',
               Bar('>=', 0.85) if part else None, 2),
        Figure('age p95 / inference p50', ratio(p95, inference), '',
               Bar('<=', 2.2) if part else None, 2),
        figures['age p50'], Figure('age p99', percentile(ages, 99), 'ms'),
        figures['inference p50'], figures['offered']]
    return Result(
        f'vga: rain at 640x480, {setting.rate:g} Hz offered, gate off, with mask',
        sorted(found, key=lambda figure: figure.bar is None), [_fate(played)], details(played))


def overload(setting: Setting) -> Result:
    """Measure age, its growth and the counts at 60 Hz, far more than a CPU can take."""
    played = _play(setting, 'overload', _OVERLOAD_SIZE, _OVERLOAD_RATE, _OVERLOAD_SECONDS)
    ages, figures = _figures(played)
    first, last = thirds(ages)
    reports = played.reports[CAMERA]
    errors = count_errors(reports)
    published, arrived = played.counts(CAMERA)['published'], len(ages)
    if published != arrived:
        errors.append(f'{published} published, {arrived} arrived')
    p95 = percentile(ages, 95)
    return Result(
        f'overload: rain at 1920x1080, 60 Hz offered for {played.seconds:.0f} s, gate off',
        [Figure('age p95 / inference p50', ratio(p95, figures['inference p50'].value), '',
                Bar('<=', 2.2), 2),
         Figure('age p50, last third / first third', ratio(last, first), '', Bar('<=', 1.1), 2),
         Figure('reports that do not add up', len(errors) if reports else float('nan'), '',
                Bar('=', 0), 0),
         Figure('age p95, stamp to image received', p95, 'ms'),
         figures['age p50'], figures['inference p50'], figures['published'], figures['offered']],
        [f'{_fate(played)}; {len(reports)} reports', *errors[:3]],
        {**details(played), 'errors': errors})


def cameras(setting: Setting) -> Result:
    """Measure how evenly four cameras are served, triggered together as in vehicles' rigs."""
    played = _play(setting, 'cameras', VGA, _CAMERAS_RATE, _CAMERAS_SECONDS, _CAMERAS)
    arrived = {camera: played.arrived(camera) for camera in _CAMERAS}
    errors = [f'{camera}: {error}' for camera in _CAMERAS
              for error in count_errors(played.reports[camera])]
    return Result(
        'cameras: rain at 640x480 from four cameras at 10 Hz each, gate off, with masks',
        [Figure('least served / most served camera',
                100 * evenness([len(frames) for frames in arrived.values()]), '%', Bar('>=', 90)),
         Figure('reports that do not add up', len(errors), '', Bar('=', 0), 0),
         *(Figure(f'{camera} published', len(frames) / played.seconds, 'fps',
                  Bar('>=', 9.5) if setting.parameters['model'] == 'auto' else None)
           for camera, frames in arrived.items()),
         *(Figure(f'{camera} age p95', percentile([frame.age_ms for frame in frames], 95), 'ms')
           for camera, frames in arrived.items())],
        errors[:3], {camera: details(played, camera) for camera in _CAMERAS})


def _figures(played: Played) -> tuple[list[float], dict[str, Figure]]:
    """Return ages in order of arrival, and the figures that the scenarios of one camera share."""
    arrived = played.arrived(CAMERA)
    ages = [frame.age_ms for frame in arrived]
    return ages, {figure.name: figure for figure in (
        Figure('published', rate([frame.arrival for frame in arrived]), 'fps'),
        Figure('age p50', percentile(ages, 50), 'ms'),
        Figure('inference p50', inference_ms(arrived, played.after[CAMERA]), 'ms'),
        Figure('offered', rate([frame.stamp for frame in played.frames[CAMERA]]), 'fps'))}


def _fate(played: Played) -> str:
    sent, counts = len(played.frames[CAMERA]), played.counts(CAMERA)
    return f'{sent} sent, {sent - counts["received"]} lost on the way, ' + ', '.join(
        f'{value} {key}' for key, value in counts.items())
