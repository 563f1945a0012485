"""The newest frame of each camera, and counts of what became of all frames."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum

EXPECTED_PERIODS = 3  # a camera is overdue after this many of its median intervals
SHORTEST_WAIT = 0.5  # seconds before which no camera is overdue
FIRST_WAIT = 2.0  # seconds after which a camera without two frames is overdue
HABIT_BREAKS, HABIT_SECONDS = 3, 20.0
"""This many pauses of about equal length, within this many seconds, are normal for a camera."""

MOST_WAITING = 5
"""Most frames of a camera that wait for a partner, which may take longer to arrive."""

_INTERVALS, _FEW = 20, 5


class _Pace:
    """Intervals between the frames of a camera; ``last`` is 0 before the first frame."""

    def __init__(self) -> None:
        self.last = 0.0
        self.intervals: deque[float] = deque(maxlen=_INTERVALS)
        self._breaks: deque[tuple[float, float]] = deque(maxlen=HABIT_BREAKS)

    def arrived(self, now: float) -> None:
        """Note an arrival; ``now`` is ``time.monotonic()``, in seconds."""
        if self.last:
            interval = now - self.last
            if self.intervals and interval > self._usual():
                self._breaks.append((now, interval))
            self.intervals.append(interval)
        self.last = now

    def limit(self) -> float:
        """Return the seconds after which the camera is overdue."""
        breaks = [interval for at, interval in self._breaks if self.last - at < HABIT_SECONDS]
        if len(breaks) == HABIT_BREAKS and max(breaks) < 2 * min(breaks):
            return max(1.5 * max(breaks), self._usual())
        return self._usual()

    def _usual(self) -> float:
        return max(EXPECTED_PERIODS * statistics.median(self.intervals), SHORTEST_WAIT)


class Outcome(Enum):
    """What became of a frame that was taken."""

    DERAINED = 'derained'
    BYPASSED = 'bypassed'
    PASSED_THROUGH = 'passed_through'
    DROPPED = 'dropped'
    FAILED = 'failed'
    IDLE = 'idle'


@dataclass(frozen=True)
class Counts:
    """Frames of one camera so far.

    ``received`` is the sum of the others plus the frames being processed. A waiting frame is
    counted as received only when it is taken or dropped. ``unmatched`` counts those of the dropped
    that have found no partner in their group.
    """

    received: int = 0
    derained: int = 0
    bypassed: int = 0
    passed_through: int = 0
    dropped: int = 0
    failed: int = 0
    idle: int = 0
    unmatched: int = 0

    @property
    def published(self) -> int:
        """Frames published: derained, bypassed or passed through."""
        return self.derained + self.bypassed + self.passed_through

    @property
    def in_work(self) -> int:
        """Frames being processed."""
        return self.received - self.published - self.dropped - self.failed - self.idle

    def since(self, previous: 'Counts') -> 'Counts':
        """Return what was counted after ``previous``."""
        return Counts(*(getattr(self, one.name) - getattr(previous, one.name)
                        for one in fields(self)))


@dataclass(frozen=True)
class Taken:
    """A serialized message from the mailbox; ``arrival`` is in seconds of ``time.monotonic()``."""

    camera: str
    data: bytes
    arrival: float
    compressed: bool = False


class Mailbox:
    """One slot for the newest frame of each camera; safe to use from several threads.

    Cameras of a group share a slot, which holds one frame of each with matching stamps. Up to
    :data:`MOST_WAITING` frames of a camera wait for partners; those that find none are dropped.

    ``groups`` maps each camera to its group, empty for none; ``tolerance`` is how far apart the
    stamps of a group may be, in seconds; ``stamp`` reads the stamp of a serialized message.
    """

    def __init__(
        self, groups: Mapping[str, str], tolerance: float, stamp: Callable[[bytes], float]
    ):
        self._tolerance = tolerance
        self._stamp = stamp
        self._slot_of = {
            camera: ('group', group) if group else ('camera', camera)
            for camera, group in groups.items()}
        self._slots = list(dict.fromkeys(self._slot_of.values()))
        self._members = {
            slot: [camera for camera, found in self._slot_of.items() if found == slot]
            for slot in self._slots}
        self._changed = threading.Condition()
        self._ready: dict[tuple, list[Taken]] = {}
        # By camera of a group, in order of their stamps.
        self._waiting: dict[str, list[tuple[float, Taken]]] = {camera: [] for camera in groups}
        self._paces = {camera: _Pace() for camera in groups}
        self._opened = 0.0
        self._open = False
        self._counts = {camera: Counts() for camera in groups}

    def open(self) -> None:
        """Accept frames from now on."""
        with self._changed:
            self._open = True
            self._opened = time.monotonic()
            self._paces = {camera: _Pace() for camera in self._paces}

    def close(self) -> None:
        """Refuse new frames, drop those waiting, and make :meth:`take` return None."""
        with self._changed:
            self._open = False
            waiting = [taken for ready in self._ready.values() for taken in ready]
            self._ready.clear()
            self._drop(waiting)
            for queue in self._waiting.values():
                self._drop_first(queue, len(queue))
            self._changed.notify_all()

    def put(self, camera: str, data: bytes, compressed: bool = False) -> None:
        """Store a frame; an older one that is still waiting is dropped and counted."""
        taken = Taken(camera, data, time.monotonic(), compressed)
        with self._changed:
            if not self._open:
                return
            self._paces[camera].arrived(taken.arrival)
            slot = self._slot_of[camera]
            if len(self._members[slot]) == 1:
                self._fill(slot, [taken])
            else:
                self._join(slot, taken)

    def _join(self, slot: tuple, taken: Taken) -> None:
        queues = [self._waiting[camera] for camera in self._members[slot]]
        own, stamp = self._waiting[taken.camera], self._stamp(taken.data)
        back = bool(own) and stamp <= own[-1][0]  # a camera's stamps increase, unless time jumps
        own.append((stamp, taken))
        self._drop_first(own, len(own) - 1 if back else max(0, len(own) - MOST_WAITING))
        group = [min(queue, key=lambda frame: abs(frame[0] - stamp)) for queue in queues if queue]
        stamps = [each for each, _ in group]
        if len(group) == len(queues) and max(stamps) - min(stamps) <= self._tolerance:
            for queue, frame in zip(queues, group, strict=True):
                self._drop_first(queue, queue.index(frame))
                del queue[0]
            self._fill(slot, [frame for _, frame in group])
            return
        for queue in queues:
            while queue and any(self._passed(queue[0][0], other) for other in queues):
                self._drop_first(queue, 1)

    def _passed(self, stamp: float, queue: list[tuple[float, Taken]]) -> bool:
        """Return whether a camera's frames have no partner for a stamp, nor will have one."""
        return bool(queue) and queue[-1][0] - stamp > self._tolerance and all(
            abs(other - stamp) > self._tolerance for other, _ in queue)

    def _drop_first(self, queue: list[tuple[float, Taken]], count: int) -> None:
        for _, taken in queue[:count]:
            self._drop([taken])
            self._add(taken.camera, 'unmatched')
        del queue[:count]

    def _fill(self, slot: tuple, frames: list[Taken]) -> None:
        self._drop(self._ready.get(slot, ()))
        self._ready[slot] = frames
        self._changed.notify()

    def take(self) -> list[Taken] | None:
        """Wait for the frame of a camera, or those of a group; cameras are served in turn.

        Call :meth:`finish` for each frame. Returns None once the mailbox is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or not self._open)
            if not self._open:
                return None
            slot = next(slot for slot in self._slots if slot in self._ready)
            self._slots.remove(slot)
            self._slots.append(slot)
            frames = self._ready.pop(slot)
            for taken in frames:
                self._add(taken.camera, 'received')
            return frames

    def finish(self, camera: str, outcome: Outcome) -> None:
        """Count what became of a frame that was taken."""
        with self._changed:
            self._add(camera, outcome.value)

    def counts(self) -> dict[str, Counts]:
        """Return the counts of every camera at one moment."""
        with self._changed:
            return dict(self._counts)

    def reset_counts(self) -> None:
        """Reset all counts to zero; frames being processed still count as received."""
        with self._changed:
            for camera, counts in self._counts.items():
                self._counts[camera] = Counts(received=counts.in_work)

    def silence(self, camera: str) -> tuple[float | None, bool]:
        """Return the seconds since the last frame, None unless overdue, and if one ever came.

        A camera is overdue after :data:`EXPECTED_PERIODS` of its median intervals, but not
        before :data:`SHORTEST_WAIT`, and later if it regularly pauses for longer.
        """
        with self._changed:
            pace = self._paces[camera]
            seconds = time.monotonic() - (pace.last or self._opened)
            limit = pace.limit() if len(pace.intervals) else FIRST_WAIT
            return (seconds if seconds > limit else None), pace.last > 0

    def rate(self, camera: str) -> float | None:
        """Return a camera's frames per second, 0 if overdue; None before the first few frames."""
        if self.silence(camera)[0] is not None:
            return 0.0
        with self._changed:
            intervals = self._paces[camera].intervals
            return None if len(intervals) < _FEW else 1 / max(statistics.median(intervals), 1e-3)

    def _drop(self, frames: Iterable[Taken]) -> None:
        for taken in frames:
            self._add(taken.camera, 'received')
            self._add(taken.camera, Outcome.DROPPED.value)

    def _add(self, camera: str, key: str) -> None:
        counts = self._counts[camera]
        self._counts[camera] = replace(counts, **{key: getattr(counts, key) + 1})
