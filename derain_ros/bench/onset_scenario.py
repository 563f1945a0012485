"""The beginning of rain: how long the node leaves it in the picture."""

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.closed_gate import (
    BYPASSED,
    DERAINED,
    RATE,
    SIZE,
    closing_seconds,
    gate_parameters,
)
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream import StreamFrame, even_plan, play_stream
from derain_ros.live.listener import CAMERA

_SECONDS = 4.0


def run(setting: Setting) -> Result:
    """Measure: a dry drive until the gate has closed, then the same with rendered rain."""
    clip = setting.clip(*SIZE)
    dry = even_plan(clip.dry, RATE, closing_seconds(setting))
    begin = dry[-1][1] + 1 / RATE
    rain = [(index, begin + offset)
            for index, offset in even_plan(clip.rainy, RATE, setting.seconds(_SECONDS))]
    stream = play_stream(setting, 'onset', clip, dry + rain, gate_parameters(setting))
    frames = stream.frames[CAMERA]
    seconds, problem = onset_seconds(frames, len(dry))
    return Result(
        'onset: 640x480 at 30 Hz, dry until the gate has closed, then rain',
        [Figure('first rainy frame to first derained', seconds, 's', Bar('<=', 1), 2),
         Figure('rainy frames passed on before', _before(frames[len(dry):]), '', None, 0)],
        [problem] if problem else [], stream.details())


def onset_seconds(frames: list[StreamFrame], first_rainy: int) -> tuple[float, str]:
    """Return the time from the first rainy frame to the first derained one.

    Parameters
    ----------
    frames
        All frames as they were sent.
    first_rainy
        Which of them is the first with rain.

    Returns
    -------
    float
        Seconds between the stamps; infinite if none was derained, NaN if the gate was not
        closed or nothing is told.
    str
        What was wrong, if anything.

    """
    told_dry = [frame.told.message for frame in frames[:first_rainy] if frame.told.message]
    if not told_dry:
        return float('nan'), 'the node does not tell what it does with frames'
    if told_dry[-1] != BYPASSED:
        return float('nan'), 'the gate had not closed when the rain began'
    rainy = frames[first_rainy:]
    for frame in rainy:
        if frame.told.message == DERAINED:
            return (frame.sent.stamp - rainy[0].sent.stamp) / 1e9, ''
    return float('inf'), 'no rainy frame was derained'


def _before(rainy: list[StreamFrame]) -> float:
    count = 0
    for frame in rainy:
        if frame.told.message == DERAINED:
            return count
        count += frame.arrival is not None
    return float('nan')
