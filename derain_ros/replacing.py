"""Write files atomically: after an error or power cut, a file is either complete or unchanged."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def is_written_directly(path: Path) -> bool:
    """Return whether a path is a pipe or device, such as /dev/stdout: it must not be replaced."""
    return path.parent == Path('/dev') or (path.exists() and not path.is_file())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; after the block, that file replaces ``path``.

    The file is flushed to disk before it is renamed, as a power cut could otherwise leave an empty
    file. If the block raises, ``path`` is unchanged. The temporary file is in the same folder,
    which must exist, under a random name that starts with a dot and ends in ``.partial``, so that
    writers do not collide. It is ``path`` itself if :func:`is_written_directly`. Raises OSError if
    the file cannot be written or renamed.
    """
    if is_written_directly(path):
        yield path
        return
    partial = path.with_name(f'.{path.name[:50]}.{os.urandom(6).hex()}.partial')
    try:
        yield partial
        with partial.open('rb') as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        if str(error.filename) in ('None', str(partial)):
            error.filename = str(path)  # the temporary name would mean nothing to the user
        raise
    finally:
        partial.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a file atomically, text as UTF-8; see :func:`replacing`. Raises OSError."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
