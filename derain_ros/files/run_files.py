"""What a measurement leaves: a JSON file that ``derain report`` reads, and what ran where."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from derain_ros import __version__
from derain_ros.files import FileError, check_folder
from derain_ros.replacing import replace_file
from derain_ros.text import printable

FORMAT = 1
"""Version of the files; it rises when a name changes its meaning or goes away."""

KINDS = ('bag', 'pairs', 'replay', 'detections')
"""What is in a file: the work of ``bag``, ``evaluate``, ``replay-bench``, ``detections``."""

_CHUNK = 1 << 20
_STORAGE_SUFFIXES = frozenset({'.mcap', '.db3', '.zstd'})


def versions() -> dict[str, str | None]:
    """Return the versions of what computes; None where it is not installed."""
    found: dict[str, str | None] = {
        'derain_ros': __version__, 'python': platform.python_version(),
        'numpy': np.__version__, 'opencv': cv2.__version__}
    for name in ('openvino', 'torch'):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def host() -> dict[str, Any]:
    """Return what is known of this machine: processor, cores, kernel."""
    return {'processor': _processor(), 'cores': os.cpu_count(), 'machine': platform.machine(),
            'system': f'{platform.system()} {platform.release()}'}


def run_head(kind: str) -> dict[str, Any]:
    """Return what every run file begins with: ``format``, ``kind``, ``versions``, ``host``."""
    return {'format': FORMAT, 'kind': kind, 'versions': versions(), 'host': host()}


def bag_bytes(bag: Path) -> int:
    """Return how much :func:`bag_facts` reads. Raises OSError as it does."""
    return sum(path.stat().st_size for path in _storage_files(bag))


def bag_facts(bag: Path, progress: Callable[[int], Any] = lambda count: None) -> dict[str, Any]:
    """Return size and sha256 of the files of a bag, a folder or a bare storage file.

    Returns ``path``; ``files``, a list of ``name``, ``bytes`` and ``sha256`` (hexadecimal) of each
    storage file by name; ``sha256`` of the lines ``<sha256> <name>`` of these files. ``progress``
    is called with the number of bytes read since the last call. Raises OSError.
    """
    listed = []
    for path in _storage_files(bag):
        with path.open('rb') as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                progress(len(chunk))
        listed.append({
            'name': printable(path.name), 'bytes': path.stat().st_size,
            'sha256': digest.hexdigest()})
    lines = ''.join(f'{file["sha256"]} {file["name"]}\n' for file in listed)
    return {'path': printable(str(bag)), 'files': listed,
            'sha256': hashlib.sha256(lines.encode()).hexdigest()}


def _storage_files(bag: Path) -> list[Path]:
    return [bag] if bag.is_file() else sorted(
        path for path in bag.iterdir() if path.suffix in _STORAGE_SUFFIXES and path.is_file())


def write_run(path: Path, run: dict) -> None:
    """Write what was measured, with ``format`` and ``kind`` and no NaN, as JSON.

    The file is whole, or as it was; raises OSError where it cannot be written.
    """
    replace_file(path, json.dumps(run, indent=2, allow_nan=False) + '\n')


def check_output(path: Path) -> None:
    """Raise FileError or OSError unless a file can be written; its folder is made."""
    if path.is_dir():
        raise FileError(f'{path}: is a folder; name a file')
    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)


def read_run(path: Path, types: Mapping[str, type] | None = None) -> Any:
    """Read a file of :func:`write_run`.

    ``types`` has by kind the msgspec type to return, with the fields that are needed; without it,
    the content is a dict, and nothing but format and kind are checked. Raises OSError where it is
    not there, and FileError, which names file and field, where it is no JSON, not of a known kind
    and format, or a field is missing or does not fit.
    """
    import msgspec

    from derain_ros.files.checked import explain

    try:
        found = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, RecursionError) as error:
        raise FileError(f'{path}: no JSON ({error})') from error
    kind = found.get('kind') if isinstance(found, dict) else None
    if kind not in KINDS:
        raise FileError(
            f'{path}: not made by `derain bag`, `evaluate`, `replay-bench` or `detections` '
            'with --json')
    if found.get('format') != FORMAT:
        raise FileError(
            f'{path}: of format {found.get("format")!r}, this version reads {FORMAT}; make it '
            'anew')
    if types is None:
        return found
    try:
        return msgspec.convert(found, types[kind])
    except msgspec.ValidationError as error:
        raise FileError(
            f'{path}: {explain(error, found, types[kind])}; make the file anew') from error


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(':')
        if name.strip() in ('model name', 'Model'):
            return value.strip()
    return platform.processor()
