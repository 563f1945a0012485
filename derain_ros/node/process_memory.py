"""Memory of large buffers, kept by the process instead of going back to the kernel."""

import ctypes
import os

KEPT_BYTES = {
    'MALLOC_MMAP_THRESHOLD_': 32 << 20,
    'MALLOC_TRIM_THRESHOLD_': 256 << 20,
    'MALLOC_TOP_PAD_': 16 << 20,
}
"""glibc's variables, and what suits camera frames: see mallopt(3).

32 MiB is the most that glibc takes for the first one on 64 bit, and more than a 4K frame.
"""

_PARAMETERS = {
    'MALLOC_MMAP_THRESHOLD_': -3, 'MALLOC_TRIM_THRESHOLD_': -1, 'MALLOC_TOP_PAD_': -2,
}


def keep_large_buffers() -> tuple[str, ...]:
    """Keep freed frame buffers for the next frame, as glibc's ``MALLOC_..._`` variables do.

    By default glibc gives a buffer of this size back to the kernel as soon as it is free, and
    each page of the next one is a page fault. Call this before any thread is started. What the
    environment says already, also by ``GLIBC_TUNABLES``, is left as it is. Returns the names of
    the variables whose settings were made.
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
