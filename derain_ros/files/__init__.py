"""Read and write image files, videos, image pairs and run files."""

import os
from pathlib import Path

from derain_ros.text import UserError


class FileError(UserError, ValueError):
    """A file cannot be read or written, or is unsuitable; the message says what to do."""


def check_folder(folder: Path) -> None:
    """Raise FileError unless a folder is writable, or can be created."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise FileError(f'{there}: is a file; name a folder to write to')
    if not os.access(there, os.W_OK | os.X_OK):
        raise FileError(f'{there}: cannot be written to; choose another folder')
