"""A thread that reads from disk ahead of the one that publishes."""

import threading
from collections import deque
from collections.abc import Iterator

Message = tuple[int, str, bytes]
"""Time from the start (ns), topic, serialized message."""

LIMIT_BYTES = 256 << 20
"""How much is read ahead: some 40 frames of 1080p raw."""


class ReadAhead:
    """Messages of an iterator, read by a thread into a buffer; a context manager.

    Iterating yields each message and whether it had to be waited for; what the iterator raises
    comes after the messages before it. Holds ``limit`` bytes at most, but one message always.
    """

    def __init__(self, source: Iterator[Message], limit: int = LIMIT_BYTES):
        self._source = source
        self._limit = limit
        self._condition = threading.Condition()
        self._buffer: deque[Message] = deque()
        self._bytes = 0
        self._ended = self._closed = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, name='read ahead', daemon=True)

    def __enter__(self) -> 'ReadAhead':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def wait_until_full(self, timeout: float) -> None:
        """Wait until the buffer is full, or holds everything, or ``timeout`` seconds."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._ended or self._bytes >= self._limit, timeout)

    def __iter__(self) -> Iterator[tuple[Message, bool]]:
        while True:
            with self._condition:
                late = not self._buffer and not self._ended
                self._condition.wait_for(lambda: self._buffer or self._ended)
                if not self._buffer:
                    break
                message = self._buffer.popleft()
                self._bytes -= len(message[2])
                self._condition.notify_all()
            yield message, late
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            for message in self._source:
                with self._condition:
                    self._condition.wait_for(
                        lambda: self._closed or not self._buffer or self._bytes < self._limit)
                    if self._closed:
                        return
                    self._buffer.append(message)
                    self._bytes += len(message[2])
                    self._condition.notify_all()
        except Exception as error:  # of a damaged bag; __iter__() raises it
            self._error = error
        finally:
            with self._condition:
                self._ended = True
                self._condition.notify_all()
