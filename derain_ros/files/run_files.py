"""Run files, the JSON results that ``derain report`` reads, with versions and host."""

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from derain_ros import __version__
from derain_ros.bags.fleet import storage_of
from derain_ros.engines.models import digest
from derain_ros.files import FileError, check_folder
from derain_ros.replacing import is_written_directly, replace_file
from derain_ros.text import printable

FORMAT = 1
"""Version of the format, incremented when a field changes its meaning or is removed."""

_GIVE_RUNS = ('give files that `derain bag`, `evaluate`, `replay-bench` or `detections` wrote '
              'with --json')


def versions() -> dict[str, str | None]:
    """Return the versions of Python and the packages that compute; None if not installed."""
    return {
        'derain_ros': __version__, 'python': platform.python_version(),
        'numpy': np.__version__, 'opencv': cv2.__version__,
        'openvino': version_of('openvino'), 'torch': version_of('torch')}


def version_of(package: str) -> str | None:
    """Return the version of a Python package; None if it is not installed."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)


def host() -> dict[str, Any]:
    """Describe this machine: ``processor``, ``cores``, ``machine`` and ``system`` (kernel)."""
    return {'processor': _processor(), 'cores': os.cpu_count(), 'machine': platform.machine(),
            'system': f'{platform.system()} {platform.release()}'}


def run_head(kind: str) -> dict[str, Any]:
    """Return the first fields of a run file: ``format``, ``kind``, ``versions``, ``host``."""
    return {'format': FORMAT, 'kind': kind, 'versions': versions(), 'host': host()}


def bag_bytes(bag: Path) -> int:
    """Return how many bytes :func:`bag_facts` reads; raises OSError as it does."""
    return sum(path.stat().st_size for path in _storage_files(bag))


def bag_facts(bag: Path, progress: Callable[[int], Any] = lambda count: None) -> dict[str, Any]:
    """Return size and SHA-256 of the files of a bag, a folder or a bare storage file.

    Returns ``path``; ``files``, a list of ``name``, ``bytes`` and ``sha256`` (hexadecimal) of each
    storage file in order of name; ``sha256`` of the lines ``<sha256> <name>`` of these files.
    ``progress`` is called with the number of bytes read since the last call. Raises OSError.
    """
    listed = []
    for path in _storage_files(bag):
        listed.append({
            'name': printable(path.name), 'bytes': path.stat().st_size,
            'sha256': digest(path, progress)})
    lines = ''.join(f'{file["sha256"]} {file["name"]}\n' for file in listed)
    return {'path': printable(str(bag)), 'files': listed,
            'sha256': hashlib.sha256(lines.encode()).hexdigest()}


def _storage_files(bag: Path) -> list[Path]:
    return [bag] if bag.is_file() else sorted(
        path for path in bag.iterdir() if storage_of(path) and path.is_file())


def write_run(path: Path, run: dict) -> None:
    """Write a run file atomically, as JSON.

    ``run`` includes the fields of :func:`run_head`, and no NaN (ValueError). Raises OSError.
    """
    replace_file(path, json.dumps(run, indent=2, allow_nan=False) + '\n')


def check_output(path: Path) -> None:
    """Raise FileError or OSError unless a file can be written; its folder is created."""
    if path.is_dir():
        raise FileError(f'{path}: is a folder; name a file')
    if not is_written_directly(path):
        check_folder(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)


def read_run(path: Path, types: Mapping[str, type]) -> Any:
    """Read a file written by :func:`write_run`.

    ``types`` maps kinds to msgspec types with the fields that are needed. Raises OSError if the
    file cannot be read, and FileError, which names file and field, if it is not JSON, of an
    unknown kind or format, or a field is missing or invalid.
    """
    import msgspec

    from derain_ros.files.checked import explain

    if path.is_dir():
        raise FileError(f'{path}: is a folder; {_GIVE_RUNS}')
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, RecursionError) as error:
        raise FileError(f'{path}: not JSON ({error}); {_GIVE_RUNS}') from error
    kind = found.get('kind') if isinstance(found, dict) else None
    if kind not in list(types):  # it may be anything, even without a hash
        raise FileError(f'{path}: not a run file; {_GIVE_RUNS}')
    if found.get('format') != FORMAT:
        raise FileError(
            f'{path}: has format {found.get("format")!r}, but this version reads {FORMAT}; make '
            'it again')
    try:
        return msgspec.convert(found, types[kind])
    except msgspec.ValidationError as error:
        raise FileError(
            f'{path}: {explain(error, found, types[kind])}; make the file again') from error


def _processor() -> str:
    with suppress(OSError):
        text = Path('/proc/cpuinfo').read_text()
        if found := re.search(r'^(?:model name|Model)\s*:(.*)', text, re.MULTILINE):
            return found[1].strip()
    return platform.processor()
