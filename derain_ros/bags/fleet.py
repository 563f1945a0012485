"""Find bags in folders, and choose how many processes to derain them with."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath

from derain_ros.bags.damage import BagError
from derain_ros.engines import EngineInfo
from derain_ros.text import printable

LONG_BAG = 1000
"""Number of frames from which the start-up time of a second process pays off."""


def storage_of(path: Path) -> str:
    """Return the storage that the name of a file stands for: mcap, sqlite3, or '' for none."""
    name = path.name.lower().removesuffix('.zstd')
    return {'.mcap': 'mcap', '.db3': 'sqlite3'}.get(PurePath(name).suffix, '')


def is_bag(path: Path) -> bool:
    """Return whether a path is a ROS bag; False for a folder that cannot be read."""
    if path.is_dir():
        return os.access(path, os.R_OK) and any(
            storage_of(file) or _describes_bag(file) for file in path.iterdir())
    return bool(storage_of(path)) or path.suffix.lower() == '.bag'


def _describes_bag(file: Path) -> bool:
    """Return whether a file is the metadata.yaml of a bag; folders of pictures have some too."""
    with suppress(OSError):
        return file.name == 'metadata.yaml' and b'rosbag2_bagfile_information' in file.read_bytes()
    return True


def holds_bags(path: Path) -> bool:
    """Return whether a path is a bag, or a folder of visible subfolders only, with bags below."""
    if is_bag(path) or not path.is_dir():
        return is_bag(path)
    here = [found for found in path.iterdir() if not found.name.startswith('.')]
    return bool(here) and all(found.is_dir() for found in here) and any(
        is_bag(found) for found in path.rglob('*/'))


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a folder as os.walk does, following links; folders that cannot be read are logged."""
    def leave_out(error: OSError) -> None:
        logging.getLogger(__name__).warning(
            '%s', printable(f'{error.filename}: {error.strerror}; left out'))

    return os.walk(folder, onerror=leave_out, followlinks=True)


def bags_below(source: Path, destination: Path) -> list[tuple[Path, Path]]:
    """Return pairs of source and destination: of one bag, or of every bag below a folder.

    ``destination`` is the folder to write: that of the one bag, or the parent of bags at the same
    relative paths. Links to folders elsewhere are followed. Hidden folders, such as the trash of a
    disk, ``.partial`` folders and everything in ``destination`` are skipped. Raises BagError if
    there is no bag.
    """
    if not source.is_dir() or is_bag(source):
        return [(source, destination)]
    root = source.resolve()
    jobs, seen = [], {root, destination.resolve()}

    def is_new(folder: Path) -> bool:
        place, count = folder.resolve(), len(seen)
        if folder.name.startswith('.') or folder.name.endswith('.partial') or (
                folder.is_symlink() and root in place.parents):
            return False
        seen.add(place)
        return len(seen) > count

    for folder, below, _ in walk(source):
        here = Path(folder)
        below[:] = sorted(name for name in below if is_new(here / name))
        if here != source and is_bag(here):
            jobs.append((here, destination / here.relative_to(source)))
            below.clear()
    if not jobs:
        raise BagError(f'{source}: holds no metadata.yaml of a bag and no .mcap or .db3 file, '
                       'and neither does a folder in it')
    return jobs


def usual_workers(frames: int | None, engine: EngineInfo | None) -> int:
    """Return the default number of worker processes for this machine.

    On the CPU, two engines with half of the cores each have a higher throughput than one with all
    of them, whose threads wait for each other, but starting them takes seconds. ``frames`` is None
    for many bags, ``engine`` None for work without one.
    """
    if importlib.util.find_spec('distributed') is None:
        return 1
    on_cores = engine is None or engine.engine == 'openvino'
    worth_it = on_cores and (frames is None or frames >= LONG_BAG)
    return 2 if worth_it and len(os.sched_getaffinity(0)) > 1 else 1
