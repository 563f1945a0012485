"""Fast DDS: where it is told of a profile, and the shared memory that killed processes leave."""

import fcntl
import os
import re
import sys
import time
from pathlib import Path

SHARED_MEMORY = Path('/dev/shm')
_LOCK = re.compile(r'(fast(?:rtps|dds)_[0-9a-f]{16})_el')
_YOUNG_SECONDS = 1.0


def profile_variable() -> str:
    """Return the environment variable from which the installed Fast DDS takes its profile.

    That of Fast DDS 3 (Kilted) is FASTDDS_DEFAULT_PROFILES_FILE; it warns of the other one, which
    is the only one that Fast DDS 2 (Humble, Jazzy) knows.
    """
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)),
                sys.prefix]
    for prefix in prefixes:
        for package, name in (('fastdds', 'FASTDDS'), ('fastrtps', 'FASTRTPS')):
            if (Path(prefix) / 'share' / package).is_dir():
                return f'{name}_DEFAULT_PROFILES_FILE'
    return 'FASTRTPS_DEFAULT_PROFILES_FILE'


def remove_stale_segments(directory: Path = SHARED_MEMORY) -> int:
    """Delete the shared-memory segments of Fast DDS whose process has died; return how many.

    Fast DDS does not do so itself. With the profile of this package each process that is killed
    would cost 64 MiB for good, and one that crashes is started again and again. A process holds
    a lock on a file beside its segment for as long as it lives; a segment without one is nobody's.
    A file that has just been made is left: its process may be about to lock it. So are those that
    the user may not delete.
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
        if time.time() - os.fstat(descriptor).st_mtime < _YOUNG_SECONDS:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # While the lock is held here: Fast DDS looks afterwards whether the file is still there.
        segment.unlink(missing_ok=True)
        lock.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
