"""``derain bag`` beside the bare engine: speed and memory on a long bag; needs no ROS."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.bags.topics import COMPRESSED_IMAGE, IMAGE, message_types
from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.process_figures import process_figures
from derain_ros.bench.setting import Setting
from derain_ros.engines import Engine, create_engine
from derain_ros.node.process_memory import keep_large_buffers
from derain_ros.rain import RainClip

SHARE_BAR = 0.9
GROWTH_BAR = 20.0

_FRAMES = 10_000
_QUICK_FRAMES = 60
_PICTURES = 24
_SIZE = (640, 480)
_QUICK_SIZE = (192, 144)
_BLOCKS = 20
_SETTLE = 0.3
_LOOK_EVERY = 0.5
# Shares of the frames between which memory is compared.
_FIRST, _LAST = (0.1, 0.2), (0.9, 1.0)
_RATE = 30
_START = 1_700_000_000_000_000_000
_TOPICS = {
    'raw': ('/camera/image_raw', IMAGE),
    'jpeg': ('/camera/image_raw/compressed', COMPRESSED_IMAGE),
}


def bag(setting: Setting) -> Result:
    """Derain a synthetic bag, by one process and by two, and let the engine do as much by turns.

    Raises
    ------
    EngineError
        No engine can run, or one failed.
    OSError
        There is no room for the bags.

    """
    size = _QUICK_SIZE if setting.quick else _SIZE
    if len(setting.sizes) == 1:
        size, = setting.sizes
    # As the command does.
    keep_large_buffers()
    engine = create_engine(setting.parameters['engine'], setting.parameters['model'])
    try:
        pictures = _pictures(*size)
        frames = _QUICK_FRAMES if setting.quick else _FRAMES
        if setting.duration is not None:
            frames = max(_QUICK_FRAMES, round(setting.duration * _speed(engine, pictures, 2.0)))
        figures, details = [], {}
        for kind in _TOPICS:
            found = _Comparison(setting.folder, kind, pictures, frames, engine).run()
            figures += found[0]
            details[kind] = found[1]
    finally:
        engine.close()
    notes = [
        f'{frames} frames of {size[0]}x{size[1]} each; the engine had {_BLOCKS} turns between',
        'memory is the sum of this process and its workers, sampled; growth is from the second '
        'tenth of the frames to the last',
        f'{engine.info.engine} on {engine.info.device}, {engine.info.precision}']
    return Result('bag: derain bag, and the engine alone', figures, notes, details)


class _Comparison:
    """One bag, derained by one process and by two, while the engine alone has its turns."""

    def __init__(
        self, folder: Path, kind: str, pictures: list[np.ndarray], frames: int, engine: Engine
    ):
        self._folder = folder / f'bag_{kind}'
        self._kind = kind
        self._pictures = pictures
        self._frames = frames
        self._engine = engine

    def run(self) -> tuple[list[Figure], dict]:
        self._folder.mkdir()
        try:
            source = self._folder / 'in'
            _write(source, self._kind, self._pictures, self._frames)
            _warm_up(self._engine, self._pictures)
            one, two = self._derain(source, 1), self._derain(source, 2)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        figures = [figure for turns, name in ((two, 'two workers'), (one, 'one worker'))
                   for figure in turns.figures(f'{self._kind}: {name}')]
        barred = [figure for figure in figures if figure.bar]
        return (barred + [figure for figure in figures if not figure.bar],
                {'one_worker': one.as_json(), 'two_workers': two.as_json()})

    def _derain(self, source: Path, workers: int) -> 'Turns':
        turns = Turns(self._engine, self._pictures, max(1, self._frames // _BLOCKS), workers)
        out = self._folder / f'out_{workers}'
        begun = time.perf_counter()
        derain_bag(plan_bag(source, out), self._engine, workers=workers, progress=turns.take)
        turns.seconds = time.perf_counter() - begun - turns.paused
        shutil.rmtree(out)
        return turns


class Turns:
    """Takes the memory as frames are done, and gives the engine alone a turn after each block.

    Worker processes are stopped during a turn.

    Parameters
    ----------
    engine, pictures
        What runs, and on what.
    block
        Frames between two turns, and in each.
    workers
        Processes that derain; 1 for this one.

    Attributes
    ----------
    seconds
        How long deraining took, without the turns; to be set.
    paused
        Seconds of the turns.

    """

    def __init__(self, engine: Engine, pictures: list[np.ndarray], block: int, workers: int):
        self._engine = engine
        self._pictures = pictures
        self._block = block
        self._processes = workers if workers > 1 else 0
        self._looked = self._done = self._bare_frames = 0
        self._bare = 0.0
        self._memory: list[tuple[int, float, float]] = []
        self.seconds = self.paused = 0.0

    def take(self, count: int) -> None:
        """Take note of frames done; with more than one process they come some at a time."""
        begun = time.perf_counter()
        before, self._done = self._done, self._done + count
        workers = [process.pid for process in multiprocessing.active_children()]
        blocks = self._done // self._block - before // self._block
        if len(workers) == self._processes and (blocks or begun - self._looked > _LOOK_EVERY):
            self._looked = begun
            self._look([os.getpid(), *workers])
        if blocks:
            try:
                for pid in workers:
                    _signal(pid, signal.SIGSTOP)
                # What the other threads have at hand is soon done: then nothing else runs here.
                time.sleep(_SETTLE)
                self._infer(blocks * self._block)
            finally:
                for pid in workers:
                    _signal(pid, signal.SIGCONT)
        self.paused += time.perf_counter() - begun

    def _look(self, processes: list[int]) -> None:
        try:
            found = [process_figures(pid) for pid in processes]
        except ProcessLookupError:  # one has just ended
            return
        self._memory.append((self._done, sum(one.rss for one in found),
                             sum(one.anonymous for one in found)))

    def _infer(self, count: int) -> None:
        start = time.perf_counter()
        for number in range(count):
            self._engine.infer(self._pictures[number % len(self._pictures)][np.newaxis])
        self._bare += time.perf_counter() - start
        self._bare_frames += count

    def figures(self, name: str) -> list[Figure]:
        """Return speed and memory."""
        speed = self._done / self.seconds
        alone = self._bare_frames / self._bare if self._bare else float('nan')
        first, last = (self._level(*share) for share in (_FIRST, _LAST))
        highest = [max((sample[column] for sample in self._memory), default=float('nan'))
                   for column in (1, 2)]
        return [
            Figure(f'{name} / engine alone', speed / alone, '', Bar('>=', SHARE_BAR), 3),
            Figure(f'{name}: growth of memory (RSS) after the first tenth', last[0] - first[0],
                   'MiB', Bar('<=', GROWTH_BAR)),
            Figure(f'{name}: growth of anonymous memory', last[1] - first[1], 'MiB',
                   Bar('<=', GROWTH_BAR)),
            Figure(f'{name}: memory after the first tenth', first[0], 'MiB'),
            Figure(f'{name}: memory at the end', last[0], 'MiB'),
            Figure(f'{name}: most memory', highest[0], 'MiB'),
            Figure(f'{name}: most anonymous memory', highest[1], 'MiB'),
            Figure(f'{name}: frames', self._done, digits=0),
            Figure(f'{name}: speed', speed, 'frames/s'),
            Figure(f'{name}: engine alone, in turns with it', alone, 'frames/s'),
        ]

    def _level(self, start: float, stop: float) -> tuple[float, float]:
        """Return the median memory of a stretch, so that no single sample decides."""
        chosen = [sample[1:] for sample in self._memory
                  if start * self._done <= sample[0] <= stop * self._done]
        if not chosen:
            return float('nan'), float('nan')
        rss, anonymous = np.median(chosen, 0)
        return float(rss), float(anonymous)

    def as_json(self) -> dict:
        """Return all that was measured; memory as frames done, RSS and anonymous in MiB."""
        return {'frames': self._done, 'seconds': self.seconds, 'engine_frames': self._bare_frames,
                'engine_seconds': self._bare, 'memory_mib': self._memory}


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _warm_up(engine: Engine, pictures: list[np.ndarray]) -> None:
    begun = time.perf_counter()
    while time.perf_counter() - begun < 0.5:
        engine.infer(pictures[0][np.newaxis])


def _speed(engine: Engine, pictures: list[np.ndarray], seconds: float) -> float:
    """Return frames per second of the engine alone, from a short run."""
    engine.infer(pictures[0][np.newaxis])
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        engine.infer(pictures[count % len(pictures)][np.newaxis])
        count += 1
    return count / (time.perf_counter() - begun)


def _pictures(width: int, height: int) -> list[np.ndarray]:
    """Return a rainy clip of coloured noise, uint8, H×W×3, BGR."""
    rng, shower = np.random.default_rng(0), RainClip(0.5, 1)
    coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
    scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return [shower.render(np.roll(scene, 4 * number, 1), number).image
            for number in range(_PICTURES)]


def _write(path: Path, kind: str, pictures: list[np.ndarray], frames: int) -> None:
    topic, msgtype = _TOPICS[kind]
    types = message_types()
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, msgtype, typestore=types)
        for number, fields in enumerate(_fields(kind, pictures, frames)):
            seconds, nanoseconds = divmod(_START + number * 10**9 // _RATE, 10**9)
            stamp = types.types['builtin_interfaces/msg/Time'](seconds, nanoseconds)
            message = types.types[msgtype](
                header=types.types['std_msgs/msg/Header'](stamp, 'camera'), **fields)
            writer.write(connection, seconds * 10**9 + nanoseconds,
                         types.serialize_cdr(message, msgtype))


def _fields(kind: str, pictures: list[np.ndarray], frames: int) -> Iterator[dict]:
    ready = []
    for picture in pictures:
        if kind == 'jpeg':
            data = cv2.imencode('.jpg', picture)[1].ravel()
            ready.append({'format': 'bgr8; jpeg compressed bgr8', 'data': data})
        else:
            height, width = picture.shape[:2]
            ready.append({'height': height, 'width': width, 'encoding': 'bgr8',
                          'is_bigendian': 0, 'step': 3 * width, 'data': picture.ravel()})
    for number in range(frames):
        yield ready[number % len(ready)]
