"""What the node adds to the inference at 1920x1080, beside a plain rclpy node."""

from collections.abc import Sequence

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.node_comparison import compare, overheads_ms
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream import StreamFrame, inference_ms
from derain_ros.bench.stream_statistics import percentile, ratio
from derain_ros.live.listener import number

_SIZE = (1920, 1080)
_FRAMES = 60
_QUICK_FRAMES = 6
_IN_PROCESS = ('wait', 'decode', 'encode', 'publish')
"""Stages of our node from the arrival of a message to the end of publishing."""


def run(setting: Setting) -> Result:
    """Measure: frames one by one, a few to our node, a few to the plain one, and so on."""
    frames = _QUICK_FRAMES if setting.quick else _FRAMES
    sides = compare(
        setting, 'overhead', setting.clip(*_SIZE),
        {'ours': ('derain', {'rain_gate': 'false'}), 'plain': ('plain', {})}, frames)
    ours, plain = sides['ours'], sides['plain']
    overheads = {name: percentile(overheads_ms(side), 50) for name, side in sides.items()}
    published = {name: percentile(publication_ms(side.frames), 50)
                 for name, side in sides.items()}
    inside = {
        'ours': sum(number(ours.diagnostics, f'{stage}_p50_ms') for stage in _IN_PROCESS),
        'plain': percentile(
            [number(frame.told.values, 'callback_ms') - frame.told.infer_ms
             for frame in plain.frames], 50),
    }
    return Result(
        'overhead: 1920x1080 one frame at a time, our node and a plain rclpy node in turn',
        [
            Figure('overhead, ours / plain', ratio(overheads['ours'], overheads['plain']), '',
                   Bar('<=', 0.4), 2),
            Figure('ours, sent to received less inference', overheads['ours'], 'ms'),
            Figure('plain, sent to received less inference', overheads['plain'], 'ms'),
            Figure('ours, stamp to published less inference', published['ours'], 'ms'),
            Figure('plain, stamp to published less inference', published['plain'], 'ms'),
            Figure('ours, inside the callback less inference', inside['ours'], 'ms'),
            Figure('plain, inside the callback less inference', inside['plain'], 'ms'),
            Figure('ours, inference p50', inference_ms(ours.frames, ours.diagnostics), 'ms'),
            Figure('plain, inference p50', inference_ms(plain.frames, {}), 'ms'),
        ],
        ['the callback of the plain node begins after rclpy has deserialized the message'],
        {name: {'overhead_ms': overheads_ms(side), 'diagnostics': dict(side.diagnostics)}
         for name, side in sides.items()})


def publication_ms(frames: Sequence[StreamFrame]) -> list[float]:
    """Return, for each frame, the time from its stamp to publication less its inference."""
    return [number(frame.told.values, 'age_ms') - frame.told.infer_ms for frame in frames]
