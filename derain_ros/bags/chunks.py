"""Write segments of a bag: MCAP chunks, and a record of what each segment contains."""

import json
import os
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from mcap.opcode import Opcode

from derain_ros.bags.mcap_file import CHUNK, McapFile, Message, Piece, zstd
from derain_ros.replacing import replace_file

CHUNK_BYTES = 1 << 20
"""An MCAP chunk is closed once its uncompressed messages exceed this size."""

_MESSAGE = struct.Struct('<BQHIQQ')
_INDEX = struct.Struct('<BQHI')


@dataclass
class SegmentRecord:
    """Summary of a written segment.

    ``counts`` holds the number of messages by topic id; ``start`` and ``end`` are the times of the
    oldest and the newest message, ns. In an MCAP file the segment takes ``size`` bytes. Each of
    its ``chunks`` lists start and end time, offset from the beginning of the segment, length,
    length of its message indexes, their offsets by topic, compressed and uncompressed size.
    ``figures`` holds frame statistics by camera number, ``damages`` the damage found so far.
    """

    counts: Counter = field(default_factory=Counter)
    start: int | None = None
    end: int | None = None
    size: int = 0
    chunks: list[list] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    damages: list[dict] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Number of frames processed, failed ones included."""
        return sum(camera['made'] + camera['failed'] for camera in self.figures.values())

    def count(self, topic: int, time: int) -> None:
        """Count a message, ``time`` in ns."""
        self.counts[topic] += 1
        self.start = time if self.start is None else min(self.start, time)
        self.end = max(self.end or 0, time)

    @classmethod
    def total(cls, records: Iterable['SegmentRecord']) -> 'SegmentRecord':
        """Return the counts and times of several segments."""
        filled = [record for record in records if record.counts]
        return cls(sum((record.counts for record in filled), Counter()),
                   min((record.start for record in filled), default=None),
                   max((record.end for record in filled), default=None))

    def save(self, path: Path) -> None:
        """Write the record to a file, atomically."""
        replace_file(path, json.dumps(self.__dict__))

    @classmethod
    def load(cls, path: Path) -> 'SegmentRecord':
        """Read a file written by :meth:`save`; raises OSError, ValueError or TypeError."""
        found = cls(**json.loads(path.read_text()))
        found.counts = Counter({int(topic): count for topic, count in found.counts.items()})
        return found


def settle_on_disk(stream: BinaryIO, start: int, size: int) -> None:
    """Flush a file to disk, and drop a part of it from the page cache.

    A long bag would otherwise fill the cache with pages that are never read again: allocating
    new pages costs more than reusing old ones, and pages that others need would be evicted.
    """
    os.fdatasync(stream.fileno())
    if size:
        os.posix_fadvise(stream.fileno(), start, size, os.POSIX_FADV_DONTNEED)


class ChunkWriter:
    """Writes messages as MCAP chunks, optionally zstd-compressed, each followed by its indexes."""

    def __init__(self, stream: BinaryIO, compress: bool):
        self._stream = stream
        self._compress = compress
        self.record = self.ended = SegmentRecord()
        self._clear()

    def _clear(self) -> None:
        self._parts: list = []
        self._bytes = 0
        self._places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)

    def write(
        self, topic: int, time: int, parts: Sequence, sequence: int = 0,
        published: int | None = None
    ) -> None:
        """Add a message; the bytes in ``parts`` are kept, not copied, until the chunk is written.

        Times are ns; those before 1970 wrap around to the largest uint64 values. ``published`` is
        the publish time; None uses the log time ``time``.
        """
        time %= 1 << 64
        published = time if published is None else published % (1 << 64)
        self.record.count(topic, time)
        size = sum(map(len, parts))
        self._places[topic].append((time, self._bytes))
        self._parts.append(_MESSAGE.pack(
            Opcode.MESSAGE, 22 + size, topic, sequence, time, published))
        self._parts += parts
        self._bytes += _MESSAGE.size + size
        if self._bytes > CHUNK_BYTES:
            self._end_chunk()

    def end_segment(self, figures: dict[str, Any], damages: list[dict]) -> None:
        """End the segment; ``ended`` is its :class:`SegmentRecord`, with these two fields."""
        if self._bytes:
            self._end_chunk()
        self.ended, self.record = self.record, SegmentRecord()
        self.ended.figures, self.ended.damages = figures, damages

    def _end_chunk(self) -> None:
        times = [time for places in self._places.values() for time, _ in places]
        name, stored, parts = b'', self._bytes, self._parts
        if self._compress:
            parts = [zstd.compress(b''.join(parts))]
            name, stored = b'zstd', len(parts[0])
        head = CHUNK.pack(min(times), max(times), self._bytes, 0)
        head += struct.pack('<I', len(name)) + name + struct.pack('<Q', stored)
        head = struct.pack('<BQ', Opcode.CHUNK, len(head) + stored) + head
        length = len(head) + stored
        self._stream.write(head)
        for part in parts:
            self._stream.write(part)
        offsets, indexes = {}, bytearray()
        for topic, places in self._places.items():
            offsets[topic] = length + len(indexes)
            indexes += _INDEX.pack(Opcode.MESSAGE_INDEX, 6 + 16 * len(places), topic,
                                   16 * len(places))
            for place in places:
                indexes += struct.pack('<QQ', *place)
        self._stream.write(indexes)
        record = self.record
        record.chunks.append([
            min(times), max(times), record.size, length, len(indexes),
            list(offsets.items()), stored, self._bytes])
        record.size += length + len(indexes)
        self._clear()


def load_records(folder: Path) -> Iterator[SegmentRecord]:
    """Yield the records of segments 0, 1, … up to the first that is missing or unreadable."""
    with suppress(OSError, ValueError, TypeError):
        for number in count():
            yield SegmentRecord.load(folder / f'{number:06d}.json')


def read_body(path: Path, record: SegmentRecord) -> Iterator[Message]:
    """Yield the messages of a segment that :class:`ChunkWriter` wrote to a file of its own."""
    with closing(McapFile.bare(path, record.counts)) as reader:
        for start, end, place, length, *_ in record.chunks:
            yield from reader.read_piece(Piece(start, end, place, length))
