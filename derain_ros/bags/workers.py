"""Processes that derain segments of a bag, each with an engine and cores of its own."""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection as connections
from pathlib import Path
from typing import Any

import cv2

from derain_ros.bags.chunks import ChunkWriter
from derain_ros.bags.damage import BagError, DamageError
from derain_ros.bags.recording import Recording
from derain_ros.bags.segment_work import BagWork, Pipeline
from derain_ros.engines import EngineError, EngineInfo, create_engine
from derain_ros.text import printable

_TOLD_EVERY = 0.2
_END_TIMEOUT = 10.0
LONG_BAG = 1000
"""From so many frames on, a second process is worth its start."""

_BUFFER = 1 << 18


class WorkerError(BagError):
    """A process has ended before its work was done."""


def usual_workers(frames: int, engine: EngineInfo) -> int:
    """Return how many processes are best for a bag.

    On the CPU two engines with half of the cores each do more than one with all of them, whose
    threads wait for each other; starting them takes seconds.

    Parameters
    ----------
    frames
        Frames to derain.
    engine
        The derainer.

    """
    worth_it = engine.engine == 'openvino' and frames >= LONG_BAG
    return 2 if worth_it and len(os.sched_getaffinity(0)) > 1 else 1


def run_workers(
    work: BagWork,
    engine: EngineInfo,
    segments: Sequence[int],
    count: int,
    folder: Path,
    compress: bool,
    done: Callable[[], int],
    progress: Callable[[int], Any],
) -> None:
    """Let processes derain segments.

    Parameters
    ----------
    work
        What to do.
    engine
        What each of them runs.
    segments
        Numbers of the segments, ascending.
    count
        How many processes.
    folder
        Where they put the segments: ``<number>.body``, as :class:`ChunkWriter` writes it, and
        when that is whole its record, ``<number>.json``.
    compress
        Pack the chunks with zstd.
    done
        Called when segments have come; uses them up in order, and returns the number of the
        first that has not come.
    progress
        Called with the number of frames done since the last call.

    Raises
    ------
    DamageError
        The source is damaged in the segment that ``done`` waits for.
    WorkerError
        A process died.
    BagError, EngineError
        A process failed; the message is its own.

    """
    cores = sorted(os.sched_getaffinity(0))
    count = max(1, min(count, len(segments)))
    context = multiprocessing.get_context('spawn')
    workers: dict[Any, tuple[int, Any]] = {}
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_main, name=f'derain worker {number + 1}', daemon=True,
                args=(theirs, work, engine, folder, compress, _share(cores, number, count)))
            process.start()
            theirs.close()
            workers[ours] = (number + 1, process)
        _serve(workers, list(segments), done, progress)
        for _, process in workers.values():
            process.join(_END_TIMEOUT)
    finally:
        for ours, (_, process) in workers.items():
            if process.is_alive():
                process.kill()
            process.join()
            ours.close()


def _serve(
    workers: dict[Any, tuple[int, Any]], left: list[int], done: Callable[[], int],
    progress: Callable[[int], Any]
) -> None:
    """Hand out segments in order, until all are used up or one cannot be had."""
    left.reverse()
    active = dict(workers)
    damage: tuple[int, DamageError] | None = None
    while active:
        for ours in connections.wait(list(active)):
            number, process = active[ours]
            try:
                kind, value = ours.recv()
            except (EOFError, ConnectionError) as error:
                raise _death(number, process) from error
            if kind == 'next':
                wanted = left and (damage is None or left[-1] < damage[0])
                # One that asks and dies before the answer is noticed at the next turn.
                with contextlib.suppress(ConnectionError):
                    ours.send(left.pop() if wanted else None)
            elif kind == 'frames':
                progress(value)
            elif kind == 'segment':
                done()
            elif kind == 'end':
                del active[ours]
            elif kind == 'damage':
                segment, error = value
                if damage is None or segment < damage[0]:
                    damage = segment, error
                del active[ours]
            elif kind == 'engine':
                raise EngineError(value)
            else:
                raise BagError(value)
    if damage is not None and done() <= damage[0]:
        raise damage[1]


def _death(number: int, process: Any) -> WorkerError:
    process.join(_END_TIMEOUT)
    code = process.exitcode
    how = f'exit status {code}'
    if code is None:
        how = 'its connection closed'
    elif code < 0:
        how = f'signal {-code}'
        with contextlib.suppress(ValueError):
            how = f'signal {signal.Signals(-code).name}'
    if code == -signal.SIGKILL:
        how += '; is there enough memory? Fewer --workers take less'
    return WorkerError(
        f'worker {number} (process {process.pid}) died ({how}); the same command goes on where '
        'the work stopped')


def _share(cores: Sequence[int], number: int, count: int) -> set[int]:
    """Return the cores of one of several processes."""
    share = cores[number * len(cores) // count:(number + 1) * len(cores) // count]
    return set(share) or {cores[number % len(cores)]}


def _main(
    pipe: Any, work: BagWork, info: EngineInfo, folder: Path, compress: bool, cores: set[int]
) -> None:
    # The parent decides what an interruption means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # OpenVINO takes as many threads as there are cores to run on.
    os.sched_setaffinity(0, cores)
    cv2.setNumThreads(1)
    talk = _Talk(pipe)
    try:
        try:
            _work(talk, work, info, folder, compress)
        except DamageError as error:
            talk.send('damage', (talk.segment, error))
        except EngineError as error:
            talk.send('engine', str(error))
        except ConnectionError:
            raise
        except Exception as error:
            kind = '' if isinstance(error, BagError) else f'{type(error).__name__}: '
            talk.send('error', printable(f'{kind}{error}'))
        else:
            talk.send('end', None)
    except ConnectionError:
        # The parent is gone.
        os._exit(1)


def _work(talk: '_Talk', work: BagWork, info: EngineInfo, folder: Path, compress: bool) -> None:
    engine = create_engine(info.engine, info.model, precision=info.precision)
    try:
        with Recording(work.source, work.scratch, scan=work.scan) as recording:
            bodies = _Bodies(talk, folder, compress)
            try:
                Pipeline(recording, work, engine, bodies).run(bodies.numbers(), talk.frames)
            finally:
                bodies.close()
    finally:
        engine.close()
    talk.frames(0, now=True)


class _Talk:
    """A worker's end of the conversation; several threads speak, one listens."""

    def __init__(self, pipe: Any):
        self._pipe = pipe
        self._lock = threading.Lock()
        self._frames = 0
        self._told = time.monotonic()
        self.segment = -1

    def send(self, kind: str, value: Any) -> None:
        with self._lock:
            self._pipe.send((kind, value))

    def ask(self) -> int | None:
        self.send('next', None)
        try:
            return self._pipe.recv()
        except EOFError as error:
            raise ConnectionError('the parent is gone') from error

    def frames(self, count: int, now: bool = False) -> None:
        self._frames += count
        if now or time.monotonic() - self._told > _TOLD_EVERY:
            self.send('frames', self._frames)
            self._frames, self._told = 0, time.monotonic()


class _Bodies:
    """Writes each segment to a file of its own."""

    def __init__(self, talk: _Talk, folder: Path, compress: bool):
        self._talk = talk
        self._folder = folder
        self._compress = compress
        self._numbers: queue.SimpleQueue = queue.SimpleQueue()
        self._open(None)

    def _open(self, path: Path | None) -> None:
        self._path = path
        self._file = path.open('wb', _BUFFER) if path else None
        self._writer = ChunkWriter(self._file, self._compress) if path else None

    def numbers(self) -> Iterator[int]:
        """Ask for segments, one by one."""
        while (number := self._talk.ask()) is not None:
            self._talk.segment = number
            self._numbers.put(number)
            yield number

    def write(self, topic: int, time: int, parts: Sequence) -> None:
        if self._writer is None:
            self._open(self._folder / f'{os.getpid()}.tmp')
        self._writer.write(topic, time, parts)

    def end_segment(self, figures: dict[str, Any]) -> None:
        if self._writer is None:
            self._open(self._folder / f'{os.getpid()}.tmp')
        record = self._writer.end()
        record.figures = figures
        self._file.flush()
        os.fdatasync(self._file.fileno())
        self._file.close()
        body = self._folder / f'{self._numbers.get():06d}.body'
        self._path.replace(body)
        record.save(body.with_suffix('.json'))
        self._open(None)
        self._talk.send('segment', None)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)
