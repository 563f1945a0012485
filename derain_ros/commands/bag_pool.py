"""Shared by the commands that make bags: worker pools, folders of bags, resuming."""

import argparse
import builtins
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from derain_ros.bags.damage import show_time
from derain_ros.bags.fleet import bags_below, usual_workers
from derain_ros.bags.making import BagSummary
from derain_ros.bags.plan import BagPlan
from derain_ros.bags.pool import Pool
from derain_ros.bags.workplace import partial_of
from derain_ros.commands import print_error, print_notes, printable, progress_bar
from derain_ros.commands.arguments import count
from derain_ros.engines import EngineInfo
from derain_ros.files import check_folder
from derain_ros.text import UserError

_SHOWN_PER_TOPIC = 10


def add_pool_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers`` and ``--scheduler``, of which one may be given."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--workers', type=count, metavar='N',
                       help='processes on this machine, each with its own engine (default: two '
                            'for a long bag on the CPU, which is faster, else one)')
    group.add_argument('--scheduler', metavar='ADDRESS',
                       help='address of a Dask scheduler, such as tcp://host:8786, whose workers '
                            'do the work; they must see IN and OUT under the same paths (see '
                            'docs/fleet.md)')


class Bags:
    """The bags given by IN, and their outputs given by OUT.

    ``planned`` plans the work on a bag; ``plan`` is the plan for IN if that is a single bag, None
    if it is a folder of bags. Raises UserError if there is none, or OUT is IN or not writable.
    """

    def __init__(self, args: argparse.Namespace, planned: Callable[[Path, Path], BagPlan]):
        self._args, self._planned = args, planned
        if args.output.exists() and args.source.exists() and args.output.samefile(args.source):
            raise UserError(f'{args.output}: is the input; name another output')
        self._jobs = bags_below(args.source, args.output)
        check_folder(args.output.parent)
        one = len(self._jobs) == 1 and self._jobs[0][0] == args.source
        self.plan = planned(*self._jobs[0]) if one else None

    def work(
        self, work: Callable[[BagPlan, Pool | None], int], engine: EngineInfo | None, done: str
    ) -> int:
        """Process each bag, with the workers that the options request; return the exit status.

        ``engine`` is the engine of each process, ``done`` what happens to a bag: "derained".
        """
        if not self.plan:
            return work_on_bags(
                self._args, self._jobs,
                lambda source, out, pool: work(self._planned(source, out), pool), engine, done)
        with _open_pool(self._args, engine, self.plan.frame_count) as pool:
            return work(self.plan, pool)


def work_on_bags(
    args: argparse.Namespace, jobs: Sequence[tuple[Path, Path]],
    work: Callable[[Path, Path, Pool | None], int], engine: EngineInfo | None, done: str,
    *, whole: bool = False
) -> int:
    """Process the bags that have no result yet, and report failures; return the exit status.

    ``work`` takes a bag, its destination and the pool, and returns 0 on success. With ``whole``,
    bags are distributed to the workers of the pool, otherwise segments of bags.
    """
    failed: dict[Path, str] = {}
    earlier: list[Path] = []
    with _open_pool(args, engine, 0 if whole else None) as pool:
        def one(job: tuple[Path, Path]) -> None:
            source, out = job
            if out.exists() and not partial_of(out).exists():
                earlier.append(source)
                return
            try:
                if work(source, out, pool):
                    failed[source] = f'some of it could not be {done}, see above'
            except (UserError, OSError) as error:
                failed[source] = str(error)

        side_by_side = pool.workers if pool and (whole or pool.remote) else 1
        threads = ThreadPoolExecutor(side_by_side)
        try:
            for _ in (threads if side_by_side > 1 else builtins).map(one, jobs):
                pass
        finally:
            # After an interruption, do not wait: the other jobs end with the pool.
            threads.shutdown(wait=False, cancel_futures=True)
    for source, reason in failed.items():
        said = reason if str(source) in reason else f'{source}: {reason}'
        print_error(printable(said))
    print(f'{len(jobs) - len(failed)} of {len(jobs)} bags {done} to {printable(args.output)}'
          + (f', {len(earlier)} of them earlier' if earlier else ''))
    return 1 if failed else 0


@contextmanager
def _open_pool(
    args: argparse.Namespace, engine: EngineInfo | None, frames: int | None
) -> Iterator[Pool | None]:
    """Start or connect to the workers that the options request; None is this process alone."""
    number = args.workers or usual_workers(frames, engine)
    if not args.scheduler and number == 1:
        yield None
        return
    # Importing Dask takes a second.
    from derain_ros.bags.pool import cluster_pool, local_pool

    with cluster_pool(args.scheduler) if args.scheduler else local_pool(number) as pool:
        yield pool


def write_bag(
    plan: BagPlan, make: Callable[..., BagSummary], line: str, failed: str, failure: str
) -> BagSummary:
    """Make a bag with a progress bar, and report the result.

    ``make`` takes ``progress`` and ``resumed``. ``line`` is printed for each camera, with the text
    ``failed`` for its failed frames; ``failure`` is the text for those not listed one by one.
    """
    print_notes(*plan.notes)
    try:
        with progress_bar(plan.frame_count, 'frame') as bar:
            def resumed(count: int) -> None:
                if count:
                    bar.write(f'derain: resuming; {count} frames are done already',
                              file=sys.stderr)
                    bar.initial = bar.n = count  # exclude them from the rate
                    bar.refresh()

            summary = make(progress=bar.update, resumed=resumed)
            # A damaged bag may have fewer frames than it lists.
            bar.total = bar.n
            bar.refresh()
    except KeyboardInterrupt:
        print(f'derain: the work is kept in {printable(plan.destination)}.partial; run the same '
              'command again to resume', file=sys.stderr)
        raise
    _report(plan, summary, failure)
    print(f'{printable(plan.destination)}: {summary.messages} messages kept')
    for camera in plan.cameras:
        text = printable(line.format(camera=camera, frames=summary.made[camera.source]))
        count = summary.failed[camera.source]
        print(f'  {text}, {count} {failed}' if count else f'  {text}')
    return summary


def _report(plan: BagPlan, summary: BagSummary, failure: str) -> None:
    """Print the notes on a bag, its damage, and the frames that failed."""
    print_notes(*summary.notes, *(
        f'the bag holds no definition of {msgtype}; its messages are kept nevertheless'
        for msgtype in summary.undefined_types))
    for damage in summary.damages:
        print_error(f'{printable(plan.source)}: damaged: {damage}; everything else was read')
    for camera in plan.cameras:
        topic = camera.source
        bad = [frame for frame in summary.bad_frames if frame.topic == topic][:_SHOWN_PER_TOPIC]
        for frame in bad:
            print_error(printable(f'{topic} at {show_time(frame.time)}: {frame.reason}'))
        if summary.failed[topic] > len(bad):
            print_error(printable(
                f'{topic}: {summary.failed[topic] - len(bad)} more frames {failure}'))
