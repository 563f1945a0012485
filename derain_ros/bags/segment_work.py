"""Work on segments of a bag: one thread reads and decodes, one infers, one encodes and writes."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import Any, Protocol

from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import CompressionMode

from derain_ros.bags.chunks import pack_message
from derain_ros.bags.frames import read_message
from derain_ros.bags.plan import BagPlan
from derain_ros.bags.recording import EVER, Recording
from derain_ros.bags.topics import TopicList
from derain_ros.images.cdr import View
from derain_ros.text import printable

KEPT_REASONS = 1000
"""Failures of a camera that are told with time and reason."""

_TRANSFORMS = 'tf2_msgs/msg/TFMessage'
_STATIC_TRANSFORMS = '/tf_static'
_WAITING = 3
_LEAD_IN_NS = 10**9
_KEPT_BYTES = 1 << 20


@dataclass(frozen=True)
class CameraWork:
    """What is done with the messages of one connection, of an image topic.

    ``camera`` is its number, ``outputs`` are the ids of the topics for what is made, ``before``
    the frames of this connection ahead of each segment, empty where every frame counts.
    """

    camera: int
    topic: str
    msgtype: str
    outputs: tuple[int, ...]
    before: tuple[int, ...]


class Maker(Protocol):
    """Makes messages of a frame, in three steps that three threads may take side by side.

    Each may raise ValueError, which says why this frame cannot be made. Other
    processes are given a maker by pickle; makers that are equal make the same.
    """

    fallback: bool
    """The recorded message goes to the first output where nothing can be made of it."""

    lead_in: int
    """Frames of each camera ahead of a segment that :meth:`make` is to see, without a result."""

    def opened(self) -> AbstractContextManager['Maker']:
        """Return it with what it needs, such as an engine, which is given back at the end."""

    def read(self, camera: CameraWork, time: int, message: View) -> Any:
        """Return what the next step takes; ``message`` is a :data:`derain_ros.images.cdr.View`."""

    def make(self, frame: Any) -> Any:
        """Do the main work; returns what the next step takes."""

    def encode(self, frame: Any) -> tuple[list[Sequence], tuple[float, float] | None]:
        """Return serialized messages, in parts, and rain response and coverage, if known."""

    def end_segment(self) -> None:
        """Take the next frame for one of another segment."""


class Layout:
    """Where the messages of a bag go, and what is made of them; the same in every process.

    By id of the connection, ``kept`` has the id of the topic in the new bag, and ``cameras`` what
    is done; ``topics`` are those of the new bag. Of ``latched`` connections, messages from before
    the first segment are given again at its beginning: all of those in ``transforms``, the last
    one of others. Of ``undefined_types`` the bag holds no definition.
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
    """A frame on its way, or why it goes no further."""

    camera: CameraWork
    time: int
    data: Any
    stamp: int = 0
    item: Any = None
    reason: str = ''
    leads_in: bool = False

    def step(self, take: Callable[[Any], Any]) -> None:
        """Go one step further."""
        if self.reason:
            return
        try:
            self.item = take(self.item)
        except ValueError as error:
            self.item, self.reason = None, printable(str(error)) or type(error).__name__


@dataclass
class _Batch:
    """Messages to keep, and the frame behind them; with ``damages`` the segment ends."""

    kept: list[tuple] = field(default_factory=list)
    frame: _Frame | None = None
    damages: list[dict] | None = None


class Pipeline:
    """Works on segments, one after the other.

    One thread reads and decodes ahead, the calling thread takes the main step of ``maker``, one
    thread encodes and writes behind. ``sink`` has ``write`` for messages and ``end_segment``, as
    :class:`derain_ros.bags.chunks.ChunkWriter` has.
    """

    def __init__(
        self, recording: Recording, plan: BagPlan, layout: Layout, maker: Maker, sink: Any
    ):
        self._recording, self._plan, self._layout = recording, plan, layout
        self._maker, self._sink = maker, sink
        self._pack = plan.compression == CompressionMode.MESSAGE
        self._figures: dict[str, dict] = {}

    def run(self, segments: Iterable[int], progress: Callable[[int], Any]) -> None:
        """Work on segments, in the order given.

        ``progress`` is called in this thread with the number of frames done since the last
        call. Raises BagError, EngineError, OSError or sqlite3.Error where reading, the main work
        or writing fails.
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
            yield from self._lead_in(self._plan.boundaries[segment])
        seen = {connection: camera.before[segment] if camera.before else 0
                for connection, camera in layout.cameras.items()}
        known = len(self._recording.damages)
        batch, size = _Batch(), 0
        for connection, time, data, *rest in self._messages(segment):
            packed = pack_message(data) if self._pack else data
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

    def _lead_in(self, start: int) -> Iterator[_Batch]:
        last = defaultdict(lambda: deque(maxlen=self._maker.lead_in))
        for connection, time, data, *_ in self._recording.messages(
                start - _LEAD_IN_NS, start, frozenset(self._layout.cameras)):
            last[connection].append((time, connection, data))
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
            before.result()  # nothing is written behind what could not be
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
                parts = (pack_message(b''.join(parts)),)
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
