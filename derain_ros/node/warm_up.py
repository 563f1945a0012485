"""Getting the engine ready for frame sizes that are known beforehand."""

import re
import threading
import time
from collections.abc import Callable, Sequence

from derain_ros.engines import MINIMUM_SIDE, EngineError
from derain_ros.node.supervisor import FaultError, Supervisor

_SIZE = re.compile(r'([1-9][0-9]{0,4})x([1-9][0-9]{0,4})')
_LOOK_SECONDS = 0.1
_REPORT_SECONDS = 1.0
_LOG_SECONDS = 10.0

Size = tuple[int, int]
"""Height and width in pixels."""


def sizes_problem(value: object) -> str | None:
    """Say what is wrong with a value of ``warm_up_sizes``; None if nothing is."""
    example = "sizes such as '1280x720 640x480'"
    if not isinstance(value, str):
        return f'warm_up_sizes is {value!r}, expected {example}, in quotes'
    for word in value.split():
        found = _SIZE.fullmatch(word)
        if found is None:
            return f'warm_up_sizes has {word!r}, expected {example}'
        if min(map(int, found.groups())) < MINIMUM_SIDE:
            return (f'warm_up_sizes has {word!r}; the network needs at least {MINIMUM_SIDE} '
                    'pixels on each side')
    return None


def read_sizes(value: str) -> tuple[Size, ...]:
    """Return the sizes of a value of ``warm_up_sizes``, each once.

    >>> read_sizes('1280x720 640x480')
    ((720, 1280), (480, 640))
    """
    found = (_SIZE.fullmatch(word).groups() for word in value.split())
    return tuple(dict.fromkeys((int(height), int(width)) for width, height in found))


def shapes_of(sizes: Sequence[Size]) -> list[tuple[int, ...]]:
    """Return the shapes of single frames of these sizes, as the engine gets them."""
    return [(1, height, width, 3) for height, width in sizes]


def wait_until_warm(
    supervisor: Supervisor, sizes: Sequence[Size], stop: threading.Event,
    report: Callable[[], None],
) -> None:
    """Wait until the engine is ready for frames of these sizes.

    Parameters
    ----------
    supervisor
        The engine.
    sizes
        Of the frames.
    stop
        Ends the wait.
    report
        Called once a second.

    Raises
    ------
    EngineError
        The engine cannot do one of them, or ``stop`` was set.

    """
    shapes = shapes_of(sizes)
    last = time.monotonic()
    try:
        while not supervisor.prepare(shapes):
            if supervisor.broken and supervisor.problem:
                raise EngineError(supervisor.problem)
            if stop.wait(_LOOK_SECONDS):
                raise EngineError('the node was told to end while the engine was being prepared')
            if time.monotonic() - last >= _REPORT_SECONDS:
                last = time.monotonic()
                report()
    except FaultError as error:
        raise EngineError(str(error)) from error


class ActivityLog:
    """Tells what the engine prepares, not more often than is read.

    Parameters
    ----------
    log
        Gets a line.

    """

    def __init__(self, log: Callable[[str], None]):
        self._log = log
        self._last = -_LOG_SECONDS
        self._busy = False

    def look(self, activity: str) -> None:
        """Take note of what is being prepared now; empty is nothing."""
        now = time.monotonic()
        if activity and now - self._last >= _LOG_SECONDS:
            self._last, self._busy = now, True
            self._log(activity)
        elif not activity and self._busy:
            self._busy = False
            self._last = -_LOG_SECONDS
