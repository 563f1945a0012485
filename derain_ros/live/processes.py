"""Processes that belong together: a ROS domain of their own, their logs, and their end.

``python -m derain_ros.live.processes MODULE:FUNCTION FD`` is a :func:`helper`: it takes the
arguments of the function from the pipe, and calls it with the pipe before them.
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
"""What the launch file sets for the node: keep the memory of a frame for the next one."""

_DOMAINS = 101
_claims: deque[socket.socket] = deque(maxlen=30)
_LOG_TAIL = 12
_LOOK_SECONDS = 0.05
# What the Fast DDS profile takes: a segment each for node, replay and listener.
_SHARED_MEMORY = 3 * 80 << 20


class LiveRunError(UserError, RuntimeError):
    """A process of the run failed; the message holds the end of its log."""


def isolate(*, profile: bool = True) -> int:
    """Keep this process, and those it starts from now on, in a ROS domain that nobody else uses.

    It is on this host alone, and its number is returned. With ``profile`` they use the Fast DDS
    profile of this package, where shared memory has room for it; else none, whatever the
    environment says.
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
    """Return a ROS domain from 1 to 101, ``first`` or a later one, that nobody on this host is in.

    It is kept from other callers, here and in other processes, until the next thirty were claimed.
    """
    for step in range(_DOMAINS):
        domain = 1 + (first + step) % _DOMAINS
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # The first port is used by nobody, the second by the first participant of a
                # domain; see the DDSI-RTPS specification on well-known ports. A participant
                # takes seconds to come, so looking for it is not enough.
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
    """Return the last lines of a log, and the path of a copy: the run may clear up its own."""
    copy = shutil.copy(log, tempfile.mkdtemp(prefix='derain_log_'))
    lines = log.read_text(errors='replace').splitlines()[-_LOG_TAIL:]
    return '\n'.join(['  ' + line for line in lines] + [f'(whole log: {copy})'])


class Helper:
    """A function of this package in a process of its own, talked to by objects over a pipe."""

    def __init__(self, name: str, process: subprocess.Popen, pipe: Connection, log: Path):
        self._name = name
        self._process = process
        self._pipe = pipe
        self._log = log

    def check(self) -> None:
        """Raise LiveRunError if the process has ended."""
        if self._process.poll() is not None:
            # What it has said of an error is the better message.
            self.receive(0.0)

    def send(self, message: Any) -> None:
        """Send an object; LiveRunError says that the process has ended."""
        try:
            self._pipe.send(message)
        except OSError:
            self._ended()

    def receive(self, timeout: float, watch: Callable[[], None] = lambda: None) -> Any:
        """Wait for the next object for so many seconds, while ``watch`` is called now and then.

        LiveRunError says that the function has raised an error, the process has ended, or the
        time is over.
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
    """Run a function in a process, which is gone when the context ends.

    ``function``, as ``module:function``, is called with a
    :class:`multiprocessing.connection.Connection` and the arguments, which can be pickled; it has
    to return when the pipe ends (:func:`commands`). ``name`` is what messages call it, and ``log``
    gets what it prints; ``stop_timeout`` seconds after SIGINT, which ends it, SIGKILL follows.
    """
    ours, theirs = Pipe()
    with ours, child(['derain_ros.live.processes', function, str(theirs.fileno())], log,
                     pass_fds=(theirs.fileno(),), stop_timeout=stop_timeout) as process:
        theirs.close()
        found = Helper(name, process, ours, log)
        found.send(arguments)
        yield found


def commands(pipe: Connection) -> Iterator[Any]:
    """Yield what comes through a pipe until its other end is closed."""
    while True:
        try:
            yield pipe.recv()
        except (EOFError, ConnectionError):
            return


def main(argv: list[str]) -> int:
    """Run a function; an error that is a message for users goes through the pipe."""
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
    # Of the module that the functions know, whose LiveRunError is theirs.
    sys.exit(importlib.import_module('derain_ros.live.processes').main(sys.argv[1:]))
