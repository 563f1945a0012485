"""A recorded rosbag2, whole or damaged: its topics, and the messages of any stretch of time."""

import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
)
from rosbags.rosbag2 import CompressionMode
from ruamel.yaml import YAML

from derain_ros.bags.damage import BagError, Damage, DamageError, why
from derain_ros.bags.staging import salvaged, storage_name, unpacked
from derain_ros.bags.storages import (
    NO_DEFINITION,
    McapStorage,
    SqliteStorage,
    read_profiles,
)
from derain_ros.bags.topics import COMPRESSED_IMAGE, IMAGE
from derain_ros.text import natural_key, printable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_NEWEST_VERSION = 9


class Recording:
    """A bag to read from; one thread at a time.

    Files that are packed as a whole, and databases that are damaged, are copied first.

    Parameters
    ----------
    source
        Folder of the bag, or a bare storage file.
    scratch
        Folder for such copies; it is made when there is one, and copies there are used again.
        None takes a temporary folder, which goes when the recording is closed.
    scan
        Rely on no index: look through all files for the place where they are damaged.

    Attributes
    ----------
    connections
        Topics, with their number of messages; ids count from 1.
    start_time, end_time
        Times of the oldest and of the newest message, ns.
    storage
        ``mcap`` or ``sqlite3``.
    compression
        How files or messages are packed; chunks of mcap do not count.
    damages
        Where files are damaged.

    Raises
    ------
    BagError
        There is no bag, or not one message of it can be read.

    """

    def __init__(self, source: Path, scratch: Path | None = None, *, scan: bool = False):
        self.source = source
        self._temporary = None
        if scratch is None:
            self._temporary = tempfile.TemporaryDirectory(prefix='derain_bag_')
            scratch = Path(self._temporary.name)
        self.damages: list[Damage] = []
        self._files: list[tuple[Any, dict[int, int]]] = []
        try:
            self._open(source, scratch, scan)
        except OSError as error:
            self.close()
            raise BagError(f'{source}: {error.strerror or why(error)}') from error
        except BaseException:
            self.close()
            raise

    def _open(self, source: Path, scratch: Path, scan: bool) -> None:
        _check_source(source)
        self._listed: dict[tuple[str, str], int] = {}
        self.connections: list[Connection] = []
        if source.is_dir():
            files = self._read_folder(source)
        else:
            packed = source.suffix == '.zstd'
            self.compression = CompressionMode.FILE if packed else CompressionMode.NONE
            files = [source]
        if not files:
            raise BagError(f'{source}: holds no metadata.yaml and no .mcap or .db3 file')
        self.storage = storage_name(files[0])
        if self.storage == 'sqlite3' and set('?#%') & set(str(source.absolute())):
            raise BagError(
                f'{source}: a sqlite3 bag cannot have ?, # or % in its path; rename it')
        for path in files:
            try:
                self._add_file(path, scratch, scan)
            except FileNotFoundError:
                self.damages.append(Damage(printable(path.name), None, 'the file is missing'))
            except DamageError as error:
                self.damages.append(error.damage)
        self._sum_up(source)

    def __enter__(self) -> 'Recording':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for file, _ in self._files:
            file.close()
        self._files = []
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def image_topics(self) -> list[str]:
        """Names of the Image and CompressedImage topics, sorted."""
        return sorted({connection.topic for connection in self.connections
                       if connection.msgtype in (IMAGE, COMPRESSED_IMAGE)})

    @property
    def message_count(self) -> int:
        """Messages of all topics."""
        return sum(connection.msgcount for connection in self.connections)

    def messages(
        self, start: int, stop: int, connections: Collection[int] | None = None
    ) -> Iterator[tuple[int, int, Any]]:
        """Yield id of the connection, time (ns) and serialized message.

        File by file, in the order of time, with ``start <= time < stop``.

        Parameters
        ----------
        start, stop
            Times, ns.
        connections
            Ids to read; None reads all.

        Raises
        ------
        DamageError
            A file is not what its index says; a recording opened with ``scan`` ends before.
        BagError
            A message cannot be unpacked.

        """
        for file, ids in self._files:
            chosen = {own: ours for own, ours in ids.items()
                      if connections is None or ours in connections}
            if not chosen:
                continue
            for own, time, data in file.messages(chosen, start, stop):
                if self.compression == CompressionMode.MESSAGE:
                    try:
                        data = zstd.decompress(data)
                    except zstd.ZstdError as error:
                        raise BagError(
                            f'{self.source}: the message at {time} ns of '
                            f'{self.connections[chosen[own] - 1].topic} cannot be unpacked '
                            f'({why(error)})') from error
                yield chosen[own], time, data

    def read(
        self, *topics: str, start: int = 0, stop: int = 2**63 - 1
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield topic, time (ns) and serialized message, as far as the bag can be read.

        Several of these may run at a time, in one thread. Where the bag turns out to be damaged
        on the way, :attr:`damages` says so afterwards.

        Parameters
        ----------
        topics
            Image topics to read; none for all topics of any type.
        start, stop
            Times of recording, ns, from and before which to read.

        Raises
        ------
        BagError
            A message cannot be unpacked.

        """
        chosen = None
        if topics:
            chosen = {connection.id for connection in self.connections
                      if connection.topic in topics
                      and connection.msgtype in (IMAGE, COMPRESSED_IMAGE)}
        try:
            for number, time, data in self.messages(start, stop, chosen):
                yield self.connections[number - 1], time, bytes(data)
        except DamageError as error:
            if error.damage not in self.damages:
                self.damages.append(error.damage)

    def times(self, connections: Collection[int]) -> dict[int, array]:
        """Return the times of all messages of image topics, ns, by id of the connection.

        Raises
        ------
        DamageError
            As for :meth:`messages`.

        """
        found = {connection: array('q') for connection in connections}
        for file, ids in self._files:
            chosen = [own for own, ours in ids.items() if ours in found]
            for own, times in file.times(chosen).items():
                found[ids[own]].extend(times)
        return found

    def missing(self, read: Counter) -> Damage | None:
        """Tell of messages that the bag lists and that were not read, by id of connection."""
        lost = []
        for connection in self.connections:
            count = max(connection.msgcount, self._listed.get(
                (connection.topic, connection.msgtype), 0))
            if read[connection.id] < count:
                lost.append(f'{count} messages on {connection.topic}, but '
                            f'{read[connection.id]} can be read')
        if not lost:
            return None
        name = 'metadata.yaml' if self.source.is_dir() else self.source.name
        return Damage(name, None, printable(f'lists {"; ".join(lost)}'))

    def _read_folder(self, source: Path) -> list[Path]:
        try:
            return self._read_metadata(source)
        except FileNotFoundError:
            reason = 'the file is missing'
        except PermissionError:
            raise
        except Exception as error:
            # What a damaged YAML file makes the parser raise is not limited.
            reason = f'cannot be read ({why(error)})'
        self.connections = []
        self._listed = {}
        files = sorted((
            path for path in source.iterdir()
            if {'.mcap', '.db3'} & set(path.suffixes[-2:]) and path.is_file()
            and path.suffix in ('.mcap', '.db3', '.zstd')
        ), key=lambda path: natural_key(path.name))
        packed = bool(files) and files[0].suffix == '.zstd'
        self.compression = CompressionMode.FILE if packed else CompressionMode.NONE
        self.damages.append(Damage('metadata.yaml', None, printable(reason)))
        return files

    def _read_metadata(self, source: Path) -> list[Path]:
        text = (source / 'metadata.yaml').read_text(encoding='utf-8')
        found = YAML(typ='safe').load(BytesIO(text.encode()))['rosbag2_bagfile_information']
        if found['version'] > _NEWEST_VERSION:
            raise BagError(f'{source}: version {found["version"]} of rosbag2 is not known')
        mode = str(found.get('compression_mode') or 'none').lower()
        if mode != 'none' and found.get('compression_format') != 'zstd':
            raise ValueError(f'unknown compression {found.get("compression_format")!r}')
        self.compression = CompressionMode[mode.upper()]
        for listed in found['topics_with_message_count']:
            topic = listed['topic_metadata']
            connection = self._connection(
                str(topic['name']), str(topic['type']), NO_DEFINITION,
                topic.get('type_description_hash') or '', str(topic['serialization_format']),
                topic.get('offered_qos_profiles') or [])
            key = (connection.topic, connection.msgtype)
            self._listed[key] = self._listed.get(key, 0) + int(listed['message_count'])
        if len(set(self._listed)) < len(self.connections):
            self._listed = {}
        return [source / PurePath(str(name)).name for name in found['relative_file_paths']]

    def _add_file(self, path: Path, scratch: Path, scan: bool) -> None:
        cut = None
        if self.compression == CompressionMode.FILE:
            path, cut = unpacked(path, scratch)
        file: Any
        if storage_name(path) == 'mcap':
            file = McapStorage(path, scan)
        else:
            try:
                if scan or cut:
                    raise DamageError(path.name, None, 'to be looked through')
                file = SqliteStorage(path)
            except DamageError:
                path, damage = salvaged(path, scratch)
                file = SqliteStorage(path)
                file.damage = damage
        ids = {}
        for own in file.connections:
            ids[own.id] = self._match(own)
            ours = self.connections[ids[own.id] - 1]
            self.connections[ids[own.id] - 1] = ours._replace(
                msgcount=ours.msgcount + own.msgcount,
                msgdef=ours.msgdef if ours.msgdef.data else own.msgdef,
                digest=ours.digest or own.digest)
        self._files.append((file, ids))
        if cut is not None:
            last = (file.damage and file.damage.last_time) or file.end_time
            self.damages.append(replace(cut, last_time=last))
        elif file.damage is not None:
            self.damages.append(file.damage)

    def _match(self, own: Connection) -> int:
        """Return the id of a topic of a file among those of the bag."""
        same = [ours for ours in self.connections
                if (ours.topic, ours.msgtype) == (own.topic, own.msgtype)]
        for ours in same:
            if ours.ext == own.ext:
                return ours.id
        if same and self._listed:
            return same[0].id
        ext = own.ext
        return self._connection(own.topic, own.msgtype, own.msgdef, own.digest,
                                ext.serialization_format, ext.offered_qos_profiles).id

    def _connection(
        self, topic: str, msgtype: str, definition: MessageDefinition, digest: str,
        serialization: str, profiles: Any
    ) -> Connection:
        if serialization != 'cdr':
            raise BagError(
                f'{self.source}: {topic} is serialized as {serialization!r}, not as cdr')
        connection = Connection(
            len(self.connections) + 1, topic, msgtype, definition, digest, 0,
            ConnectionExtRosbag2(serialization, read_profiles(profiles)), None)
        self.connections.append(connection)
        return connection

    def _sum_up(self, source: Path) -> None:
        spans = [(file.start_time, file.end_time) for file, _ in self._files
                 if file.start_time is not None]
        if not spans and self.damages:
            raise BagError(
                f'{source}: cannot be read as a rosbag2, not one message of it '
                f'({"; ".join(map(str, self.damages))})')
        self.start_time = min((start for start, _ in spans), default=0)
        self.end_time = max((end for _, end in spans), default=0)


def _check_source(source: Path) -> None:
    if not source.exists():
        raise BagError(f'{source}: no such bag')
    if source.suffix == '.bag' and source.is_file():
        raise BagError(
            f'{source}: a ROS 1 bag; convert it with `rosbags-convert --src {source} --dst OUT`')
    if source.is_file() and not {'.mcap', '.db3'} & set(source.suffixes[-2:]):
        raise BagError(f'{source}: no folder and no .mcap or .db3 file')
