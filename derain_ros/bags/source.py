"""Open a rosbag2 and read its messages, with errors that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader


class BagError(ValueError):
    """A bag cannot be read or written as asked; the message says what to do."""


@contextmanager
def open_bag(source: Path) -> Iterator[Reader]:
    """Open a rosbag2 to read.

    Parameters
    ----------
    source
        Folder of the bag, or a bare ``.mcap`` or ``.db3`` file.

    Raises
    ------
    BagError
        There is none, or it cannot be read.

    """
    if not source.exists():
        raise BagError(f'{source}: no such bag')
    if source.suffix == '.bag' and source.is_file():
        raise BagError(
            f'{source}: a ROS 1 bag; convert it with `rosbags-convert --src {source} --dst OUT`'
        )
    if set('?#%') & set(str(source.absolute())) and storage_of(source) == 'sqlite3':
        raise BagError(f'{source}: a sqlite3 bag cannot have ?, # or % in its path; rename it')
    try:
        reader = Reader(source)
        reader.open()
    except Exception as error:
        # rosbags lets errors of YAML, SQLite, struct and others through on a damaged bag.
        raise _unreadable(source, error) from error
    try:
        yield reader
    finally:
        reader.close()


def storage_of(source: Path) -> str:
    """Return the storage of a bag, ``mcap`` or ``sqlite3``."""
    files = [source] if source.is_file() else sorted(source.iterdir())
    return 'mcap' if any('.mcap' in file.suffixes for file in files) else 'sqlite3'


def read_messages(source: Path, reader: Reader) -> Iterator[tuple[Connection, int, bytes]]:
    """Yield topic, time (ns) and serialized message, in recorded order.

    Raises
    ------
    BagError
        The bag is damaged.

    """
    messages = reader.messages()
    while True:
        try:
            message = next(messages)
        except StopIteration:
            return
        except Exception as error:
            raise _unreadable(source, error) from error
        yield message


def _unreadable(source: Path, error: Exception) -> BagError:
    reason = str(error) or type(error).__name__
    return BagError(
        f'{source}: cannot be read as a rosbag2 ({reason}); '
        'if the recording was cut short, `ros2 bag reindex` or `mcap recover` may mend it'
    )
