"""What Linux says of a running process."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf('SC_CLK_TCK')
_PAGE = os.sysconf('SC_PAGE_SIZE')
_MEBI = 2**20


@dataclass(frozen=True)
class ProcessStats:
    """A process at one moment.

    Attributes
    ----------
    time
        Nanoseconds since the epoch.
    cpu
        Seconds of CPU time so far, user and system, of all threads.
    rss, pss, anonymous
        Resident memory, the same with shared pages divided among their users, and the part
        that is backed by no file (heap, stacks), MiB; NaN where the kernel does not tell.
    threads, descriptors
        How many.

    """

    time: int
    cpu: float
    rss: float
    pss: float
    anonymous: float
    threads: int
    descriptors: int


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, user and system.

    Raises
    ------
    OSError
        There is no such process, or this is not Linux.

    """
    # The name in brackets may hold spaces and brackets itself.
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process, MiB. Raises OSError as :func:`cpu_seconds`."""
    # Cheaper than process_stats(), for which the kernel walks the process's page tables.
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * _PAGE / _MEBI


def process_stats(pid: int) -> ProcessStats:
    """Return the state of a process. Raises OSError as :func:`cpu_seconds` does."""
    status = _sizes(Path(f'/proc/{pid}/status'))
    try:
        memory = _sizes(Path(f'/proc/{pid}/smaps_rollup'))
    except OSError:  # a kernel without it, or of another user's process
        memory = {}
    missing = float('nan')
    return ProcessStats(
        time=time.time_ns(),
        cpu=cpu_seconds(pid),
        rss=status['VmRSS'] * 1024 / _MEBI,
        pss=memory.get('Pss', missing) * 1024 / _MEBI,
        anonymous=memory.get('Anonymous', missing) * 1024 / _MEBI,
        threads=int(status['Threads']),
        descriptors=sum(1 for _ in Path(f'/proc/{pid}/fd').iterdir()),
    )


def _sizes(path: Path) -> dict[str, float]:
    """Return the numbers of a file of lines such as ``VmRSS:  123 kB``."""
    found = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(':')
        words = value.split()
        if words and words[0].isdecimal():
            found[name] = float(words[0])
    return found
