"""Read the sqlite3 files of any rosbag2 version, damaged ones included."""

import errno
import os
import sqlite3
import struct
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from derain_ros.bags.damage import Damage, DamageError, why
from derain_ros.bags.mcap_file import Message
from derain_ros.bags.staging import staged, with_log
from derain_ros.text import printable

LEAST, MOST = -2**63, 2**63 - 1
"""Smallest and largest SQLite integer."""

_TOPICS = ('id', 'name', 'type', 'serialization_format', 'offered_qos_profiles',
           'type_description_hash')
_DEFINITIONS = ('id', 'topic_type', 'encoding', 'encoded_message_definition',
                'type_description_hash')
_MESSAGES = ('id', 'topic_id', 'timestamp', 'data')
_AGAIN = ('INSERT INTO messages(topic_id, timestamp, data) SELECT ?,?,? WHERE NOT EXISTS ('
          'SELECT 1 FROM messages WHERE topic_id = ? AND timestamp = ? AND data = ?)')
_MOST_TRIES = 1024
_SUMS = ('count(*), coalesce(sum(timestamp % 1000003), 0), '
         'coalesce(sum(timestamp / 1000003 % 1000003), 0), coalesce(sum(id % 1000003), 0)')


class SqliteFile:
    """An sqlite3 file open for reading, by one thread at a time.

    What can be read of a damaged file is copied to ``scratch``: at once with ``salvage``, else
    when damage is found. Raises DamageError if it is not the database of a bag, OSError if it
    cannot be opened, BagError or OSError if a copy cannot be written.

    ``topics`` are rows of id, name, type, serialization, QoS profiles and hash; ``definitions``
    holds encoding and text by type, and by type and hash, ``counts`` the number of messages by
    topic id. ``start_time`` and ``end_time`` are in ns, None if there is no message. ``damages``
    is the damage found so far, and ``has_log`` is true if messages in a log beside the file are
    read too.
    """

    def __init__(self, path: Path, scratch: Path, *, salvage: bool = False):
        self.path, self._scratch = path, scratch
        path.open('rb').close()  # tells why a file cannot be opened; SQLite does not
        copy, damage, self.has_log = with_log(path, scratch)
        self.damages = [damage] if damage else []
        self._database = _open(copy or path, immutable=copy is None)
        self._old: list[sqlite3.Connection] = []
        try:
            failure = None
            if not salvage:
                try:
                    self._read_head()
                    return
                except (sqlite3.Error, OverflowError) as error:
                    failure = error
            self._salvage(self._database, failure)
            self._read_head()
        except sqlite3.Error as error:
            self.close()
            raise DamageError(path.name, None, 'not the database of a bag '
                                               f'({why(error)})') from error
        except BaseException:
            self.close()
            raise

    def _read_head(self) -> None:
        self.topics = [(number, *map(_text, texts)) for number, *texts in _rows(
            self._database, 'topics', _TOPICS)]
        self.definitions = {}
        with suppress(sqlite3.Error):
            for _, *row in _rows(self._database, 'message_definitions', _DEFINITIONS):
                kind, encoding, text, digest = map(_text, row)
                self.definitions[kind] = self.definitions[kind, digest] = encoding, text
        counts: Counter = Counter()
        sums = [0, 0, 0, 0]
        for topic, *found in self._database.execute(
                f'SELECT topic_id, {_SUMS} FROM messages NOT INDEXED GROUP BY topic_id'):
            counts[topic] = found[0]
            sums = [one + other for one, other in zip(sums, found, strict=True)]
        # Queries may take order and times from the index: it must agree with the table.
        if self._database.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'timestamp_idx'").fetchone() and (
                list(self._database.execute(
                    f'SELECT {_SUMS} FROM messages INDEXED BY timestamp_idx').fetchone()) != sums):
            self.damages.append(Damage(
                printable(self.path.name), None, 'the index has other times than the messages; '
                                                 'the times of the messages are used'))
            raise sqlite3.DatabaseError('the index is not that of the messages')
        self.counts = {topic[0]: counts.pop(topic[0], 0) for topic in self.topics}
        self.start_time, self.end_time = self._database.execute(
            'SELECT min(timestamp), max(timestamp) FROM messages '
            "WHERE typeof(timestamp) = 'integer'").fetchone()
        if counts:
            self.damages.append(Damage(
                printable(self.path.name), None, 'messages belong to no topic of the file',
                lost=sum(counts.values())))

    def messages(self, topics: Collection[int], start: int, stop: int) -> Iterator[Message]:
        """Yield the messages with ``start <= time < stop``, ns, in order of time."""
        last = (LEAST, -1)
        ids = ','.join(str(int(topic)) for topic in topics)
        while True:
            database = self._database
            try:
                rows = database.execute(
                    'SELECT topic_id, timestamp, data, id FROM messages WHERE topic_id '
                    f'IN ({ids}) AND timestamp >= ? AND timestamp <= ? ORDER BY timestamp, id',
                    (max(LEAST, min(start, MOST)), max(LEAST, min(stop - 1, MOST))))
                for topic, time, data, number in rows:
                    if not isinstance(data, bytes) or not isinstance(time, int):
                        raise sqlite3.DataError('a row without a message')
                    if (time, number) > last:
                        yield topic, time, memoryview(data), 0, time
                        last = time, number
                return
            except (sqlite3.Error, OverflowError) as error:
                self._salvage(database, error)

    def times(self, topics: Collection[int]) -> dict[int, array]:
        """Return the times of all messages of some topics, ns, by topic id."""
        while True:
            database = self._database
            try:
                return {topic: array('q', [time for time, in database.execute(
                    'SELECT timestamp FROM messages WHERE topic_id = ?', (topic,))])
                    for topic in topics}
            except (sqlite3.Error, OverflowError, TypeError) as error:
                self._salvage(database, error)

    def metadata(self) -> str:
        """Return the metadata.yaml that the recorder stored in the file; empty if none."""
        try:
            row = self._database.execute(
                'SELECT metadata FROM metadata ORDER BY id DESC LIMIT 1').fetchone()
            return str(row[0]) if row else ''
        except sqlite3.Error:
            return ''

    def close(self) -> None:
        """Close the file."""
        for database in (*self._old, self._database):
            database.close()

    def _salvage(self, broken: sqlite3.Connection, failure: Exception | None) -> None:
        """Switch to an intact copy with every message that can be read."""
        if broken is not self._database:
            return  # another reader has switched already
        if self._old:
            raise DamageError(self.path.name, None, 'cannot be read even in a sound copy')
        copy, damage = staged(
            self.path, self._scratch, f'salvaged_{self.path.name}',
            lambda path, copy: _salvage(broken, path, copy))
        # Generators may still be reading from the damaged one.
        self._old.append(broken)
        self._database = _open(copy, immutable=True)
        if damage is None and failure is not None and not self.damages:
            damage = Damage(printable(self.path.name), None, printable(
                f'{why(failure)}; every message could be read, but not be checked'))
        self.damages += [damage] if damage else []


def _text(value: object) -> str:
    """Return a value that should be text as text; in a damaged file it can be anything."""
    return value if isinstance(value, str) else repr(value)


def _open(path: Path, *, immutable: bool) -> sqlite3.Connection:
    options = '?mode=ro&immutable=1' if immutable else ''
    database = sqlite3.connect(
        f'file:{quote(os.fsencode(path.absolute()))}{options}', uri=True, check_same_thread=False)
    database.text_factory = lambda text: text.decode(errors='replace')
    return database


def _select(source: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> str:
    """Return a query for rows from an id on; columns that an old layout lacks are empty."""
    there = {row[1] for row in source.execute(f'PRAGMA table_info({table})')}
    if columns[0] not in there:
        raise sqlite3.DatabaseError(f'the table {table} is missing')
    chosen = ', '.join(name if name in there else "''" for name in columns)
    # NOT INDEXED: an index may lie in the damaged part.
    return f'SELECT {chosen} FROM {table} NOT INDEXED WHERE id >= ? ORDER BY id'


def _rows(source: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> Iterator[tuple]:
    """Yield all rows of a table in order of id, the order in which they were written."""
    yield from source.execute(_select(source, table, columns), (LEAST,))


def _salvage(source: sqlite3.Connection, path: Path, copy: Path) -> Damage | None:
    last, count, first = None, 0, None
    # Without this, SQLite refuses to read a truncated file at all.
    source.execute('PRAGMA writable_schema=ON')
    topics, query = _surviving_topics(source), _select(source, 'messages', _MESSAGES)
    try:
        with closing(sqlite3.connect(copy)) as target:
            # No journal: after an interruption the copy is made again from scratch.
            target.executescript('PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;'
                                 + Sqlite3Writer.SQLITE_SCHEMA)
            for row in topics:
                target.execute('INSERT OR IGNORE INTO topics VALUES (?,?,?,?,?,?)', row)
            with suppress(sqlite3.Error):
                for row in _rows(source, 'message_definitions', _DEFINITIONS):
                    target.execute(
                        'INSERT OR IGNORE INTO message_definitions VALUES (?,?,?,?,?)', row)
            for row in _surviving(source, query):
                if isinstance(row, str):
                    first = first or (row, count, last)
                    continue
                if not target.execute(
                        'INSERT OR IGNORE INTO messages VALUES (?,?,?,?)', row).rowcount:
                    # The id is taken: either the same row again, or another with a damaged id.
                    target.execute(_AGAIN, (*row[1:], *row[1:]))
                count += 1
                last = row[2] if last is None else max(last, row[2])
            target.commit()
    except sqlite3.Error as error:
        # What the source raises is caught in what reads it.
        raise OSError(errno.ENOSPC, str(error)) from error
    size, whole = path.stat().st_size, _announced_size(path)
    name = printable(path.name)
    if size < whole:
        last = first[2] if first else last
        return Damage(name, size, f'the file ends here, {whole - size} bytes too soon', last)
    if first is None:
        return None
    reason, before, last = first
    damage = Damage(name, None, printable(f'{reason}, after {before} messages'), last)
    return replace(damage, reason=f'{damage.reason}; {count - before} behind it could be read')


def _surviving_topics(source: sqlite3.Connection) -> Collection[tuple]:
    """Return the rows of topics with all readable columns, at least id and name."""
    found: dict[int, tuple] = {}
    _select(source, 'topics', _TOPICS)  # raises where there are none
    for known in range(len(_TOPICS), 1, -1):
        with suppress(sqlite3.Error):
            for row in _rows(source, 'topics', _TOPICS[:known]):
                found.setdefault(row[0], (*row, *[''] * (len(_TOPICS) - known)))
            break
    return found.values()


def _surviving(source: sqlite3.Connection, query: str) -> Iterator[tuple | str]:
    """Yield every row of messages that can be read, and the reason (a str) where some cannot."""
    at, newest, tries = LEAST, LEAST, 0
    while tries < _MOST_TRIES:
        try:
            for row in source.execute(query, (at,)):
                at = row[0] + 1
                # A damaged B-tree may return the same rows again and again.
                if at > newest:
                    newest, tries = at, 0
                if isinstance(row[2], int) and isinstance(row[3], bytes):
                    yield row
                else:
                    yield 'a row without a message'
            return
        except (sqlite3.Error, OverflowError) as error:
            if not tries:
                yield why(error)
            # Ids count from 1; a damaged page holds several rows, so the steps grow later.
            step = 1 << max(0, tries - _MOST_TRIES // 2) // 32
            at, tries = 1 if at < 1 else at + step, tries + 1


def _announced_size(path: Path) -> int:
    """Return the size in bytes according to the header of an sqlite3 file; 0 if there is none."""
    with path.open('rb') as stream:
        head = stream.read(100)
    if len(head) < 100 or not head.startswith(b'SQLite format 3\0'):
        return 0
    page, = struct.unpack_from('>H', head, 16)
    pages, = struct.unpack_from('>I', head, 28)
    return (1 << 16 if page == 1 else page) * pages
