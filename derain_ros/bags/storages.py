"""The files of a rosbag2, of either storage, behind one face.

Each has ``connections``, ``start_time`` and ``end_time`` (ns; None if it is empty), ``damage``,
``messages(ids, start, stop)``, ``times(ids)`` and ``close()``; see
:class:`derain_ros.bags.recording.Recording`, whose methods they serve.
"""

from array import array
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag2.metadata import parse_qos
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from derain_ros.bags.damage import Damage, DamageError, why
from derain_ros.bags.mcap_file import McapFile

NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, '')

_FORMATS = {
    'ros2msg': MessageDefinitionFormat.MSG,
    'ros2idl': MessageDefinitionFormat.IDL,
    'omgidl': MessageDefinitionFormat.IDL,
}


class McapStorage:
    """An mcap file with topics as rosbags has them."""

    def __init__(self, path: Path, scan: bool):
        self._file = McapFile(path, scan=scan)
        index = self._file.index
        self.damage = index.damage
        self.start_time = min((piece.start for piece in index.pieces), default=None)
        self.end_time = max((piece.end for piece in index.pieces), default=None)
        self.connections = []
        for channel in sorted(index.channels.values(), key=lambda channel: channel.id):
            schema = index.schemas.get(channel.schema_id)
            definition, name = NO_DEFINITION, ''
            if schema is not None:
                name = schema.name
                definition = MessageDefinition(
                    _FORMATS.get(schema.encoding, MessageDefinitionFormat.NONE),
                    schema.data.decode(errors='replace') if schema.encoding in _FORMATS else '')
            self.connections.append(Connection(
                channel.id, channel.topic, name, definition,
                channel.metadata.get('topic_type_hash', ''), index.counts[channel.id],
                ConnectionExtRosbag2(channel.message_encoding, read_profiles(
                    channel.metadata.get('offered_qos_profiles', ''))), None))
        self.messages = self._file.messages
        self.times = self._file.times
        self.close = self._file.close


class SqliteStorage:
    """An sqlite3 file, read through rosbags, with its errors as ours."""

    def __init__(self, path: Path):
        self._path = path
        self.damage: Damage | None = None
        reader = Sqlite3Reader(path)
        try:
            reader.open()
        except Exception as error:
            # rosbags lets errors of SQLite, YAML and others through on a damaged file.
            raise DamageError(path.name, None, why(error)) from error
        self._reader = reader
        self.connections = reader.connections
        self._connections = {connection.id: connection for connection in reader.connections}
        some = reader.metadata.message_count > 0
        self.start_time = reader.metadata.start_time if some else None
        self.end_time = reader.metadata.end_time - 1 if some else None

    def messages(
        self, ids: Collection[int], start: int, stop: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield id, time (ns) and serialized message; raises DamageError."""
        messages = self._reader.messages([self._connections[one] for one in ids], start, stop)
        while True:
            try:
                connection, time, data = next(messages)
            except StopIteration:
                return
            except Exception as error:
                raise DamageError(self._path.name, None, why(error)) from error
            yield connection.id, time, data

    def times(self, ids: Collection[int]) -> dict[int, array]:
        """Return the times of the messages of topics, ns; raises DamageError."""
        found = {one: array('q') for one in ids}
        try:
            for one, times in found.items():
                times.extend(time for time, in self._reader.dbconn.execute(
                    'SELECT timestamp FROM messages WHERE topic_id = ?', (one,)))
        except Exception as error:
            raise DamageError(self._path.name, None, why(error)) from error
        return found

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def read_profiles(profiles: Any) -> list:
    """Return the QoS profiles of a topic, as metadata or storage have them; none if unreadable."""
    try:
        return parse_qos(profiles)
    except Exception:
        # A profile is information only: the messages count.
        return []
