"""What to derain of a bag, and where to write it, checked before any work is done."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import CompressionMode

from derain_ros.bags.copies import check_storage
from derain_ros.bags.damage import BagError, DamageError
from derain_ros.bags.recording import Recording
from derain_ros.bags.segments import check_workplace, divide, file_facts, partial_of
from derain_ros.bags.topics import (
    COMPRESSED_IMAGE,
    IMAGE,
    CameraTopics,
    choose_cameras,
    dry_topic,
)


@dataclass(frozen=True)
class BagPlan:
    """What :func:`derain_bag` is going to do.

    Attributes
    ----------
    source, destination
        The bag to read, and the folder to write.
    cameras
        Image topics to derain.
    storage
        ``mcap`` or ``sqlite3``.
    compression
        How the bag to be written is compressed.
    message_count
        Messages in the source.
    frame_count
        Frames to derain.
    start_s, duration_s
        The stretch to take, seconds, as it was asked for; None for all of it.
    every
        Derain every so manieth frame of each camera.
    truths
        Image topics that are left alone as they are the truth of others.
    boundaries
        Times between the segments, ns.
    before
        Frames ahead of each segment, by id of the connection; empty where ``every`` is 1.
    files
        Name, size and time of change of each file of the source.
    scan
        The index of the source is not to be relied on.
    source_storage
        Storage of the source.

    """

    source: Path
    destination: Path
    cameras: tuple[CameraTopics, ...]
    storage: str
    compression: CompressionMode
    message_count: int
    frame_count: int
    start_s: float | None = None
    duration_s: float | None = None
    every: int = 1
    truths: tuple[str, ...] = ()
    boundaries: tuple[int, ...] = ()
    before: dict[int, tuple[int, ...]] = field(default_factory=dict)
    files: tuple = ()
    scan: bool = False
    source_storage: str = 'mcap'


def plan_bag(
    source: Path,
    destination: Path,
    *,
    topics: list[str] | None = None,
    storage: str | None = None,
    compress: bool = False,
    start: float | None = None,
    duration: float | None = None,
    every: int = 1,
    segment_frames: int | None = None,
) -> BagPlan:
    """Check a request before any work is done.

    Parameters
    ----------
    source
        A rosbag2 folder, or a bare ``.mcap`` or ``.db3`` file; it may be damaged.
    destination
        Folder to make; it must not exist.
    topics
        Image topics to derain, with or without ``/compressed``; None takes all but those
        that `derain rain` has put beside their rainy topics.
    storage
        ``mcap`` or ``sqlite3``; None takes the source's.
    compress
        Write zstd: the chunks of mcap, the messages of sqlite3. Without it whole files or
        messages are compressed if they are so in the source.
    start, duration
        The stretch to take, in seconds from the beginning of the bag; None for all of it.
    every
        Derain every so manieth frame of each camera, from the first of the stretch on.
    segment_frames
        Frames after which the work can be gone on with; None for a number that suits the bag.

    Raises
    ------
    BagError
        The source cannot be read, the destination exists, or the topics do not fit.

    """
    check_workplace(destination)
    scratch = partial_of(destination) / 'source'
    fresh = not scratch.parent.exists()
    try:
        with Recording(source, scratch) as recording:
            try:
                plan = _plan(recording, source, destination, topics, storage, compress)
                return _divided(plan, recording, start, duration, every, segment_frames)
            except DamageError:
                pass
        with Recording(source, scratch, scan=True) as recording:
            plan = _plan(recording, source, destination, topics, storage, compress)
            plan = replace(plan, scan=True)
            return _divided(plan, recording, start, duration, every, segment_frames)
    except DamageError as error:
        raise BagError(f'{source}: cannot be read ({error})') from error
    except BagError:
        if fresh:
            shutil.rmtree(scratch.parent, ignore_errors=True)
        raise


def _plan(
    recording: Recording, source: Path, destination: Path, topics: list[str] | None,
    storage: str | None, compress: bool
) -> BagPlan:
    chosen = storage or recording.storage
    check_storage(destination, chosen)
    compression = recording.compression
    if compress:
        compression = CompressionMode.STORAGE
        if chosen == 'sqlite3':
            compression = CompressionMode.MESSAGE
    listed = [(connection.topic, connection.msgtype) for connection in recording.connections]
    images = {topic for topic, msgtype in listed if msgtype in (IMAGE, COMPRESSED_IMAGE)}
    truths = tuple(sorted({dry_topic(topic) for topic in images} & images))
    selection = topics
    if topics is None and truths:
        selection = [topic for topic, msgtype in listed
                     if topic in images and topic not in truths]
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return BagPlan(
        source=source, destination=destination, cameras=choose_cameras(listed, selection),
        storage=chosen, compression=compression, message_count=recording.message_count,
        frame_count=0, truths=truths if topics is None else (),
        files=tuple(file_facts([path for path in files if path.is_file()])),
        source_storage=recording.storage)


def _divided(
    plan: BagPlan, recording: Recording, start: float | None, duration: float | None,
    every: int, segment_frames: int | None
) -> BagPlan:
    begin, end = recording.start_time, recording.end_time + 1
    if start is not None:
        begin += round(start * 1e9)
        if begin >= end:
            raise BagError(
                f'{plan.source}: lasts {(end - recording.start_time) / 1e9:.1f} s, and is to be '
                f'taken from {start:g} s on; choose an earlier --start')
    if duration is not None:
        end = min(end, begin + round(duration * 1e9))
    topics = {camera.source for camera in plan.cameras}
    times = {
        connection: np.frombuffer(found, np.int64) if found else np.empty(0, np.int64)
        for connection, found in recording.times([
            connection.id for connection in recording.connections
            if connection.topic in topics and connection.msgtype in (IMAGE, COMPRESSED_IMAGE)
        ]).items()}
    times = {connection: np.sort(found[(found >= begin) & (found < end)])
             for connection, found in times.items()}
    boundaries = divide(begin, end, list(times.values()), segment_frames)
    before = {}
    if every > 1:
        before = {
            connection: tuple(int(count) for count in np.searchsorted(found, boundaries[:-1]))
            for connection, found in times.items()}
    return replace(
        plan, start_s=start, duration_s=duration, every=every, boundaries=boundaries,
        before=before, frame_count=sum(-(-len(found) // every) for found in times.values()))
