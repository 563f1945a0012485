"""Process segments of a bag in three threads: read and decode, infer, encode and write."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import Any, Protocol

from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import CompressionMode

from derain_ros.bags.frames import read_message
from derain_ros.bags.mcap_file import zstd
from derain_ros.bags.plan import BagPlan
from derain_ros.bags.recording import EVER, Recording
from derain_ros.bags.topics import TopicList
from derain_ros.images.cdr import View
from derain_ros.text import printable

KEPT_REASONS = 1000
"""Maximum number of failures per camera that are reported with time and reason."""

_TRANSFORMS = 'tf2_msgs/msg/TFMessage'
_STATIC_TRANSFORMS = '/tf_static'
_WAITING = 3
_LEAD_IN_NS = 10**9
_KEPT_BYTES = 1 << 20


@dataclass(frozen=True)
class CameraWork:
    """How the messages of one connection of an image topic are processed.

    ``camera`` is the camera number, ``outputs`` are the ids of the output topics, and ``before``
    is the number of frames on this connection before each segment, empty if every frame is used.
    """

    camera: int
    topic: str
    msgtype: str
    outputs: tuple[int, ...]
    before: tuple[int, ...]


class Maker(Protocol):
    """Makes output messages from a frame, in three steps that run in three threads.

    Each step may raise ValueError to say why this frame cannot be processed. Makers are pickled
    for other processes; makers that compare equal give the same results.
    """

    fallback: bool
    """Whether a frame that fails is written to the first output as recorded."""

    lead_in: int
    """Frames per camera before a segment that :meth:`make` gets as warm-up, without a result."""

    def opened(self) -> AbstractContextManager['Maker']:
        """Return a context with a maker that is ready, such as with an engine, then released."""

    def read(self, camera: CameraWork, time: int, message: View) -> Any:
        """Return the input of :meth:`make`, from a :data:`derain_ros.images.cdr.View`."""

    def make(self, frame: Any) -> Any:
        """Do the main work, such as inference; returns the input of :meth:`encode`."""

    def encode(self, frame: Any) -> tuple[list[Sequence], tuple[float, float] | None]:
        """Return the serialized messages, each in parts, and (rain response, coverage) or None."""

    def end_segment(self) -> None:
        """Reset per-segment state: the next frame is of another segment."""


class Layout:
    """Maps the connections of a bag to the topics of the new one; the same in every process.

    By connection id, ``kept`` holds the topic id in the new bag, and ``cameras`` how images are
    processed; ``topics`` are those of the new bag. For ``latched`` connections, messages before
    the first segment are repeated at its beginning: all of them if in ``transforms``, else only
    the last one. The bag holds no definitions of ``undefined_types``.
    """

    def __init__(self, plan: BagPlan, recording: Recording):
        topics, connections = TopicList(), recording.connections
        numbers = {camera.source: number for number, camera in enumerate(plan.cameras)}
        images = {one.id for one in recording.images_of(numbers)}
        self.kept = {one.id: topics.copy(
            one, plan.cameras[numbers[one.topic]].kept if one.id in images else None)
            for one in connections}
        added = {name: topics.add_image(name, connections) for camera in plan.cameras
                 for name in camera.outputs if name != camera.source}
        self.cameras = {one.id: CameraWork(
            numbers[one.topic], one.topic, one.msgtype, tuple(
                added.get(name) or topics.copy(one)
                for name in plan.cameras[numbers[one.topic]].outputs),
            plan.before.get(one.id, ())) for one in connections if one.id in images}
        self.topics, self.undefined_types = topics.connections, topics.undefined_types
        self.latched = {one.id for one in connections if plan.start_s and (
            one.topic == _STATIC_TRANSFORMS or any(
                qos.durability == QosDurability.TRANSIENT_LOCAL
                for qos in one.ext.offered_qos_profiles))}
        self.transforms = {one.id for one in connections if one.msgtype == _TRANSFORMS}


@dataclass
class _Frame:
    """A frame in the pipeline; once it has failed, ``reason`` says why."""

    camera: CameraWork
    time: int
    data: Any
    stamp: int = 0
    item: Any = None
    reason: str = ''
    leads_in: bool = False

    def step(self, take: Callable[[Any], Any]) -> None:
        """Apply the next step; a ValueError becomes the ``reason``."""
        if self.reason:
            return
        try:
            self.item = take(self.item)
        except ValueError as error:
            self.item, self.reason = None, printable(str(error)) or type(error).__name__


@dataclass
class _Batch:
    """Messages to copy, and the frame that follows them; ``damages`` marks the segment's end."""

    kept: list[tuple] = field(default_factory=list)
    frame: _Frame | None = None
    damages: list[dict] | None = None


class Pipeline:
    """Processes segments, one after the other.

    One thread reads and decodes ahead, the calling thread runs the main step of ``maker``, and one
    thread encodes and writes. ``sink`` has the methods ``write`` and ``end_segment`` of
    :class:`derain_ros.bags.chunks.ChunkWriter`.
    """

    def __init__(
        self, recording: Recording, plan: BagPlan, layout: Layout, maker: Maker, sink: Any
    ):
        self._recording, self._plan, self._layout = recording, plan, layout
        self._maker, self._sink = maker, sink
        self._pack = plan.compression == CompressionMode.MESSAGE
        self._figures: dict[str, dict] = {}

    def run(self, segments: Iterable[int], progress: Callable[[int], Any]) -> None:
        """Process segments, in the order given.

        ``progress`` is called in this thread with the number of frames done since the last call.
        Raises BagError, EngineError, OSError or sqlite3.Error if reading, inference or writing
        fails.
        """
        batches = (batch for segment in segments for batch in self._read(segment))
        last: Future | None = None
        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            ahead = deque(reader.submit(next, batches, None) for _ in range(_WAITING))
            while (batch := ahead.popleft().result()) is not None:
                ahead.append(reader.submit(next, batches, None))
                if batch.frame is not None:
                    batch.frame.step(self._maker.make)
                if batch.damages is not None:
                    self._maker.end_segment()
                last = writer.submit(self._write, batch, last)
                waiting.append(last)
                if len(waiting) > _WAITING:
                    waiting.popleft().result()
                if batch.frame is not None and not batch.frame.leads_in:
                    progress(1)
            if last is not None:
                last.result()

    # In the reading thread.

    def _read(self, segment: int) -> Iterator[_Batch]:
        layout = self._layout
        if segment and self._maker.lead_in:
            yield from self._lead_in(segment)
        seen = {connection: camera.before[segment] if camera.before else 0
                for connection, camera in layout.cameras.items()}
        known = len(self._recording.damages)
        batch, size = _Batch(), 0
        for connection, time, data, *rest in self._messages(segment):
            packed = zstd.compress(data) if self._pack else data
            batch.kept.append((layout.kept[connection], time, (packed,), *rest))
            size += len(data)
            camera = layout.cameras.get(connection)
            if camera is not None:
                if seen[connection] % self._plan.every == 0:
                    batch.frame = self._begin(camera, time, data)
                seen[connection] += 1
            if batch.frame is not None or size > _KEPT_BYTES:
                yield batch
                batch, size = _Batch(), 0
        batch.damages = [asdict(damage) for damage in self._recording.damages[known:]]
        yield batch

    def _lead_in(self, segment: int) -> Iterator[_Batch]:
        start, every = self._plan.boundaries[segment], self._plan.every
        last = defaultdict(lambda: deque(maxlen=self._maker.lead_in * every))
        for connection, time, data, *_ in self._recording.messages(
                start - _LEAD_IN_NS, start, frozenset(self._layout.cameras)):
            last[connection].append((time, connection, data))
        for connection, each in last.items():
            if every > 1:
                first = self._layout.cameras[connection].before[segment] - len(each)
                last[connection] = list(each)[-first % every::every]
        for time, connection, data in sorted(
                (one for each in last.values() for one in each), key=itemgetter(0, 1)):
            frame = self._begin(self._layout.cameras[connection], time, data)
            frame.leads_in = True
            yield _Batch(frame=frame)

    def _messages(self, segment: int) -> Iterator[tuple]:
        start, stop = self._plan.boundaries[segment:segment + 2]
        if segment == 0 and self._layout.latched:
            last: dict[int, tuple] = {}
            for connection, _, *rest in self._recording.messages(
                    EVER[0], start, self._layout.latched):
                if connection in self._layout.transforms:
                    yield connection, start, *rest
                else:
                    last[connection] = rest
            for connection, rest in last.items():
                yield connection, start, *rest
        yield from self._recording.messages(start, stop)

    def _begin(self, camera: CameraWork, time: int, data: Any) -> _Frame:
        frame = _Frame(camera, time, data)

        def read(_: Any) -> Any:
            message = read_message(camera.msgtype, data)
            frame.stamp = message.stamp
            return self._maker.read(camera, time, message)

        frame.step(read)
        return frame

    # In the writing thread.

    def _write(self, batch: _Batch, before: Future | None) -> None:
        if before is not None:
            before.result()  # raises if the batch before could not be written
        for message in batch.kept:
            self._sink.write(*message)
        if batch.frame is not None and not batch.frame.leads_in:
            self._write_frame(batch.frame)
        if batch.damages is not None:
            figures, self._figures = self._figures, {}
            self._sink.end_segment(figures, batch.damages)

    def _write_frame(self, frame: _Frame) -> None:
        frame.step(self._maker.encode)
        messages, rain = frame.item or ([], None)
        if frame.reason and self._maker.fallback:
            messages = [(frame.data,)]
        for topic, parts in zip(frame.camera.outputs, messages, strict=False):
            if self._pack:
                parts = (zstd.compress(b''.join(parts)),)
            self._sink.write(topic, frame.time, parts)
        found = self._figures.setdefault(str(frame.camera.camera), {
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
