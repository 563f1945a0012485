"""The rain gate: a dry drive until it has closed, what the node then costs, and its opening."""

import time
from collections.abc import Sequence

import numpy as np

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.process_figures import cpu_and_rss
from derain_ros.bench.setting import VGA, ClipFile, Setting
from derain_ros.bench.stream_scenarios import details, even_plan, play_stream
from derain_ros.bench.stream_statistics import cpu_share, percentile, rate, ratio
from derain_ros.images.cdr import read_image
from derain_ros.live.listener import CAMERA
from derain_ros.live.live_run import LiveRun
from derain_ros.live.played import Plan, Played, PlayedFrame

_RATE = 30.0
_DRY_SECONDS = 10.0
_ONSET_SECONDS = 4.0
_SAMPLE_EVERY = 0.2
_BEGIN_AFTER = 0.5
_BYPASSED, _DERAINED = 'bypassed', 'derained'


def _gate(setting: Setting) -> tuple[dict[str, str], float]:
    """Return parameters with the gate on, and seconds in which a dry drive closes it for sure."""
    if setting.quick:
        return {'rain_gate': 'true', 'rain_gate_dry_after': '1.0'}, 4.0
    return {'rain_gate': 'true'}, 12.0


def closed_since(frames: Sequence[PlayedFrame]) -> int | None:
    """Return the stamp from which on no frame was derained; None if the last one was."""
    since = None
    for frame in frames:
        if frame.outcome == _DERAINED:
            since = None
        elif frame.outcome == _BYPASSED and since is None:
            since = frame.stamp
    return since


class _Meter:
    """CPU time of the node while a clip plays; keeps the images after a number of seconds."""

    def __init__(self, keep_after: float = float('inf')) -> None:
        self.samples: list[tuple[int, float]] = []
        self._keep_after = keep_after

    def __call__(self, run: LiveRun) -> None:
        now = time.time_ns()
        if not self.samples or now - self.samples[-1][0] >= _SAMPLE_EVERY * 1e9:
            self.samples.append((now, cpu_and_rss(run.pid)[0]))
        # Not from the beginning: a second of images takes 28 MB.
        if now - self.samples[0][0] >= self._keep_after * 1e9:
            run.listener.keep(f'{CAMERA}/derained/image')

    def cpu(self, played: Played, since: int) -> float:
        """Return CPU seconds a second from shortly after a stamp to the last frame."""
        return cpu_share(self.samples, since + int(_BEGIN_AFTER * 1e9),
                         played.frames[CAMERA][-1].stamp)


def dry(setting: Setting) -> Result:
    """Measure the wet node on the rainy clip first, then the dry one on the dry clip."""
    clip = setting.clip(*VGA)
    seconds, (parameters, closing) = setting.seconds(_DRY_SECONDS), _gate(setting)
    wet_meter, dry_meter = _Meter(), _Meter(keep_after=closing)
    plan = even_plan(clip.dry, _RATE, closing + seconds)
    wet_run = play_stream(
        setting, 'wet', clip, even_plan(clip.rainy, _RATE, seconds + _BEGIN_AFTER),
        {'rain_gate': 'false'}, watch=wet_meter)
    dry_run = play_stream(setting, 'dry', clip, plan, parameters, watch=dry_meter)
    wet_cpu = wet_meter.cpu(wet_run, wet_run.frames[CAMERA][0].stamp)
    frames = dry_run.frames[CAMERA]
    closed = closed_since(frames)
    if closed is None:
        dry_cpu = changed = compared = float('nan')
        notes = ['the gate did not close, or the node does not tell which frames it bypasses']
    else:
        dry_cpu = dry_meter.cpu(dry_run, closed)
        compared, changed = count_changed(frames, plan, clip, closed)
        notes = [f'the gate closed {(closed - frames[0].stamp) / 1e9:.1f} s after the first frame']
    return Result(
        'dry: 640x480 at 30 Hz, a dry clip behind the closed gate against rain with the gate off',
        [Figure('CPU time, dry / wet', 100 * ratio(dry_cpu, wet_cpu), '%', Bar('<', 10)),
         Figure('frames changed behind the gate', changed if compared else float('nan'), '',
                Bar('=', 0), 0),
         Figure('frames compared', compared, '', None, 0),
         Figure('CPU time wet', 1e3 * wet_cpu, 'ms/s'),
         Figure('CPU time dry', 1e3 * dry_cpu, 'ms/s'),
         Figure('CPU time wet for a published frame', 1e3 * wet_cpu / _rate(wet_run), 'ms'),
         Figure('CPU time dry for a published frame', 1e3 * dry_cpu / _rate(dry_run), 'ms'),
         Figure('age p50 dry', percentile(
             [frame.age_ms for frame in frames if frame.outcome == _BYPASSED], 50), 'ms')],
        notes, {'wet': details(wet_run), 'dry': details(dry_run)})


def _rate(played: Played) -> float:
    # Where the machine cannot take every frame, the cost of a second says less than this.
    return rate([frame.arrival for frame in played.arrived(CAMERA)]) or float('nan')


def count_changed(
    frames: Sequence[PlayedFrame], plan: Plan, clip: ClipFile, since: int
) -> tuple[int, int]:
    """Compare the images that were kept with those sent.

    Returns how many there are from a stamp on, and how many of them did not arrive as they were
    sent, in size, encoding or any pixel.
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
    """Measure a dry drive until the gate has closed, then the same with rendered rain."""
    clip = setting.clip(*VGA)
    parameters, closing = _gate(setting)
    dry = even_plan(clip.dry, _RATE, closing)
    begin = dry[-1][1] + 1 / _RATE
    rain = [(index, begin + offset)
            for index, offset in even_plan(clip.rainy, _RATE, setting.seconds(_ONSET_SECONDS))]
    played = play_stream(setting, 'onset', clip, [*dry, *rain], parameters)
    seconds, before, problem = onset_seconds(played.frames[CAMERA], len(dry))
    return Result(
        'onset: 640x480 at 30 Hz, dry until the gate has closed, then rain',
        [Figure('first rainy frame to first derained', seconds, 's', Bar('<=', 1), 2),
         Figure('rainy frames passed on before', before, '', None, 0)],
        [problem] if problem else [], details(played))


def onset_seconds(frames: Sequence[PlayedFrame], first_rainy: int) -> tuple[float, float, str]:
    """Return the time from the first rainy frame, a number of all frames, to the first derained.

    Returns seconds between the stamps (infinite if none was derained, NaN if the gate was not
    closed or nothing is told), how many rainy frames arrived before (NaN if none was derained),
    and what was wrong, if anything.
    """
    told_dry = [frame.outcome for frame in frames[:first_rainy] if frame.outcome]
    rainy = frames[first_rainy:]
    opened = next((number for number, frame in enumerate(rainy)
                   if frame.outcome == _DERAINED), None)
    before = float('nan') if opened is None else float(
        sum(frame.arrival is not None for frame in rainy[:opened]))
    if not told_dry:
        return float('nan'), before, 'the node does not tell what it does with frames'
    if told_dry[-1] != _BYPASSED:
        return float('nan'), before, 'the gate had not closed when the rain began'
    if opened is None:
        return float('inf'), before, 'no rainy frame was derained'
    return (rainy[opened].stamp - rainy[0].stamp) / 1e9, before, ''
