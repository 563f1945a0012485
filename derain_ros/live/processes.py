"""Child processes that share a separate ROS domain: start, communication, logs and shutdown.

``python -m derain_ros.live.processes MODULE:FUNCTION FD`` is a :func:`helper`: it receives the
arguments of the function from the pipe, and calls it with the pipe followed by these.
"""

import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from derain_ros.engines.models import share_directory
from derain_ros.node.process_memory import KEPT_BYTES, profile_variable
from derain_ros.text import UserError

ALLOCATOR = {name: str(size) for name, size in KEPT_BYTES.items()}
"""Variables the launch file also sets, so that glibc reuses the memory of large buffers."""

_DOMAINS = 101
_claims: deque[socket.socket] = deque(maxlen=30)
_LOG_TAIL = 12
_LOOK_SECONDS = 0.05
# Needed by the Fast DDS profile: one segment each for node, player and listener.
_SHARED_MEMORY = 3 * 80 << 20


class LiveRunError(UserError, RuntimeError):
    """A process of the run failed; the message usually has the end of its log."""


def isolate(*, profile: bool = True) -> int:
    """Move this process, and those it starts from now on, to a ROS domain that nobody else uses.

    Discovery is limited to this host. With ``profile`` they use the Fast DDS profile of this
    package, if shared memory has room for it; otherwise no profile, even if the environment
    names one. Returns the number of the domain.
    """
    domain = claim_domain(os.getpid())
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


def claim_domain(first: int) -> int:
    """Return a ROS domain from 1 to 101 unused on this host, the next free one after ``first``.

    It is reserved, also against other processes, until this process has claimed thirty more.
    """
    for step in range(_DOMAINS):
        domain = 1 + (first + step) % _DOMAINS
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # The first port is not used by DDS and serves as a lock; the second is that of a
                # domain's first participant, see the well-known ports of the DDSI-RTPS
                # specification. A participant takes seconds to start, so probing is not enough.
                claim.bind(('', 7405 + 250 * domain))
                probe.bind(('', 7410 + 250 * domain))
            except OSError:
                claim.close()
                continue
        _claims.append(claim)
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
    """Run a Python module as a process, which is terminated when the context ends.

    ``arguments`` are the module and its arguments, ``environment`` variables in addition to those
    of this process; its output goes to ``log``. It is terminated by SIGINT, and after
    ``stop_timeout`` seconds by SIGKILL.
    """
    process = None
    try:
        # A signal during Popen() could leave a process that nobody would terminate.
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
    """Append SIGINT and SIGTERM to the list that is yielded, without their usual effect."""
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
    """Turn SIGTERM into SystemExit, so that contexts terminate their processes."""
    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def tail(log: Path) -> str:
    """Return the end of a log and the path of a copy, as the log itself may be deleted."""
    copy = shutil.copy(log, tempfile.mkdtemp(prefix='derain_log_'))
    lines = log.read_text(errors='replace').splitlines()[-_LOG_TAIL:]
    return '\n'.join(['  ' + line for line in lines] + [f'(whole log: {copy})'])


class Helper:
    """A function of this package that runs in its own process and exchanges objects by pipe."""

    def __init__(self, name: str, process: subprocess.Popen, pipe: Connection, log: Path):
        self._name = name
        self._process = process
        self._pipe = pipe
        self._log = log

    def check(self) -> None:
        """Raise LiveRunError if the process has ended."""
        if self._process.poll() is not None:
            # An error that it has sent is the better message.
            self.receive(0.0)

    def send(self, message: Any) -> None:
        """Send an object; raises LiveRunError if the process has ended."""
        try:
            self._pipe.send(message)
        except OSError:
            self._ended()

    def receive(self, timeout: float, watch: Callable[[], None] = lambda: None) -> Any:
        """Wait at most ``timeout`` seconds for the next object, calling ``watch`` meanwhile.

        Raises LiveRunError if the function has raised an error, the process has ended, or the
        time is up.
        """
        deadline = time.monotonic() + timeout
        while not self._pipe.poll(_LOOK_SECONDS):
            watch()
            if time.monotonic() > deadline:
                raise LiveRunError(
                    f'the {self._name} did not answer within {timeout:g} s:\n{tail(self._log)}')
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._ended()
        if isinstance(answer, LiveRunError):
            raise answer
        return answer

    def _ended(self) -> None:
        status = self._process.wait(5.0)
        raise LiveRunError(f'the {self._name} ended with status {status}:\n{tail(self._log)}')


@contextmanager
def helper(
    name: str, function: str, log: Path, *arguments: Any, stop_timeout: float = 5.0,
) -> Iterator[Helper]:
    """Run a function in a process, which is terminated when the context ends.

    ``function``, as ``module:function``, is called with a
    :class:`multiprocessing.connection.Connection` and the arguments, which must be picklable; it
    must return when the pipe is closed (:func:`commands`). ``name`` is its name in messages, and
    ``log`` gets its output. It is terminated as by :func:`child`.
    """
    ours, theirs = Pipe()
    with ours, child(['derain_ros.live.processes', function, str(theirs.fileno())], log,
                     pass_fds=(theirs.fileno(),), stop_timeout=stop_timeout) as process:
        theirs.close()
        found = Helper(name, process, ours, log)
        found.send(arguments)
        yield found


def commands(pipe: Connection) -> Iterator[Any]:
    """Yield the objects received from a pipe until its other end is closed."""
    while True:
        try:
            yield pipe.recv()
        except (EOFError, ConnectionError):
            return


def main(argv: list[str]) -> int:
    """Run a function; errors meant for users are sent through the pipe. Returns exit status."""
    module, _, function = argv[0].partition(':')
    pipe = Connection(int(argv[1]))
    try:
        getattr(importlib.import_module(module), function)(pipe, *pipe.recv())
    except (LiveRunError, ValueError, OSError) as error:
        pipe.send(LiveRunError(str(error)))
        return 1
    except (EOFError, KeyboardInterrupt):
        pass
    return 0


if __name__ == '__main__':
    # Import the module by name, so that LiveRunError is the class that the functions raise.
    sys.exit(importlib.import_module('derain_ros.live.processes').main(sys.argv[1:]))
