"""Streams through a running node: one camera, overload, four cameras, and the rain gate."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from derain_ros.bench.measures import (
    Figure,
    ProcessFigures,
    Result,
    count_errors,
    cpu_share,
    evenness,
    percentile,
    process_figures,
    rate,
    ratio,
    thirds,
)
from derain_ros.bench.setting import VGA, ClipFile, Setting, has_bf16
from derain_ros.images.cdr import read_image
from derain_ros.live.listener import CAMERA, number
from derain_ros.live.live_run import LiveRun, live_run
from derain_ros.live.played import Plan, Played, PlayedClip, PlayedFrame

_VGA_RATE = 30.0
_OVERLOAD_RATE = 60.0
_CAMERAS = ('/front', '/rear', '/left', '/right')
_CAMERAS_RATE = 10.0
_SAMPLE_SECONDS = 0.2
_BEGIN_AFTER = 0.5
_BYPASSED, _DERAINED = 'bypassed', 'derained'


def even_plan(frames: Sequence[int], rate: float, seconds: float) -> Plan:
    """Plan to send frames, given by index, repeatedly at a constant rate in Hz."""
    return [(frames[count % len(frames)], count / rate)
            for count in range(max(1, round(seconds * rate)))]


def inference_ms(frames: Sequence[PlayedFrame], values: Mapping[str, str]) -> float:
    """Return the median inference time of frames, ms; if none is known, that of /diagnostics."""
    median = percentile([frame.infer_ms for frame in frames], 50)
    return median if median == median else number(values, 'infer_p50_ms')


def _play(
    setting: Setting, name: str, clip: ClipFile, plan: Plan, parameters: Mapping[str, str], *,
    cameras: Sequence[str] = (CAMERA,), watch: Callable[[LiveRun], None] = lambda run: None,
) -> Played:
    """Play a clip on every camera of a newly started node, with subscribers to images and masks.

    ``name`` is the folder for the logs, ``parameters`` are those in addition to the setting's,
    ``cameras`` are namespaces; ``watch`` is called about twenty times per second meanwhile.
    """
    source = PlayedClip(clip.path, plan, tuple(camera.strip('/') for camera in cameras))
    with live_run(setting.folder / name, source, {**setting.parameters, **parameters}) as run:
        return run.play(plan[-1][1] + 1, watch=lambda _: watch(run))


def _play_rain(
    setting: Setting, name: str, size: tuple[int, int], rate: float, seconds: float,
    cameras: Sequence[str] = (CAMERA,),
) -> Played:
    """Play rainy frames at a constant rate in Hz, with the rain gate off."""
    clip = setting.clip(*size)
    plan = even_plan(clip.rainy, rate, setting.seconds(seconds))
    return _play(setting, name, clip, plan, {'rain_gate': 'false'}, cameras=cameras)


def _details(played: Played, camera: str = CAMERA) -> dict:
    """Return frame counts and diagnostics of a camera for the JSON file."""
    return {'sent': len(played.frames[camera]), 'arrived': len(played.arrived(camera)),
            'counts': played.counts(camera), 'diagnostics': dict(played.after[camera])}


def _common(played: Played) -> tuple[list[float], dict[str, Figure]]:
    """Return ages in ms, and the figures that the single-camera scenarios share, by name."""
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


def vga(setting: Setting) -> Result:
    """Measure published rate and age of the frames of one camera of 640x480."""
    played = _play_rain(setting, 'vga', VGA, setting.rate, 20.0)
    ages, figures = _common(played)
    # Without bf16, most CPUs are too slow to process every frame with a model not chosen for
    # them: then the bars are relative to the inference time.
    fast = has_bf16() or setting.parameters['model'] == 'auto'
    whole = fast and setting.rate == _VGA_RATE
    published, p95 = figures['published'].value, percentile(ages, 95)
    inference = figures['inference p50'].value
    return Result(f'vga: rain at 640x480, {setting.rate:g} Hz offered, gate off, with mask', [
        Figure('published', published, 'fps', '>= 29' if whole else ''),
        Figure('age p95, stamp to image received', p95, 'ms', '<= 66' if whole else ''),
        Figure('published / what inference alone allows',
               ratio(published, min(setting.rate, 1e3 / inference)),
               bar='' if fast else '>= 0.85', digits=2),
        Figure('age p95 / inference p50', ratio(p95, inference),
               bar='' if fast else '<= 2.2', digits=2),
        figures['age p50'], Figure('age p99', percentile(ages, 99), 'ms'),
        figures['inference p50'], figures['offered'],
    ], [_fate(played)], _details(played))


def overload(setting: Setting) -> Result:
    """Measure age, its growth and the counters at 60 Hz, far more than a CPU can process."""
    played = _play_rain(setting, 'overload', (1920, 1080), _OVERLOAD_RATE, 60.0)
    ages, figures = _common(played)
    first, last = thirds(ages)
    reports = played.reports[CAMERA]
    errors = count_errors(reports)
    published = played.counts(CAMERA)['published']
    if published != len(ages):
        errors.append(f'{published} published, {len(ages)} arrived')
    p95 = percentile(ages, 95)
    title = f'overload: rain at 1920x1080, 60 Hz offered for {played.seconds:.0f} s, gate off'
    return Result(title, [
        Figure('age p95 / inference p50', ratio(p95, figures['inference p50'].value),
               bar='<= 2.2', digits=2),
        Figure('age p50, last third / first third', ratio(last, first), bar='<= 1.1', digits=2),
        Figure('reports that do not add up', len(errors) if reports else float('nan'), bar='= 0',
               digits=0),
        Figure('age p95, stamp to image received', p95, 'ms'),
        figures['age p50'], figures['inference p50'], figures['published'], figures['offered'],
    ], [f'{_fate(played)}; {len(reports)} reports', *errors[:3]],
        {**_details(played), 'errors': errors})


def cameras(setting: Setting) -> Result:
    """Measure how evenly four cameras are served that are triggered together, as on vehicles."""
    played = _play_rain(setting, 'cameras', VGA, _CAMERAS_RATE, 20.0, _CAMERAS)
    arrived = {camera: played.arrived(camera) for camera in _CAMERAS}
    errors = [f'{camera}: {error}' for camera in _CAMERAS
              for error in count_errors(played.reports[camera])]
    bar = '>= 9.5' if setting.parameters['model'] == 'auto' else ''
    title = 'cameras: rain at 640x480 from four cameras at 10 Hz each, gate off, with masks'
    return Result(title, [
        Figure('least served / most served camera',
               100 * evenness([len(frames) for frames in arrived.values()]), '%', '>= 90'),
        Figure('reports that do not add up', len(errors), bar='= 0', digits=0),
        *(Figure(f'{camera} published', len(frames) / played.seconds, 'fps', bar)
          for camera, frames in arrived.items()),
        *(Figure(f'{camera} age p95', percentile([frame.age_ms for frame in frames], 95), 'ms')
          for camera, frames in arrived.items()),
    ], errors[:3], {camera: _details(played, camera) for camera in _CAMERAS})


# The rain gate: closing in dry frames, CPU time while closed, and opening when rain begins

def _gate(setting: Setting) -> tuple[dict[str, str], float]:
    """Return parameters with the gate on, and after how many dry seconds it is surely closed."""
    if setting.quick:
        return {'rain_gate': 'true', 'rain_gate_dry_after': '1.0'}, 4.0
    return {'rain_gate': 'true'}, 12.0


class _Meter:
    """Samples the CPU time of the node; keeps the images received after ``keep_after`` seconds."""

    def __init__(self, keep_after: float = float('inf')) -> None:
        self._samples: list[ProcessFigures] = []
        self._keep_after = keep_after

    def __call__(self, run: LiveRun) -> None:
        now = time.time_ns()
        if not self._samples or now - self._samples[-1].time >= _SAMPLE_SECONDS * 1e9:
            self._samples.append(process_figures(run.pid, cheap=True))
        # Not from the beginning: the images of one second take 28 MB.
        if now - self._samples[0].time >= self._keep_after * 1e9:
            run.listener.keep(f'{CAMERA}/derained/image')

    def cpu(self, played: Played, since: int) -> float:
        """Return CPU seconds per second from shortly after a stamp (ns) to the last frame."""
        return cpu_share(self._samples, since + int(_BEGIN_AFTER * 1e9),
                         played.frames[CAMERA][-1].stamp)


def dry(setting: Setting) -> Result:
    """Measure the node first on the rainy clip with the gate off, then on the dry clip with it."""
    clip = setting.clip(*VGA)
    seconds, (parameters, closing) = setting.seconds(10.0), _gate(setting)
    wet_meter, dry_meter = _Meter(), _Meter(keep_after=closing)
    plan = even_plan(clip.dry, _VGA_RATE, closing + seconds)
    wet_run = _play(
        setting, 'wet', clip, even_plan(clip.rainy, _VGA_RATE, seconds + _BEGIN_AFTER),
        {'rain_gate': 'false'}, watch=wet_meter)
    dry_run = _play(setting, 'dry', clip, plan, parameters, watch=dry_meter)
    wet_cpu = wet_meter.cpu(wet_run, wet_run.frames[CAMERA][0].stamp)
    frames = dry_run.frames[CAMERA]
    closed = closed_since(frames)
    if closed is None:
        dry_cpu = changed = compared = float('nan')
        notes = ['the gate did not close, or the node does not report which frames it bypasses']
    else:
        dry_cpu = dry_meter.cpu(dry_run, closed)
        compared, changed = count_changed(frames, plan, clip, closed)
        notes = [f'the gate closed {(closed - frames[0].stamp) / 1e9:.1f} s after the first frame']

    # If the machine cannot process every frame, CPU time per frame says more than per second.
    wet_rate, dry_rate = (rate([frame.arrival for frame in played.arrived(CAMERA)])
                          for played in (wet_run, dry_run))
    title = ('dry: 640x480 at 30 Hz, a dry clip behind the closed gate against rain with the gate '
             'off')
    return Result(title, [
        Figure('CPU time, dry / wet', 100 * ratio(dry_cpu, wet_cpu), '%', '< 10'),
        Figure('frames changed behind the gate', changed if compared else float('nan'),
               bar='= 0', digits=0),
        Figure('frames compared', compared, digits=0),
        Figure('CPU time wet', 1e3 * wet_cpu, 'ms/s'),
        Figure('CPU time dry', 1e3 * dry_cpu, 'ms/s'),
        Figure('CPU time wet for a published frame', 1e3 * ratio(wet_cpu, wet_rate), 'ms'),
        Figure('CPU time dry for a published frame', 1e3 * ratio(dry_cpu, dry_rate), 'ms'),
        Figure('age p50 dry', percentile(
            [frame.age_ms for frame in frames if frame.outcome == _BYPASSED], 50), 'ms'),
    ], notes, {'wet': _details(wet_run), 'dry': _details(dry_run)})


def closed_since(frames: Sequence[PlayedFrame]) -> int | None:
    """Return the stamp of the first frame bypassed after the last derained one; None if none."""
    since = None
    for frame in frames:
        if frame.outcome == _DERAINED:
            since = None
        elif frame.outcome == _BYPASSED and since is None:
            since = frame.stamp
    return since


def count_changed(
    frames: Sequence[PlayedFrame], plan: Plan, clip: ClipFile, since: int
) -> tuple[int, int]:
    """Compare the kept images with the frames sent, from a stamp (ns) on.

    Returns how many were compared, and how many of them differ in size, encoding or any pixel.
    """
    sent = np.load(clip.path, mmap_mode='r')
    compared = changed = 0
    for frame, (index, _) in zip(frames, plan, strict=True):
        if frame.data and frame.stamp >= since:
            view, picture = read_image(frame.data), np.ascontiguousarray(sent[index])
            compared += 1
            changed += ((view.height, view.width, view.step, view.encoding)
                        != (*picture.shape[:2], 3 * picture.shape[1], 'bgr8')
                        or view.data != memoryview(picture).cast('B'))
    return compared, changed


def onset(setting: Setting) -> Result:
    """Play dry frames until the gate has closed, then rain, and measure how soon it opens."""
    clip = setting.clip(*VGA)
    parameters, closing = _gate(setting)
    dry = even_plan(clip.dry, _VGA_RATE, closing)
    begin = dry[-1][1] + 1 / _VGA_RATE
    rain = [(index, begin + offset)
            for index, offset in even_plan(clip.rainy, _VGA_RATE, setting.seconds(4.0))]
    played = _play(setting, 'onset', clip, [*dry, *rain], parameters)
    seconds, before, problem = onset_seconds(played.frames[CAMERA], len(dry))
    return Result('onset: 640x480 at 30 Hz, dry until the gate has closed, then rain', [
        Figure('first rainy frame to first derained', seconds, 's', '<= 1', 2),
        Figure('rainy frames passed on before', before, digits=0),
    ], [problem] if problem else [], _details(played))


def onset_seconds(frames: Sequence[PlayedFrame], first_rainy: int) -> tuple[float, float, str]:
    """Return the time from the first rainy frame, an index into ``frames``, to the first derained.

    Returns seconds between the stamps (infinite if none was derained, NaN if the gate was not
    closed or outcomes are unknown), how many rainy frames arrived before (NaN if none was
    derained), and a description of the problem, if any.
    """
    told_dry = [frame.outcome for frame in frames[:first_rainy] if frame.outcome]
    rainy = frames[first_rainy:]
    opened = next((number for number, frame in enumerate(rainy)
                   if frame.outcome == _DERAINED), None)
    before = float('nan') if opened is None else float(
        sum(frame.arrival is not None for frame in rainy[:opened]))
    if not told_dry:
        return float('nan'), before, 'the node does not report what it does with frames'
    if told_dry[-1] != _BYPASSED:
        return float('nan'), before, 'the gate had not closed when the rain began'
    if opened is None:
        return float('inf'), before, 'no rainy frame was derained'
    return (rainy[opened].stamp - rainy[0].stamp) / 1e9, before, ''
