"""Worker processes for segments of bags, on this machine or on several, using Dask.

Each segment is a task. It writes its messages, ``<number>.body``, and then its record,
``<number>.json``, to a folder of the unfinished bag, which all processes must share. A task whose
process has died is given to another one; a finished task is not repeated. Dask takes a second to
import, so it is imported where it is used.
"""

import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import cv2

from derain_ros.bags.chunks import ChunkWriter, SegmentRecord
from derain_ros.bags.damage import BagError
from derain_ros.bags.plan import BagPlan
from derain_ros.bags.segment_work import Layout, Maker, Pipeline
from derain_ros.bags.workplace import file_facts
from derain_ros.text import UserError

_BUFFER = 1 << 18
_opened: dict[str, tuple[Any, ExitStack, Any]] = {}


class Pool:
    """Worker processes for segments; see :func:`local_pool` and :func:`cluster_pool`.

    ``remote`` workers may be on other machines: then they assemble the bag, too.
    """

    def __init__(self, client: Any, remote: bool):
        self._client = client
        self.remote = remote

    @property
    def workers(self) -> int:
        """Number of worker processes connected."""
        return len(self._client.scheduler_info(n_workers=-1)['workers'])

    def work(
        self, plan: BagPlan, maker: Maker, segments: Sequence[int], folder: Path
    ) -> Iterator[int]:
        """Process segments in the workers; yields the number of frames of each finished segment.

        The workers write the segments to ``folder``. Raises UserError if one failed, or the
        scheduler is gone.
        """
        from distributed import as_completed

        token = uuid.uuid4().hex
        # The plan may be large and there are many segments: one task holds it for all of them.
        shared = self._client.submit(_same, plan, maker, key=f'{token}-plan')
        tasks = [
            self._client.submit(
                do_segment, shared, number, folder,
                key=f'{token}-{number}', priority=-number)
            for number in segments]
        try:
            for task in as_completed(tasks):
                yield self._result(task.result)
        except OSError as error:  # CommClosedError is one
            raise _gone(error) from error
        finally:
            with suppress(Exception):  # the scheduler may be gone
                self._client.cancel(tasks)

    def call(self, function: Callable, *args: Any) -> Any:
        """Call a function in a worker; returns its result, or raises its error."""
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
                f'processes died {error.allowed_failures + 1} times on one task, perhaps for lack '
                'of memory: use fewer processes. Run the same command again to resume') from error
        except UserError:
            raise
        except Exception as error:
            if 'cancel' in type(error).__name__.lower() or isinstance(error, CommClosedError):
                raise _gone(error) from error
            if isinstance(error, OSError):
                raise BagError(f'a worker: {error}') from error
            raise


def _gone(error: Exception) -> BagError:
    return BagError(f'the connection to the scheduler was lost ({type(error).__name__}); start it '
                    'again, then run the same command again to resume')


@contextmanager
def local_pool(count: int) -> Iterator[Pool]:
    """Start workers on this machine, each pinned to its own cores, even after a restart."""
    from distributed import Client, LocalCluster, WorkerPlugin

    class OwnCores(WorkerPlugin):
        name = 'own cores'

        def setup(self, worker: Any) -> None:
            # OpenVINO starts as many threads as there are cores in its affinity mask.
            share = shares[int(worker.name) % len(shares)]
            for thread in Path('/proc/self/task').iterdir():
                os.sched_setaffinity(int(thread.name), share)

    cores = sorted(os.sched_getaffinity(0))
    shares = [tuple(cores[number * len(cores) // count:(number + 1) * len(cores) // count])
              or (cores[number % len(cores)],) for number in range(count)]
    # Two commands may run at the same time; Dask warns that the second uses another port.
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
    """Use the workers of a Dask scheduler, ``tcp://host:8786``; BagError if there are none."""
    from distributed import Client

    try:
        client = Client(scheduler, timeout='10s')
    except (OSError, ValueError) as error:
        raise BagError(f'{scheduler}: no Dask scheduler answers ({error}); start one with '
                       '`dask scheduler`, see docs/fleet.md') from error
    with client:
        pool = Pool(client, remote=True)
        if not pool.workers:
            raise BagError(f'{scheduler}: has no workers; start some with `dask worker '
                           f'{scheduler} --nthreads 1`, see docs/fleet.md')
        yield pool


def _same(*task: Any) -> tuple:
    return task


def do_segment(task: tuple[BagPlan, Maker], number: int, folder: Path) -> int:
    """Process a segment in this process, unless it is done; returns its number of frames."""
    body = folder / f'{number:06d}.body'
    with suppress(OSError, ValueError, TypeError):
        return SegmentRecord.load(body.with_suffix('.json')).frames
    cv2.setNumThreads(1)
    plan, maker = task
    maker = _kept('maker', maker, maker.opened)
    bag = [plan, file_facts(plan.source)]
    recording = _kept('recording', bag, plan.open)
    layout = _kept('layout', bag, lambda: nullcontext(Layout(plan, recording)))
    temporary = folder / f'{number:06d}.{uuid.uuid4().hex}.tmp'
    try:
        with temporary.open('wb', _BUFFER) as stream:
            sink = ChunkWriter(stream, plan.packs_chunks)
            Pipeline(recording, plan, layout, maker, sink).run([number], lambda count: None)
            stream.flush()
            os.fdatasync(stream.fileno())
        temporary.replace(body)
        sink.ended.save(body.with_suffix('.json'))
    finally:
        temporary.unlink(missing_ok=True)
    return sink.ended.frames


def _kept(name: str, wanted: Any, make: Callable[[], Any]) -> Any:
    """Return what a context manager yields; it is kept open until ``wanted`` changes."""
    if name not in _opened or _opened[name][0] != wanted:
        if name in _opened:
            _opened.pop(name)[1].close()
        stack = ExitStack()
        _opened[name] = wanted, stack, stack.enter_context(make())
    return _opened[name][2]
