"""Files of a bag that cannot be read where they lie: unpacked, or copied as far as they go."""

import json
import os
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from derain_ros.bags.damage import Damage, DamageError, why
from derain_ros.text import printable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_BLOCK = 1 << 20
_TABLES = """
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
  serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL,
  type_description_hash TEXT NOT NULL);
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL,
  encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL,
  type_description_hash TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
  timestamp INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO schema VALUES (4, 'rosbags');
"""
_TOPICS = ('id', 'name', 'type', 'serialization_format', 'offered_qos_profiles',
           'type_description_hash')
_DEFINITIONS = ('id', 'topic_type', 'encoding', 'encoded_message_definition',
                'type_description_hash')
_MESSAGES = ('id', 'topic_id', 'timestamp', 'data')


def unpacked(path: Path, scratch: Path) -> tuple[Path, Damage | None]:
    """Return the unpacked copy of a file that zstd has packed, and where it is cut.

    Parameters
    ----------
    path
        ``….zstd``.
    scratch
        Folder for the copy; one that is there already is taken.

    Raises
    ------
    DamageError
        Nothing of it can be unpacked.
    OSError
        The copy cannot be written.

    """
    return _staged(path, scratch, path.stem, _unpack)


def salvaged(path: Path, scratch: Path) -> tuple[Path, Damage | None]:
    """Return a sound copy of an sqlite3 file, with the messages before its damage, and where.

    Parameters and errors are as of :func:`unpacked`.
    """
    return _staged(path, scratch, f'salvaged_{path.name}', _salvage)


def _staged(path: Path, scratch: Path, name: str, make: Any) -> tuple[Path, Damage | None]:
    copy = scratch / name
    note = scratch / f'{name}.json'
    facts = [path.stat().st_size, path.stat().st_mtime_ns]
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text())
        if known['source'] == facts and copy.is_file():
            return copy, known['damage'] and Damage(**known['damage'])
    scratch.mkdir(parents=True, exist_ok=True)
    for old in (note, copy, copy.with_name(f'{copy.name}-journal')):
        old.unlink(missing_ok=True)
    damage = make(path, copy)
    temporary = note.with_suffix('.tmp')
    temporary.write_text(json.dumps(
        {'source': facts, 'damage': damage and asdict(damage)}))
    temporary.replace(note)
    return copy, damage


def _unpack(path: Path, copy: Path) -> Damage | None:
    unpacker, offset, written, reason = zstd.ZstdDecompressor(), 0, 0, ''
    with path.open('rb') as packed, copy.open('wb') as plain:
        while not reason and (block := packed.read(_BLOCK)):
            while block and not reason:
                # A file may consist of several frames.
                if unpacker.eof:
                    block = unpacker.unused_data or block
                    unpacker = zstd.ZstdDecompressor()
                try:
                    content = unpacker.decompress(block, max_length=_BLOCK)
                    written += plain.write(content)
                    while not (unpacker.needs_input or unpacker.eof):
                        written += plain.write(unpacker.decompress(b'', max_length=_BLOCK))
                except zstd.ZstdError as error:
                    reason = why(error)
                block = unpacker.unused_data if not reason and unpacker.eof else b''
            offset = packed.tell()
        if not reason and not unpacker.eof:
            reason = 'the file ends here, and it should not'
    if not reason:
        return None
    if not written:
        raise DamageError(path.name, 0, f'cannot be unpacked ({reason})')
    return Damage(printable(path.name), offset, printable(reason))


def _salvage(path: Path, copy: Path) -> Damage | None:
    reason, last, count = '', None, 0
    try:
        with (
            closing(sqlite3.connect(f'file:{path.absolute()}?mode=ro&immutable=1', uri=True)
                    ) as source,
            closing(sqlite3.connect(f'file:{copy.absolute()}', uri=True)) as target,
        ):
            target.executescript(_TABLES)
            # Without this a file that has been cut is not opened at all.
            source.execute('PRAGMA writable_schema=ON')
            for row in _rows(source, 'topics', _TOPICS):
                target.execute('INSERT INTO topics VALUES (?,?,?,?,?,?)', row)
            with suppress(sqlite3.Error):
                for row in _rows(source, 'message_definitions', _DEFINITIONS):
                    target.execute('INSERT INTO message_definitions VALUES (?,?,?,?,?)', row)
            try:
                for row in _rows(source, 'messages', _MESSAGES):
                    target.execute('INSERT INTO messages VALUES (?,?,?,?)', row)
                    count += 1
                    last = row[2] if last is None else max(last, row[2])
            except (sqlite3.DatabaseError, OverflowError, TypeError) as error:
                reason = why(error)
            target.commit()
    except sqlite3.Error as error:
        raise DamageError(path.name, None, f'no database of a bag ({why(error)})') from error
    size, whole = path.stat().st_size, _announced_size(path)
    if size < whole:
        return Damage(printable(path.name), size,
                      f'the file ends here, {whole - size} bytes too soon', last)
    if reason:
        return Damage(printable(path.name), None, f'{reason}, after {count} messages', last)
    return None


def _rows(source: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> Iterator[tuple]:
    """Yield rows in the order they were written, empty where an older layout lacks a column."""
    there = {row[1] for row in source.execute(f'PRAGMA table_info({table})')}
    if columns[0] not in there:
        raise sqlite3.DatabaseError(f'the table {table} is missing')
    chosen = ', '.join(name if name in there else "''" for name in columns)
    # NOT INDEXED: an index may lie in the damaged part.
    yield from source.execute(f'SELECT {chosen} FROM {table} NOT INDEXED ORDER BY {columns[0]}')


def _announced_size(path: Path) -> int:
    """Return the size that the head of an sqlite3 file tells; 0 where it tells none."""
    with path.open('rb') as stream:
        head = stream.read(100)
    if len(head) < 100 or not head.startswith(b'SQLite format 3\0'):
        return 0
    page, = struct.unpack_from('>H', head, 16)
    pages, = struct.unpack_from('>I', head, 28)
    return (1 << 16 if page == 1 else page) * pages


def storage_name(path: Path) -> str:
    """Return ``mcap`` or ``sqlite3`` by the name of a file, packed or not."""
    return 'mcap' if '.mcap' in path.suffixes else 'sqlite3'


def readable(path: Path) -> bool:
    """Whether a file can be opened to read."""
    return path.is_file() and os.access(path, os.R_OK)
