"""Make a bag from a recorded one: keep every message, and add those that a ``Maker`` makes.

The bag is read in recorded order, without a clock, in time segments that depend on the bag
alone. Two runs therefore give the same bytes, interrupted or not, by one process or several.
"""

import math
import os
import shutil
import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
from rosbags.rosbag2 import CompressionMode

from derain_ros import __version__
from derain_ros.bags.chunks import SegmentRecord, load_records
from derain_ros.bags.damage import BagError, Damage
from derain_ros.bags.mcap_file import zstd
from derain_ros.bags.plan import BagPlan
from derain_ros.bags.pool import Pool
from derain_ros.bags.recording import Recording
from derain_ros.bags.results import McapResult, SqliteResult, metadata_text
from derain_ros.bags.segment_work import KEPT_REASONS, Layout, Maker, Pipeline
from derain_ros.bags.staging import FULL
from derain_ros.bags.workplace import Workplace, digest_of
from derain_ros.rain_gate import FAST_SECONDS, FORGET_SECONDS
from derain_ros.replacing import replace_file

_SUFFIXES = {'mcap': '.mcap', 'sqlite3': '.db3'}


@dataclass(frozen=True)
class BadFrame:
    """An image message that could not be derained: where, when (ns), and why."""

    topic: str
    time: int
    reason: str


@dataclass
class CameraFrames:
    """The derained frames of a camera, in the order of the bag.

    ``time`` is the time of recording, ``stamp`` the header stamp, both ns; ``rain_intensity``, 0
    to 1, is what the node would publish, see :class:`derain_ros.rain_gate.RainGate`;
    ``mask_coverage`` is the fraction of the pixels that the mask marks as rain.
    """

    time: array = field(default_factory=lambda: array('q'))
    stamp: array = field(default_factory=lambda: array('q'))
    rain_intensity: array = field(default_factory=lambda: array('d'))
    mask_coverage: array = field(default_factory=lambda: array('d'))

    def add(self, time: int, stamp: int, response: float, coverage: float) -> None:
        """Add a frame; ``response`` is from :func:`derain_ros.rain_gate.mask_response`."""
        intensity = response
        if self.time:
            elapsed = max(0, time - self.time[-1]) / 1e9
            if elapsed <= FORGET_SECONDS:
                # The same smoothing as in an open rain gate.
                before = self.rain_intensity[-1]
                intensity = before - math.expm1(-elapsed / FAST_SECONDS) * (response - before)
        self.time.append(min(time, 2**63 - 1))
        self.stamp.append(stamp)
        self.rain_intensity.append(intensity)
        self.mask_coverage.append(coverage)


@dataclass
class BagSummary:
    """The result of :func:`make_bag`.

    ``messages`` were copied from the source, and the new bag has ``written`` in all. By image
    topic, ``made`` counts the frames derained, or rendered with rain, and ``failed`` those that
    failed, the first of which are in ``bad_frames``; ``frames`` describes each derained frame. The
    source lacks the definitions of ``undefined_types``, and messages lost in its ``damages`` are
    not in the new bag; ``notes``, printable, are for the user. Of the ``segments``, an earlier,
    interrupted run had finished ``resumed_segments``, which contain ``resumed_frames``.
    """

    messages: int = 0
    written: int = 0
    made: Counter = field(default_factory=Counter)
    failed: Counter = field(default_factory=Counter)
    bad_frames: list[BadFrame] = field(default_factory=list)
    frames: dict[str, CameraFrames] = field(default_factory=dict)
    undefined_types: list[str] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resumed_segments: int = 0
    resumed_frames: int = 0
    segments: int = 0


def make_bag(
    plan: BagPlan, maker: Maker, *, options: Mapping[str, Any], pool: Pool | None = None,
    progress: Callable[[int], Any] = lambda count: None,
    resumed: Callable[[int], Any] = lambda count: None
) -> BagSummary:
    """Write the bag that ``plan`` describes, or resume where an interrupted run stopped.

    Every message of the source is copied unchanged. The destination appears only when the bag is
    complete; until then the work is kept in ``<destination>.partial``.

    ``maker`` processes the frames; ``options`` lists, under the names that users know, what the
    result depends on besides the plan. The segments are processed by the workers of ``pool``, or
    in this process without one. ``resumed`` is called first, with the number of frames done by an
    earlier run, then ``progress`` with the number of frames done since its last call.

    Raises BagError if ``<destination>.partial`` holds the work of a different run, or the
    destination cannot be written, and EngineError if the engine fails.
    """
    threads = cv2.getNumThreads()
    # The engine uses all cores; idle OpenCV threads would get in its way.
    cv2.setNumThreads(1)
    try:
        place = Workplace(plan.destination)
        with place.locked():
            making = Making(plan, maker, place)
            try:
                place.claim(making.fingerprint(options))
                return making.run(pool, progress, resumed)
            except (OSError, sqlite3.Error) as error:
                raise BagError(making.explain(error)) from error
    finally:
        cv2.setNumThreads(threads)


class Making:
    """Makes one bag: has its segments processed, and assembles them."""

    def __init__(self, plan: BagPlan, maker: Maker, place: Workplace):
        self._plan, self._maker, self._place = plan, maker, place
        self._result: Any = None
        self._count = len(plan.boundaries) - 1
        self._messages = place.path / f'messages{_SUFFIXES[plan.storage]}'

    def run(
        self, pool: Pool | None, progress: Callable[[int], Any], resumed: Callable[[int], Any]
    ) -> BagSummary:
        """Process the segments that are left, and finish the bag; see :func:`make_bag`."""
        place = self._place
        with self._plan.open() as recording:
            self._layout = Layout(self._plan, recording)
            if place.finished:
                summary = self._sum_up(recording, list(load_records(place.records)))
                summary.resumed_segments = self._count
                summary.resumed_frames = summary.made.total() + summary.failed.total()
                place.remove()
                return summary
            place.unpublish()
            with closing(self._open()) as self._result:
                self.append()
                before = [*self._result.records, *map(place.record_of, place.pending().values())]
                frames = sum(record.frames for record in before)
                resumed(frames)
                if pool is None:
                    self._work_here(recording, progress)
                else:
                    self._work_there(pool, progress)
                if pool is None or not pool.remote:
                    summary = self._finish(recording)
            if pool is not None and pool.remote:
                summary = pool.call(finish, self._plan.absolute(), place.bodies)
            summary.resumed_segments, summary.resumed_frames = len(before), frames
            return summary

    def assemble(self) -> BagSummary:
        """Append the segments, all of which must be there, and finish the bag."""
        with self._plan.open() as recording:
            self._layout = Layout(self._plan, recording)
            with closing(self._open()) as self._result:
                self.append()
                return self._finish(recording)

    def fingerprint(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything that the result depends on, under the names that users know."""
        plan = self._plan
        return {
            'files of the bag': plan.files, **options,
            'topics': [camera.source for camera in plan.cameras],
            '--storage': plan.storage, 'compression': plan.compression.name,
            '--start': plan.start_s, '--duration': plan.duration_s, '--every': plan.every,
            'segments': [self._count, digest_of(plan.boundaries)],
            'version of derain_ros': __version__,
        }

    def _open(self) -> Any:
        """Open the result; a bag that was assembled but not published is taken apart first."""
        bag = self._place.path / 'bag'
        moved = bag / self._name
        if moved.exists() and not self._messages.exists():
            moved.replace(self._messages)
        shutil.rmtree(bag, ignore_errors=True)
        make = McapResult if self._plan.storage == 'mcap' else SqliteResult
        return make(self._messages, self._place.records, self._layout.topics,
                    self._plan.packs_chunks)

    @property
    def _name(self) -> str:
        name = self._place.destination.absolute().name
        try:
            name.encode()
        except UnicodeEncodeError:
            name = 'bag'  # metadata.yaml is UTF-8
        return f'{name}{self._messages.suffix}'

    def append(self) -> int:
        """Append finished segments to the result, in order; return the number of the next one."""
        pending, done = self._place.pending(), self._result.records
        for number, body in pending.items():
            if number < len(done):  # left by a run that was killed before deleting it
                self._place.drop(body)
        while (body := pending.get(len(done))) is not None:
            try:
                record = self._place.record_of(body)
            except (OSError, ValueError, TypeError):
                self._place.drop(body)
                break
            self._result.append(body, record)
            self._place.drop(body)
        return len(done)

    def _work_here(self, recording: Recording, progress: Callable[[int], Any]) -> None:
        with self._maker.opened() as maker:
            while (done := self.append()) < self._count:
                left = range(done, min(self._place.pending(), default=self._count))
                Pipeline(recording, self._plan, self._layout, maker, self._result).run(
                    left, progress)

    def _work_there(self, pool: Pool, progress: Callable[[int], Any]) -> None:
        place, there = self._place, self._place.pending()
        for old in place.bodies.glob('*.tmp'):
            old.unlink()
        left = [number for number in range(len(self._result.records), self._count)
                if number not in there]
        for frames in pool.work(self._plan.absolute(), self._maker, left, place.bodies):
            progress(frames)
            if not pool.remote:
                self.append()

    def _finish(self, recording: Recording) -> BagSummary:
        plan, place = self._plan, self._place
        if len(self._result.records) < self._count:
            raise BagError(f'{place.path}: segments are missing; run the same command again to '
                           'make them')
        total = SegmentRecord.total(self._result.records)
        summary = self._sum_up(recording, self._result.records)
        packed = {CompressionMode.FILE: 'file', CompressionMode.MESSAGE: 'message'}.get(
            plan.compression, '')
        name = f'{self._name}.zstd' if packed == 'file' else self._name

        def metadata(of: str) -> str:
            return metadata_text(
                of, plan.storage, packed, self._layout.topics, total, recording.custom_data)

        # The metadata inside the storage file has a fixed file name, as folders get renamed: so
        # the bytes of the file do not depend on its name.
        inner = metadata(f'bag{self._messages.suffix}')
        self._result.finish(
            '\n'.join(line[2:] for line in inner.splitlines()[1:]), total, recording.kept())
        bag = place.path / 'bag'
        bag.mkdir()
        if packed == 'file':
            with self._messages.open('rb') as plain, zstd.open(bag / name, 'wb') as out:
                shutil.copyfileobj(plain, out, 1 << 20)
        else:
            self._messages.replace(bag / name)
        with (bag / name).open('rb') as stream:
            os.fsync(stream.fileno())
        replace_file(bag / 'metadata.yaml', metadata(name))
        place.publish(bag)
        place.remove()
        return summary

    def _sum_up(self, recording: Recording, records: Sequence[SegmentRecord]) -> BagSummary:
        plan = self._plan
        summary = BagSummary(
            undefined_types=self._layout.undefined_types, segments=self._count,
            notes=list(recording.notes),
            frames={camera.source: CameraFrames() for camera in plan.cameras})
        if plan.storage == 'sqlite3' and (kept := [index.name for index, _ in recording.kept()]):
            summary.notes.append(
                f'{", ".join(kept)}: an sqlite3 bag has no place for attachments and metadata '
                'records; write it with --storage mcap to keep them')
        counts, damages = SegmentRecord.total(records).counts, list(recording.damages)
        for record in records:
            damages += [Damage(**damage) for damage in record.damages]
            for number, found in record.figures.items():
                source = plan.cameras[int(number)].source
                summary.made[source] += found['made']
                summary.failed[source] += found['failed']
                room = KEPT_REASONS - sum(bad.topic == source for bad in summary.bad_frames)
                summary.bad_frames += [
                    BadFrame(source, when, reason) for when, reason in found['failures'][:room]]
                for frame in zip(found['time'], found['stamp'], found['response'],
                                 found['coverage'], strict=True):
                    summary.frames[source].add(*frame)
        # A damaged chunk may reach into several segments.
        places = {(damage.file, damage.offset, damage.reason): damage for damage in damages}
        summary.damages = sorted(
            places.values(), key=lambda damage: (damage.file, damage.offset or 0))
        kept = set(self._layout.kept.values())
        summary.messages = sum(count for topic, count in counts.items() if topic in kept)
        summary.written = counts.total()
        if (all(damage.lost is None for damage in summary.damages)
                and plan.start_s is None and plan.duration_s is None):
            missing = recording.missing(self._layout.kept, counts)
            summary.damages += [missing] if missing else []
        return summary

    def explain(self, error: Exception) -> str:
        """Return a message for a write error, which says what to do."""
        text = f'{self._place.destination}: cannot be written ({error})'
        if getattr(error, 'errno', None) not in FULL and 'full' not in str(error):
            return text
        done = free = needed = 0
        with suppress(OSError):
            done = sum(1 for _ in load_records(self._place.records))
            free = shutil.disk_usage(self._place.path).free
            size = self._messages.stat().st_size
            needed = size * (self._count - done) // done if done else 0
        more = f', about {needed / 1e9:.1f} GB more are needed' if needed else ''
        return (f'{text}: {done} of {self._count} segments are written{more}, {free / 1e9:.1f} GB '
                'are free; make room, then run the same command again to resume')


def finish(plan: BagPlan, bodies: Path) -> BagSummary:
    """Finish a bag whose segments are all done; another process holds the workplace lock."""
    place = Workplace(plan.destination)
    place.bodies = bodies
    return Making(plan, None, place).assemble()
