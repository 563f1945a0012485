"""Make decompressed or repaired copies of bag files that cannot be read in place."""

import errno
import fcntl
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from derain_ros.bags.damage import BagError, Damage, DamageError, why
from derain_ros.bags.mcap_file import zstd
from derain_ros.replacing import replace_file
from derain_ros.text import printable

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""Error numbers of writing to a full disk."""

_BLOCK = 1 << 20
_LOG_HEAD = 32  # bytes of a write-ahead log before the first message


def staged(
    path: Path, scratch: Path, name: str, make: Callable[[Path, Path], Damage | None],
    beside: tuple[Path, ...] = ()
) -> tuple[Path, Damage | None]:
    """Return a copy of a file, ``name`` in the folder ``scratch``, and the damage found, if any.

    Several processes may ask for the same copy: one of them makes it with ``make`` while the
    others wait. An existing copy is reused unless the file, or one ``beside`` it, has changed.
    Raises DamageError if nothing can be read, BagError or OSError if the copy cannot be written.
    """
    copy, note = scratch / name, scratch / f'{name}.json'
    facts = [[found.stat().st_size, found.stat().st_mtime_ns] for found in (path, *beside)]
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / f'{name}.lock').open('w') as stream:
        lock(stream, scratch)
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(note.read_text())
            if known['source'] == facts and copy.is_file():
                return copy, known['damage'] and Damage(**known['damage'])
        for old in (note, *(copy.with_name(copy.name + end) for end in (
                '', '-journal', '-wal', '-shm'))):
            old.unlink(missing_ok=True)
        try:
            damage = make(path, copy)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise BagError(f'{copy}: cannot be written ({error.strerror}); make room there'
                           ) from error
        replace_file(note, json.dumps({'source': facts, 'damage': damage and asdict(damage)}))
        return copy, damage


def lock(stream: TextIO, folder: Path, how: int = fcntl.LOCK_EX) -> None:
    """Lock an open file as flock does; raises BagError if its folder has no locks."""
    try:
        fcntl.flock(stream, how)
    except BlockingIOError:
        raise
    except OSError as error:
        raise BagError(f'{folder}: files cannot be locked there ({error.strerror}); use a folder '
                       'on a local disk, or mount that file system with locks') from error


def unpack(path: Path, copy: Path) -> Damage | None:
    """Decompress a zstd file as far as possible, for :func:`staged`."""
    written, reason = 0, ''
    with path.open('rb') as raw, zstd.open(raw) as packed, copy.open('wb') as plain:
        try:
            while block := packed.read1(_BLOCK):
                written += plain.write(block)
        except EOFError:
            reason = 'the file ends here unexpectedly'
        except zstd.ZstdError as error:
            reason = why(error)
        offset = raw.tell()
    if not reason:
        return None
    if not written:
        raise DamageError(path.name, 0, f'cannot be unpacked ({reason})')
    return Damage(printable(path.name), offset, printable(reason))


def with_log(path: Path, scratch: Path) -> tuple[Path | None, Damage | None, bool]:
    """Return a copy of an sqlite3 file with the log beside it; None if there is no log.

    Also returns the damage of a write-ahead log, if any, and whether messages were in it.

    After a power loss, messages may be left in a write-ahead log, or half a transaction in the
    file with a journal to roll it back: SQLite recovers this when it opens the copy.
    """
    logs = tuple(log for log in (path.with_name(path.name + end) for end in ('-wal', '-journal'))
                 if log.is_file() and log.stat().st_size > _LOG_HEAD)
    if not logs:
        return None, None, False
    ahead = logs[0].name.endswith('-wal')

    def copy_all(source: Path, copy: Path) -> Damage | None:
        shutil.copyfile(source, copy)
        for log in logs:
            shutil.copyfile(log, copy.with_name(copy.name + log.name.removeprefix(path.name)))
        # A damaged file is not recovered here, but when it is read.
        with suppress(sqlite3.Error), closing(sqlite3.connect(copy)) as database:
            _, frames, _ = database.execute('PRAGMA wal_checkpoint').fetchone()
            if ahead and frames < 1:
                return Damage(printable(logs[0].name), None, 'nothing in this log can be read')
        return None

    copy, damage = staged(path, scratch, f'with_log_{path.name}', copy_all, logs)
    return copy, damage, ahead and damage is None
