"""Read mcap files: by their index, or, where that is missing or wrong, by looking all through.

Unlike rosbags, this reader takes a file that ends anywhere, and it holds one chunk at a time.
What lies before the damage is read, within a chunk too.
"""

import heapq
import os
import struct
import zlib
from array import array
from collections.abc import Collection, Iterator
from pathlib import Path

from mcap.opcode import Opcode
from mcap.records import Channel, Footer, Header, MessageIndex, Schema

from derain_ros.bags.damage import DamageError, why
from derain_ros.bags.mcap_format import (
    CHUNK,
    FOOTER_BYTES,
    IN_CHUNKS,
    LARGEST_CHUNK,
    MAGIC,
    MALFORMED,
    MESSAGE,
    RECORD,
    UNPACK,
    McapIndex,
    Piece,
    index_of_summary,
    stream_of,
)
from derain_ros.bags.mcap_scan import Scan


class McapFile:
    """An mcap file to read from; one thread at a time.

    Parameters
    ----------
    path
        The file.
    scan
        Look all through it even if it has an index.

    Raises
    ------
    DamageError
        Not even its head can be read.
    OSError
        It cannot be opened.

    """

    def __init__(self, path: Path, *, scan: bool = False):
        self.path = path
        self._file = path.open('rb', buffering=0)
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._read_head()
            self.index = (None if scan else self._summary()) or Scan(self).index
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def bare(cls, path: Path, channels: Collection[int]) -> 'McapFile':
        """Open a file that consists of chunks alone, to read pieces whose place is known."""
        self = cls.__new__(cls)
        self.path = path
        self._file = path.open('rb', buffering=0)
        self.index = McapIndex(channels=dict.fromkeys(channels))
        return self

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(
        self, channels: Collection[int], start: int, stop: int
    ) -> Iterator[tuple[int, int, memoryview]]:
        """Yield channel, time (ns) and serialized message with ``start <= time < stop``.

        They come in the order of time; of one time, in that of the file.

        Raises
        ------
        DamageError
            A piece is not what the index says.

        """
        waiting: list[tuple] = []
        pieces = sorted((
            piece for piece in self.index.pieces
            if piece.start < stop and start <= piece.end
            and (piece.channels is None or not piece.channels.isdisjoint(channels))
        ), key=lambda piece: (piece.start, piece.offset))
        for piece in pieces:
            while waiting and waiting[0][:2] < (piece.start, piece.offset):
                yield waiting[0][3:]
                heapq.heappop(waiting)
            for place, (channel, time, data) in enumerate(self.read_piece(piece)):
                if start <= time < stop and channel in channels:
                    heapq.heappush(waiting, (time, piece.offset, place, channel, time, data))
        while waiting:
            yield heapq.heappop(waiting)[3:]

    def times(self, channels: Collection[int]) -> dict[int, array]:
        """Return the times of all messages of image channels, ns, by channel.

        Raises
        ------
        DamageError
            A message index is not what the summary says.

        """
        if self.index.image_times is not None:
            return {channel: self.index.image_times.get(channel, array('q'))
                    for channel in channels}
        found = {channel: array('q') for channel in channels}
        for piece in self.index.pieces:
            if piece.channels is not None and piece.channels.isdisjoint(channels):
                continue
            for channel, time in self._index_of(piece):
                if channel in found:
                    found[channel].append(time)
        return found

    def read_piece(self, piece: Piece) -> Iterator[tuple[int, int, memoryview]]:
        """Yield channel, time and message of a piece, in the order of the file."""
        content = memoryview(self.read(piece.offset, piece.length))
        if content[0] == Opcode.CHUNK:
            content = self.unpack(piece.offset, content[RECORD.size:], piece.readable is None)
        if piece.readable is not None:
            content = content[:piece.readable]
        for opcode, at, body in self.records(content, piece.offset):
            if opcode == Opcode.MESSAGE:
                channel, _, time, _ = MESSAGE.unpack_from(body)
                if channel not in self.index.channels:
                    raise self.damage(at, f'a message of channel {channel}, which is not there')
                yield channel, time, body[MESSAGE.size:]

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; DamageError where it ends before."""
        self._file.seek(offset)
        data = self._file.read(length)
        while len(data) < length:
            more = self._file.read(length - len(data))
            if not more:
                raise self.damage(offset + len(data), 'the file ends here')
            data += more
        return data

    def unpack(self, offset: int, body: memoryview, check: bool = True) -> memoryview:
        """Return the records of a chunk; those that can be read, unless ``check``."""
        try:
            *_, size, crc = CHUNK.unpack_from(body)
            name_bytes, = struct.unpack_from('<I', body, CHUNK.size)
            at = CHUNK.size + 4 + name_bytes
            name = bytes(body[CHUNK.size + 4:at]).decode()
            stored, = struct.unpack_from('<Q', body, at)
        except (struct.error, UnicodeDecodeError) as error:
            raise self.damage(offset, 'the head of a chunk cannot be read') from error
        packed = body[at + 8:at + 8 + stored]
        if size > LARGEST_CHUNK or name not in UNPACK:
            raise self.damage(offset, f'a chunk of {size} bytes, compressed by {name!r}')
        content, reason = UNPACK[name](packed, size)
        if check:
            if reason or len(packed) != stored or len(content) != size:
                reason = reason or f'it holds {len(content)} bytes instead of {size}'
                raise self.damage(offset, f'a chunk cannot be unpacked ({reason})')
            if crc and zlib.crc32(content) != crc:
                raise self.damage(offset, 'the checksum of a chunk is wrong')
        return memoryview(content)

    def records(
        self, content: memoryview, offset: int
    ) -> Iterator[tuple[int, int, memoryview]]:
        """Yield kind, place and body of the records in a chunk, or in a run of messages."""
        at = 0
        while at < len(content):
            if at + RECORD.size > len(content):
                raise self.damage(offset, f'a record ends after {at} bytes of a chunk')
            opcode, length = RECORD.unpack_from(content, at)
            body = content[at + RECORD.size:at + RECORD.size + length]
            least = MESSAGE.size if opcode == Opcode.MESSAGE else 0
            if opcode not in IN_CHUNKS or len(body) != length or length < least:
                raise self.damage(offset, f'no record after {at} bytes of a chunk')
            yield opcode, at, body
            at += RECORD.size + length

    def define(self, opcode: int, body: memoryview, offset: int, index: McapIndex) -> None:
        """Take in a schema or a channel; the first of an id holds."""
        try:
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(stream_of(body))
                index.schemas.setdefault(schema.id, schema)
            elif opcode == Opcode.CHANNEL:
                channel = Channel.read(stream_of(body))
                index.channels.setdefault(channel.id, channel)
        except MALFORMED as error:
            raise self.damage(offset, f'a schema or channel cannot be read ({why(error)})'
                              ) from error

    def damage(self, offset: int | None, reason: str) -> DamageError:
        """Return the error that says what is wrong with this file."""
        return DamageError(self.path.name, offset, reason)

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self._size

    @property
    def data_start(self) -> int:
        """Byte at which the records after the header begin."""
        return self._data_start

    def _read_head(self) -> None:
        if self.read(0, min(len(MAGIC), self._size)) != MAGIC:
            raise self.damage(0, 'no mcap file')
        opcode, length = RECORD.unpack(self.read(len(MAGIC), RECORD.size))
        if opcode != Opcode.HEADER or length > self._size:
            raise self.damage(len(MAGIC), 'the header is missing')
        self._data_start = len(MAGIC) + RECORD.size + length
        try:
            profile = Header.read(stream_of(self.read(len(MAGIC) + RECORD.size, length))).profile
        except MALFORMED as error:
            raise self.damage(len(MAGIC), f'the header cannot be read ({why(error)})') from error
        if profile != 'ros2':
            raise self.damage(len(MAGIC), f'the profile is {profile!r}, not ros2')

    def _summary(self) -> McapIndex | None:
        """Return the index at the end of the file; None where there is none to rely on."""
        try:
            end = self.read(self._size - FOOTER_BYTES, FOOTER_BYTES)
            if not end.endswith(MAGIC) or end[:9] != RECORD.pack(Opcode.FOOTER, 20):
                return None
            footer = Footer.read(stream_of(end[9:29]))
            start, stop = footer.summary_start, self._size - FOOTER_BYTES
            if not self._data_start <= start <= stop:
                return None
            summary = self.read(start, stop - start)
            if footer.summary_crc and footer.summary_crc != zlib.crc32(summary + end[:25]):
                return None
            return index_of_summary(summary, start)
        except (DamageError, OSError, ValueError, *MALFORMED):
            return None

    def _index_of(self, piece: Piece) -> Iterator[tuple[int, int]]:
        if piece.indexes is None:
            yield from ((channel, time) for channel, time, _ in self.read_piece(piece))
            return
        content = memoryview(self.read(*piece.indexes))
        at = 0
        while at < len(content):
            try:
                opcode, length = RECORD.unpack_from(content, at)
                if opcode != Opcode.MESSAGE_INDEX:
                    raise ValueError('another record')
                body = content[at + RECORD.size:at + RECORD.size + length]
                found = MessageIndex.read(stream_of(body))
            except MALFORMED as error:
                raise self.damage(piece.indexes[0] + at, 'a message index cannot be read'
                                  ) from error
            yield from ((found.channel_id, time) for time, _ in found.records)
            at += RECORD.size + length
