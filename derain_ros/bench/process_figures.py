"""What a running process takes."""

import time
from typing import NamedTuple

import psutil

_MEBI = 2**20


class ProcessFigures(NamedTuple):
    """A process at one moment.

    ``time`` in ns since the epoch; ``cpu`` seconds so far, user and system, of all threads;
    memory in MiB: resident, the same with shared pages divided among their users, and the part
    that is backed by no file (heap, stacks); how many ``threads`` and ``descriptors``.
    """

    time: int
    cpu: float
    rss: float
    pss: float
    anonymous: float
    threads: int
    descriptors: int


def process_figures(pid: int) -> ProcessFigures:
    """Return the figures of a process; ProcessLookupError where they cannot be had."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            maps = process.memory_maps()
            return ProcessFigures(
                time.time_ns(), *cpu_and_rss(pid),
                sum(one.pss for one in maps) / _MEBI, sum(one.anonymous for one in maps) / _MEBI,
                process.num_threads(), process.num_fds())
    except psutil.Error as error:
        raise ProcessLookupError(f'process {pid}: {error}') from error


def cpu_and_rss(pid: int) -> tuple[float, float]:
    """Return CPU seconds and MiB resident alone, which costs the process nothing."""
    try:
        process = psutil.Process(pid)
        return sum(process.cpu_times()[:2]), process.memory_info().rss / _MEBI
    except psutil.Error as error:
        raise ProcessLookupError(f'process {pid}: {error}') from error
