"""The dry node: what it costs beside the wet one, and that it leaves frames alone."""

import time

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.closed_gate import (
    BYPASSED,
    RATE,
    SIZE,
    closed_since,
    closing_seconds,
    gate_parameters,
)
from derain_ros.bench.setting import ClipFile, Setting
from derain_ros.bench.stream import Stream, StreamFrame, even_plan, play_stream
from derain_ros.bench.stream_statistics import cpu_share, percentile, rate, ratio
from derain_ros.live.listener import CAMERA
from derain_ros.live.live_run import LiveRun
from derain_ros.live.process_stats import cpu_seconds

_SECONDS = 10.0
_SAMPLE_EVERY = 0.2
_BEGIN_AFTER = 0.5


class _Meter:
    """CPU time of the node while a clip plays; keeps the images after a number of seconds."""

    def __init__(self, keep_after: float = float('inf')) -> None:
        self.samples: list[tuple[int, float]] = []
        self._keep_after = keep_after

    def __call__(self, run: LiveRun) -> None:
        now = time.time_ns()
        if not self.samples or now - self.samples[-1][0] >= _SAMPLE_EVERY * 1e9:
            self.samples.append((now, cpu_seconds(run.pid)))
        # Not from the beginning: a second of images takes 28 MB.
        if now - self.samples[0][0] >= self._keep_after * 1e9:
            run.listener.keep(f'{CAMERA}/derained/image')


def run(setting: Setting) -> Result:
    """Measure: the wet node on the rainy clip first, then the dry one on the dry clip."""
    clip = setting.clip(*SIZE)
    seconds = setting.seconds(_SECONDS)
    wet_meter, dry_meter = _Meter(), _Meter(keep_after=closing_seconds(setting))
    wet = play_stream(
        setting, 'wet', clip, even_plan(clip.rainy, RATE, seconds + _BEGIN_AFTER),
        {'rain_gate': 'false'}, watch=wet_meter)
    dry = play_stream(
        setting, 'dry', clip, even_plan(clip.dry, RATE, closing_seconds(setting) + seconds),
        gate_parameters(setting), watch=dry_meter)
    wet_cpu = _cpu(wet, wet_meter, wet.frames[CAMERA][0].sent.stamp)
    closed = closed_since(dry.frames[CAMERA])
    missing = float('nan')
    if closed is None:
        dry_cpu = changed = compared = missing
        notes = ['the gate did not close, or the node does not tell which frames it bypasses']
    else:
        dry_cpu = _cpu(dry, dry_meter, closed)
        kept = [frame for frame in dry.arrived() if frame.sent.stamp >= closed and frame.data]
        changed = count_changed(kept, clip) if kept else missing
        compared = len(kept)
        first = dry.frames[CAMERA][0].sent.stamp
        notes = [f'the gate closed {(closed - first) / 1e9:.1f} s after the first frame']
    return Result(
        'dry: 640x480 at 30 Hz, a dry clip behind the closed gate against rain with the gate off',
        [
            Figure('CPU time, dry / wet', 100 * ratio(dry_cpu, wet_cpu), '%', Bar('<', 10)),
            Figure('frames changed behind the gate', changed, '', Bar('=', 0), 0),
            Figure('frames compared', compared, '', None, 0),
            Figure('CPU time wet', 1e3 * wet_cpu, 'ms/s'),
            Figure('CPU time dry', 1e3 * dry_cpu, 'ms/s'),
            Figure('CPU time wet for a published frame', 1e3 * wet_cpu / _rate(wet), 'ms'),
            Figure('CPU time dry for a published frame', 1e3 * dry_cpu / _rate(dry), 'ms'),
            Figure('age p50 dry', percentile(
                [frame.age_ms for frame in dry.arrived()
                 if frame.told.message == BYPASSED], 50), 'ms'),
        ],
        notes, {'wet': wet.details(), 'dry': dry.details()})


def _cpu(stream: Stream, meter: _Meter, since: int) -> float:
    begin = since + int(_BEGIN_AFTER * 1e9)
    return cpu_share(meter.samples, begin, stream.frames[CAMERA][-1].sent.stamp)


def _rate(stream: Stream) -> float:
    # Where the machine cannot take every frame, the cost of a second says less than this.
    return rate([frame.arrival for frame in stream.arrived()]) or float('nan')


def count_changed(frames: list[StreamFrame], clip: ClipFile) -> int:
    """Count the frames that did not arrive as they were sent, in size, encoding or any pixel."""
    sent = np.load(clip.path, mmap_mode='r')
    pictures = {index: sent[index].tobytes() for index in {frame.sent.index for frame in frames}}
    changed = 0
    for frame in frames:
        message = deserialize_message(frame.data, Image)
        height, width = sent.shape[1:3]
        same = (
            (message.height, message.width, message.step) == (height, width, 3 * width)
            and message.encoding == 'bgr8'
            and message.data.tobytes() == pictures[frame.sent.index])
        changed += not same
    return changed
