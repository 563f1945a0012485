"""When a recorded message is due, and the stamp that it is sent under."""

import struct
import time
from collections.abc import Callable

_STAMP_AT = 4
_STAMP_END = 12


def restamped(data: bytes, stamp: int) -> bytes | None:
    """Return a serialized message that begins with a header, under another stamp.

    Parameters
    ----------
    data
        CDR of either byte order; nothing but the eight bytes of the stamp is changed.
    stamp
        Nanoseconds since the epoch.

    Returns
    -------
    bytes or None
        None where the message ends before its stamp does.

    """
    if len(data) < _STAMP_END:
        return None
    view = memoryview(data)
    order = '<' if data[1] & 1 else '>'
    packed = struct.pack(f'{order}iI', *divmod(stamp, 10**9))
    return b''.join((view[:_STAMP_AT], packed, view[_STAMP_END:]))


class Stamps:
    """Stamps that tell the frames of a topic apart: the time, or a little more."""

    def __init__(self, clock: Callable[[], int] = time.time_ns):
        self._clock = clock
        self._last: dict[str, int] = {}

    def next(self, topic: str) -> int:
        """Return the time, but always later than the last one of this topic, ns."""
        stamp = max(self._clock(), self._last.get(topic, 0) + 1)
        self._last[topic] = stamp
        return stamp


class Pacer:
    """Waits until messages are due.

    Parameters
    ----------
    factor
        How much faster than recorded to play.
    clock, sleep
        Monotonic nanoseconds, and how to wait some seconds.

    Attributes
    ----------
    late
        How long after it was due each message so far was let go, ns.

    """

    def __init__(
        self, factor: float, clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.late: list[int] = []
        self._factor = factor
        self._clock = clock
        self._sleep = sleep
        self._start = clock()

    def wait(self, offset: int) -> None:
        """Wait for a message recorded ``offset`` ns after the first one."""
        due = self._start + round(offset / self._factor)
        early = due - self._clock()
        if early > 0:
            self._sleep(early / 1e9)
        self.late.append(max(0, self._clock() - due))

    def elapsed(self) -> float:
        """Return the seconds since the first message was due."""
        return (self._clock() - self._start) / 1e9
