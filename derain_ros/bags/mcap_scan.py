"""Look all through an mcap file: its index is missing, or wrong."""

import zlib
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING

from mcap.opcode import Opcode
from mcap.records import Footer

from derain_ros.bags.damage import Damage, DamageError
from derain_ros.bags.mcap_format import (
    CHUNK,
    FOOTER_BYTES,
    LARGEST_CHUNK,
    MAGIC,
    MESSAGE,
    RECORD,
    TOP_LEVEL,
    McapIndex,
    Piece,
    stream_of,
)
from derain_ros.bags.topics import COMPRESSED_IMAGE, IMAGE

if TYPE_CHECKING:
    from derain_ros.bags.mcap_file import McapFile

_RUN_BYTES = 1 << 20
_IMAGES = (IMAGE, COMPRESSED_IMAGE)


class Scan:
    """Looks all through a file.

    Parameters
    ----------
    source
        The file; its head has been read.

    Attributes
    ----------
    index
        What was found, up to the damage if there is any.

    """

    def __init__(self, source: 'McapFile'):
        self._source = source
        self.index = McapIndex(image_times=defaultdict(lambda: array('q')))
        self._run: list | None = None
        self._last: int | None = None
        try:
            self._all()
        except DamageError as error:
            found = error.damage
            self.index.damage = Damage(found.file, found.offset, found.reason, self._last)
        self._end_run()

    def _all(self) -> None:
        source, at = self._source, self._source.data_start
        while True:
            if at + RECORD.size > source.size:
                raise source.damage(at, 'the file ends here, without its index')
            opcode, length = RECORD.unpack(source.read(at, RECORD.size))
            body_at = at + RECORD.size
            if opcode not in TOP_LEVEL:
                raise source.damage(at, 'no record of mcap')
            if opcode in (Opcode.CHUNK, Opcode.MESSAGE):
                whole = min(length, source.size - body_at)
                if length > LARGEST_CHUNK:
                    raise source.damage(at, f'a record of {length} bytes')
                body = memoryview(source.read(body_at, whole))
                if opcode == Opcode.CHUNK:
                    self._end_run()
                    self._chunk(at, length, body)
                elif whole == length >= MESSAGE.size:
                    self._message(at, length, body)
            if body_at + length > source.size:
                raise source.damage(at, 'the file ends within this record')
            if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                source.define(opcode, memoryview(source.read(body_at, length)), at, self.index)
            elif opcode == Opcode.DATA_END:
                return self._after_the_end(body_at + length)
            at = body_at + length

    def _after_the_end(self, at: int) -> None:
        """Tell whether what follows the data is whole."""
        source = self._source
        end = source.read(max(at, source.size - FOOTER_BYTES),
                          source.size - max(at, source.size - FOOTER_BYTES))
        if len(end) < FOOTER_BYTES or not end.endswith(MAGIC) or (
                end[:9] != RECORD.pack(Opcode.FOOTER, 20)):
            raise source.damage(source.size, 'the file ends within its index')
        footer = Footer.read(stream_of(end[9:29]))
        if footer.summary_start == 0:
            return
        if not at <= footer.summary_start <= source.size:
            raise source.damage(source.size - FOOTER_BYTES, 'the footer is wrong')
        summary = source.read(at, source.size - FOOTER_BYTES - at)
        if footer.summary_crc and footer.summary_crc != zlib.crc32(summary + end[:25]):
            raise source.damage(footer.summary_start, 'the checksum of the index is wrong')

    def _chunk(self, at: int, length: int, body: memoryview) -> None:
        source = self._source
        cut = len(body) < length
        reason = None
        try:
            content = source.unpack(at, body, check=not cut)
        except DamageError as error:
            reason, content = error, memoryview(b'')
            if not _has_checksum(body):
                content = source.unpack(at, body, check=False)
        times: list[tuple[int, int]] = []
        readable = 0
        try:
            for opcode, _, found in source.records(content, at):
                if opcode == Opcode.MESSAGE:
                    channel, _, time, _ = MESSAGE.unpack_from(found)
                    if channel not in self.index.channels:
                        raise source.damage(at, f'a message of an unknown channel {channel}')
                    times.append((channel, time))
                else:
                    source.define(opcode, found, at, self.index)
                readable += RECORD.size + len(found)
        except DamageError as error:
            reason = reason or error
        if times:
            stamps = [time for _, time in times]
            self.index.pieces.append(Piece(
                min(stamps), max(stamps), at, min(length, len(body)) + RECORD.size,
                frozenset(channel for channel, _ in times),
                readable if cut or reason else None))
            self._count(times)
        if reason is not None and not cut:
            raise reason

    def _message(self, at: int, length: int, body: memoryview) -> None:
        channel, _, time, _ = MESSAGE.unpack_from(body)
        if channel not in self.index.channels:
            raise self._source.damage(at, f'a message of an unknown channel {channel}')
        size = RECORD.size + length
        run = self._run
        if run is None or run[2] + run[3] != at or run[3] > _RUN_BYTES:
            self._end_run()
            run = self._run = [time, time, at, 0, set()]
        run[0], run[1], run[3] = min(run[0], time), max(run[1], time), run[3] + size
        run[4].add(channel)
        self._count([(channel, time)])

    def _end_run(self) -> None:
        if self._run is not None:
            *place, channels = self._run
            self.index.pieces.append(Piece(*place, frozenset(channels)))
            self._run = None

    def _count(self, times: list[tuple[int, int]]) -> None:
        for channel, time in times:
            self.index.counts[channel] += 1
            self._last = time if self._last is None else max(self._last, time)
            schema = self.index.schemas.get(self.index.channels[channel].schema_id)
            if schema is not None and schema.name in _IMAGES:
                self.index.image_times[channel].append(time)


def _has_checksum(body: memoryview) -> bool:
    return len(body) >= CHUNK.size and CHUNK.unpack_from(body)[3] != 0
