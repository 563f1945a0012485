"""What an mcap file consists of: the parts that reading it needs. See https://mcap.dev/spec."""

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex, Schema, Statistics

from derain_ros.bags.damage import Damage, why

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b'\x89MCAP0\r\n'
LARGEST_CHUNK = 1 << 31
"""Bytes of a chunk, or of a message outside of chunks, above which a length must be wrong."""

RECORD = struct.Struct('<BQ')
MESSAGE = struct.Struct('<HIQQ')
CHUNK = struct.Struct('<QQQI')
FOOTER_BYTES = 9 + 20 + len(MAGIC)


class Piece(NamedTuple):
    """A chunk, or a run of messages outside of chunks.

    Attributes
    ----------
    start, end
        Times of the oldest and the newest message, ns.
    offset, length
        Place in the file, with the head of the record.
    channels
        Channels that have messages in it; None where that is not known.
    readable
        Bytes to read of what is in it, uncompressed; None for all, as it is not damaged.
    indexes
        Place and length of its message indexes.

    """

    start: int
    end: int
    offset: int
    length: int
    channels: frozenset[int] | None = None
    readable: int | None = None
    indexes: tuple[int, int] | None = None


@dataclass
class McapIndex:
    """What is in a file, and where.

    Attributes
    ----------
    schemas, channels
        Records by id.
    pieces
        Where the messages are.
    counts
        Messages by channel.
    damage
        Where reading had to stop.
    image_times
        Times of the messages of image channels, ns, by channel; None where they are to be read
        from the message indexes.

    """

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    damage: Damage | None = None
    image_times: dict[int, array] | None = None


def index_of_summary(summary: bytes, offset: int) -> McapIndex | None:
    """Read the index at the end of a file, which begins there; None if it is not sound."""
    index, statistics = McapIndex(), None
    stream = stream_of(summary)
    while stream.count < len(summary):
        opcode, length = stream.read1(), stream.read8()
        if stream.count + length > len(summary):
            return None
        body = stream_of(stream.read(length))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(body)
            index.schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(body)
            index.channels[channel.id] = channel
        elif opcode == Opcode.STATISTICS:
            statistics = Statistics.read(body)
        elif opcode == Opcode.CHUNK_INDEX:
            chunk = ChunkIndex.read(body)
            ends = chunk.chunk_start_offset + chunk.chunk_length
            if ends + chunk.message_index_length > offset:
                return None
            listed = chunk.message_index_offsets
            index.pieces.append(Piece(
                chunk.message_start_time, chunk.message_end_time, chunk.chunk_start_offset,
                chunk.chunk_length, frozenset(listed) if listed else None,
                indexes=(ends, chunk.message_index_length) if listed else None))
    if statistics is None or statistics.chunk_count != len(index.pieces):
        return None
    if statistics.message_count and not index.pieces:
        return None
    known = index.schemas.keys() | {0}
    if any(channel.schema_id not in known for channel in index.channels.values()):
        return None
    index.counts.update(statistics.channel_message_counts)
    if index.counts.total() != statistics.message_count:
        return None
    if set(index.counts) - set(index.channels):
        return None
    return index


def stream_of(data: Any) -> ReadDataStream:
    """Return bytes as the records of the mcap package read them."""
    return ReadDataStream(BytesIO(data))


def _unpack_none(packed: memoryview, size: int) -> tuple[memoryview, str]:
    return packed[:size], ''


def _unpack_steps(make: Callable[[], Any]) -> Callable[[memoryview, int], tuple[bytes, str]]:
    """Return a function that unpacks as far as it can, and says why not further."""
    def unpack(packed: memoryview, size: int) -> tuple[bytes, str]:
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
    return unpack


def _unpack_zstd(packed: memoryview, size: int) -> tuple[bytes, str]:
    try:
        # The size that the frame itself names bounds the memory.
        if zstd.get_frame_info(packed).decompressed_size == size:
            return zstd.decompress(packed), ''
    except zstd.ZstdError:
        pass
    return _unpack_steps(zstd.ZstdDecompressor)(packed, size)


def _lz4() -> Any:
    from lz4.frame import LZ4FrameDecompressor

    return LZ4FrameDecompressor()


UNPACK = {'': _unpack_none, 'zstd': _unpack_zstd, 'lz4': _unpack_steps(_lz4)}
IN_CHUNKS = frozenset({Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE}) | frozenset(
    range(0x80, 0x100))
TOP_LEVEL = frozenset(int(opcode) for opcode in Opcode) | frozenset(range(0x80, 0x100))
MALFORMED = (struct.error, ValueError, McapError, OverflowError, MemoryError, TypeError)
