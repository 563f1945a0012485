"""Segments of a bag as they are written: chunks of mcap, and a record of what is in them."""

import json
import os
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mcap.opcode import Opcode

from derain_ros.bags.mcap_file import CHUNK, McapFile, Message, Piece, zstd
from derain_ros.replacing import replace_file

CHUNK_BYTES = 1 << 20
"""A chunk of mcap is closed when it has grown beyond."""

_MESSAGE = struct.Struct('<BQHIQQ')
_INDEX = struct.Struct('<BQHI')


@dataclass
class SegmentRecord:
    """What is known of a written segment.

    ``counts`` has messages by id of the topic, ``start`` and ``end`` are the times of the oldest
    and the newest, ns. In an mcap file it takes ``size`` bytes, in ``chunks``, each with start,
    end, place from the beginning of the segment, length, length of its indexes, places of these
    by topic, size as it is stored, size unpacked. ``figures`` tell of its frames by number of the
    camera, ``damages`` where the source is damaged, as far as that was met in it.
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
        """Frames that were worked on, well or in vain."""
        return sum(camera['made'] + camera['failed'] for camera in self.figures.values())

    def count(self, topic: int, time: int) -> None:
        """Take in a message."""
        self.counts[topic] += 1
        self.start = time if self.start is None else min(self.start, time)
        self.end = max(self.end or 0, time)

    @classmethod
    def total(cls, records: Iterable['SegmentRecord']) -> 'SegmentRecord':
        """Return the counts and times of several segments."""
        found = cls()
        for record in records:
            found.counts.update(record.counts)
            if record.counts:
                found.start = min(record.start, record.start if found.start is None
                                  else found.start)
                found.end = max(record.end, found.end or 0)
        return found

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        replace_file(path, json.dumps(self.__dict__))

    @classmethod
    def load(cls, path: Path) -> 'SegmentRecord':
        """Read a file of :meth:`save`; OSError, ValueError or TypeError if it is none."""
        found = cls(**json.loads(path.read_text()))
        found.counts = Counter({int(topic): count for topic, count in found.counts.items()})
        return found


def settle_on_disk(stream: BinaryIO, start: int, size: int) -> None:
    """Wait until a part of a file is on the disk, and let the system forget it.

    A long bag would otherwise fill the memory with pages that nobody reads again: new ones
    cost more than those that are used again, and what others need is thrown out for them.
    """
    os.fdatasync(stream.fileno())
    if size and hasattr(os, 'posix_fadvise'):
        os.posix_fadvise(stream.fileno(), start, size, os.POSIX_FADV_DONTNEED)


class ChunkWriter:
    """Writes messages as chunks of mcap, packed with zstd or not, with their indexes behind."""

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

        Times are ns; those before 1970 are written as the largest numbers. ``published`` is the
        time of publishing; None takes the time of recording.
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
        """End the segment, ``ended``; the arguments are those of :class:`SegmentRecord`."""
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


pack_message = zstd.compress
"""Packs a message as rosbag2 does it."""


def load_records(folder: Path) -> Iterator[SegmentRecord]:
    """Yield the records of segments 0, 1, … as far as they are there."""
    number = 0
    while True:
        try:
            record = SegmentRecord.load(folder / f'{number:06d}.json')
        except (OSError, ValueError, TypeError):
            return
        yield record
        number += 1


def read_body(path: Path, record: SegmentRecord) -> Iterator[Message]:
    """Yield the messages of a segment that :class:`ChunkWriter` has written to a file."""
    reader = McapFile.bare(path, record.counts)
    try:
        for start, end, place, length, *_ in record.chunks:
            yield from reader.read_piece(Piece(start, end, place, length))
    finally:
        reader.close()
