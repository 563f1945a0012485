"""A function of this package in a process of its own, talked to by objects over a pipe.

``python -m derain_ros.live.helper MODULE:FUNCTION FD`` is that process: it takes the arguments of
the function from the pipe, and calls it with the pipe before them.
"""

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import Popen
from typing import Any

from derain_ros.live.processes import LiveRunError, child, tail

_LOOK_SECONDS = 0.05


class Helper:
    """The process as its parent sees it; made by :func:`helper`."""

    def __init__(self, name: str, process: Popen, pipe: Connection, log: Path):
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

    Parameters
    ----------
    name
        What messages call it.
    function
        ``module:function``; called with a :class:`multiprocessing.connection.Connection` and the
        arguments, which can be pickled. It has to return when the pipe ends (:func:`commands`).
    log
        File for what it prints.
    stop_timeout
        Seconds from SIGINT, which ends it, to SIGKILL.

    """
    ours, theirs = Pipe()
    with ours, child(['derain_ros.live.helper', function, str(theirs.fileno())], log,
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
    sys.exit(main(sys.argv[1:]))
