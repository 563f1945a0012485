"""Nodes beside each other: each gets a few frames in turn, so that all meet the same machine."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from derain_ros.bench.setting import ClipFile, Setting
from derain_ros.bench.stream import StreamFrame
from derain_ros.live.listener import Told, number
from derain_ros.live.processes import LiveRunError, child, tail
from derain_ros.live.replay_process import Sent

_BLOCK = 5
_STOP_TIMEOUT = 20.0


@dataclass
class Side:
    """One of the nodes.

    Attributes
    ----------
    frames
        What it was sent, and what came of it.
    diagnostics
        Newest values of its camera in /diagnostics; empty for the plain node.

    """

    frames: list[StreamFrame] = field(default_factory=list)
    diagnostics: Mapping[str, str] = field(default_factory=dict)


def compare(
    setting: Setting,
    name: str,
    clip: ClipFile,
    sides: Mapping[str, tuple[str, Mapping[str, str]]],
    frames: int,
) -> dict[str, Side]:
    """Send frames one by one to several nodes, in blocks that take turns.

    Parameters
    ----------
    setting
        How to run.
    name
        Folder for the logs.
    clip
        Its rainy frames are sent.
    sides
        Program, a key of :data:`derain_ros.bench.side.PROGRAMS`, and parameters
        besides those of ``setting``, by the name of the side.
    frames
        How many for each.

    Raises
    ------
    LiveRunError
        A process failed.

    """
    plan = setting.folder / f'{name}.json'
    plan.write_text(json.dumps([(index, 0.0) for index in clip.rainy]))
    results = {side: Side() for side in sides}
    with ExitStack() as stack:
        processes = {}
        for side, (program, parameters) in sides.items():
            folder = setting.folder / f'{name}_{side}'
            arguments = [
                'derain_ros.bench.side', str(folder), str(clip.path),
                '--plan', str(plan), '--program', program,
                '--parameters', json.dumps({**setting.parameters, **parameters})]
            processes[side] = stack.enter_context(_side(folder, arguments))
        for process in processes.values():
            process.answer()
        left = frames
        while left > 0:
            block = min(_BLOCK, left)
            left -= block
            for side, process in processes.items():
                process.ask(block)
                answer = process.answer()
                results[side].frames += [_frame(found) for found in answer['frames']]
                results[side].diagnostics = answer['diagnostics']
    return results


def overheads_ms(side: Side) -> list[float]:
    """Return, for each frame, the time from sending to receiving less its inference.

    Sent is when the message was handed to the middleware. Where the node does not tell the
    inference time of a frame, the median of /diagnostics stands in.
    """
    stand_in = number(side.diagnostics, 'infer_p50_ms')
    return [
        (frame.arrival - frame.sent.handed_over) / 1e6 - _or(frame.told.infer_ms, stand_in)
        for frame in side.frames if frame.arrival is not None]


class _SideProcess:
    def __init__(self, process: subprocess.Popen, log):
        self._process = process
        self._log = log

    def ask(self, frames: int) -> None:
        self._process.stdin.write(f'{frames}\n')
        self._process.stdin.flush()

    def answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise LiveRunError(f'a side of the comparison ended:\n{tail(self._log)}')
        answer = json.loads(line)
        if 'error' in answer:
            raise LiveRunError(answer['error'])
        return answer


@contextmanager
def _side(folder, arguments: list[str]) -> Iterator[_SideProcess]:
    folder.mkdir(exist_ok=True)
    log = folder / 'side.log'
    with child(arguments, log, commands=True, answers=True,
               stop_timeout=_STOP_TIMEOUT) as process:
        yield _SideProcess(process, log)


def _frame(found: dict) -> StreamFrame:
    message = 'told' if found['told'] else ''
    return StreamFrame(Sent(*found['sent']), found['arrival'], Told(message, found['told']))


def _or(value: float, other: float) -> float:
    return value if value == value else other
