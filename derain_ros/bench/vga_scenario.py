"""Rain at 640x480 and 30 Hz: how many frames come out, and how old they are."""

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream import even_plan, inference_ms, play_stream
from derain_ros.bench.stream_statistics import percentile, rate
from derain_ros.live.listener import CAMERA

_SIZE = (640, 480)
_BARS_AT = 30.0
_SECONDS = 20.0


def run(setting: Setting) -> Result:
    """Measure."""
    clip = setting.clip(*_SIZE)
    plan = even_plan(clip.rainy, setting.rate, setting.seconds(_SECONDS))
    stream = play_stream(setting, 'vga', clip, plan, {'rain_gate': 'false'})
    arrived = stream.arrived()
    ages = [frame.age_ms for frame in arrived]
    counts = stream.played.counts
    fps_bar, age_bar = Bar('>=', 29), Bar('<=', 66)
    if setting.rate != _BARS_AT:
        fps_bar = age_bar = None
    return Result(
        f'vga: rain at 640x480, {setting.rate:g} Hz offered, gate off, with mask',
        [
            Figure('published', rate([frame.arrival for frame in arrived]), 'fps', fps_bar),
            Figure('age p95, stamp to image received', percentile(ages, 95), 'ms', age_bar),
            Figure('age p50', percentile(ages, 50), 'ms'),
            Figure('age p99', percentile(ages, 99), 'ms'),
            Figure('inference p50', inference_ms(arrived, stream.played.after[CAMERA]), 'ms'),
            Figure('offered', rate([frame.sent.stamp for frame in stream.frames[CAMERA]]), 'fps'),
        ],
        [f'{len(plan)} sent, {len(plan) - counts["received"]} lost on the way, ' + ', '.join(
            f'{value} {key}' for key, value in counts.items())],
        stream.details())
