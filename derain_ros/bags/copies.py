"""What copies of a rosbag2 have in common: a whole bag or none, every message kept."""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
    Qos,
)
from rosbags.rosbag2 import (
    CompressionFormat,
    CompressionMode,
    StoragePlugin,
    Writer,
)

from derain_ros.bags.damage import BagError
from derain_ros.bags.topics import known_definition

# Written in the layout that Humble and Jazzy both read.
_METADATA_VERSION = 8


def check_destination(destination: Path) -> None:
    """Make sure that a bag can be begun.

    Raises
    ------
    BagError
        Something is there already, or an unfinished bag is.

    """
    if destination.exists() or destination.is_symlink():
        raise BagError(f'{destination}: exists already; name a folder that does not')
    partial = _partial(destination)
    if partial.exists():
        raise BagError(
            f'{partial}: left by an interrupted run, or another run is writing it; '
            'delete it if none is'
        )


def check_storage(destination: Path, storage: str) -> None:
    """Raise BagError where a bag of ``storage`` cannot have the path ``destination``."""
    if storage == 'sqlite3' and set('?#%') & set(str(destination.absolute())):
        raise BagError(f'{destination}: a sqlite3 bag cannot have ?, # or % in its path')


@contextmanager
def new_bag(
    destination: Path, storage: str, compression: CompressionMode
) -> Iterator[Writer]:
    """Open a bag to write; it appears under its name at the end, whole, or not at all.

    Parameters
    ----------
    destination
        Folder to make, as :func:`check_destination` has passed it.
    storage
        ``mcap`` or ``sqlite3``.
    compression
        What to compress, with zstd.

    Raises
    ------
    BagError
        The destination cannot be written.

    """
    partial = _partial(destination)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise BagError(f'{partial}: {error.strerror or error}') from error
    # One level deeper, because the storage file is named after its folder.
    unfinished = partial / destination.name
    try:
        writer = Writer(
            unfinished,
            version=_METADATA_VERSION,
            storage_plugin=StoragePlugin[storage.upper()],
        )
        writer.set_compression(compression, CompressionFormat.ZSTD)
        with writer:
            yield writer
        if destination.exists():
            raise BagError(f'{destination}: has appeared meanwhile; it is left alone')
        unfinished.rename(destination)
    except (OSError, sqlite3.Error) as error:
        raise BagError(f'{destination}: cannot be written ({error})') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class TopicList:
    """Collects the topics of a new bag, as :class:`rosbags.rosbag2.Writer` would.

    Attributes
    ----------
    connections
        The topics; their ids count from 1.

    """

    def __init__(self) -> None:
        self.connections: list[Connection] = []

    def add_connection(
        self,
        topic: str,
        msgtype: str,
        *,
        msgdef: str,
        rihs01: str,
        serialization_format: str = 'cdr',
        offered_qos_profiles: Sequence[Qos] = (),
    ) -> Connection:
        """Add a topic, with the text and the hash of its definition."""
        idl = msgdef.startswith('=' * 80 + '\nIDL: ')
        kind = MessageDefinitionFormat.IDL if idl else MessageDefinitionFormat.MSG
        ext = ConnectionExtRosbag2(serialization_format, list(offered_qos_profiles))
        self.connections.append(Connection(
            len(self.connections) + 1, topic, msgtype, MessageDefinition(kind, msgdef), rihs01,
            0, ext, None))
        return self.connections[-1]


class TopicCopier:
    """Makes topics of a new bag after those of a recorded one.

    Parameters
    ----------
    writer
        The new bag.

    Attributes
    ----------
    undefined_types
        Message types whose definition the recorded bag does not hold.

    """

    def __init__(self, writer: Writer | TopicList):
        self._writer = writer
        self._written: dict[tuple[str, str, str], Connection] = {}
        self.undefined_types: list[str] = []

    def copy(self, connection: Connection, topic: str | None = None) -> Connection:
        """Return the topic of the new bag, of the same type, definition and QoS.

        Parameters
        ----------
        connection
            Topic of the recorded bag.
        topic
            Another name for it; None keeps its own.

        """
        topic = topic or connection.topic
        key = (topic, connection.msgtype, repr(connection.ext))
        if key not in self._written:
            definition, digest, defined = known_definition(connection)
            if not defined and connection.msgtype not in self.undefined_types:
                self.undefined_types.append(connection.msgtype)
            self._written[key] = self._writer.add_connection(
                topic,
                connection.msgtype,
                msgdef=definition,
                rihs01=digest,
                serialization_format=connection.ext.serialization_format,
                offered_qos_profiles=connection.ext.offered_qos_profiles,
            )
        return self._written[key]


def _partial(destination: Path) -> Path:
    return destination.absolute().with_name(destination.absolute().name + '.partial')
