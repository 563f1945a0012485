"""What the scenarios of the rain gate share: a dry drive until the gate has closed."""

from collections.abc import Sequence

from derain_ros.bench.setting import Setting
from derain_ros.bench.stream import StreamFrame

SIZE = (640, 480)
RATE = 30.0
BYPASSED = 'bypassed'
DERAINED = 'derained'


def gate_parameters(setting: Setting) -> dict[str, str]:
    """Return parameters with the gate on; a quick run does not wait long for it to close."""
    closing = {'rain_gate_dry_after': '1.0'} if setting.quick else {}
    return {'rain_gate': 'true', **closing}


def closing_seconds(setting: Setting) -> float:
    """Return how long a dry drive takes until the gate has closed, with time to spare."""
    return 4.0 if setting.quick else 12.0


def closed_since(frames: Sequence[StreamFrame]) -> int | None:
    """Return the stamp from which on no frame was derained; None if the last one was."""
    since = None
    for frame in frames:
        if frame.told.message == DERAINED:
            since = None
        elif frame.told.message == BYPASSED and since is None:
            since = frame.sent.stamp
    return since
