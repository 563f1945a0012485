"""Where bags lie, and how many processes they are worth."""

import importlib.util
import os
from pathlib import Path

from derain_ros.bags.damage import BagError
from derain_ros.engines import EngineInfo

LONG_BAG = 1000
"""From so many frames on, a second process is worth its start."""

_SUFFIXES = {'.mcap', '.db3'}


def is_bag(path: Path) -> bool:
    """Tell whether a bag of ROS lies at a path."""
    if path.is_dir():
        return any(file.name == 'metadata.yaml' or _SUFFIXES & set(file.suffixes)
                   for file in path.iterdir())
    return bool(_SUFFIXES & set(path.suffixes)) or path.suffix == '.bag'


def holds_bags(path: Path) -> bool:
    """Tell whether a bag lies at a path, or bags and nothing else that is visible below it."""
    if is_bag(path) or not path.is_dir():
        return is_bag(path)
    here = [found for found in path.iterdir() if not found.name.startswith('.')]
    return bool(here) and all(found.is_dir() for found in here) and any(
        is_bag(found) for found in path.rglob('*/'))


def bags_below(source: Path, destination: Path) -> list[tuple[Path, Path]]:
    """Return the bag that a path names, or every bag in a folder, at any depth.

    ``destination`` is the folder to write: of the one bag, or of bags with the same names below
    it. Work that is unfinished is no bag, and neither is what lies in ``destination``. Raises
    BagError where there is no bag.
    """
    if not source.is_dir() or is_bag(source):
        return [(source, destination)]
    jobs, done = [], destination.resolve()
    for folder, below, _ in os.walk(source):
        here = Path(folder)
        below[:] = sorted(name for name in below if not name.endswith('.partial')
                          and (here / name).resolve() != done)
        if here != source and is_bag(here):
            jobs.append((here, destination / here.relative_to(source)))
            below.clear()
    if not jobs:
        raise BagError(f'{source}: holds no metadata.yaml and no .mcap or .db3 file, and neither '
                       'does a folder in it')
    return jobs


def usual_workers(frames: int | None, engine: EngineInfo | None) -> int:
    """Return how many processes are best on this machine.

    On the CPU two engines with half of the cores each do more than one with all of them, whose
    threads wait for each other; starting them takes seconds. ``frames`` is None for many bags,
    ``engine`` None for work without one.
    """
    if importlib.util.find_spec('distributed') is None:
        return 1
    on_cores = engine is None or engine.engine == 'openvino'
    worth_it = on_cores and (frames is None or frames >= LONG_BAG)
    return 2 if worth_it and len(os.sched_getaffinity(0)) > 1 else 1
