"""The replay as a process of its own, and what it sent."""

import json
import select
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from derain_ros.live.listener import COUNTS
from derain_ros.live.processes import LiveRunError, tail


class Sent(NamedTuple):
    """A frame as it was sent.

    Attributes
    ----------
    index
        Of the frame in the clip.
    stamp, handed_over
        Stamp of the header, and when the message was handed to the middleware; nanoseconds
        since the epoch. Between them the stamp was written into the message.

    """

    index: int
    stamp: int
    handed_over: int


@dataclass(frozen=True)
class Played:
    """What was sent into the node, and what it says it did with it.

    Attributes
    ----------
    sent
        Frames by camera.
    seconds
        From the first to the last.
    before, after
        All values of each camera in /diagnostics, before the first frame and after the last.

    """

    sent: Mapping[str, list[Sent]]
    seconds: float
    before: Mapping[str, Mapping[str, str]]
    after: Mapping[str, Mapping[str, str]]

    @property
    def frames(self) -> list[tuple[int, int]]:
        """Index and stamp of each frame sent by the first camera."""
        return [frame[:2] for frame in next(iter(self.sent.values()))]

    @property
    def counts(self) -> dict[str, int]:
        """Counts of the first camera's frames, by the keys of :data:`COUNTS`."""
        return self.counts_of(next(iter(self.sent)))

    def counts_of(self, camera: str) -> dict[str, int]:
        """Return counts of a camera's frames, by the keys of :data:`COUNTS`."""
        before, after = self.before[camera], self.after[camera]
        return {key: int(after[key]) - int(before[key]) for key in COUNTS}


class ReplayProcess:
    """A running :mod:`derain_ros.live.replay` that waits for commands."""

    def __init__(self, process: subprocess.Popen, log: Path, report: Path):
        self._process = process
        self._log = log
        self._report = report

    def check(self) -> None:
        """Raise LiveRunError if the process has failed."""
        if self._process.poll():
            raise LiveRunError(
                f'the replay ended with status {self._process.returncode}:\n{tail(self._log)}')

    def command(self, *commands: str) -> None:
        """Give commands: frame or play."""
        with suppress(BrokenPipeError):  # check() says why
            self._process.stdin.write(''.join(f'{command}\n' for command in commands))
            self._process.stdin.flush()
        self.check()

    def step(self) -> Sent:
        """Send the next frame."""
        self.command('step')
        return Sent(*json.loads(self._answer()))

    def await_answer(self, timeout: float, watch: Callable[[], None]) -> str:
        """Wait for the next line of its standard output.

        Parameters
        ----------
        timeout
            Seconds that this may take.
        watch
            Called some twenty times a second meanwhile.

        Raises
        ------
        LiveRunError
            The process has ended, or the time is over.

        """
        deadline = time.monotonic() + timeout
        while not select.select([self._process.stdout], [], [], 0.05)[0]:
            watch()
            self.check()
            if time.monotonic() > deadline:
                raise LiveRunError(
                    f'the replay did not answer within {timeout:g} s:\n{tail(self._log)}')
        return self._answer().strip()

    def _answer(self) -> str:
        answer = self._process.stdout.readline()
        if not answer:
            self._process.wait(5.0)
            self.check()
            raise LiveRunError(f'the replay ended:\n{tail(self._log)}')
        return answer

    def finish(self, timeout: float, watch: Callable[[], None]) -> dict:
        """Wait until all commands are done; returns the replay's report.

        Parameters
        ----------
        timeout
            Seconds that this may take.
        watch
            Called some twenty times a second meanwhile.

        """
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            watch()
            if time.monotonic() > deadline:
                raise LiveRunError(f'the replay did not end within {timeout:g} s')
            time.sleep(0.05)
        self.check()
        report = json.loads(self._report.read_text())
        self._report.unlink()
        return report
