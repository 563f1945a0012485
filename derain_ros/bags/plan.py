"""Plan what to make of a bag and where to write it, and check this before any work is done."""

import shutil
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import CompressionMode

from derain_ros.bags.damage import BagError, show_time
from derain_ros.bags.frames import why_no_picture
from derain_ros.bags.recording import EVER, Recording
from derain_ros.bags.topics import CameraTopics, choose_cameras, dry_topic, image_topics
from derain_ros.bags.workplace import SCRATCH, check_workplace, file_facts, partial_of
from derain_ros.text import printable

Choice = tuple[tuple[CameraTopics, ...], list[str]]
"""Topics to process, and notes for the user."""

SEGMENT_FRAMES = 128
"""Number of frames in a segment of a long bag."""
FEWEST_SEGMENTS = 16
"""Minimum number of segments of a short bag, as far as FEWEST_FRAMES per segment allows."""
FEWEST_FRAMES = 8

_SHOWN = 5


@dataclass(frozen=True)
class BagPlan:
    """What :func:`derain_ros.bags.making.make_bag` is going to do.

    The ``source`` has ``message_count`` messages and ``files`` (name, size, modification time of
    each). Every ``every``-th frame of each of ``cameras`` is processed, ``frame_count`` in all, of
    the requested range, ``start_s`` and ``duration_s`` in seconds, None for no limit. ``storage``
    is ``mcap`` or ``sqlite3``. ``boundaries`` are the times, ns, between segments, including start
    of the first and end of the last; ``before`` is the number of frames before each segment, by
    connection id, empty if ``every`` is 1. ``notes``, printable, are for the user.
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
    notes: tuple[str, ...] = ()
    boundaries: tuple[int, ...] = ()
    before: dict[int, tuple[int, ...]] = field(default_factory=dict)
    files: tuple = ()
    source_storage: str = 'mcap'

    @property
    def packs_chunks(self) -> bool:
        """Whether the chunks of the new bag are compressed with zstd."""
        return self.storage == 'mcap' and self.compression == CompressionMode.STORAGE

    def open(self) -> Recording:
        """Open the source; copies of its files go to the folder of the unfinished bag."""
        return Recording(self.source, partial_of(self.destination) / SCRATCH)

    def absolute(self) -> 'BagPlan':
        """Return the plan with absolute paths, for other processes."""
        return replace(self, source=self.source.absolute(),
                       destination=self.destination.absolute())


def plan_bag(
    source: Path, destination: Path, *, topics: Sequence[str] | None = None,
    storage: str | None = None, compress: bool = False, start: float | None = None,
    duration: float | None = None, every: int = 1,
    choose: 'Callable[[Recording, Sequence[str] | None], Choice] | None' = None
) -> BagPlan:
    """Check a request and plan the work, before any of it is done.

    ``source`` is a rosbag2 folder, or a bare ``.mcap`` or ``.db3`` file; it may be damaged.
    ``destination`` is the folder to create, and must not exist. ``topics`` are image topics, with
    or without ``/compressed``; None takes all that hold camera images. ``storage`` is ``mcap`` or
    ``sqlite3``, None for the source's; ``compress`` uses zstd, on the chunks of MCAP or the
    messages of sqlite3: without it, file or message compression is taken over from the source.
    ``start`` and ``duration`` are the time range to take, in seconds from the beginning of the
    bag, of which every ``every``-th frame of each camera is processed. ``choose`` chooses the
    cameras, None for :func:`choose_to_derain`.

    Raises BagError if the source cannot be read, the destination exists, or a topic is invalid.
    """
    check_workplace(destination)
    scratch = partial_of(destination) / SCRATCH
    fresh = not scratch.parent.exists()
    try:
        with Recording(source, scratch) as recording:
            cameras, notes = (choose or choose_to_derain)(recording, topics)
            chosen = storage or recording.storage
            packed = (CompressionMode.MESSAGE if chosen == 'sqlite3' else CompressionMode.STORAGE
                      ) if compress else recording.compression
            begin, end = _stretch(recording, start, duration)
            images = recording.images_of({camera.source for camera in cameras})
            times = {one: _sorted(found) for one, found in recording.times(
                [image.id for image in images]).items()}
            firsts = [int(of[0]) for of in times.values() if len(of)]
            # Times above the greatest int64 count as that one.
            last = 2**63 - 1 if end > 2**63 - 1 else max(end, 1) - 1
            inside = {one: of[(of >= begin) & (of <= last)] for one, of in times.items()}
            notes += _strange_times(recording)
            filled = {image.topic for image in images if len(times[image.id])}
            notes += [printable(f'there is no frame on {camera.source}; its new topics stay empty')
                      for camera in cameras if camera.source not in filled]
            if firsts and not any(map(len, inside.values())):
                notes.append(
                    'there is no frame in the requested range; the bag begins at '
                    f'{show_time(recording.start_time)}, its first frame is from '
                    f'{show_time(min(firsts))}')
            boundaries = divide(begin, end, list(inside.values()))
            return BagPlan(
                source=source, destination=destination, cameras=cameras, storage=chosen,
                compression=packed, message_count=recording.message_count,
                frame_count=sum(-(-len(of) // every) for of in inside.values()),
                start_s=start, duration_s=duration, every=every, notes=tuple(notes),
                boundaries=boundaries, before={} if every == 1 else {
                    one: tuple(map(int, np.searchsorted(of, boundaries[:-1])))
                    for one, of in inside.items()},
                files=tuple(file_facts(source)), source_storage=recording.storage)
    except BagError:
        if fresh:
            shutil.rmtree(scratch.parent, ignore_errors=True)
        raise


def choose_to_derain(recording: Recording, topics: Sequence[str] | None) -> Choice:
    """Choose what to derain: without ``topics``, all cameras except ground truth and depth.

    Raises BagError if a name is not an image topic, or no image topic can be derained.
    """
    if topics is not None:
        return choose_cameras(recording.topics, topics, recording.source), []
    images = image_topics(recording.topics, recording.source)
    truths = {dry_topic(topic) for topic in images}.intersection(images)
    notes = [printable(f'{topic} is the ground truth of a rainy topic and is not derained; to '
                       'derain it too, name it with --topics')
             for topic in images if topic in truths]
    reasons = {topic: why_no_picture(recording, topic) for topic in images if topic not in truths}
    chosen = [topic for topic, reason in reasons.items() if not reason]
    left = {topic: reason for topic, reason in reasons.items() if reason}
    if left and not chosen:
        raise BagError(f'{recording.source}: no image topic can be derained (' + '; '.join(
            f'{topic}: {reason}' for topic, reason in left.items()) + ')')
    notes += [printable(f'{topic} is left alone: {reason}') for topic, reason in left.items()]
    return choose_cameras(recording.topics, chosen, recording.source), notes


def _strange_times(recording: Recording) -> list[str]:
    """Return notes on messages with impossible times, which are kept all the same."""
    notes = []
    for start, stop in ((EVER[0], 0), (2**63, EVER[1])):
        if recording.end_time < start or recording.start_time >= stop:
            continue
        for count, (number, time, *_) in enumerate(recording.messages(start, stop)):
            if count == _SHOWN:
                notes.append('more messages have such times')
                break
            notes.append(printable(
                f'a message on {recording.connections[number - 1].topic} has the impossible time '
                f'{time} ns; it is kept'))
    return notes


def _stretch(recording: Recording, start: float | None, duration: float | None) -> tuple[int, int]:
    """Return start and end (exclusive) of the time range asked for, ns."""
    begin, end = recording.start_time, recording.end_time + 1
    if start is not None:
        begin += round(start * 1e9)
        if begin >= end:
            raise BagError(
                f'{recording.source}: lasts {(end - recording.start_time) / 1e9:.1f} s, and is to '
                f'be taken from {start:g} s on; choose an earlier --start')
    if duration is not None:
        end = min(end, begin + round(duration * 1e9))
    return begin, end


def _sorted(times: array) -> np.ndarray:
    return np.sort(np.minimum(np.frombuffer(times, times.typecode), 2**63 - 1).astype(np.int64))


def divide(start: int, stop: int, times: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Divide a time range into segments with about the same number of frames each.

    ``times`` are those of the frames of each camera, ns. Returns the boundaries of the segments,
    ns, including ``start`` and ``stop``.
    """
    inside = np.sort(np.concatenate([np.empty(0, np.int64), *times]))
    inside = inside[(inside >= start) & (inside < stop)]
    frames = min(SEGMENT_FRAMES, max(FEWEST_FRAMES, -(-len(inside) // FEWEST_SEGMENTS)))
    inner = sorted({int(time) for time in inside[frames::frames]} - {start})
    return (start, *inner, stop)
