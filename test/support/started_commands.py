"""``derain`` commands as processes, and whatever they leave behind."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MARK = 'DERAIN_TEST_MARK'


class Command:
    """Starts ``derain`` commands, whose processes are known by a mark in their environment."""

    def __init__(self):
        self._mark = f'{_MARK}={uuid.uuid4().hex}'

    def start(self, *arguments):
        """Start a command."""
        name, _, mark = self._mark.partition('=')
        environment = os.environ | {
            name: mark, 'PYTHONUNBUFFERED': '1', 'PYTHONPATH': os.pathsep.join(
                [str(ROOT), os.environ.get('PYTHONPATH', '')])}
        return subprocess.Popen(
            [sys.executable, '-m', 'derain_ros.cli', *map(str, arguments)], env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finished(self, *arguments, timeout=150):
        """Run a command; returns its status, output and errors."""
        process = self.start(*arguments)
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert 'Traceback' not in errors
        return process.returncode, output, errors

    def family(self):
        """Return the command lines of the processes that it has started, by number."""
        found = {}
        for entry in Path('/proc').glob('[0-9]*'):
            try:
                if self._mark.encode() in (entry / 'environ').read_bytes().split(b'\0'):
                    line = (entry / 'cmdline').read_bytes()
                    found[int(entry.name)] = line.replace(b'\0', b' ').decode()
            except OSError:
                continue
        return found


def started():
    """Yield a :class:`Command`, as a fixture does; what it leaves behind fails the test."""
    command = Command()
    yield command
    left = command.family()
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left
