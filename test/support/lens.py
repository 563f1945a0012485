"""A camera of the tests, which pairs what it sends with what the node makes of it, by stamp."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from faulty_engine import mark
from ros_fixtures import HEIGHT, WIDTH, Peer, output, wait_for
from sensor_msgs.msg import Image

ANSWER_SECONDS = 60.0
Stamp = tuple[int, int]
"""Seconds and nanoseconds; what tells frames apart."""


@dataclass(frozen=True)
class Answer:
    """What the node published for one frame: its status, its image, and when, after ``sent``."""

    word: str
    level: bytes
    values: dict[str, str]
    image: Image
    sent: bytes
    seconds: float

    @property
    def identical(self) -> bool:
        """The bytes that came out are those that went in."""
        return bytes(self.image.data) == self.sent

    @property
    def derained(self) -> bool:
        """The image is what the faulty engine makes of the frame."""
        return bytes(self.image.data) == mark(np.frombuffer(self.sent, np.uint8)).tobytes()


class Lens:
    """Publisher of a camera, and subscriptions to its image and status, owned by a peer.

    ``size`` is width and height of the frames in pixels.
    """

    def __init__(self, peer: Peer, camera: str, size: tuple[int, int] = (WIDTH, HEIGHT)):
        self.camera = camera
        self.size = size
        self.sent: dict[Stamp, tuple[float, bytes]] = {}
        self.images: dict[Stamp, list[tuple[float, Image]]] = defaultdict(list)
        self.statuses: dict[Stamp, list] = defaultdict(list)
        self._random = np.random.default_rng(len(camera))
        self._publisher = peer.publisher(Image, f'/{camera}/image_raw')
        image, status = output(camera), output(camera, 'status')
        peer.create_subscription(Image, image, self._on_image, 100)
        peer.create_subscription(DiagnosticArray, status, self._on_status, 100)
        for topic in (image, status):
            wait_for(lambda topic=topic: peer.count_publishers(topic), f'publisher on {topic}')
        peer.matched(self._publisher)

    def send(
        self, stamp: Stamp | None = None, encoding: str = 'bgr8',
        picture: np.ndarray | None = None, announced: str = '',
    ) -> Stamp:
        """Publish a frame and return its stamp, by default the time and a new random picture.

        The message names ``announced`` as its encoding where that is given.
        """
        if picture is None:
            width, height = self.size
            shape = (height, width) if encoding == 'mono8' else (height, width, 3)
            picture = self._random.integers(0, 256, shape, np.uint8)
        stamp = stamp or divmod(time.time_ns(), 10**9)
        data = picture.tobytes()
        message = Image(
            height=picture.shape[0], width=picture.shape[1], encoding=announced or encoding,
            step=picture[0].nbytes, data=data)
        message.header.stamp.sec, message.header.stamp.nanosec = stamp
        message.header.frame_id = self.camera
        self.sent[stamp] = time.monotonic(), data
        self._publisher.publish(message)
        return stamp

    def answer(self, stamp: Stamp, seconds: float = ANSWER_SECONDS) -> Answer:
        """Wait for status and image of a frame."""
        wait_for(lambda: stamp in self.images and stamp in self.statuses,
                 f'answer of {self.camera} to {stamp}', seconds)
        (arrival, image), *more = self.images[stamp]
        assert not more, f'{self.camera} published {stamp} twice'
        status, = self.statuses[stamp]
        assert status.name == f'/derain: {self.camera}'
        start, data = self.sent[stamp]
        return Answer(status.message, status.level, {pair.key: pair.value
                      for pair in status.values}, image, data, arrival - start)

    def play(self, frames: int, rate: float = 10.0, **more) -> list[Answer]:
        """Send frames at a rate at most, each of which has to be answered before the next."""
        return [self.answer(self.send(**more)) for _ in paced(frames, rate)]

    def derains(self, seconds: float = ANSWER_SECONDS, rate: float = 20.0) -> float:
        """Send frames until one comes back derained; returns the seconds that this took."""
        start = time.monotonic()

        def step():
            self.send()
            time.sleep(1 / rate)
            # Another lens may send on the same topic.
            return any(self.statuses[stamp][-1].message == 'derained'
                       for stamp, (sent, _) in self.sent.items()
                       if sent >= start and stamp in self.statuses)
        wait_for(step, f'derained frame of {self.camera}', seconds)
        return time.monotonic() - start

    def streaming(self, rate: float) -> AbstractContextManager[None]:
        """Send frames at a rate as long as the context lasts."""
        return repeating(rate, self.send)

    def _on_image(self, message: Image) -> None:
        self.images[_stamp(message)].append((time.monotonic(), message))

    def _on_status(self, message: DiagnosticArray) -> None:
        status, = message.status
        self.statuses[_stamp(message)].append(status)


def paced(frames: int, rate: float) -> Iterator[int]:
    """Count frames, each at its time; after a halt they do not come in a burst."""
    due = time.monotonic()
    for number in range(frames):
        time.sleep(max(0.0, due - time.monotonic()))
        yield number
        due = max(due + 1 / rate, time.monotonic() + 0.8 / rate)


@contextmanager
def repeating(rate: float, action: Callable[[], object]) -> Iterator[None]:
    """Do something at a rate as long as the context lasts."""
    stop = threading.Event()

    def run():
        for _ in paced(10**9, rate):
            if stop.is_set():
                return
            action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _stamp(message) -> Stamp:
    return message.header.stamp.sec, message.header.stamp.nanosec
