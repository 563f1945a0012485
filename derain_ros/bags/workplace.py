"""The working folder of an unfinished bag: its lock, its owner, and the progress of the work."""

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from derain_ros.bags.chunks import SegmentRecord
from derain_ros.bags.damage import BagError
from derain_ros.bags.staging import lock
from derain_ros.replacing import replace_file

SCRATCH = 'source'
"""Subfolder of the workplace for copies of source files."""

_PLAN = 'plan.json'
_FINISHED = 'finished'
_BEFORE_THE_PLAN = {'lock', SCRATCH}


class Workplace:
    """The folder ``OUT.partial`` of an unfinished bag.

    ``records`` is for the records of the segments in the result. ``bodies`` is the folder of
    segments written by other processes; its name depends on the request, so that a stray process
    of an earlier one cannot write into it.
    """

    def __init__(self, destination: Path):
        self.destination = destination
        self.path = partial_of(destination)
        self.records, self.bodies = self.path / 'done', self.path / 'segments'

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder, and lock it for the duration of the block.

        Raises BagError if another run holds the lock, or the folder cannot be created or locked.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stream = (self.path / 'lock').open('w')
        except OSError as error:
            raise BagError(f'{self.path}: {error.strerror or error}') from error
        with stream:
            try:
                lock(stream, self.path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BagError(f'{self.path}: another run is working there; wait for it, or name '
                               'another folder') from error
            yield

    def claim(self, fingerprint: Mapping[str, Any]) -> None:
        """Begin the work, or resume it.

        ``fingerprint`` is everything that the result depends on, under the names that users know.
        Raises BagError if the work was begun with a different fingerprint.
        """
        wanted = json.loads(json.dumps(fingerprint))
        plan = self.path / _PLAN
        if plan.exists():
            try:
                known = json.loads(plan.read_text())
                other = [name for name in {**known, **wanted}
                         if known.get(name) != wanted.get(name)]
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise BagError(f'{plan}: cannot be read ({error}); delete {self.path}') from error
            if other:
                changes = '; '.join(
                    f'{name}: {_shown(known.get(name))} then, {_shown(wanted.get(name))} now'
                    for name in other)
                raise BagError(
                    f'{self.path}: begun by an interrupted run with other options ({changes}). '
                    'Delete the folder to start again, or give the earlier options to resume')
        else:
            replace_file(plan, json.dumps(wanted, indent=1))
        self.records.mkdir(exist_ok=True)
        self.bodies = self.path / f'segments-{digest_of(wanted)[:8]}'
        self.bodies.mkdir(exist_ok=True)

    @property
    def finished(self) -> bool:
        """Whether the result has been published, and only this folder is left to be removed."""
        return (self.path / _FINISHED).exists() and self.destination.exists()

    def pending(self) -> dict[int, Path]:
        """Return the files of finished segments from other processes, by segment number."""
        return {int(path.stem): path.with_suffix('.body')
                for path in self.bodies.glob('*.json')
                if path.stem.isdecimal() and path.with_suffix('.body').exists()}

    @staticmethod
    def drop(body: Path) -> None:
        """Delete a segment of :meth:`pending`."""
        body.with_suffix('.json').unlink(missing_ok=True)
        body.unlink(missing_ok=True)

    @staticmethod
    def record_of(body: Path) -> SegmentRecord:
        """Return the record of a segment of :meth:`pending`."""
        return SegmentRecord.load(body.with_suffix('.json'))

    def publish(self, bag: Path) -> None:
        """Rename a finished bag to the destination; raises BagError if that exists by now."""
        if self.destination.exists():
            raise BagError(f'{self.destination}: has appeared in the meantime; it is left alone')
        (self.path / _FINISHED).touch()
        bag.rename(self.destination)

    def unpublish(self) -> None:
        """Undo the mark that an interrupted :meth:`publish` has left."""
        (self.path / _FINISHED).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder."""
        # The plan goes first: without it the work is not resumed.
        (self.path / _PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def partial_of(destination: Path) -> Path:
    """Return the working folder for a bag."""
    return destination.absolute().parent / f'{destination.absolute().name}.partial'


def check_workplace(destination: Path) -> None:
    """Raise BagError unless the work on a bag can be begun or resumed."""
    partial = partial_of(destination)
    ours = (partial / _PLAN).exists()
    taken = destination.exists() or destination.is_symlink()
    if taken and not (ours and (partial / _FINISHED).exists()):
        raise BagError(f'{destination}: exists already; name a folder that does not')
    if not ours and partial.exists():
        with contextlib.suppress(NotADirectoryError):
            there = {path.name for path in partial.iterdir() if '.partial' not in path.name}
            if there <= _BEFORE_THE_PLAN:
                return
        raise BagError(f'{partial}: is in the way, but holds no work to resume; delete it')


def file_facts(source: Path) -> list[list]:
    """Return name, size and modification time (ns) of the files of a bag, to notice changes."""
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns]
            for path in (sorted(source.iterdir()) if source.is_dir() else [source])
            if path.is_file()]


def digest_of(value: Any) -> str:
    """Return the hexadecimal SHA-256 of a value serialized as JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f'{text[:40]}…'
