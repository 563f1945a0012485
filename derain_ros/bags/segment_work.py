"""Work on segments of a bag: one thread reads and decodes, one infers, one encodes and writes."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rosbags.serde import SerdeError

from derain_ros.bags.chunks import pack_message
from derain_ros.bags.recording import EVER, Recording
from derain_ros.bags.topics import IMAGE, message_types
from derain_ros.text import printable

KEPT_REASONS = 1000
"""Failures of a camera that are told with time and reason."""

_WAITING = 3
_KEPT_BYTES = 1 << 20
_PATIENCE = 0.1
_NO_PIXELS = np.empty(0, np.uint8)


@dataclass(frozen=True)
class CameraWork:
    """What is done with the messages of one connection.

    Attributes
    ----------
    camera
        Number of the camera.
    topic, msgtype
        As recorded; the type is Image or CompressedImage.
    outputs
        Ids of the topics for what is made.
    before
        Frames of this connection ahead of each segment.

    """

    camera: int
    topic: str
    msgtype: str
    outputs: tuple[int, ...]
    before: tuple[int, ...]


class Maker(Protocol):
    """Makes messages of a frame, in three steps that three threads may take side by side.

    Each may raise ValueError or SerdeError, which says why this frame cannot be made.
    """

    fallback: bool
    """The recorded message goes to the first output where nothing can be made of it."""

    def read(self, camera: CameraWork, time: int, message: Any) -> Any:
        """Return what the next step takes; ``message`` is a message of rosbags."""

    def make(self, frame: Any) -> Any:
        """Do the main work; returns what the next step takes."""

    def encode(self, frame: Any) -> tuple[list[Sequence], tuple[float, float] | None]:
        """Return serialized messages, in parts, and rain response and coverage, if known."""

    def close(self) -> None:
        """Give back what :meth:`Recipe.start` has taken."""


class Recipe(Protocol):
    """What is made of the frames of a bag; it can be pickled."""

    def start(self) -> Maker:
        """Return what makes it, in any process."""


@dataclass(frozen=True)
class BagWork:
    """All that a process has to know to work on segments of a bag.

    Attributes
    ----------
    recipe
        What is made of the frames.
    source, scratch
        See :class:`Recording`.
    boundaries
        Times between the segments, ns, from the beginning of the first to the end of the last.
    kept
        Id of the topic in the new bag, by id of the connection.
    cameras
        By id of the connection.
    latched
        Connections whose messages from before the first segment are given again at its
        beginning: all of those that carry transforms, the last one of others.
    transforms
        Those of ``latched`` that carry transforms.
    every
        Work on every n-th frame.
    pack
        Pack each message with zstd.

    """

    recipe: Recipe
    source: Path
    scratch: Path
    boundaries: tuple[int, ...]
    kept: Mapping[int, int]
    cameras: Mapping[int, CameraWork]
    latched: frozenset[int] = frozenset()
    transforms: frozenset[int] = frozenset()
    every: int = 1
    pack: bool = False


class Sink(Protocol):
    """Where segments are written to."""

    def write(self, *message: Any) -> None:
        """Add a message; see :meth:`derain_ros.bags.chunks.ChunkWriter.write`."""

    def end_segment(self, figures: dict[str, Any], damages: list[dict]) -> None:
        """End the segment."""


@dataclass
class _Frame:
    """A frame on its way, or why it goes no further."""

    camera: CameraWork
    time: int
    data: Any
    stamp: int = 0
    item: Any = None
    reason: str = ''

    def step(self, take: Callable[[Any], Any]) -> None:
        """Go one step further."""
        if self.reason:
            return
        try:
            self.item = take(self.item)
        except (SerdeError, ValueError) as error:
            self.item, self.reason = None, printable(str(error)) or type(error).__name__


@dataclass
class _Batch:
    """Messages to keep, and the frame behind them; with ``damages`` the segment ends."""

    kept: list[tuple] = field(default_factory=list)
    frame: _Frame | None = None
    damages: list[dict] | None = None


class _StoppedError(Exception):
    """The other threads have ended."""


class Pipeline:
    """Works on segments, one after the other.

    Parameters
    ----------
    recording
        The bag.
    work
        What to do.
    maker
        What makes it; the main step is taken by the calling thread.
    sink
        Where to write.

    """

    def __init__(self, recording: Recording, work: BagWork, maker: Maker, sink: Sink):
        self._recording = recording
        self._work = work
        self._maker = maker
        self._sink = sink
        self._types = message_types()
        self._read_queue: queue.Queue = queue.Queue(_WAITING)
        self._made: queue.Queue = queue.Queue(_WAITING)
        self._stop = threading.Event()
        self._failure: BaseException | None = None

    def run(self, segments: Iterable[int], progress: Callable[[int], Any]) -> None:
        """Work on segments, in the order given.

        Parameters
        ----------
        segments
            Their numbers.
        progress
            Called in this thread with the number of frames done since the last call.

        Raises
        ------
        BagError, EngineError, OSError, sqlite3.Error
            Reading, the main work or writing failed.

        """
        reader = threading.Thread(target=self._guard, args=(self._read, segments))
        writer = threading.Thread(target=self._guard, args=(self._write,))
        threads = (reader, writer)
        for thread in threads:
            thread.start()
        try:
            while (batch := self._get(self._read_queue)) is not None:
                if batch.frame is not None:
                    batch.frame.step(self._maker.make)
                self._put(self._made, batch)
                if batch.frame is not None:
                    progress(1)
            self._put(self._made, None)
            while writer.is_alive():
                writer.join(_PATIENCE)
        except _StoppedError:
            pass
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure

    def _guard(self, target: Callable, *args: Any) -> None:
        try:
            target(*args)
        except _StoppedError:
            pass
        except BaseException as error:
            self._failure = self._failure or error
            self._stop.set()

    def _put(self, waiting: queue.Queue, item: Any) -> None:
        while not self._stop.is_set():
            try:
                return waiting.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue
        raise _StoppedError

    def _get(self, waiting: queue.Queue) -> Any:
        while not self._stop.is_set():
            try:
                return waiting.get(timeout=_PATIENCE)
            except queue.Empty:
                continue
        raise _StoppedError

    # In the reading thread.

    def _read(self, segments: Iterable[int]) -> None:
        for segment in segments:
            for batch in self._read_segment(segment):
                self._put(self._read_queue, batch)
        self._put(self._read_queue, None)

    def _read_segment(self, segment: int) -> Iterator[_Batch]:
        work = self._work
        start, stop = work.boundaries[segment:segment + 2]
        seen = {connection: camera.before[segment] if camera.before else 0
                for connection, camera in work.cameras.items()}
        known = len(self._recording.damages)
        batch, size = _Batch(), 0
        for connection, time, data, *rest in self._messages(segment, start, stop):
            packed = pack_message(data) if work.pack else data
            batch.kept.append((work.kept[connection], time, (packed,), *rest))
            size += len(data)
            camera = work.cameras.get(connection)
            if camera is not None:
                if seen[connection] % work.every == 0:
                    batch.frame = self._begin(camera, time, data)
                seen[connection] += 1
            if batch.frame is not None or size > _KEPT_BYTES:
                yield batch
                batch, size = _Batch(), 0
        batch.damages = [asdict(damage) for damage in self._recording.damages[known:]]
        yield batch

    def _messages(self, segment: int, start: int, stop: int) -> Iterator[tuple]:
        if segment == 0 and self._work.latched:
            last: dict[int, tuple] = {}
            for connection, _, *rest in self._recording.messages(
                    EVER[0], start, self._work.latched):
                if connection in self._work.transforms:
                    yield connection, start, *rest
                else:
                    last[connection] = rest
            for connection, rest in last.items():
                yield connection, start, *rest
        yield from self._recording.messages(start, stop)

    def _begin(self, camera: CameraWork, time: int, data: Any) -> _Frame:
        frame = _Frame(camera, time, data)

        def read(_: Any) -> Any:
            message = self._types.deserialize_cdr(data, camera.msgtype)
            stamp = message.header.stamp
            frame.stamp = stamp.sec * 10**9 + stamp.nanosec
            return self._maker.read(camera, time, message)

        frame.step(read)
        return frame

    # In the writing thread.

    def _write(self) -> None:
        figures = _Figures()
        while (batch := self._get(self._made)) is not None:
            for message in batch.kept:
                self._sink.write(*message)
            if batch.frame is not None:
                self._write_frame(batch.frame, figures)
            if batch.damages is not None:
                self._sink.end_segment(figures.cameras, batch.damages)
                figures = _Figures()

    def _write_frame(self, frame: _Frame, figures: '_Figures') -> None:
        frame.step(self._maker.encode)
        messages, rain = frame.item or ([], None)
        if frame.reason and self._maker.fallback:
            messages = [(frame.data,)]
        for topic, parts in zip(frame.camera.outputs, messages, strict=False):
            if self._work.pack:
                parts = (pack_message(b''.join(parts)),)
            self._sink.write(topic, frame.time, parts)
        figures.add(frame, rain)


class _Figures:
    """What is known of the frames of a segment, by number of the camera, for JSON."""

    def __init__(self) -> None:
        self.cameras: dict[str, dict] = {}

    def add(self, frame: _Frame, rain: tuple[float, float] | None) -> None:
        found = self.cameras.setdefault(str(frame.camera.camera), {
            'made': 0, 'failed': 0, 'failures': [],
            'time': [], 'stamp': [], 'response': [], 'coverage': []})
        if frame.reason:
            found['failed'] += 1
            if len(found['failures']) < KEPT_REASONS:
                found['failures'].append([frame.time, frame.reason])
            return
        found['made'] += 1
        if rain is not None:
            for name, value in zip(('time', 'stamp', 'response', 'coverage'),
                                   (frame.time, frame.stamp, *rain), strict=True):
                found[name].append(value)


def serialize_image(
    header: Any, pixels: np.ndarray, shape: tuple[int, ...], encoding: str
) -> tuple:
    """Serialize a sensor_msgs/Image; its pixels, which come last, stay where they lie."""
    types = message_types()
    flat = np.ascontiguousarray(pixels).reshape(-1)
    empty = types.serialize_cdr(types.types[IMAGE](
        header=header, height=shape[0], width=shape[1], encoding=encoding, is_bigendian=0,
        step=flat.nbytes // shape[0], data=_NO_PIXELS), IMAGE)
    return bytes(empty[:-4]) + flat.nbytes.to_bytes(4, 'little'), flat.data
