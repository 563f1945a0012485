"""The newest frame of each camera, and the count of what became of every frame."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class Outcome(Enum):
    """What became of a frame that was taken."""

    PUBLISHED = 'published'
    DROPPED = 'dropped'
    FAILED = 'failed'
    IDLE = 'idle'


@dataclass(frozen=True)
class Counts:
    """Frames of one camera so far.

    ``received`` is the sum of the others, plus one while a frame is being worked on. A frame
    that waits is not yet received: it becomes so when it is taken or displaced.
    """

    received: int = 0
    published: int = 0
    dropped: int = 0
    failed: int = 0
    idle: int = 0


class Mailbox:
    """One slot for the newest frame of each camera; safe to use from several threads.

    Parameters
    ----------
    cameras
        Names of the cameras.

    """

    def __init__(self, cameras: Iterable[str]):
        self._cameras = tuple(cameras)
        self._changed = threading.Condition()
        self._waiting: dict[str, Any] = {}
        self._counts = {camera: Counts() for camera in self._cameras}
        self._arrivals: dict[str, float] = {}
        self._turn = 0
        self._open = False

    def open(self) -> None:
        """Accept frames from now on."""
        with self._changed:
            self._open = True
            self._arrivals = dict.fromkeys(self._cameras, time.monotonic())

    def close(self) -> None:
        """Accept no frame, drop those that wait, and let :meth:`take` return None."""
        with self._changed:
            self._open = False
            for camera in tuple(self._waiting):
                del self._waiting[camera]
                self._add(camera, received=1, dropped=1)
            self._changed.notify_all()

    def put(self, camera: str, frame: Any) -> None:
        """Leave a frame; an older one that still waits is dropped and counted."""
        with self._changed:
            if not self._open:
                return
            if camera in self._waiting:
                self._add(camera, received=1, dropped=1)
            self._waiting[camera] = frame
            self._arrivals[camera] = time.monotonic()
            self._changed.notify()

    def take(self) -> tuple[str, Any] | None:
        """Wait for a frame, camera by camera in turn.

        Returns
        -------
        tuple of str and object, or None
            Camera and frame; :meth:`finish` must follow. None once the mailbox is closed.

        """
        with self._changed:
            while self._open:
                for step in range(len(self._cameras)):
                    turn = (self._turn + step) % len(self._cameras)
                    camera = self._cameras[turn]
                    if camera in self._waiting:
                        self._turn = turn + 1
                        self._add(camera, received=1)
                        return camera, self._waiting.pop(camera)
                self._changed.wait()
            return None

    def finish(self, camera: str, outcome: Outcome) -> None:
        """Count what became of the frame taken last."""
        with self._changed:
            self._add(camera, **{outcome.value: 1})

    def counts(self) -> dict[str, Counts]:
        """Return the counts of every camera at one moment."""
        with self._changed:
            return dict(self._counts)

    def seconds_since_frame(self, camera: str) -> float:
        """Return the time since a frame came in, or since the opening if none has."""
        with self._changed:
            return time.monotonic() - self._arrivals[camera]

    def _add(self, camera: str, **more: int) -> None:
        counts = self._counts[camera]
        self._counts[camera] = replace(
            counts, **{key: getattr(counts, key) + value for key, value in more.items()})
