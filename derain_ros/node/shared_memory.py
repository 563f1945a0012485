"""Shared memory that killed processes have left behind."""

import fcntl
import os
import re
from pathlib import Path

SHARED_MEMORY = Path('/dev/shm')
_LOCK = re.compile(r'(fastrtps_[0-9a-f]{16})_el')


def remove_stale_segments(directory: Path = SHARED_MEMORY) -> int:
    """Delete the shared-memory segments of Fast DDS whose process has died.

    Fast DDS does not do so itself. With the profile of this package each process that is killed
    would cost 64 MiB for good, and one that crashes is started again and again. A process holds
    a lock on a file beside its segment for as long as it lives; a segment without one is nobody's.

    Parameters
    ----------
    directory
        Where they are.

    Returns
    -------
    int
        How many were deleted; those that the user may not delete are left.

    """
    try:
        files = tuple(directory.iterdir())
    except OSError:
        return 0
    return sum(
        _remove_if_stale(file, directory / found.group(1))
        for file in files if (found := _LOCK.fullmatch(file.name)))


def _remove_if_stale(lock: Path, segment: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # While the lock is held here: Fast DDS looks afterwards whether the file is still there.
        segment.unlink(missing_ok=True)
        lock.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
