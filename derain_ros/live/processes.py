"""Processes that belong together: a ROS domain of their own, their logs, and their end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from derain_ros.engines.models import share_directory
from derain_ros.node.process_memory import KEPT_BYTES
from derain_ros.node.shared_memory import profile_variable

ALLOCATOR = {name: str(size) for name, size in KEPT_BYTES.items()}
"""What the launch file sets for the node: keep the memory of a frame for the next one."""

_DOMAINS = 101
_LOG_TAIL = 12
# What the Fast DDS profile takes: a segment each for node, replay and listener.
_SHARED_MEMORY = 3 * 80 << 20


class LiveRunError(RuntimeError):
    """A process of the run failed; the message holds the end of its log."""


def isolate(*, profile: bool = True) -> int:
    """Keep this process, and those it starts from now on, in a ROS domain that nobody else uses.

    It is on this host alone, and its number is returned. With ``profile`` they use the Fast DDS
    profile of this package, where shared memory has room for it; else none, whatever the
    environment says.
    """
    domain = _free_domain()
    os.environ['ROS_DOMAIN_ID'] = str(domain)
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    else:
        os.environ.pop('ROS_LOCALHOST_ONLY', None)
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        os.environ.pop(name, None)
    if profile and _shared_memory() >= _SHARED_MEMORY:
        path = share_directory() / 'config' / 'fastdds.xml'
        os.environ[profile_variable()] = str(path)
    elif profile:
        print(f'derain: note: /dev/shm has less than {_SHARED_MEMORY >> 20} MiB to spare, so '
              'images go over UDP, which is slower (in Docker: --shm-size 512m)',
              file=sys.stderr)
    return domain


def _free_domain() -> int:
    first = os.getpid()
    for step in range(_DOMAINS):
        domain = 1 + (first + step) % _DOMAINS
        # The port at which the first participant of a domain is found; see the DDSI-RTPS
        # specification on well-known ports.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7410 + 250 * domain))
            except OSError:
                continue
        return domain
    raise LiveRunError(f'no ROS domain from 1 to {_DOMAINS} is free on this host')


def _shared_memory() -> int:
    try:
        return shutil.disk_usage('/dev/shm').free
    except OSError:
        return 0


@contextmanager
def child(
    arguments: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (), stop_timeout: float = 5.0,
) -> Iterator[subprocess.Popen]:
    """Run a Python module as a process, which is gone when the context ends.

    ``arguments`` are the module and its own, ``environment`` variables beside those of this
    process; what it prints goes to ``log``. It is ended by SIGINT, and after ``stop_timeout``
    seconds by SIGKILL.
    """
    process = None
    try:
        # A signal in between would leave a process that nobody knows.
        with log.open('wb') as sink, signals_noted() as came:
            process = subprocess.Popen(
                [sys.executable, '-m', *arguments], env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, pass_fds=pass_fds,
                start_new_session=True)
        for number in came:
            signal.raise_signal(number)
        yield process
    finally:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(stop_timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM in the list that is yielded, and do nothing else by them."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: came.append(number))
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminate_cleanly() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that no process is left behind."""
    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def tail(log: Path) -> str:
    """Return the last lines of a log and its path."""
    lines = log.read_text(errors='replace').splitlines()[-_LOG_TAIL:]
    return '\n'.join(['  ' + line for line in lines] + [f'(whole log: {log})'])
