"""Processes that work on segments of bags, on this machine or on many, through Dask.

Each segment is a task. It leaves its messages, ``<number>.body``, and then its record,
``<number>.json``, in the folder of the bag in the making, which all processes see. A task whose
process has died is given to another one; one that is done is not done again. Dask, whose import
takes a second, is imported where it is used.
"""

import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2

from derain_ros.bags.chunks import ChunkWriter, SegmentRecord
from derain_ros.bags.damage import BagError
from derain_ros.bags.recording import Recording
from derain_ros.bags.segment_work import BagWork, Pipeline
from derain_ros.bags.workplace import file_facts
from derain_ros.text import UserError

_BUFFER = 1 << 18


class Pool:
    """Processes that take segments; see :func:`local_pool` and :func:`cluster_pool`.

    Those that are ``remote`` may be on other machines: bags are put together there, too.
    """

    def __init__(self, client: Any, remote: bool):
        self._client = client
        self.remote = remote

    @property
    def workers(self) -> int:
        """Processes that are there."""
        return len(self._client.scheduler_info(n_workers=-1)['workers'])

    def work(
        self, work: BagWork, segments: Sequence[int], folder: Path, compress: bool
    ) -> Iterator[int]:
        """Let the processes do segments; yields the number of frames of each that is done.

        They put segment ``number`` into ``folder``, packed with zstd if ``compress`` says so.
        Raises BagError or EngineError where one could not be done, or the scheduler is gone.
        """
        from distributed import as_completed
        from distributed.comm import CommClosedError

        token = uuid.uuid4().hex
        # One task that has the work, as it may be large and there are many segments.
        shared = self._client.submit(_same, work, key=f'{token}-work')
        tasks = [
            self._client.submit(
                do_segment, shared, number, folder.absolute(), compress,
                key=f'{token}-{number}', priority=-number)
            for number in segments]
        try:
            for task in as_completed(tasks):
                yield self._result(task.result)
        except (CommClosedError, OSError) as error:
            raise _gone(error) from error
        finally:
            with suppress(Exception):  # the scheduler may be gone
                self._client.cancel(tasks)

    def call(self, function: Callable, *args: Any) -> Any:
        """Let a process call a function; returns its result, and raises its errors."""
        task = self._client.submit(function, *args, pure=False)
        return self._result(task.result)

    @staticmethod
    def _result(get: Callable[[], Any]) -> Any:
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            return get()
        except KilledWorker as error:
            raise BagError(
                f'processes died {error.allowed_failures + 1} times over one task; is there '
                'enough memory? Fewer of them take less. The same command goes on where the work '
                'stopped') from error
        except UserError:
            raise
        except Exception as error:
            if 'cancel' in type(error).__name__.lower() or isinstance(error, CommClosedError):
                raise _gone(error) from error
            if isinstance(error, OSError):
                raise BagError(f'a worker: {error}') from error
            raise


def _gone(error: Exception) -> BagError:
    return BagError(f'the scheduler is gone ({type(error).__name__}); start it again, and the '
                    'same command goes on where the work stopped')


@contextmanager
def local_pool(count: int) -> Iterator[Pool]:
    """Start processes on this machine, each with cores of its own, also those that replace one."""
    from distributed import Client, LocalCluster, WorkerPlugin

    class OwnCores(WorkerPlugin):
        name = 'own cores'

        def setup(self, worker: Any) -> None:
            # OpenVINO takes as many threads as there are cores to run on.
            share = shares[int(worker.name) % len(shares)]
            for thread in Path('/proc/self/task').iterdir():
                os.sched_setaffinity(int(thread.name), share)

    cores = sorted(os.sched_getaffinity(0))
    shares = [tuple(cores[number * len(cores) // count:(number + 1) * len(cores) // count])
              or (cores[number % len(cores)],) for number in range(count)]
    # Two commands may run at a time; Dask warns that the second takes another port.
    warnings.filterwarnings('ignore', 'Port .* is already in use', UserWarning)
    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, host='127.0.0.1',
            dashboard_address=None, worker_dashboard_address=None, memory_limit=0,
            silence_logs='CRITICAL') as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(OwnCores())
        yield Pool(client, remote=False)


@contextmanager
def cluster_pool(scheduler: str) -> Iterator[Pool]:
    """Use the processes of a Dask scheduler, ``tcp://host:8786``.

    Raises
    ------
    BagError
        There is none, or it has no workers.

    """
    from distributed import Client

    try:
        client = Client(scheduler, timeout='10s')
    except (OSError, ValueError, TimeoutError) as error:
        raise BagError(f'{scheduler}: no Dask scheduler answers ({error}); start one with '
                       '`dask scheduler`, see docs/fleet.md') from error
    with client:
        pool = Pool(client, remote=True)
        if not pool.workers:
            raise BagError(f'{scheduler}: has no workers; start some with `dask worker '
                           f'{scheduler} --nthreads 1`, see docs/fleet.md')
        yield pool


class _Body(ChunkWriter):
    """Writes one segment to a file of its own."""

    def end_segment(self, *facts: Any) -> None:
        self.record = super().end_segment(*facts)


def _same(work: BagWork) -> BagWork:
    return work


def do_segment(work: BagWork, number: int, folder: Path, compress: bool) -> int:
    """Do a segment in this process; returns its number of frames."""
    body = folder / f'{number:06d}.body'
    with suppress(OSError, ValueError, TypeError):
        return SegmentRecord.load(body.with_suffix('.json')).frames
    cv2.setNumThreads(1)
    recording, maker = _tools(work)
    temporary = folder / f'{number:06d}.{uuid.uuid4().hex}.tmp'
    try:
        with temporary.open('wb', _BUFFER) as stream:
            sink = _Body(stream, compress)
            Pipeline(recording, work, maker, sink).run([number], lambda count: None)
            stream.flush()
            os.fdatasync(stream.fileno())
        temporary.replace(body)
        sink.record.save(body.with_suffix('.json'))
    finally:
        temporary.unlink(missing_ok=True)
    return sink.record.frames


def _tools(work: BagWork) -> tuple[Recording, Any]:
    """Return the opened bag and the engine, which stay for the next segment."""
    tools = vars(sys.modules[__name__]).setdefault('_kept', {})
    if tools.get('recipe') != work.recipe:
        if 'maker' in tools:
            tools.pop('maker').close()
        tools.update(maker=work.recipe.start(), recipe=work.recipe)
    bag = [work.source, work.scratch, file_facts(work.source)]
    if tools.get('bag') != bag:
        if 'recording' in tools:
            tools.pop('recording').close()
        tools.update(recording=Recording(work.source, work.scratch), bag=bag)
    return tools['recording'], tools['maker']
