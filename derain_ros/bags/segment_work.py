"""Derain segments of a bag: one thread reads and decodes, one derains, one encodes and writes."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rosbags.serde import SerdeError

from derain_ros.bags.chunks import pack_message
from derain_ros.bags.damage import DamageError
from derain_ros.bags.recording import Recording
from derain_ros.bags.topics import COMPRESSED_IMAGE, IMAGE, message_types
from derain_ros.engines import Derained, Engine
from derain_ros.images.codec import (
    arrange_pixels,
    decode_compressed,
    decode_image,
    extract_alpha,
    output_encoding,
)
from derain_ros.images.overlay import blend
from derain_ros.rain_gate import mask_coverage, mask_response
from derain_ros.text import printable

KEPT_REASONS = 1000
"""Failures of a camera that are told with time and reason."""

TRANSFORMS = 'tf2_msgs/msg/TFMessage'

_WAITING = 3
_KEPT_BYTES = 1 << 20
_PATIENCE = 0.1


@dataclass(frozen=True)
class CameraWork:
    """What is done with the messages of one connection.

    Attributes
    ----------
    camera
        Number of the camera.
    msgtype
        Image or CompressedImage.
    outputs
        Ids of the topics for the image and, if there is to be one, for the mask.
    before
        Frames of this connection ahead of each segment.

    """

    camera: int
    msgtype: str
    outputs: tuple[int, ...]
    before: tuple[int, ...]


@dataclass(frozen=True)
class BagWork:
    """All that a process has to know to derain segments of a bag.

    Attributes
    ----------
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
        Derain every so manieth frame.
    strength
        Share of the derained image, 0–1.
    pack
        Pack each message with zstd.
    scan
        Rely on no index of the source.

    """

    source: Path
    scratch: Path
    boundaries: tuple[int, ...]
    kept: Mapping[int, int]
    cameras: Mapping[int, CameraWork]
    latched: frozenset[int] = frozenset()
    transforms: frozenset[int] = frozenset()
    every: int = 1
    strength: float = 1.0
    pack: bool = False
    scan: bool = False


class Sink(Protocol):
    """Where segments are written to."""

    def write(self, topic: int, time: int, parts: Sequence) -> None:
        """Add a message."""

    def end_segment(self, figures: dict[str, Any]) -> None:
        """End the segment."""


@dataclass
class _Frame:
    """An image to derain, decoded, or why it cannot be."""

    work: CameraWork
    time: int
    message: Any = None
    bgr: np.ndarray | None = None
    derained: Derained | None = None
    reason: str = ''


@dataclass
class _Batch:
    """Messages to keep, and the frame behind them; ``end`` if the segment ends with it."""

    kept: list[tuple[int, int, Any]] = field(default_factory=list)
    frame: _Frame | None = None
    end: bool = False


class _StoppedError(Exception):
    """The other threads have ended."""


class Pipeline:
    """Derains segments one after the other.

    Parameters
    ----------
    recording
        The bag.
    work
        What to do.
    engine
        The derainer; used by the calling thread.
    sink
        Where to write.

    """

    def __init__(self, recording: Recording, work: BagWork, engine: Engine, sink: Sink):
        self._recording = recording
        self._work = work
        self._engine = engine
        self._sink = sink
        self._types = message_types()
        self._decoded: queue.Queue = queue.Queue(_WAITING)
        self._derained: queue.Queue = queue.Queue(_WAITING)
        self._stop = threading.Event()
        self._failure: BaseException | None = None

    def run(self, segments: Iterable[int], progress: Callable[[int], Any]) -> None:
        """Derain segments, in the order given.

        Parameters
        ----------
        segments
            Their numbers.
        progress
            Called in this thread with the number of frames done since the last call.

        Raises
        ------
        DamageError
            The bag is damaged; the segments before are written.
        BagError, EngineError, OSError, sqlite3.Error
            Reading, deraining or writing failed.

        """
        reader = threading.Thread(target=self._guard, args=(self._read, segments))
        writer = threading.Thread(target=self._guard, args=(self._write,))
        threads = (reader, writer)
        for thread in threads:
            thread.start()
        try:
            self._derain(progress)
            self._put(self._derained, None)
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

    # In the calling thread.

    def _derain(self, progress: Callable[[int], Any]) -> None:
        while (batch := self._get(self._decoded)) is not None:
            if isinstance(batch, DamageError):
                # What was read before is still written.
                self._put(self._derained, batch)
                continue
            frame = batch.frame
            if frame is not None and frame.bgr is not None:
                try:
                    frame.derained = self._engine.infer(frame.bgr[np.newaxis])
                except ValueError as error:
                    frame.reason = str(error)
            self._put(self._derained, batch)
            if frame is not None:
                progress(1)

    # In the reading thread.

    def _read(self, segments: Iterable[int]) -> None:
        try:
            for segment in segments:
                for batch in self._read_segment(segment):
                    self._put(self._decoded, batch)
        except DamageError as error:
            self._put(self._decoded, error)
        self._put(self._decoded, None)

    def _read_segment(self, segment: int) -> Iterator[_Batch]:
        work = self._work
        start, stop = work.boundaries[segment:segment + 2]
        seen = {connection: camera.before[segment] if camera.before else 0
                for connection, camera in work.cameras.items()}
        batch, size = _Batch(), 0
        for connection, time, data in self._messages(segment, start, stop):
            kept = pack_message(data) if work.pack else data
            batch.kept.append((work.kept[connection], time, kept))
            size += len(data)
            camera = work.cameras.get(connection)
            if camera is not None:
                if seen[connection] % work.every == 0:
                    batch.frame = self._decode(camera, time, data)
                seen[connection] += 1
            if batch.frame is not None or size > _KEPT_BYTES:
                yield batch
                batch, size = _Batch(), 0
        batch.end = True
        yield batch

    def _messages(self, segment: int, start: int, stop: int) -> Iterator[tuple[int, int, Any]]:
        if segment == 0 and self._work.latched:
            last: dict[int, Any] = {}
            for connection, _, data in self._recording.messages(0, start, self._work.latched):
                if connection in self._work.transforms:
                    yield connection, start, data
                else:
                    last[connection] = data
            yield from ((connection, start, data) for connection, data in last.items())
        yield from self._recording.messages(start, stop)

    def _decode(self, camera: CameraWork, time: int, data: Any) -> _Frame:
        frame = _Frame(camera, time)
        try:
            frame.message = self._types.deserialize_cdr(data, camera.msgtype)
            decode = decode_compressed if camera.msgtype == COMPRESSED_IMAGE else decode_image
            frame.bgr = np.ascontiguousarray(decode(frame.message))
        except (SerdeError, ValueError) as error:
            frame.reason = str(error) or type(error).__name__
        return frame

    # In the writing thread.

    def _write(self) -> None:
        figures = _Figures()
        while (batch := self._get(self._derained)) is not None:
            if isinstance(batch, DamageError):
                raise batch
            for topic, time, data in batch.kept:
                self._sink.write(topic, time, (data,))
            if batch.frame is not None:
                self._write_frame(batch.frame, figures)
            if batch.end:
                self._sink.end_segment(figures.as_json())
                figures = _Figures()

    def _write_frame(self, frame: _Frame, figures: '_Figures') -> None:
        messages = []
        if frame.derained is not None:
            try:
                messages = self._encode(frame)
            except (SerdeError, ValueError) as error:
                frame.reason = str(error) or type(error).__name__
        if not messages:
            figures.failed(frame.work.camera, frame.time, frame.reason)
            return
        for topic, parts in zip(frame.work.outputs, messages, strict=False):
            if self._work.pack:
                parts = (pack_message(b''.join(parts)),)
            self._sink.write(topic, frame.time, parts)
        stamp = frame.message.header.stamp
        mask = frame.derained.rain_mask[0]
        figures.derained(frame.work.camera, frame.time, stamp.sec * 10**9 + stamp.nanosec,
                         mask_response(mask), mask_coverage(mask))

    def _encode(self, frame: _Frame) -> list[tuple]:
        encoding, alpha = 'bgr8', None
        if frame.work.msgtype == IMAGE:
            encoding = output_encoding(frame.message.encoding, 'same')
            alpha = extract_alpha(frame.message)
        image = blend(frame.bgr, frame.derained.image[0], self._work.strength)
        pixels = arrange_pixels(image, encoding, alpha=alpha)
        header, mask = frame.message.header, frame.derained.rain_mask[0]
        return [self._serialize(header, pixels, image.shape, encoding),
                self._serialize(header, mask, mask.shape, 'mono8')]

    def _serialize(
        self, header: Any, pixels: np.ndarray, shape: tuple[int, ...], encoding: str
    ) -> tuple:
        """Serialize a sensor_msgs/Image, its pixels, which come last, as they lie in memory."""
        flat = np.ascontiguousarray(pixels).reshape(-1)
        empty = self._types.serialize_cdr(self._types.types[IMAGE](
            header=header, height=shape[0], width=shape[1], encoding=encoding, is_bigendian=0,
            step=flat.nbytes // shape[0], data=_NO_PIXELS), IMAGE)
        return bytes(empty[:-4]) + flat.nbytes.to_bytes(4, 'little'), flat.data


class _Figures:
    """What is known of the frames of a segment."""

    def __init__(self) -> None:
        self._cameras: dict[int, dict] = {}

    def _camera(self, camera: int) -> dict:
        return self._cameras.setdefault(camera, {
            'derained': 0, 'failed': 0, 'failures': [],
            'time': [], 'stamp': [], 'response': [], 'coverage': []})

    def derained(
        self, camera: int, time: int, stamp: int, response: float, coverage: float
    ) -> None:
        found = self._camera(camera)
        found['derained'] += 1
        for name, value in (('time', time), ('stamp', stamp), ('response', response),
                            ('coverage', coverage)):
            found[name].append(value)

    def failed(self, camera: int, time: int, reason: str) -> None:
        found = self._camera(camera)
        found['failed'] += 1
        if len(found['failures']) < KEPT_REASONS:
            found['failures'].append([time, printable(reason)])

    def as_json(self) -> dict:
        return {str(camera): found for camera, found in self._cameras.items()}


_NO_PIXELS = np.empty(0, np.uint8)
