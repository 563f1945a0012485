"""The bag that is being written: it grows by whole segments, and survives any interruption.

A segment is there for good once its record is: what lies behind the last recorded segment is
cut off when the work goes on. So the file is the same bytes however often it was interrupted,
and whether its segments came from this process or from others.
"""

import errno
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)
from rosbags.interfaces import Connection, MessageDefinitionFormat

from derain_ros import __version__
from derain_ros.bags.chunks import (
    ChunkWriter,
    SegmentRecord,
    Totals,
    load_records,
    read_body,
    settle_on_disk,
)
from derain_ros.bags.mcap_format import MAGIC
from derain_ros.bags.metadata import dump_profiles

_BUFFER = 1 << 18
_COPY_BYTES = 1 << 26
_ENCODINGS = {MessageDefinitionFormat.MSG: 'ros2msg', MessageDefinitionFormat.IDL: 'ros2idl'}
# As rosbags makes them, in the layout that Humble and Jazzy both read.
_SQLITE_TABLES = (
    'CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL)',
    'CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL,'
    ' metadata TEXT NOT NULL)',
    'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,'
    ' serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL,'
    ' type_description_hash TEXT NOT NULL)',
    'CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL,'
    ' encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL,'
    ' type_description_hash TEXT NOT NULL)',
    'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,'
    ' timestamp INTEGER NOT NULL, data BLOB NOT NULL)',
    'CREATE INDEX timestamp_idx ON messages (timestamp ASC)',
    "INSERT INTO schema(schema_version, ros_distro) VALUES (4, 'rosbags')",
)
_INSERT = 'INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)'


class McapResult:
    """An mcap file that grows by segments.

    Parameters
    ----------
    path
        The file.
    records
        Folder of the records of its segments, ``<number>.json``.
    topics
        Topics of the bag; their ids count from 1.
    compress
        Pack the chunks with zstd.

    Attributes
    ----------
    done
        Number of segments that are in the file.

    """

    suffix = '.mcap'

    def __init__(self, path: Path, records: Path, topics: Sequence[Connection], compress: bool):
        self._records = records
        self._topics = topics
        self._schemas = _schemas(topics)
        head = self._head()
        end = len(head)
        self.done = 0
        size = path.stat().st_size if path.exists() else 0
        for record in load_records(records):
            if end + record.size > size:
                break
            end += record.size
            self.done += 1
        # Unbuffered below the buffer: large parts go to the kernel without a copy.
        self._file = path.open('r+b' if path.exists() else 'w+b', _BUFFER)
        self._file.truncate(end if self.done else 0)
        if not self.done:
            self._file.write(head)
        self._file.seek(end)
        self._end = end
        self._writer = ChunkWriter(self._file, compress)
        self._commits = ThreadPoolExecutor(1)
        self._pending: Future | None = None

    def write(self, topic: int, time: int, parts: Sequence) -> None:
        """Add a message; see :meth:`ChunkWriter.write`."""
        self._writer.write(topic, time, parts)

    def end_segment(self, figures: dict[str, Any]) -> None:
        """End the segment, and record it as soon as it is on the disk."""
        record = self._writer.end()
        record.figures = figures
        self._commit(record)

    def append(self, body: Path, record: SegmentRecord) -> None:
        """Add a segment that another process has written."""
        with body.open('rb') as stream:
            self._file.flush()
            _copy(stream, self._file, record.size)
        self._commit(record)

    def _commit(self, record: SegmentRecord) -> None:
        self.settle()
        self._file.flush()
        start, self._end = self._end, self._end + record.size
        number, self.done = self.done, self.done + 1
        self._pending = self._commits.submit(self._save, record, number, start)

    def _save(self, record: SegmentRecord, number: int, start: int) -> None:
        settle_on_disk(self._file, start, record.size)
        record.save(self._records / f'{number:06d}.json')

    def settle(self) -> None:
        """Wait until all segments are recorded."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def finish(self, metadata: str) -> None:
        """Write what follows the messages: ``metadata`` of rosbag2, and the index."""
        self.settle()
        self._file.seek(self._end)
        self._file.truncate()
        data = _built(Metadata('rosbag2', {'serialized_metadata': metadata}))
        self._file.write(data + _built(DataEnd(0)))
        summary = _Summary(self._file, self._end + len(data) + 13)
        summary.group(Opcode.SCHEMA, self._schemas.values())
        summary.group(Opcode.CHANNEL, self._channels())
        totals = Totals()
        summary.group(Opcode.CHUNK_INDEX, self._chunk_indexes(totals))
        summary.group(Opcode.METADATA_INDEX, [MetadataIndex(self._end, len(data), 'rosbag2')])
        counts = {topic.id: totals.counts[topic.id] for topic in self._topics}
        summary.group(Opcode.STATISTICS, [Statistics(
            attachment_count=0, channel_count=len(self._topics), channel_message_counts=counts,
            chunk_count=totals.chunks, message_count=totals.counts.total(),
            message_end_time=totals.end or 0, message_start_time=totals.start or 0,
            metadata_count=1, schema_count=len(self._schemas))])
        summary.end()
        self.close()

    def close(self) -> None:
        """Close the file; what is not recorded is lost."""
        with suppress(OSError, ValueError):
            self.settle()
        self._commits.shutdown()
        with suppress(OSError):
            self._file.close()

    def _head(self) -> bytes:
        head = MAGIC + _built(Header('ros2', f'derain_ros {__version__}'))
        return head + b''.join(map(_built, [*self._schemas.values(), *self._channels()]))

    def _channels(self) -> list[Channel]:
        return [
            Channel(topic.id, topic.topic, topic.ext.serialization_format, {
                'offered_qos_profiles': dump_profiles(topic),
                'topic_type_hash': topic.digest,
            }, self._schemas[topic.msgtype].id)
            for topic in self._topics]

    def _chunk_indexes(self, totals: 'Totals') -> Iterator[ChunkIndex]:
        base = len(self._head())
        for record in load_records(self._records):
            totals.add(record)
            for start, end, place, length, index_length, offsets, stored, size in record.chunks:
                at = base + place
                yield ChunkIndex(
                    chunk_length=length, chunk_start_offset=at,
                    compression='zstd' if self._writer._compress else '', compressed_size=stored,
                    message_end_time=end, message_index_length=index_length,
                    message_index_offsets={topic: at + offset for topic, offset in offsets},
                    message_start_time=start, uncompressed_size=size)
            base += record.size


class SqliteResult:
    """An sqlite3 file that grows by segments; parameters are as of :class:`McapResult`.

    How many are in it is its ``user_version``, which changes with them or not at all.
    """

    suffix = '.db3'

    def __init__(self, path: Path, records: Path, topics: Sequence[Connection], compress: bool):
        self._records = records
        self._record = SegmentRecord()
        self._database = self._open(path, topics)
        self.done, = self._database.execute('PRAGMA user_version').fetchone()
        self._finished = False
        known = sum(1 for _ in load_records(records))
        if self.done > known + 1:
            raise sqlite3.DatabaseError(f'{path}: records of its segments are missing')
        if self.done == known + 1:
            # All segments were in, and the metadata too.
            self.done, self._finished = known, True

    @staticmethod
    def _open(path: Path, topics: Sequence[Connection]) -> sqlite3.Connection:
        database = sqlite3.connect(
            f'file:{path.absolute()}', uri=True, isolation_level=None, check_same_thread=False)
        database.execute('PRAGMA synchronous = NORMAL')
        if not database.execute('PRAGMA table_info(messages)').fetchall():
            database.execute('BEGIN')
            for table in _SQLITE_TABLES:
                database.execute(table)
            for schema in _schemas(topics).values():
                digest = next(t.digest for t in topics if t.msgtype == schema.name)
                database.execute(
                    'INSERT INTO message_definitions VALUES (?, ?, ?, ?, ?)',
                    (schema.id, schema.name, schema.encoding, schema.data.decode(), digest))
            for topic in topics:
                database.execute('INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?)', (
                    topic.id, topic.topic, topic.msgtype, topic.ext.serialization_format,
                    dump_profiles(topic), topic.digest))
            database.execute('COMMIT')
        return database

    def write(self, topic: int, time: int, parts: Sequence) -> None:
        """Add a message."""
        if not self._database.in_transaction:
            self._database.execute('BEGIN')
        self._record.count(topic, time)
        data = parts[0] if len(parts) == 1 else b''.join(parts)
        self._database.execute(_INSERT, (topic, time, data))

    def end_segment(self, figures: dict[str, Any]) -> None:
        """End the segment."""
        record, self._record = self._record, SegmentRecord()
        record.figures = figures
        self._commit(record)

    def append(self, body: Path, record: SegmentRecord) -> None:
        """Add a segment that another process has written, as chunks of mcap."""
        self._database.execute('BEGIN')
        for topic, time, data in read_body(body, record):
            self._database.execute(_INSERT, (topic, time, data))
        record.chunks, record.size = [], 0
        self._commit(record)

    def _commit(self, record: SegmentRecord) -> None:
        if not self._database.in_transaction:
            self._database.execute('BEGIN')
        record.save(self._records / f'{self.done:06d}.json')
        self.done += 1
        self._database.execute(f'PRAGMA user_version = {self.done}')
        self._database.execute('COMMIT')

    def settle(self) -> None:
        """Do nothing: segments are recorded at once."""

    def finish(self, metadata: str) -> None:
        """Add the metadata of rosbag2, and close the file."""
        if not self._finished:
            self._database.execute('BEGIN')
            self._database.execute(
                'INSERT INTO metadata(metadata_version, metadata) VALUES (8, ?)', (metadata,))
            self._database.execute(f'PRAGMA user_version = {self.done + 1}')
            self._database.execute('COMMIT')
        self.close()

    def close(self) -> None:
        """Close the file; a segment that is not ended is lost."""
        with suppress(sqlite3.Error):
            # An open transaction is rolled back.
            self._database.close()


class _Summary:
    """The index of an mcap file, written record by record."""

    def __init__(self, stream: BinaryIO, start: int):
        self._stream = stream
        self._start = self._at = start
        self._crc = 0
        self._offsets: list[SummaryOffset] = []

    def group(self, opcode: Opcode, records: Any) -> None:
        begin = self._at
        for record in records:
            self._write(_built(record))
        if self._at > begin:
            self._offsets.append(SummaryOffset(
                group_opcode=opcode, group_start=begin, group_length=self._at - begin))

    def end(self) -> None:
        offsets_start = self._at
        for offset in self._offsets:
            self._write(_built(offset))
        footer = _built(Footer(self._start, offsets_start, 0))
        self._write(footer[:-4])
        self._stream.write(struct.pack('<I', self._crc) + MAGIC)

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._at += len(data)
        self._crc = zlib.crc32(data, self._crc)


def _built(record: Any) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    return builder.end()


def _schemas(topics: Sequence[Connection]) -> dict[str, Schema]:
    """Return one schema for each type, by its name."""
    schemas: dict[str, Schema] = {}
    for topic in topics:
        if topic.msgtype not in schemas:
            schemas[topic.msgtype] = Schema(
                len(schemas) + 1, topic.msgdef.data.encode(),
                _ENCODINGS[topic.msgdef.format], topic.msgtype)
    return schemas


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy the beginning of a file to the place of another, within the kernel if it can."""
    place, done = target.tell(), 0
    while done < size:
        try:
            count = os.copy_file_range(
                source.fileno(), target.fileno(), min(size - done, _COPY_BYTES),
                offset_src=done, offset_dst=place + done)
        except (AttributeError, OSError) as error:
            if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            # Another file system, or one that cannot.
            source.seek(done)
            target.seek(place + done)
            count = target.write(source.read(min(size - done, 1 << 20)))
            target.flush()
        if not count:
            raise OSError(f'{source.name}: ends too soon')
        done += count
    target.seek(place + size)
