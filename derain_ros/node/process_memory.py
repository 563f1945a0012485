"""glibc's reuse of large buffers, and the shared-memory segments of Fast DDS."""

import ctypes
import fcntl
import os
import re
import sys
import time
from pathlib import Path

KEPT_BYTES = {
    'MALLOC_MMAP_THRESHOLD_': 32 << 20,
    'MALLOC_TRIM_THRESHOLD_': 256 << 20,
    'MALLOC_TOP_PAD_': 16 << 20,
}
"""Values in bytes of glibc's variables that suit camera frames, see mallopt(3).

On 64 bit, 32 MiB is the most that glibc accepts for the first one, and more than a 4K frame.
"""

_PARAMETERS = {'MALLOC_MMAP_THRESHOLD_': -3, 'MALLOC_TRIM_THRESHOLD_': -1, 'MALLOC_TOP_PAD_': -2}

SHARED_MEMORY = Path('/dev/shm')
_LOCK = re.compile(r'(fast(?:rtps|dds)_[0-9a-f]{16})_el')
_YOUNG_SECONDS = 1.0


def keep_large_buffers() -> tuple[str, ...]:
    """Keep freed frame buffers for the next frame, as glibc's ``MALLOC_..._`` variables do.

    By default glibc gives a buffer of this size back to the kernel as soon as it is free, and
    each page of the next one is a page fault. Call this before any thread is started. Variables
    set in the environment are left alone, and all of them if ``GLIBC_TUNABLES`` has any malloc
    setting. Returns the names of the variables that were applied.
    """
    try:
        library = os.confstr('CS_GNU_LIBC_VERSION')
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, ValueError):
        return ()
    if not library or 'glibc.malloc.' in os.environ.get('GLIBC_TUNABLES', ''):
        return ()
    return tuple(
        name for name, size in KEPT_BYTES.items()
        if name not in os.environ and mallopt(_PARAMETERS[name], size))


def profile_variable() -> str:
    """Return the environment variable from which the installed Fast DDS takes its profile.

    For Fast DDS 3 (Kilted) it is FASTDDS_DEFAULT_PROFILES_FILE; Fast DDS 3 warns about
    FASTRTPS_DEFAULT_PROFILES_FILE, the only one that Fast DDS 2 (Humble, Jazzy) knows.
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

    Fast DDS does not do so itself. With the profile of this package each killed process would
    leave 64 MiB allocated, and a process that crashes is restarted again and again. A process
    locks a file beside its segment for as long as it lives; a segment whose file is not locked is
    stale. New files are left alone, as their process may be about to lock them, and so are files
    that the user may not delete.
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
        # Under the lock: once Fast DDS has it, it checks whether the file still exists.
        segment.unlink(missing_ok=True)
        lock.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
