"""Derain a recorded rosbag2: the same bag, with derained images and rain masks added.

The bag is read in recorded order and without a clock, in segments of time that depend on the
bag alone, so that two runs give the same bytes, interrupted or not, by one process or several.
What the storage says beside the messages is carried over as far as rosbags knows it: topic,
type, definition, QoS and the time of recording; the publish time of an MCAP file is set to the
time of recording.
"""

import errno
import os
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import cv2
from rosbags.interfaces import Connection, QosDurability
from rosbags.rosbag2 import CompressionMode

from derain_ros import __version__
from derain_ros.bags.bag_summary import BadFrame, BagSummary, CameraFrames
from derain_ros.bags.chunks import Totals, load_records, save_text
from derain_ros.bags.copies import TopicCopier, TopicList
from derain_ros.bags.damage import BagError, DamageError
from derain_ros.bags.metadata import metadata_text
from derain_ros.bags.plan import BagPlan, plan_bag
from derain_ros.bags.recording import Recording
from derain_ros.bags.results import McapResult, SqliteResult
from derain_ros.bags.segment_work import (
    KEPT_REASONS,
    TRANSFORMS,
    BagWork,
    CameraWork,
    Pipeline,
)
from derain_ros.bags.segments import Workplace, digest_of
from derain_ros.bags.topics import COMPRESSED_IMAGE, IMAGE, image_definition, image_qos
from derain_ros.bags.workers import run_workers
from derain_ros.engines import Engine
from derain_ros.engines.model_facts import model_facts
from derain_ros.engines.models import ModelError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ['BagPlan', 'BagSummary', 'derain_bag', 'plan_bag']

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_STATIC_TRANSFORMS = '/tf_static'


def derain_bag(
    plan: BagPlan,
    engine: Engine,
    *,
    mask: bool = True,
    strength: float = 1.0,
    workers: int = 1,
    progress: Callable[[int], Any] = lambda count: None,
    resumed: Callable[[int], Any] = lambda count: None,
) -> BagSummary:
    """Write the bag that ``plan`` describes, or go on where an interrupted run stopped.

    Every message of the source is kept as it is. Each image that can be derained is
    followed, at the same bag time and with its own header, by ``<namespace>/image`` and,
    if ``mask``, ``<namespace>/rain_mask``. One that cannot be is counted and left out.
    The destination appears at the end, whole, or not at all; until then the work lies in
    ``<destination>.partial``.

    Parameters
    ----------
    plan
        From :func:`plan_bag`.
    engine
        The derainer.
    mask
        Add the rain masks.
    strength
        Share of the derained image in the result, 0–1.
    workers
        Processes; with 1, this one. Others make engines of their own, like ``engine``.
    progress
        Called with the number of frames done since the last call.
    resumed
        Called first with the number of frames that an earlier run had done.

    Raises
    ------
    BagError
        The work in ``<destination>.partial`` is that of another run, the source is damaged in
        a way that leaves nothing to go on with, the destination cannot be written, or a worker
        died.
    EngineError
        The engine failed.

    """
    threads = cv2.getNumThreads()
    # The engine has the cores; threads of OpenCV would wait for work in its way.
    cv2.setNumThreads(1)
    try:
        with Workplace(plan.destination) as place:
            making = _Making(plan, engine, place, mask, strength, workers)
            try:
                return making.run(progress, resumed)
            except (OSError, sqlite3.Error) as error:
                raise BagError(making.explain(error)) from error
    finally:
        cv2.setNumThreads(threads)


class _Making:
    """One bag in the making: its topics on both sides, and the way from segments to a bag."""

    def __init__(
        self, plan: BagPlan, engine: Engine, place: Workplace, mask: bool, strength: float,
        workers: int
    ):
        self._plan = plan
        self._engine = engine
        self._place = place
        self._mask = mask
        self._strength = strength
        self._workers = workers
        self._result: Any = None
        self._count = len(plan.boundaries) - 1

    def run(
        self, progress: Callable[[int], Any], resumed: Callable[[int], Any]
    ) -> BagSummary:
        plan, place = self._plan, self._place
        place.claim(self._fingerprint())
        scan = plan.scan or place.damaged
        before: tuple[int, int] | None = None
        while True:
            with Recording(plan.source, place.scratch, scan=scan) as recording:
                self._set_topics(recording)
                if place.finished:
                    summary = self._sum_up(recording, Totals())
                    summary.resumed_segments = self._count
                    summary.resumed_frames = summary.derained.total() + summary.failed.total()
                    place.remove()
                    return summary
                place.unpublish()
                self._recover()
                with closing(self._open()) as self._result:
                    self._append()
                    if before is None:
                        before = self._result.done + len(place.pending()), self._frames_done()
                        resumed(before[1])
                    try:
                        self._work(recording, scan, progress)
                    except DamageError as error:
                        self._result.settle()
                        if scan:
                            raise BagError(f'{plan.source}: cannot be read ({error})') from error
                        place.set_damaged(self._result.done)
                        scan = True
                        continue
                    summary = self._finish(recording)
                summary.resumed_segments, summary.resumed_frames = before
                return summary

    def _fingerprint(self) -> dict[str, Any]:
        plan, info = self._plan, self._engine.info
        try:
            model = model_facts(info.model, self._engine).sha256
        except (ModelError, OSError):
            model = None
        return {
            'files of the bag': plan.files,
            'model': info.model, 'sha256 of the model': model, 'engine': info.engine,
            'device': info.device, 'precision': info.precision,
            '--strength': self._strength, 'rain masks': self._mask,
            'topics': [camera.source for camera in plan.cameras],
            '--storage': plan.storage, 'compression': plan.compression.name,
            '--start': plan.start_s, '--duration': plan.duration_s, '--every': plan.every,
            'segments': [self._count, digest_of(plan.boundaries)],
            'version of derain_ros': __version__,
        }

    def _set_topics(self, recording: Recording) -> None:
        plan, topics = self._plan, TopicList()
        copier = TopicCopier(topics)
        self._kept = {
            connection.id: copier.copy(connection).id for connection in recording.connections}
        self._undefined = copier.undefined_types
        definition, digest = image_definition(recording.connections)
        outputs = {}
        for camera in plan.cameras:
            names = [camera.image] + ([camera.rain_mask] if self._mask else [])
            outputs[camera.source] = tuple(
                topics.add_connection(
                    name, IMAGE, msgdef=definition, rihs01=digest,
                    offered_qos_profiles=[image_qos()]).id
                for name in names)
        numbers = {camera.source: number for number, camera in enumerate(plan.cameras)}
        self._cameras = {
            connection.id: CameraWork(
                numbers[connection.topic], connection.msgtype, outputs[connection.topic],
                plan.before.get(connection.id, ()))
            for connection in recording.connections
            if connection.topic in numbers and connection.msgtype in (IMAGE, COMPRESSED_IMAGE)}
        self._topics = topics.connections

    @property
    def _messages(self) -> Path:
        suffix = '.mcap' if self._plan.storage == 'mcap' else '.db3'
        return self._place.path / f'messages{suffix}'

    @property
    def _bag(self) -> Path:
        return self._place.path / 'bag'

    @property
    def _name(self) -> str:
        return f'{self._place.destination.absolute().name}{self._messages.suffix}'

    def _recover(self) -> None:
        """Take apart a bag that was put together and not given its name."""
        moved = self._bag / self._name
        if moved.exists() and not self._messages.exists():
            moved.replace(self._messages)
        shutil.rmtree(self._bag, ignore_errors=True)

    def _open(self) -> Any:
        make = McapResult if self._plan.storage == 'mcap' else SqliteResult
        compress = self._plan.compression == CompressionMode.STORAGE
        return make(self._messages, self._place.records, self._topics, compress)

    def _append(self) -> int:
        """Put the segments into the result that are due; return the number of the next."""
        pending = self._place.pending()
        for number, body in pending.items():
            if number < self._result.done:  # left by a run that was killed before deleting it
                self._place.drop(body)
        while (body := pending.get(self._result.done)) is not None:
            try:
                record = self._place.record_of(body)
            except (OSError, ValueError, TypeError):
                self._place.drop(body)
                break
            self._result.append(body, record)
            self._result.settle()
            self._place.drop(body)
        return self._result.done

    def _frames_done(self) -> int:
        records = [*load_records(self._place.records),
                   *map(self._place.record_of, self._place.pending().values())]
        return sum(camera['derained'] + camera['failed']
                   for record in records for camera in record.figures.values())

    def _work(self, recording: Recording, scan: bool, progress: Callable[[int], Any]) -> None:
        plan = self._plan
        latched, transforms = _latched(recording.connections)
        work = BagWork(
            source=plan.source, scratch=self._place.scratch, boundaries=plan.boundaries,
            kept=self._kept, cameras=self._cameras,
            latched=latched if plan.start_s else frozenset(), transforms=transforms,
            every=plan.every, strength=self._strength,
            pack=plan.compression == CompressionMode.MESSAGE, scan=scan)
        if self._workers == 1:
            while (done := self._append()) < self._count:
                left = range(done, min(self._place.pending(), default=self._count))
                Pipeline(recording, work, self._engine, self._result).run(left, progress)
                self._result.settle()
            return
        for old in self._place.bodies.glob('*.tmp'):
            old.unlink()
        pending = self._place.pending()
        left = [number for number in range(self._result.done, self._count)
                if number not in pending]
        if left:
            run_workers(
                work, self._engine.info, left, self._workers, self._place.bodies,
                plan.compression == CompressionMode.STORAGE and plan.storage == 'mcap',
                self._append, progress)
        self._append()

    def _finish(self, recording: Recording) -> BagSummary:
        plan, place = self._plan, self._place
        totals = Totals()
        for record in load_records(place.records):
            totals.add(record)
        summary = self._sum_up(recording, totals)
        packed = {CompressionMode.FILE: 'file', CompressionMode.MESSAGE: 'message'}.get(
            plan.compression, '')
        name = f'{self._name}.zstd' if packed == 'file' else self._name
        metadata = metadata_text(name, plan.storage, packed, self._topics, totals)
        # The copy within the storage file has a name of no meaning, as folders are renamed: so
        # the file is the same bytes whatever it is called.
        inner = metadata_text(
            f'bag{self._messages.suffix}', plan.storage, packed, self._topics, totals)
        self._result.finish('\n'.join(line[2:] for line in inner.splitlines()[1:]))
        self._bag.mkdir()
        if packed == 'file':
            with self._messages.open('rb') as plain, zstd.open(self._bag / name, 'wb') as out:
                shutil.copyfileobj(plain, out, 1 << 20)
        else:
            self._messages.replace(self._bag / name)
        with (self._bag / name).open('rb') as stream:
            os.fsync(stream.fileno())
        save_text(self._bag / 'metadata.yaml', metadata)
        place.publish(self._bag)
        place.remove()
        return summary

    def _sum_up(self, recording: Recording, totals: Totals) -> BagSummary:
        plan = self._plan
        summary = BagSummary(
            undefined_types=self._undefined, damages=list(recording.damages),
            frames={camera.source: CameraFrames() for camera in plan.cameras},
            segments=self._count)
        counts: Counter = Counter()
        for record in load_records(self._place.records):
            counts.update(record.counts)
            for number, found in record.figures.items():
                source = plan.cameras[int(number)].source
                summary.derained[source] += found['derained']
                summary.failed[source] += found['failed']
                room = KEPT_REASONS - sum(bad.topic == source for bad in summary.bad_frames)
                summary.bad_frames += [
                    BadFrame(source, when, reason) for when, reason in found['failures'][:room]]
                for frame in zip(found['time'], found['stamp'], found['response'],
                                 found['coverage'], strict=True):
                    summary.frames[source].add(*frame)
        kept = set(self._kept.values())
        summary.messages = sum(count for topic, count in counts.items() if topic in kept)
        summary.written = counts.total()
        if not summary.damages and plan.start_s is None and plan.duration_s is None:
            missing = recording.missing(self._read_counts(recording, counts))
            summary.damages += [missing] if missing else []
        return summary

    def _read_counts(self, recording: Recording, counts: Counter) -> Counter:
        """Return how many messages were read, by id of the connection."""
        shared: dict[int, list[Connection]] = {}
        for connection in recording.connections:
            shared.setdefault(self._kept[connection.id], []).append(connection)
        read: Counter = Counter()
        for topic, connections in shared.items():
            whole = counts[topic] >= sum(one.msgcount for one in connections)
            for connection in connections:
                read[connection.id] = connection.msgcount
                if not whole or len(connections) == 1:
                    read[connection.id] = counts[topic]
        return read

    def explain(self, error: Exception) -> str:
        """Say what to do about an error of writing."""
        destination = self._place.destination
        full = getattr(error, 'errno', None) in _FULL or 'full' in str(error)
        text = f'{destination}: cannot be written ({error})'
        if not full:
            return text
        done = 0
        with suppress(OSError):
            done = sum(1 for _ in load_records(self._place.records))
        free = needed = 0
        with suppress(OSError):
            free = shutil.disk_usage(self._place.path).free
            size = self._messages.stat().st_size
            needed = size * (self._count - done) // done if done else 0
        more = f', about {needed / 1e9:.1f} GB more are needed' if needed else ''
        return (f'{text}: {done} of {self._count} segments are written{more}, '
                f'{free / 1e9:.1f} GB are free; make room, and the same command goes on')


def _latched(connections: Sequence[Connection]) -> tuple[frozenset[int], frozenset[int]]:
    """Return the connections that late subscribers get too, and those with transforms."""
    latched, transforms = set(), set()
    for connection in connections:
        durable = any(qos.durability == QosDurability.TRANSIENT_LOCAL
                      for qos in connection.ext.offered_qos_profiles)
        if durable or connection.topic == _STATIC_TRANSFORMS:
            latched.add(connection.id)
            if connection.msgtype == TRANSFORMS:
                transforms.add(connection.id)
    return frozenset(latched), frozenset(transforms)
