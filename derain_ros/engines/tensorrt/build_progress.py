"""How far a build is: nested phases of steps, as TensorRT reports them, as one percentage."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_QUIET_SECONDS = 1.0


@dataclass(frozen=True)
class Progress:
    """How far a build is.

    Attributes
    ----------
    phase
        What is being done, in the words of the builder.
    percent
        0 to 100; it never goes back.
    seconds
        Since the start.

    """

    phase: str
    percent: float
    seconds: float


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class ProgressTree:
    """Turns nested phases into one percentage.

    A phase takes the place of the step of its parent that is under way; all steps of a phase
    count the same, which the builder's own times do not.

    ``report``: called with each further percent, and once a second while there is none. ``stop``:
    set by anyone to abort the build.
    """

    def __init__(self, report: Callable[[Progress], None], stop: threading.Event):
        self._report = report
        self._stop = stop
        self._start = time.monotonic()
        self._phases: dict[str, _Phase] = {}
        self._highest = 0.0
        self._told = -1
        self._last = self._start
        # The builder calls from threads of its own.
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of so many steps, within another phase or none."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(1, steps))
            self._tell(name)

    def step(self, name: str, step: int) -> bool:
        """Count a step, from 0, as done; returns whether to go on."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = min(phase.steps, max(phase.done, step + 1))
                self._tell(name)
        return not self._stop.is_set()

    def finish(self, name: str) -> None:
        """End a phase."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None and phase.parent is None:
                self._highest = 100.0
                self._tell(name)

    def _tell(self, name: str) -> None:
        self._highest = max(self._highest, 100 * self._share(name))
        now = time.monotonic()
        if int(self._highest) > self._told or now - self._last >= _QUIET_SECONDS:
            self._told, self._last = int(self._highest), now
            self._report(Progress(name, self._highest, now - self._start))

    def _share(self, name: str) -> float:
        """Return the share of the whole that is done, 0 to 1, seen from a phase."""
        share = 0.0
        seen = set()
        current: str | None = name
        while current is not None and current not in seen and current in self._phases:
            seen.add(current)
            phase = self._phases[current]
            share = min(1.0, (phase.done + share) / phase.steps)
            current = phase.parent
        return share
