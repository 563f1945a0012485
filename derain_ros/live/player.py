"""Publish messages like cameras do, in a separate process; see :func:`serve`.

Messages are sent byte for byte as they were recorded or prepared, except for the stamp, which is
set to the time of sending. Those of one stamp, such as a stereo pair, get one stamp again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from derain_ros.bags.topics import COMPRESSED_IMAGE
from derain_ros.images.cdr import read_stamp, restamped
from derain_ros.live.played import PlayedSource
from derain_ros.live.processes import LiveRunError, commands
from derain_ros.node.process_memory import keep_large_buffers

Message = tuple[int, str, bytes]
"""Time from the start (ns), topic, serialized message."""

LIMIT_BYTES = 256 << 20  # size of the read-ahead buffer: some 40 raw frames of 1080p

_SUBSCRIBER_SECONDS = 30.0
_FILL_SECONDS = 10.0
_SETTLE_SECONDS = 0.5
_ACKNOWLEDGE_SECONDS = 2
_STAMPS = 50  # how many stamps are remembered for further messages with them


def serve(pipe: Connection, source: PlayedSource) -> None:
    """Execute commands from a pipe until it is closed.

    ``('sample', N)`` sends the N-th sample of each camera. ``('step',)`` sends the next frame of
    each camera and answers with the results of :meth:`Player.send`, by topic. ``('play', FACTOR,
    SECONDS)`` plays, and answers ``playing``, ``played`` and the result of :meth:`Player.play`.
    Raises LiveRunError if nobody subscribes, BagError if the bag is damaged.
    """
    keep_large_buffers()  # else page faults take 9 ms of each frame of 1920x1080
    rclpy.init(args=[])
    try:
        player = Player(source)
        player.wait_for_subscriber(_SUBSCRIBER_SECONDS)
        for command, *values in commands(pipe):
            if command == 'sample':
                player.sample(*values)
            elif command == 'step':
                pipe.send(player.step())
            else:
                pipe.send(player.play(pipe, *values))
        player.destroy_node()
    finally:
        rclpy.try_shutdown()


class Player(Node):
    """Publishes the image topics of a source and their camera_info topics."""

    def __init__(self, source: PlayedSource):
        super().__init__('player')
        self._source = source
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
        self._images = {
            camera.topic: self.create_publisher(
                CompressedImage if camera.msgtype == COMPRESSED_IMAGE else Image,
                camera.topic, qos)
            for camera in source.cameras}
        infos = {camera.info_topic for camera in source.cameras if camera.has_info}
        self._infos = {topic: self.create_publisher(CameraInfo, topic, qos)
                       for topic in sorted(infos)}
        self._last: dict[str, int] = {}
        self._stamps: deque[tuple[int | None, int]] = deque(maxlen=_STAMPS)
        self._steps = self._endless()

    def wait_for_subscriber(self, timeout: float) -> None:
        """Wait until every topic has a subscriber; LiveRunError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        publishers = {**self._images, **self._infos}
        while missing := [topic for topic, publisher in publishers.items()
                          if not publisher.get_subscription_count()]:
            if time.monotonic() > deadline:
                raise LiveRunError(
                    f'nobody subscribed to {", ".join(missing)} within {timeout:g} s')
            time.sleep(0.05)
        # The subscribers may not have discovered this node yet.
        time.sleep(_SETTLE_SECONDS)

    def sample(self, number: int) -> None:
        """Send the camera_info and then the frame of the size with this index of every camera."""
        for topic, messages in self._source.samples.items():
            self.send(topic, messages[min(number, len(messages) - 1)])

    def step(self) -> dict[str, tuple[int | None, int]]:
        """Send the next frame of each camera at once; return :meth:`send`'s result by topic."""
        sent = {}
        for _, topic, data in self._steps:
            frame = self.send(topic, data)
            if topic in self._images:
                sent[topic] = frame
            if len(sent) == len(self._images):
                return sent
        raise AssertionError('a source has messages')

    def play(self, pipe: Connection, factor: float, seconds: float) -> dict:
        """Play the source from its start, ``factor`` times as fast as recorded.

        A recording is repeated or cut to last ``seconds``; a clip may end earlier, by its plan.
        Sends ``playing`` through the pipe before the first message and ``played`` after the last.
        Returns the results of :meth:`send` for each frame, by topic (``sent``), the ``seconds`` it
        took, how late each message was (``late_ns``), and how many messages were not read from
        disk in time (``starved``).
        """
        sent: dict[str, list[tuple[int | None, int]]] = {topic: [] for topic in self._images}
        starved = 0
        with ReadAhead(self._source.messages(seconds * factor * 1e9)) as ahead:
            ahead.wait_until_full(_FILL_SECONDS)
            pipe.send('playing')
            pacer = Pacer(factor)
            for (offset, topic, data), waited in ahead:
                pacer.wait(offset)
                starved += waited and pacer.late[-1] > 0
                frame = self.send(topic, data)
                if topic in sent:
                    sent[topic].append(frame)
        pipe.send('played')
        for publisher in self._images.values():
            publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_SECONDS))
        return {'sent': sent, 'seconds': pacer.elapsed(), 'late_ns': pacer.late,
                'starved': starved}

    def send(self, topic: str, data: bytes) -> tuple[int | None, int]:
        """Publish a message, stamped with the current time, but after the last of its topic.

        A message of another topic with the same stamp before determines that stamp. Returns the
        stamp (None if the message is too short to have one) and the time at which the message was
        passed to the middleware, in ns since the epoch.
        """
        publisher = self._images.get(topic) or self._infos[topic]
        recorded, last = read_stamp(data), self._last.get(topic, 0)
        stamp = dict(self._stamps).get(recorded, 0)
        if stamp <= last:
            stamp = max(time.time_ns(), last + 1)
            if recorded:  # 0: none was set
                self._stamps.append((recorded, stamp))
        self._last[topic] = stamp
        message = restamped(data, stamp)
        handed_over = time.time_ns()
        publisher.publish(data if message is None else message)
        return None if message is None else stamp, handed_over

    def _endless(self) -> Iterator[tuple[int, str, bytes]]:
        while True:
            yield from self._source.messages(float('inf'))


class Pacer:
    """Waits until messages are due; ``late`` is how long after that each wait returned, in ns.

    Messages are due ``factor`` times as fast as recorded, by a clock of monotonic nanoseconds.
    """

    def __init__(
        self, factor: float, clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.late: list[int] = []
        self._factor = factor
        self._clock, self._sleep = clock, sleep
        self._start = clock()

    def wait(self, offset: int) -> None:
        """Wait for a message recorded ``offset`` ns after the first one."""
        due = self._start + round(offset / self._factor)
        self._sleep(max(0, due - self._clock()) / 1e9)
        self.late.append(max(0, self._clock() - due))

    def elapsed(self) -> float:
        """Return the seconds since the first message was due."""
        return (self._clock() - self._start) / 1e9


class ReadAhead:
    """A context manager that reads the messages of an iterator into a buffer, in a thread.

    Iterating yields each message and whether it had to be waited for. An exception of the iterator
    is raised after the messages before it. Reading stops once the buffer holds ``limit`` bytes.
    """

    def __init__(self, source: Iterator[Message], limit: int = LIMIT_BYTES):
        self._source = source
        self._limit = limit
        self._condition = threading.Condition()
        self._buffer: deque[Message] = deque()
        self._bytes = 0
        self._ended = self._closed = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, name='read ahead', daemon=True)

    def __enter__(self) -> 'ReadAhead':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def wait_until_full(self, timeout: float) -> None:
        """Wait, at most ``timeout`` seconds, until the buffer is full or holds everything."""
        with self._condition:
            self._condition.wait_for(lambda: self._ended or self._bytes >= self._limit, timeout)

    def __iter__(self) -> Iterator[tuple[Message, bool]]:
        while True:
            with self._condition:
                late = not self._buffer and not self._ended
                self._condition.wait_for(lambda: self._buffer or self._ended)
                if not self._buffer:
                    break
                message = self._buffer.popleft()
                self._bytes -= len(message[2])
                self._condition.notify_all()
            yield message, late
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            for message in self._source:
                with self._condition:
                    self._condition.wait_for(
                        lambda: self._closed or not self._buffer or self._bytes < self._limit)
                    if self._closed:
                        return
                    self._buffer.append(message)
                    self._bytes += len(message[2])
                    self._condition.notify_all()
        except Exception as error:  # of a damaged bag; __iter__() raises it
            self._error = error
        finally:
            with self._condition:
                self._ended = True
                self._condition.notify_all()
