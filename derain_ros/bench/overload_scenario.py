"""1920x1080 at 60 Hz, far more than a CPU can take: age, its growth, and the counts."""

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream import even_plan, inference_ms, play_stream
from derain_ros.bench.stream_statistics import count_errors, percentile, rate, ratio, thirds
from derain_ros.live.listener import CAMERA

_SIZE = (1920, 1080)
_RATE = 60.0
_SECONDS = 60.0
_GROWTH = 1.1
"""What the median age may differ by between the first third and the last."""


def run(setting: Setting) -> Result:
    """Measure."""
    clip = setting.clip(*_SIZE)
    plan = even_plan(clip.rainy, _RATE, setting.seconds(_SECONDS))
    stream = play_stream(setting, 'overload', clip, plan, {'rain_gate': 'false'})
    arrived = stream.arrived()
    ages = [frame.age_ms for frame in arrived]
    inference = inference_ms(arrived, stream.played.after[CAMERA])
    first, last = thirds(ages)
    reports = stream.reports[CAMERA]
    errors = count_errors(reports)
    counts = stream.played.counts
    if counts['published'] != len(arrived):
        errors.append(f'{counts["published"]} published, {len(arrived)} arrived')
    p95 = percentile(ages, 95)
    return Result(
        f'overload: rain at 1920x1080, 60 Hz offered for {stream.played.seconds:.0f} s, gate off',
        [
            Figure('age p95 / inference p50', ratio(p95, inference), '', Bar('<=', 2.2), 2),
            Figure('age p50, last third / first third', ratio(last, first), '',
                   Bar('<=', _GROWTH), 2),
            Figure('reports that do not add up', len(errors) if reports else float('nan'), '',
                   Bar('=', 0), 0),
            Figure('age p95, stamp to image received', p95, 'ms'),
            Figure('age p50', percentile(ages, 50), 'ms'),
            Figure('inference p50', inference, 'ms'),
            Figure('published', rate([frame.arrival for frame in arrived]), 'fps'),
            Figure('offered', rate([frame.sent.stamp for frame in stream.frames[CAMERA]]), 'fps'),
        ],
        [f'{len(plan)} sent, {len(plan) - counts["received"]} lost on the way, ' + ', '.join(
            f'{value} {key}' for key, value in counts.items())
         + f'; {len(reports)} reports', *errors[:3]],
        {**stream.details(), 'errors': errors})
