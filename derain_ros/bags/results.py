"""Write the storage file of a bag segment by segment, so that it survives any interruption.

A segment is committed once its record is written: anything after the last recorded segment is
truncated when the work is resumed. So the file has the same bytes however often it was
interrupted, and whether its segments came from this process or from others.
"""

import os
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    AttachmentIndex,
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
from rosbags.rosbag2.metadata import dump_qos_v8
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from ruamel.yaml import YAML

from derain_ros import __version__
from derain_ros.bags.chunks import (
    ChunkWriter,
    SegmentRecord,
    load_records,
    read_body,
    settle_on_disk,
)
from derain_ros.bags.mcap_file import MAGIC
from derain_ros.bags.recording import Origin

_BUFFER = 1 << 18
_COPY_BYTES = 1 << 26
_ENCODINGS = {MessageDefinitionFormat.MSG: 'ros2msg', MessageDefinitionFormat.IDL: 'ros2idl'}


class McapResult:
    """An MCAP file that is written segment by segment.

    ``records`` are those of the segments in the file, also saved in ``folder`` as
    ``<number>.json``; ``topics`` have ids from 1 on; ``compress`` compresses chunks with zstd.
    """

    def __init__(self, path: Path, folder: Path, topics: Sequence[Connection], compress: bool):
        self._folder, self._topics, self._compress = folder, topics, compress
        self._schemas = _schemas(topics)
        self._head = MAGIC + b''.join(map(_built, (
            Header('ros2', f'derain_ros {__version__}'), *self._schemas.values(),
            *self._channels())))
        self._end, self.records = len(self._head), []
        size = path.stat().st_size if path.exists() else 0
        for record in load_records(folder):
            if self._end + record.size > size:
                break
            self._end += record.size
            self.records.append(record)
        # Writes larger than the buffer bypass it and go to the kernel without a copy.
        self._file = path.open('r+b' if path.exists() else 'w+b', _BUFFER)
        self._file.truncate(self._end if self.records else 0)
        if not self.records:
            self._file.write(self._head)
        self._file.seek(self._end)
        self._writer = ChunkWriter(self._file, compress)
        self._commits = ThreadPoolExecutor(1)
        self._pending: Future | None = None

    def write(self, *message: Any) -> None:
        """Add a message; see :meth:`ChunkWriter.write`."""
        self._writer.write(*message)

    def end_segment(self, figures: dict[str, Any], damages: list[dict]) -> None:
        """End the segment; its record is saved once the segment is on disk."""
        self._writer.end_segment(figures, damages)
        self._commit(self._writer.ended)

    def append(self, body: Path, record: SegmentRecord) -> None:
        """Add a segment that another process has written, and wait until its record is saved."""
        with body.open('rb') as stream:
            self._file.flush()
            _copy(stream, self._file, record.size)
        self._commit(record)
        self._settle()

    def _commit(self, record: SegmentRecord) -> None:
        self._settle()
        self._file.flush()
        start, self._end = self._end, self._end + record.size
        self.records.append(record)
        self._pending = self._commits.submit(self._save, record, len(self.records) - 1, start)

    def _save(self, record: SegmentRecord, number: int, start: int) -> None:
        settle_on_disk(self._file, start, record.size)
        record.save(self._folder / f'{number:06d}.json')

    def _settle(self) -> None:
        """Wait until the records of all segments are saved."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def finish(
        self, metadata: str, total: SegmentRecord, kept: Iterable[tuple[Any, bytes]]
    ) -> None:
        """Write what follows the messages, and close the file.

        That is rosbag2's ``metadata``, the attachments and metadata records of the source,
        ``kept``, each as its index and bytes, and the index. ``total`` sums up all segments.
        """
        self._settle()
        self._file.seek(self._end)
        self._file.truncate()
        end, indexes = self._end, {AttachmentIndex: [], MetadataIndex: []}
        own = _built(Metadata('rosbag2', {'serialized_metadata': metadata}))
        for index, data in (*kept, (MetadataIndex(0, len(own), 'rosbag2'), own)):
            indexes[type(index)].append(replace(index, offset=end))
            self._file.write(data)
            end += len(data)
        self._file.write(_built(DataEnd(0)))
        chunks = list(self._chunk_indexes())
        counts = {topic.id: total.counts[topic.id] for topic in self._topics}
        statistics = Statistics(
            attachment_count=len(indexes[AttachmentIndex]), channel_count=len(self._topics),
            channel_message_counts=counts, chunk_count=len(chunks),
            message_count=total.counts.total(), message_end_time=total.end or 0,
            message_start_time=total.start or 0, metadata_count=len(indexes[MetadataIndex]),
            schema_count=len(self._schemas))
        start, summary, offsets = end + 13, bytearray(), []
        for opcode, records in (
                (Opcode.SCHEMA, self._schemas.values()), (Opcode.CHANNEL, self._channels()),
                (Opcode.CHUNK_INDEX, chunks),
                (Opcode.ATTACHMENT_INDEX, indexes[AttachmentIndex]),
                (Opcode.METADATA_INDEX, indexes[MetadataIndex]),
                (Opcode.STATISTICS, [statistics])):
            begin = len(summary)
            summary += b''.join(map(_built, records))
            if len(summary) > begin:
                offsets.append(SummaryOffset(opcode, start + begin, len(summary) - begin))
        footer = Footer(start, start + len(summary), 0)
        summary += b''.join(map(_built, [*offsets, footer]))[:-4]
        self._file.write(summary + struct.pack('<I', zlib.crc32(summary)) + MAGIC)
        self.close()

    def close(self) -> None:
        """Close the file; segments without a record are lost."""
        with suppress(OSError, ValueError):
            self._settle()
        self._commits.shutdown()
        with suppress(OSError):
            self._file.close()

    def _channels(self) -> list[Channel]:
        return [
            Channel(topic.id, topic.topic, topic.ext.serialization_format, {
                **dict(topic.owner.metadata if topic.owner else ()),
                **({'offered_qos_profiles': dump_qos_v8(topic.ext.offered_qos_profiles),
                    'topic_type_hash': topic.digest} if topic.msgdef.data else {}),
            }, self._schemas[_schema_key(topic)].id if topic.msgtype else 0)
            for topic in self._topics]

    def _chunk_indexes(self) -> Iterator[ChunkIndex]:
        base = len(self._head)
        for record in self.records:
            for start, end, place, length, index_length, offsets, stored, size in record.chunks:
                at = base + place
                yield ChunkIndex(
                    chunk_length=length, chunk_start_offset=at,
                    compression='zstd' if self._compress else '', compressed_size=stored,
                    message_end_time=end, message_index_length=index_length,
                    message_index_offsets={topic: at + offset for topic, offset in offsets},
                    message_start_time=start, uncompressed_size=size)
            base += record.size


class SqliteResult:
    """An sqlite3 file that is written segment by segment; arguments as for :class:`McapResult`.

    Its ``user_version`` is the number of segments in it, updated in the same transaction.
    """

    def __init__(self, path: Path, folder: Path, topics: Sequence[Connection], compress: bool):
        self._folder, self._record = folder, SegmentRecord()
        self._database = self._open(path, topics)
        done, = self._database.execute('PRAGMA user_version').fetchone()
        self.records = list(load_records(folder))[:done]
        # One more than the segments means that the metadata was written, too.
        self._finished = done == len(self.records) + 1
        if done > len(self.records) + 1:
            raise sqlite3.DatabaseError(f'{path}: records of its segments are missing')

    @staticmethod
    def _open(path: Path, topics: Sequence[Connection]) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        database.execute('PRAGMA synchronous = NORMAL')
        if not database.execute('PRAGMA table_info(messages)').fetchall():
            # These tables both Humble and Jazzy can read.
            database.executescript(f'BEGIN; {Sqlite3Writer.SQLITE_SCHEMA}')
            for key, schema in _schemas(topics).items():
                digest = next(topic.digest for topic in topics if _schema_key(topic) == key)
                database.execute(
                    'INSERT INTO message_definitions VALUES (?, ?, ?, ?, ?)',
                    (schema.id, schema.name, schema.encoding,
                     schema.data.decode(errors='replace'), digest))
            for topic in topics:
                database.execute('INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?)', (
                    topic.id, topic.topic, topic.msgtype, topic.ext.serialization_format,
                    dump_qos_v8(topic.ext.offered_qos_profiles), topic.digest))
            database.execute('COMMIT')
        return database

    def write(self, topic: int, time: int, parts: Sequence, *_: int) -> None:
        """Add a message; rosbag2 stores no sequence number or publish time in sqlite3."""
        if not self._database.in_transaction:
            self._database.execute('BEGIN')
        self._record.count(topic, time % (1 << 64))
        self._insert(topic, time, parts[0] if len(parts) == 1 else b''.join(parts))

    def _insert(self, topic: int, time: int, data: Any) -> None:
        # SQLite integers are signed: as in rosbag2, times above 2**63 - 1 wrap around.
        time = (time + 2**63) % 2**64 - 2**63
        self._database.execute(
            'INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)',
            (topic, time, data))

    def end_segment(self, figures: dict[str, Any], damages: list[dict]) -> None:
        """End the segment, and commit it with its record."""
        record, self._record = self._record, SegmentRecord()
        record.figures, record.damages = figures, damages
        self._commit(record)

    def append(self, body: Path, record: SegmentRecord) -> None:
        """Add a segment that another process has written, as MCAP chunks."""
        self._database.execute('BEGIN')
        for topic, time, data, *_ in read_body(body, record):
            self._insert(topic, time, data)
        record.chunks, record.size = [], 0
        self._commit(record)

    def _commit(self, record: SegmentRecord) -> None:
        if not self._database.in_transaction:
            self._database.execute('BEGIN')
        record.save(self._folder / f'{len(self.records):06d}.json')
        self.records.append(record)
        self._database.execute(f'PRAGMA user_version = {len(self.records)}')
        self._database.execute('COMMIT')

    def finish(self, metadata: str, *_: Any) -> None:
        """Add rosbag2's metadata and close the file; sqlite3 bags cannot hold attachments."""
        if not self._finished:
            self._database.execute('BEGIN')
            self._database.execute(
                'INSERT INTO metadata(metadata_version, metadata) VALUES (8, ?)', (metadata,))
            self._database.execute(f'PRAGMA user_version = {len(self.records) + 1}')
            self._database.execute('COMMIT')
        self.close()

    def close(self) -> None:
        """Close the file; a segment that is not ended is lost."""
        with suppress(sqlite3.Error):
            # An open transaction is rolled back.
            self._database.close()


def _built(record: Any) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    return builder.end()


def _schema_key(topic: Connection) -> tuple[str, str, Origin | None]:
    """Return the identity of a schema: type and definition, of foreign ones also the encoding."""
    return topic.msgtype, topic.msgdef.data, None if topic.msgdef.data else topic.owner


def _schemas(topics: Sequence[Connection]) -> dict[tuple[str, str, Origin | None], Schema]:
    """Return one schema for each key of :func:`_schema_key`, ids from 1 on."""
    schemas: dict[tuple[str, str, Origin | None], Schema] = {}
    for topic in topics:
        key = _schema_key(topic)
        if key in schemas or not topic.msgtype:
            continue
        encoding, data = _ENCODINGS.get(topic.msgdef.format, ''), topic.msgdef.data.encode()
        if not data and topic.owner:
            encoding, data, _ = topic.owner
        schemas[key] = Schema(len(schemas) + 1, data, encoding, topic.msgtype)
    return schemas


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy a file to the current position of another, inside the kernel if possible."""
    place, done = target.tell(), 0
    with suppress(OSError):  # across file systems, or not supported
        while done < size and (count := os.copy_file_range(
                source.fileno(), target.fileno(), min(size - done, _COPY_BYTES),
                offset_src=done, offset_dst=place + done)):
            done += count
    source.seek(done)
    target.seek(place + done)
    shutil.copyfileobj(source, target, 1 << 20)
    if target.tell() != place + size:
        raise OSError(f'{source.name}: is not as long as its record says')


def metadata_text(
    name: str, storage: str, packed: str, topics: Sequence[Connection], total: SegmentRecord,
    custom_data: Mapping[str, str]
) -> str:
    """Return the content of metadata.yaml; ``packed`` is the compression, file, message or ''."""
    # Messages may have any time; times in this file are signed.
    start, end = (min(time, 2**63 - 1) for time in (
        2**63 - 1 if total.start is None else total.start, total.end or 0))
    span = {
        'starting_time': {'nanoseconds_since_epoch': start},
        'duration': {'nanoseconds': end - start if total.end is not None else 0},
        'message_count': total.counts.total()}
    stream, yaml = StringIO(), YAML(typ='safe')
    yaml.default_flow_style = False
    # rosbag2 could read YAML aliases, but without them the file is easier for people to read.
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump({'rosbag2_bagfile_information': {
        'version': 8,
        'storage_identifier': storage,
        'relative_file_paths': [name],
        **span,
        'topics_with_message_count': [{
            'topic_metadata': {
                'name': topic.topic,
                'type': topic.msgtype,
                'serialization_format': topic.ext.serialization_format,
                'offered_qos_profiles': dump_qos_v8(topic.ext.offered_qos_profiles),
                'type_description_hash': topic.digest,
            },
            'message_count': total.counts[topic.id],
        } for topic in topics],
        'compression_format': 'zstd' if packed else '',
        'compression_mode': packed,
        'files': [{'path': name, **span}],
        'custom_data': dict(custom_data) or None,
        'ros_distro': 'rosbags',
    }}, stream)
    return stream.getvalue()
