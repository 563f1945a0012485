"""Read a rosbag2, intact or damaged: its topics, and the messages of any time range."""

import heapq
import resource
import tempfile
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2.metadata import parse_qos
from ruamel.yaml import YAML

from derain_ros.bags.damage import BagError, Damage, DamageError, why
from derain_ros.bags.fleet import is_bag, storage_of
from derain_ros.bags.mcap_file import McapFile, Message, zstd
from derain_ros.bags.sqlite_file import SqliteFile
from derain_ros.bags.staging import staged, unpack
from derain_ros.bags.topics import IMAGE_TYPES, NO_DEFINITION
from derain_ros.text import natural_key, printable

EVER = (-2**63, 2**64)
"""Range of all message times, ns: int64 in SQLite, uint64 in MCAP."""

_NEWEST_VERSION = 9
_ZSTD = b'\x28\xb5\x2f\xfd'
_FORMATS = {
    'ros2msg': MessageDefinitionFormat.MSG,
    'ros2idl': MessageDefinitionFormat.IDL,
    'omgidl': MessageDefinitionFormat.IDL,
}


class Origin(NamedTuple):
    """What an MCAP file says about a topic beyond rosbag2's own fields; ``Connection.owner``.

    ``encoding`` and ``schema`` are those of a schema that is not from ROS, else empty;
    ``metadata`` holds the other metadata entries of the channel.
    """

    encoding: str
    schema: bytes
    metadata: tuple[tuple[str, str], ...]


class Recording:
    """A bag open for reading, by one thread at a time.

    Files compressed as a whole, and databases that are damaged or have a log beside them, are
    copied to the folder ``scratch``, created when needed; copies that are there already are
    reused. None uses a temporary folder, deleted on closing. Raises BagError if there is no bag,
    or not a single message of it can be read.

    ``connections`` are the topics, with their message counts; ids count from 1. ``start_time`` and
    ``end_time`` are the times of the oldest and the newest message, ns. ``storage`` is ``mcap`` or
    ``sqlite3``; ``compression`` is that of files or messages, not that of MCAP chunks. ``notes``,
    printable, tell the user about things other than damage; ``custom_data`` is from metadata.yaml.
    """

    def __init__(self, source: Path, scratch: Path | None = None):
        self.source = source
        self.notes: list[str] = []
        self.connections: list[Connection] = []
        self.custom_data: dict[str, str] = {}
        self._damages: list[Damage] = []
        self._listed: Counter[tuple[str, str]] = Counter()
        self._files: list[tuple[McapFile | SqliteFile, dict[int, int]]] = []
        self._temporary = None
        if scratch is None:
            self._temporary = tempfile.TemporaryDirectory(prefix='derain_bag_')
            scratch = Path(self._temporary.name)
        try:
            self._open(source, scratch)
        except OSError as error:
            self.close()
            raise BagError(
                f'{error.filename or source}: {error.strerror or why(error)}') from error
        except BaseException:
            self.close()
            raise

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
    def damages(self) -> list[Damage]:
        """Damage found in the files so far."""
        return self._damages + [damage for file, _ in self._files for damage in file.damages]

    @property
    def topics(self) -> list[tuple[str, str]]:
        """Name and type of every topic; if it is not CDR, the encoding is added to the type."""
        return [(one.topic, one.msgtype if one.ext.serialization_format == 'cdr' else
                 f'{one.msgtype or "no type"}, {one.ext.serialization_format}')
                for one in self.connections]

    @property
    def image_topics(self) -> list[str]:
        """Names of the Image and CompressedImage topics, sorted."""
        return sorted({topic for topic, msgtype in self.topics if msgtype in IMAGE_TYPES})

    def images_of(self, topics: Collection[str]) -> list[Connection]:
        """Return those connections of ``topics`` that are image topics serialized as CDR."""
        return [one for one in self.connections
                if one.topic in topics and one.msgtype in IMAGE_TYPES
                and one.ext.serialization_format == 'cdr']

    @property
    def message_count(self) -> int:
        """Number of messages on all topics."""
        return sum(connection.msgcount for connection in self.connections)

    def messages(
        self, start: int, stop: int, connections: Collection[int] | None = None
    ) -> Iterator[Message]:
        """Yield the messages with ``start <= time < stop``, ns, in order of time.

        Each is connection id, time (ns), serialized message, sequence number and publish time
        (ns); ``connections`` selects ids, None means all. Several of these generators may be
        active at once, in one thread. Messages that cannot be read are left out, and reported in
        :attr:`damages` afterwards.
        """
        files = sorted((found for found in self._files if found[0].start_time is not None),
                       key=lambda found: found[0].start_time)
        while files:
            # Files whose times overlap are read together.
            together, until = [], files[0][0].end_time
            while files and files[0][0].start_time <= until:
                file, ids = files.pop(0)
                until = max(until, file.end_time)
                together.append(self._of_file(file, ids, start, stop, connections))
            yield from (together[0] if len(together) == 1 else
                        heapq.merge(*together, key=lambda message: message[1]))

    def _of_file(
        self, file: McapFile | SqliteFile, ids: dict[int, int], start: int, stop: int,
        connections: Collection[int] | None
    ) -> Iterator[Message]:
        chosen = {own: ours for own, ours in ids.items()
                  if connections is None or ours in connections}
        if not chosen or file.start_time >= stop or file.end_time < start:
            return
        for own, time, data, *rest in file.messages(chosen, start, stop):
            if self.compression == CompressionMode.MESSAGE:
                try:
                    data = zstd.decompress(data)
                except zstd.ZstdError as error:
                    topic = self.connections[chosen[own] - 1].topic
                    damage = Damage(printable(file.path.name), None, printable(
                        f'the message at {time} ns of {topic} cannot be unpacked '
                        f'({why(error)})'), lost=1)
                    self._damages += [] if damage in self._damages else [damage]
                    continue
            yield chosen[own], time, data, *rest

    def read(
        self, *topics: str, start: int = EVER[0], stop: int = EVER[1]
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield connection, time (ns) and serialized message, as far as the bag can be read.

        ``topics`` are image topics; without any, messages of all topics of any type are read.
        ``start`` (inclusive) and ``stop`` (exclusive) are times of recording, ns.
        """
        chosen = {one.id for one in self.images_of(topics)} if topics else None
        for number, time, data, *_ in self.messages(start, stop, chosen):
            yield self.connections[number - 1], time, bytes(data)

    def times(self, connections: Collection[int]) -> dict[int, array]:
        """Return the times of all messages of image topics, ns, by connection id."""
        found = {connection: array('Q') for connection in connections}
        for file, ids in self._files:
            chosen = [own for own, ours in ids.items() if ours in found]
            for own, times in file.times(chosen).items():
                # Times before 1970, as in a damaged database, are clamped to 0.
                found[ids[own]].extend(max(0, time) for time in times)
        return found

    def missing(self, kept: Mapping[int, int], counts: Mapping[int, int]) -> Damage | None:
        """Return a Damage if the bag lists more messages than were read, else None.

        ``kept`` maps connection ids to the keys of ``counts``, the numbers of messages read.
        """
        lost = []
        for key in dict.fromkeys((
                *((one.topic, one.msgtype) for one in self.connections), *self._listed)):
            same = [one for one in self.connections if (one.topic, one.msgtype) == key]
            count = max(sum(one.msgcount for one in same), self._listed[key])
            read = sum(counts.get(number, 0) for number in {kept[one.id] for one in same})
            if read < count:
                lost.append(f'{count} messages on {key[0]}, but {read} can be read')
        if not lost:
            return None
        name = 'metadata.yaml' if self.source.is_dir() else self.source.name
        return Damage(name, None, printable(f'lists {"; ".join(lost)}'))

    def kept(self) -> Iterator[tuple[Any, bytes]]:
        """Yield index and bytes of the attachments and metadata records of MCAP files.

        The metadata record that rosbag2 itself writes is excluded.
        """
        for file, _ in self._files:
            for index in file.index.kept if isinstance(file, McapFile) else ():
                if index.name != 'rosbag2':
                    with suppress(Exception):  # one that cannot be read is in damages
                        yield index, file.read(index.offset, index.length)

    def _open(self, source: Path, scratch: Path) -> None:
        if not source.exists():
            raise BagError(f'{source}: no such bag')
        if source.suffix.lower() == '.bag' and source.is_file():
            raise BagError(f'{source}: a ROS 1 bag; convert it with `rosbags-convert --src '
                           f'{source} --dst OUT`')
        packed = source.suffix.lower() == '.zstd'
        self.compression = CompressionMode.FILE if packed else CompressionMode.NONE
        files = [source]
        if source.is_dir():
            files = self._read_folder(source)
        elif not storage_of(source):
            raise BagError(f'{source}: neither a folder nor an .mcap or .db3 file')
        if not files:
            raise BagError(
                f'{source}: holds no metadata.yaml of a bag and no .mcap or .db3 file')
        self.storage = storage_of(files[0]) or 'sqlite3'
        # A bag may have thousands of files, which stay open; the usual limit is 1024.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        for path in files:
            try:
                self._add_file(path, scratch)
            except FileNotFoundError:
                self._damages.append(Damage(printable(path.name), None, 'the file is missing'))
            except DamageError as error:
                self._damages.append(error.damage)
        spans = [(file.start_time, file.end_time) for file, _ in self._files
                 if file.start_time is not None]
        if not spans and self.damages:
            raise BagError(
                f'{source}: not a single message of this rosbag2 can be read '
                f'({"; ".join(map(str, self.damages))})')
        self.start_time = min((start for start, _ in spans), default=0)
        self.end_time = max((end for _, end in spans), default=0)

    def _read_folder(self, source: Path) -> list[Path]:
        there = sorted((
            path for path in source.iterdir() if storage_of(path) and path.is_file()
        ), key=lambda path: natural_key(path.name))
        inner = sorted(path.name for path in source.iterdir() if path.is_dir()
                       and path.suffix != '.partial' and is_bag(path))
        if inner:
            self.notes.append(printable(f'{source}: is a bag itself; the bags in its folders are '
                                        f'not read: {", ".join(inner)}'))
        try:
            listed = self._read_metadata(
                source, (source / 'metadata.yaml').read_text(encoding='utf-8'))
        except (PermissionError, BagError):
            raise
        except Exception as error:
            # The parser may raise anything on a damaged YAML file.
            reason = f'cannot be read ({why(error)})'
            if isinstance(error, LookupError | TypeError):
                reason = 'does not describe a rosbag2'
            elif isinstance(error, FileNotFoundError):
                reason = 'is missing'
            self._listed, self.custom_data = Counter(), {}
            if there:
                self.notes.append(printable(
                    f'{source}: metadata.yaml {reason}; its contents were taken from '
                    f'{", ".join(path.name for path in there)}'))
                if there[0].suffix.lower() == '.zstd':
                    self.compression = CompressionMode.FILE
            return there
        unlisted = [path for path in there if path not in listed]
        missing = [path for path in listed if not path.exists()]
        if unlisted and missing:
            self.notes.append(printable(
                f'{source}: metadata.yaml lists {", ".join(path.name for path in missing)}, '
                f'which is not there; {", ".join(path.name for path in unlisted)} is read '
                'instead'))
            return sorted({*listed, *unlisted} - set(missing[:len(unlisted)]),
                          key=lambda path: natural_key(path.name))
        for path in unlisted:
            self.notes.append(printable(
                f'{source}: metadata.yaml does not list {path.name}; it is not read'))
        return listed

    def _read_metadata(self, source: Path, text: str) -> list[Path]:
        found = YAML(typ='safe').load(text)['rosbag2_bagfile_information']
        if found['version'] > _NEWEST_VERSION:
            raise BagError(f'{source}: version {found["version"]} of rosbag2 is not known; '
                           'move metadata.yaml away to read the files without it')
        mode = str(found.get('compression_mode') or 'none').lower()
        if mode != 'none' and found.get('compression_format') != 'zstd':
            raise ValueError(f'unknown compression {found.get("compression_format")!r}')
        self.compression = CompressionMode[mode.upper()]
        self.custom_data = _strings(found.get('custom_data'))
        for listed in found['topics_with_message_count']:
            topic = listed['topic_metadata']
            self._listed[str(topic['name']), str(topic['type'])] += int(listed['message_count'])
        return list(dict.fromkeys(
            source / PurePath(str(name)).name for name in found['relative_file_paths']))

    def _add_file(self, path: Path, scratch: Path) -> None:
        cut = None
        if self.compression == CompressionMode.FILE and path.suffix.lower() == '.zstd':
            path, cut = staged(path, scratch, path.stem, unpack)
        file: Any
        if storage_of(path) == 'mcap':
            file, connections, inner = _open_mcap(path)
        else:
            file, connections, inner = self._open_sqlite(path, scratch, cut is not None)
        if not self._listed and not self.custom_data:
            self._take_custom_data(inner)
        if not self._listed and self.compression == CompressionMode.NONE:
            # Without metadata.yaml, only the messages themselves show that they are compressed.
            chosen = {one.id for one in connections if one.ext.serialization_format == 'cdr'}
            for _, _, data, *_ in file.messages(chosen, *EVER):
                if bytes(data[:4]) == _ZSTD:
                    self.compression = CompressionMode.MESSAGE
                break
        ids: dict[int, int] = {}
        for own in connections:
            # A file may have several channels of one topic, with different QoS profiles, and a
            # merged one different definitions of its type.
            same = [one for one in self.connections
                    if (one.topic, one.msgtype, one.ext.serialization_format)
                    == (own.topic, own.msgtype, own.ext.serialization_format)
                    and (one.ext == own.ext or one.id not in ids.values())
                    and (one.msgdef == own.msgdef or not (one.msgdef.data and own.msgdef.data))]
            same.sort(key=lambda one: one.ext != own.ext)
            number = same[0].id if same else len(self.connections) + 1
            ours = same[0] if same else own._replace(id=number, msgcount=0)
            self.connections[number - 1:number] = [ours._replace(
                msgcount=ours.msgcount + own.msgcount,
                msgdef=ours.msgdef if ours.msgdef.data else own.msgdef,
                digest=ours.digest or own.digest, owner=ours.owner or own.owner)]
            ids[own.id] = number
        self._files.append((file, ids))
        if cut is not None:
            last = file.damages[0].last_time if file.damages else file.end_time
            file.damages = [replace(cut, last_time=last)]

    def _open_sqlite(
        self, path: Path, scratch: Path, cut: bool
    ) -> tuple[SqliteFile, list[Connection], str]:
        file = SqliteFile(path, scratch, salvage=cut)
        if file.has_log:
            self.notes.append(printable(
                f'{path.name}: messages in the log beside it, which the recorder had not yet '
                'written to the file, are also read'))
        connections = []
        for number, topic, msgtype, serialization, profiles, digest in file.topics:
            encoding, text = file.definitions.get(
                (msgtype, digest), file.definitions.get(msgtype, ('', '')))
            definition = NO_DEFINITION
            if encoding in _FORMATS:
                definition = MessageDefinition(_FORMATS[encoding], text)
            connections.append(Connection(
                number, topic, msgtype, definition, digest, file.counts.get(number, 0),
                ConnectionExtRosbag2(serialization, read_profiles(profiles)), None))
        return file, connections, file.metadata()

    def _take_custom_data(self, inner: str) -> None:
        with suppress(Exception):  # it is information only, whatever is wrong with it
            found = YAML(typ='safe').load(inner)
            found = found.get('rosbag2_bagfile_information', found)
            self.custom_data = _strings(found.get('custom_data'))


def _open_mcap(path: Path) -> tuple[McapFile, list[Connection], str]:
    file = McapFile(path)
    connections = []
    for channel in sorted(file.index.channels.values(), key=lambda channel: channel.id):
        schema = file.index.schemas.get(channel.schema_id)
        definition, encoding, data = NO_DEFINITION, '', b''
        if schema is not None and schema.encoding in _FORMATS:
            definition = MessageDefinition(
                _FORMATS[schema.encoding], schema.data.decode(errors='replace'))
        elif schema is not None:
            encoding, data = schema.encoding, schema.data
        metadata = dict(channel.metadata)
        profiles = metadata.pop('offered_qos_profiles', '')
        digest = metadata.pop('topic_type_hash', '')
        origin = Origin(encoding, data, tuple(metadata.items()))
        connections.append(Connection(
            channel.id, channel.topic, schema.name if schema else '', definition, digest,
            file.index.counts[channel.id],
            ConnectionExtRosbag2(channel.message_encoding, read_profiles(profiles)),
            origin if any(origin) else None))
    inner = file.metadata('rosbag2').get('serialized_metadata', '')
    return file, connections, inner


def _strings(found: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in found.items()} if isinstance(
        found, dict) else {}


def read_profiles(profiles: str) -> list:
    """Parse the offered QoS profiles of a topic, as stored in the bag; empty if unreadable."""
    try:
        return parse_qos(profiles)
    except Exception:
        # Profiles are informational: the messages are readable without them.
        return []
