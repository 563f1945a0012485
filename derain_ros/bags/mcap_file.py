"""Read MCAP files by their summary section, or by a full scan if that is missing or wrong.

Unlike rosbags and the mcap package, this reader tolerates damage anywhere in a file: it skips
what is damaged, continues after it, and reports what is lost. It holds one chunk at a time. The
format: https://mcap.dev/spec.
"""

import heapq
import os
import re
import struct
import sys
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import (
    AttachmentIndex,
    Channel,
    Footer,
    Header,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
)

from derain_ros.bags.damage import Damage, DamageError, show_time, why
from derain_ros.bags.topics import IMAGE_TYPES
from derain_ros.text import printable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b'\x89MCAP0\r\n'
LARGEST_CHUNK = 1 << 31
"""A chunk, or a message outside of chunks, with a length above this (bytes) is damaged."""

CHUNK = struct.Struct('<QQQI')
_RECORD = struct.Struct('<BQ')
_MESSAGE = struct.Struct('<HIQQ')
_FOOTER_BYTES = 9 + 20 + len(MAGIC)
_RUN_BYTES = 1 << 20
_USUAL_CHUNK = 1 << 26
_END = _RECORD.pack(Opcode.FOOTER, 20) + struct.pack('<QQI', len(MAGIC), 0, 0) + MAGIC
_PRIVATE = frozenset(range(0x80, 0x100))
_IN_CHUNKS = frozenset({Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE}) | _PRIVATE
_IN_DATA = _IN_CHUNKS | {Opcode.CHUNK, Opcode.MESSAGE_INDEX, Opcode.ATTACHMENT, Opcode.METADATA,
                         Opcode.DATA_END}
_MALFORMED = (struct.error, ValueError, McapError, OverflowError, MemoryError, TypeError)
_CHUNK_HEAD = re.compile(
    rb'\x06(.{8}).{28}(?:\0\0\0\0|\x04\0\0\0zstd|\x03\0\0\0lz4)(.{8})', re.DOTALL)
_MESSAGE_HEAD = re.compile(rb'\x05(.{4}\0{4})(..).{20}', re.DOTALL)
_SEARCH_BYTES = 1 << 24
_OVERLAP = 64

Message = tuple[int, int, memoryview, int, int]
"""Channel id, log time (ns), serialized message, sequence number, publish time (ns)."""


class Piece(NamedTuple):
    """A chunk, or a run of messages outside of chunks.

    ``start`` and ``end`` are the times of its oldest and newest message, ns; ``offset`` and
    ``length`` its place in the file, record header included; ``indexes`` offset and length of its
    message indexes. ``channels`` are those with messages in it, None if unknown. ``readable`` is
    how many bytes of its uncompressed content can be read, None if it is undamaged.
    """

    start: int
    end: int
    offset: int
    length: int
    channels: frozenset[int] | None = None
    readable: int | None = None
    indexes: tuple[int, int] | None = None
    chunk: bool = True


@dataclass
class McapIndex:
    """The contents of a file, and where they are.

    Schemas and channels are by id, message counts and ``image_times`` (ns) by channel id;
    ``image_times`` is None if they must be read from the message indexes. ``kept`` holds the
    index records of attachments and metadata records.
    """

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    kept: list[AttachmentIndex | MetadataIndex] = field(default_factory=list)
    image_times: dict[int, array] | None = None

    def define(self, opcode: int, body: Any) -> None:
        """Add a schema or channel from its record; the first definition of an id wins."""
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(_stream_of(body))
            self.schemas.setdefault(schema.id, schema)
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(_stream_of(body))
            self.channels.setdefault(channel.id, channel)


class _BrokenError(Exception):
    """A part of the file is damaged; reading can continue at the byte ``resume``, if known."""

    def __init__(self, offset: int, reason: str, resume: int | None = None):
        super().__init__(reason)
        self.offset, self.reason, self.resume = offset, reason, resume


class McapFile:
    """An MCAP file open for reading, by one thread at a time.

    ``index`` describes its contents, ``damages`` the damage found so far. Raises DamageError if
    not even its beginning can be read, OSError if it cannot be opened.
    """

    def __init__(self, path: Path):
        self._open(path)
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            if self.size < len(MAGIC) or self.read(0, len(MAGIC)) != MAGIC:
                raise DamageError(path.name, 0, 'not an mcap file')
            self.data_start = len(MAGIC)
            try:
                self.data_start += self._header_bytes()
            except _BrokenError as error:
                self.note(error)
            self.index = self._summary() or _Scan(self).index
        except BaseException as error:
            self._file.close()
            if isinstance(error, _BrokenError):
                raise DamageError(path.name, error.offset, error.reason) from error
            raise

    def _open(self, path: Path) -> None:
        self.path = path
        self.damages: list[Damage] = []
        self._file = path.open('rb', buffering=0)

    @classmethod
    def bare(cls, path: Path, channels: Collection[int]) -> 'McapFile':
        """Open a file that consists of chunks only, to read pieces at known offsets."""
        self = cls.__new__(cls)
        self._open(path)
        self.index = McapIndex(channels=dict.fromkeys(channels))
        return self

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def start_time(self) -> int | None:
        """Time of the oldest message, ns; None if there is none."""
        return min((piece.start for piece in self.index.pieces), default=None)

    @property
    def end_time(self) -> int | None:
        """Time of the newest message, ns; None if there is none."""
        return max((piece.end for piece in self.index.pieces), default=None)

    def messages(self, channels: Collection[int], start: int, stop: int) -> Iterator[Message]:
        """Yield the messages of ``start <= time < stop``, ns, by time and place in the file."""
        waiting: list[tuple] = []
        pieces = sorted((
            piece for piece in self.index.pieces
            if piece.start < stop and start <= piece.end
            and (piece.channels is None or not piece.channels.isdisjoint(channels))
        ), key=lambda piece: (piece.start, piece.offset))
        for piece in pieces:
            while waiting and waiting[0][:2] < (piece.start, piece.offset):
                yield heapq.heappop(waiting)[3]
            for place, message in enumerate(self.read_piece(piece)):
                if start <= message[1] < stop and message[0] in channels:
                    heapq.heappush(waiting, (message[1], piece.offset, place, message))
        while waiting:
            yield heapq.heappop(waiting)[3]

    def times(self, channels: Collection[int]) -> dict[int, array]:
        """Return the times of all messages of image channels, ns, by channel."""
        if self.index.image_times is not None:
            return {channel: self.index.image_times.get(channel, array('Q'))
                    for channel in channels}
        found = {channel: array('Q') for channel in channels}
        for piece in self.index.pieces:
            if piece.channels is None or not piece.channels.isdisjoint(channels):
                for channel, time, *_ in self._listed(piece) or self.read_piece(piece):
                    if channel in found:
                        found[channel].append(time)
        return found

    def read_piece(self, piece: Piece) -> Iterator[Message]:
        """Yield the messages of a piece, in file order; damage is noted."""
        count = 0
        try:
            for message in self._messages_of(piece):
                count += 1
                yield message
        except _BrokenError as error:
            listed = self._listed(piece)
            self.note(error, more=f'; its messages are from {show_time(piece.start)} to '
                                  f'{show_time(piece.end)}',
                      lost=None if listed is None else len(listed) - count)

    def _messages_of(self, piece: Piece) -> Iterator[Message]:
        content, reason = memoryview(self.read(piece.offset, piece.length)), ''
        if piece.chunk:
            content, reason = self.unpack(content[_RECORD.size:])
        if piece.readable is not None:
            content, reason = content[:piece.readable], ''
        for opcode, body in self.records(content, piece.offset):
            if opcode == Opcode.MESSAGE:
                channel, sequence, time, published = _MESSAGE.unpack_from(body)
                if channel not in self.index.channels:
                    raise _BrokenError(piece.offset, f'a message of an unknown channel {channel}')
                yield channel, time, body[_MESSAGE.size:], sequence, published
        if reason:
            raise _BrokenError(piece.offset, reason)

    def note(
        self, error: _BrokenError, *, more: str = '', lost: int | None = None,
        last: int | None = None
    ) -> None:
        """Add a damaged place to :attr:`damages`, unless it is there already."""
        if all(known.offset != error.offset for known in self.damages):
            self.damages.append(Damage(
                printable(self.path.name), error.offset, printable(error.reason + more), last,
                lost))

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; raises _BrokenError if it ends or cannot be read there."""
        try:
            self._file.seek(offset)
            data = self._file.read(length)
            while len(data) < length and (more := self._file.read(length - len(data))):
                data += more
        except OSError as error:
            raise _BrokenError(offset, error.strerror or why(error)) from error
        if len(data) < length:
            raise _BrokenError(offset + len(data), 'the file ends here')
        return data

    @staticmethod
    def unpack(body: memoryview) -> tuple[memoryview, str]:
        """Return the uncompressed content of a chunk that can be trusted, and what is wrong."""
        nothing = memoryview(b'')
        try:
            *_, size, crc = CHUNK.unpack_from(body)
            name_bytes, = struct.unpack_from('<I', body, CHUNK.size)
            at = CHUNK.size + 4 + name_bytes
            name = bytes(body[CHUNK.size + 4:at]).decode()
            stored, = struct.unpack_from('<Q', body, at)
        except (struct.error, UnicodeDecodeError):
            return nothing, 'the header of a chunk cannot be read'
        packed = body[at + 8:at + 8 + stored]
        if name not in _UNPACK:
            return nothing, f'a chunk compressed by {name!r}'
        # The size field itself may be wrong; the checksum decides.
        content, reason = _UNPACK[name](packed, min(max(size, _USUAL_CHUNK), LARGEST_CHUNK))
        if crc and zlib.crc32(content) == crc:
            return memoryview(content), ''
        cut = len(packed) < stored
        if not reason and not cut and len(content) == size:
            if crc:
                return nothing, 'the checksum of a chunk is wrong'
            return memoryview(content), ''
        reason = reason or f'it holds {len(content)} bytes instead of {size}'
        # Content without a checksum, or of a truncated chunk, is trusted as far as it goes.
        return (memoryview(content) if cut or not crc else nothing,
                f'a chunk cannot be unpacked ({reason})')

    @staticmethod
    def records(content: memoryview, offset: int) -> Iterator[tuple[int, memoryview]]:
        """Yield opcode and body of the records in a chunk, or in a run of messages."""
        at = 0
        while at < len(content):
            if at + _RECORD.size > len(content):
                raise _BrokenError(offset, f'a record ends after {at} bytes of a chunk')
            opcode, length = _RECORD.unpack_from(content, at)
            body = content[at + _RECORD.size:at + _RECORD.size + length]
            least = _MESSAGE.size if opcode == Opcode.MESSAGE else 0
            if opcode not in _IN_CHUNKS or len(body) != length or length < least:
                raise _BrokenError(offset, f'no record after {at} bytes of a chunk')
            yield opcode, body
            at += _RECORD.size + length

    def metadata(self, name: str) -> dict[str, str]:
        """Return the entries of the metadata record ``name``; empty if there is none."""
        for kept in self.index.kept:
            if isinstance(kept, MetadataIndex) and kept.name == name:
                try:
                    data = self.read(kept.offset, min(kept.length, 1 << 24))
                    return Metadata.read(_stream_of(data[_RECORD.size:])).metadata
                except (_BrokenError, *_MALFORMED):
                    continue
        return {}

    def _header_bytes(self) -> int:
        opcode, length = _RECORD.unpack(self.read(len(MAGIC), _RECORD.size))
        if opcode != Opcode.HEADER or length > self.size:
            raise _BrokenError(len(MAGIC), 'the header is missing')
        try:
            Header.read(_stream_of(self.read(len(MAGIC) + _RECORD.size, length)))
        except _MALFORMED as error:
            raise _BrokenError(len(MAGIC), f'the header cannot be read ({why(error)})') from error
        return _RECORD.size + length

    def footer(self) -> Footer | None:
        """Return the footer of the file; None if it is missing or invalid."""
        with suppress(_BrokenError, *_MALFORMED):
            end = self.read(self.size - _FOOTER_BYTES, _FOOTER_BYTES)
            if end.endswith(MAGIC) and end[:9] == _RECORD.pack(Opcode.FOOTER, 20):
                footer = Footer.read(_stream_of(end[9:29]))
                if not footer.summary_start or (
                        self.data_start <= footer.summary_start <= self.size - _FOOTER_BYTES):
                    return footer
        return None

    def summary_bytes(self) -> bytes:
        """Return the summary section; raises _BrokenError if it is missing or unreadable."""
        found = self.footer()
        if found is None or not found.summary_start:
            raise _BrokenError(self.size, 'the file ends within its index')
        return self.read(found.summary_start, self.size - _FOOTER_BYTES - found.summary_start)

    def sound(self, footer: Footer, summary: bytes) -> bool:
        """Return whether the checksum of the summary section is right or absent."""
        crc = zlib.crc32(summary + _RECORD.pack(Opcode.FOOTER, 20) + struct.pack(
            '<QQ', footer.summary_start, footer.summary_offset_start))
        return footer.summary_crc in (0, crc)

    def _summary(self) -> McapIndex | None:
        """Return the index from the summary section; None if that cannot be trusted."""
        footer = self.footer()
        with suppress(_BrokenError, *_MALFORMED):
            summary = self.summary_bytes()
            # With another file behind this one, the footer is not that of the beginning.
            if MAGIC not in summary and self.sound(footer, summary):
                # The summary offsets behind the index are not needed, and may be damaged.
                length = max(0, footer.summary_offset_start - footer.summary_start)
                return _index_of_summary(summary[:length or None], footer.summary_start)
        return None

    def _listed(self, piece: Piece) -> list[tuple[int, int]] | None:
        """Return channel and time of each message of a chunk from its message indexes, if any."""
        if piece.indexes is None:
            return None
        found: list[tuple[int, int]] = []
        try:
            content = memoryview(self.read(*piece.indexes))
            while content:
                opcode, length = _RECORD.unpack_from(content)
                if opcode != Opcode.MESSAGE_INDEX:
                    return None
                index = MessageIndex.read(_stream_of(content[_RECORD.size:_RECORD.size + length]))
                found += [(index.channel_id, time) for time, _ in index.records]
                content = content[_RECORD.size + length:]
        except (_BrokenError, *_MALFORMED):
            return None
        return found


class _Scan:
    """Scans a whole file whose index is missing or wrong, and builds an index.

    The file header has been read already; damage is added to the ``damages`` of the file.
    """

    def __init__(self, source: McapFile):
        self._source = source
        self.index = McapIndex(image_times=defaultdict(lambda: array('Q')))
        self._summary = McapIndex()
        self._last: int | None = None
        self._taken = 0
        self._broken: int | None = None
        self._bare = False
        with suppress(_BrokenError, *_MALFORMED):
            # Schemas and channels of the summary section replace others that are lost.
            for opcode, body in source.records(memoryview(source.summary_bytes()), 0):
                self._summary.define(opcode, body)
        at: int | None = source.data_start
        while at is not None:
            try:
                at = self._record(at)
            except _BrokenError as error:
                source.note(error, last=self._last)
                self._broken = self._taken
                at = error.resume if error.resume is not None else self._search(error.offset + 1)

    def _record(self, at: int) -> int | None:
        """Process the record at an offset; return that of the next one, or None at the end."""
        source = self._source
        if at + _RECORD.size > source.size:
            raise _BrokenError(at, 'the file ends here, without its index')
        opcode, length = _RECORD.unpack(source.read(at, _RECORD.size))
        body_at = at + _RECORD.size
        if opcode not in _IN_DATA:
            raise _BrokenError(at, 'no record of mcap')
        end = body_at + length
        self._taken = 0
        if opcode != Opcode.MESSAGE_INDEX:
            self._broken = None
        elif self._broken is not None and end <= source.size:
            # The message indexes of a damaged chunk show how many messages were in it.
            known = source.damages[-1]
            lost = -self._broken if known.lost is None else known.lost
            source.damages[-1] = replace(known, lost=lost + max(0, length - 6) // 16)
        if opcode in (Opcode.CHUNK, Opcode.MESSAGE):
            if length > LARGEST_CHUNK and opcode == Opcode.MESSAGE:
                raise _BrokenError(at, f'a record of {length} bytes')
            body = memoryview(source.read(body_at, min(
                length, source.size - body_at, LARGEST_CHUNK)))
            if opcode == Opcode.CHUNK:
                self._chunk(at, end, body)
            elif len(body) == length >= _MESSAGE.size:
                self._message(at, length, body)
        if end > source.size:
            raise _BrokenError(at, 'the file ends within this record')
        try:
            if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self.index.define(opcode, source.read(body_at, length))
            elif opcode in (Opcode.ATTACHMENT, Opcode.METADATA):
                head = _stream_of(source.read(body_at, min(length, 1 << 20)))
                self.index.kept.append(_kept(opcode, head, at, length + _RECORD.size))
        except _MALFORMED as error:
            raise _BrokenError(at, f'a record cannot be read ({why(error)})', end) from error
        if opcode == Opcode.MESSAGE_INDEX and source.read(body_at + 2, 4) != struct.pack(
                '<I', max(0, length - 6)):
            raise _BrokenError(at, 'no record of mcap')
        if opcode == Opcode.DATA_END:
            self._check_end(at, end)
            return None
        return end

    def _check_end(self, at: int, behind: int) -> None:
        """Check that what follows the data section is intact; note damage otherwise."""
        source, footer = self._source, self._source.footer()
        rest = source.read(behind, min(source.size - behind, _SEARCH_BYTES))
        if (place := rest.find(2 * MAGIC)) >= 0:
            # Its channels have ids of their own, which may be those of other topics here.
            source.note(_BrokenError(
                behind + place + len(MAGIC), 'another mcap file begins here, and is not read; cut '
                'this one into two there'), last=self._last)
            return
        if footer is None:
            source.note(_BrokenError(source.size, 'the file ends within its index'),
                        last=self._last)
            return
        if behind not in (footer.summary_start, source.size - _FOOTER_BYTES):
            raise _BrokenError(at, 'no record of mcap')
        if footer.summary_start and not source.sound(footer, source.summary_bytes()):
            source.note(_BrokenError(footer.summary_start, 'the checksum of the index is wrong'),
                        last=self._last)

    def _search(self, start: int) -> int | None:
        """Return the next offset at which a chunk, or a message outside of chunks, begins."""
        source, at = self._source, start
        while at < source.size:
            block = source.read(at, min(_SEARCH_BYTES, source.size - at))
            chunks = (found.start() for found in _CHUNK_HEAD.finditer(block)
                      if len(found[0]) - _RECORD.size + _long(found[2]) == _long(found[1]))
            messages = (found.start() for found in _MESSAGE_HEAD.finditer(block)
                        if self._is_message(at + found.start(), found))
            places = [next(chunks, None), next(messages, None) if self._bare else None]
            if places != [None, None]:
                return at + min(place for place in places if place is not None)
            if len(block) <= _OVERLAP:
                break
            at += len(block) - _OVERLAP
        return None

    def _is_message(self, at: int, found: re.Match) -> bool:
        end = at + _RECORD.size + _long(found[1])
        return _long(found[2]) in self.index.channels and (
            end < self._source.size and self._source.read(end, 1)[0] in _IN_DATA)

    def _chunk(self, at: int, end: int, body: memoryview) -> None:
        source = self._source
        content, reason = source.unpack(body)
        times: list[tuple[int, int]] = []
        readable, broken = 0, None
        try:
            for opcode, found in source.records(content, at):
                if opcode == Opcode.MESSAGE:
                    channel, _, time, _ = _MESSAGE.unpack_from(found)
                    self._know(channel, at)
                    times.append((channel, time))
                else:
                    self.index.define(opcode, found)
                readable += _RECORD.size + len(found)
        except _BrokenError as error:
            broken = error
        except _MALFORMED as error:
            broken = _BrokenError(at, f'a schema or channel cannot be read ({why(error)})')
        self._taken = len(times)
        if times:
            stamps = [time for _, time in times]
            self.index.pieces.append(Piece(
                min(stamps), max(stamps), at, min(end, at + _RECORD.size + len(body)) - at,
                frozenset(channel for channel, _ in times),
                readable if reason or broken else None))
            self._count(times)
        if end > source.size:
            # The chunk has a size of its own: if it is intact, the record length is wrong.
            if not (reason or broken):
                raise _BrokenError(at, 'the length of a chunk is wrong')
            return
        if reason or broken:
            resume = end if end < source.size and source.read(end, 1)[0] in _IN_DATA else None
            raise _BrokenError(at, reason or broken.reason, resume)

    def _know(self, channel: int, at: int) -> None:
        """Make sure that a channel is defined."""
        if channel in self.index.channels:
            return
        found = self._summary.channels.get(channel)
        if found is None:
            raise _BrokenError(at, f'a message of an unknown channel {channel}')
        self.index.channels[channel] = found
        if found.schema_id in self._summary.schemas:
            self.index.schemas.setdefault(found.schema_id, self._summary.schemas[found.schema_id])

    def _message(self, at: int, length: int, body: memoryview) -> None:
        channel, _, time, _ = _MESSAGE.unpack_from(body)
        self._know(channel, at)
        self._bare = True
        pieces, size = self.index.pieces, _RECORD.size + length
        run = pieces[-1] if pieces else None
        if run is None or run.chunk or run.offset + run.length != at or run.length > _RUN_BYTES:
            pieces.append(Piece(time, time, at, size, frozenset({channel}), chunk=False))
        else:
            pieces[-1] = run._replace(
                start=min(run.start, time), end=max(run.end, time), length=run.length + size,
                channels=run.channels | {channel})
        self._count([(channel, time)])

    def _count(self, times: list[tuple[int, int]]) -> None:
        for channel, time in times:
            self.index.counts[channel] += 1
            self._last = time if self._last is None else max(self._last, time)
            schema = self.index.schemas.get(self.index.channels[channel].schema_id)
            if schema is not None and schema.name in IMAGE_TYPES:
                self.index.image_times[channel].append(time)


def _index_of_summary(summary: bytes, offset: int) -> McapIndex | None:
    """Parse the summary section, which begins at ``offset``; None if it is inconsistent."""
    found = SeekingReader(BytesIO(MAGIC + summary + _END)).get_summary()
    index, statistics = McapIndex(found.schemas, found.channels), found.statistics
    index.kept = [*found.attachment_indexes, *found.metadata_indexes]
    for record in found.chunk_indexes:
        ends = record.chunk_start_offset + record.chunk_length
        if ends + record.message_index_length > offset:
            return None
        listed = record.message_index_offsets
        if record.message_start_time > record.message_end_time or not (
                listed or record.message_end_time):
            return None  # no message in it, as rosbags and as the format say that, or damaged
        index.pieces.append(Piece(
            record.message_start_time, record.message_end_time, record.chunk_start_offset,
            record.chunk_length, frozenset(listed) if listed else None,
            indexes=(ends, record.message_index_length) if listed else None))
    if statistics is not None:
        index.counts.update(statistics.channel_message_counts)
        if (statistics.chunk_count == len(index.pieces)
                and (index.pieces or not statistics.message_count)
                and statistics.attachment_count + statistics.metadata_count == len(index.kept)
                and {channel.schema_id for channel in index.channels.values()}
                <= {0, *index.schemas} and index.counts.keys() <= index.channels.keys()
                and index.counts.total() == statistics.message_count):
            return index
    return None


def _kept(
    opcode: int, head: ReadDataStream, offset: int, length: int
) -> AttachmentIndex | MetadataIndex:
    """Return the index record of an attachment or metadata record, from its beginning."""
    if opcode == Opcode.METADATA:
        return MetadataIndex(offset, length, head.read_prefixed_string())
    log_time, create_time = head.read8(), head.read8()
    name, media_type = head.read_prefixed_string(), head.read_prefixed_string()
    return AttachmentIndex(
        offset=offset, length=length, log_time=log_time, create_time=create_time, name=name,
        media_type=media_type, data_size=head.read8())


def _long(data: bytes) -> int:
    return int.from_bytes(data, 'little')


def _stream_of(data: Any) -> ReadDataStream:
    return ReadDataStream(BytesIO(data))


def _unpack_steps(make: Callable[[], Any], packed: memoryview, size: int) -> tuple[bytes, str]:
    """Decompress as far as possible; returns the result, and why it stopped early ('' if not)."""
    unpacker, content, step = make(), bytearray(), 1 << 16
    try:
        for at in range(0, len(packed), step):
            if unpacker.eof:
                break
            content += unpacker.decompress(
                packed[at:at + step], max_length=size + 1 - len(content))
            while not (unpacker.needs_input or unpacker.eof) and len(content) <= size:
                content += unpacker.decompress(b'', max_length=size + 1 - len(content))
    except (RuntimeError, ValueError, EOFError, zstd.ZstdError) as error:
        return content, why(error)
    return content, '' if unpacker.eof else 'its end is missing'


def _unpack_zstd(packed: memoryview, size: int) -> tuple[bytes, str]:
    with suppress(zstd.ZstdError):
        # The size in the header of the zstd frame bounds the memory needed.
        found = zstd.get_frame_info(packed).decompressed_size
        if found is not None and found <= size:
            return zstd.decompress(packed), ''
    return _unpack_steps(zstd.ZstdDecompressor, packed, size)


def _unpack_lz4(packed: memoryview, size: int) -> tuple[bytes, str]:
    from lz4.frame import LZ4FrameDecompressor

    return _unpack_steps(LZ4FrameDecompressor, packed, size)


_UNPACK = {'': lambda packed, size: (packed, ''), 'zstd': _unpack_zstd, 'lz4': _unpack_lz4}
