"""The one way in which a file is written so that it is whole or as it was before."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; after the block, the file there replaces ``path``.

    It is flushed to the disk before it is renamed, as a power cut could otherwise leave an empty
    file under the name. If the block raises, ``path`` stays as it was. The name is in the same
    folder, which exists, and of no other writer on any machine; it starts with a dot and contains
    ``.partial``. Raises OSError: the file cannot be written or renamed.
    """
    partial = path.with_name(f'.{path.name[:50]}.{os.urandom(6).hex()}.partial')
    try:
        yield partial
        with partial.open('rb') as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        if str(error.filename) in ('None', str(partial)):
            error.filename = str(path)  # nobody knows the temporary name
        raise
    finally:
        partial.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a file, text as UTF-8, as :func:`replacing` does; raises OSError."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
