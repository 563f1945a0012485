"""``derain bag`` beside the bare engine: speed and memory on a long bag; needs no ROS."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from derain_ros.engines import Engine, create_engine
from derain_ros.evaluation.bags.derain import derain_bag, plan_bag
from derain_ros.evaluation.bags.topics import COMPRESSED_IMAGE, IMAGE, message_types
from derain_ros.rain import RainClip
from derain_ros.ros.allocator import keep_large_buffers
from derain_ros.ros.benchmarks.figures import Bar, Figure, Result
from derain_ros.ros.benchmarks.setting import Setting
from derain_ros.ros.process_stats import process_stats

SHARE_BAR = 0.9
GROWTH_BAR = 20.0

_FRAMES = 10_000
_QUICK_FRAMES = 60
_PICTURES = 24
_SIZE = (640, 480)
_QUICK_SIZE = (192, 144)
_BLOCKS = 20
_SETTLE = 0.3
_RATE = 30
_START = 1_700_000_000_000_000_000
_TOPICS = {
    'raw': ('/camera/image_raw', IMAGE),
    'jpeg': ('/camera/image_raw/compressed', COMPRESSED_IMAGE),
}


def run(setting: Setting) -> Result:
    """Derain a synthetic bag, and let the engine alone do as much, by turns, in one process.

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
        f'{engine.info.engine} on {engine.info.device}, {engine.info.precision}']
    return Result('bag: derain bag, and the engine alone', figures, notes, details)


class _Comparison:
    """One bag, derained with pauses in which the engine alone has its turn."""

    def __init__(
        self, folder: Path, kind: str, pictures: list[np.ndarray], frames: int, engine: Engine
    ):
        self._folder = folder / f'bag_{kind}'
        self._kind = kind
        self._pictures = pictures
        self._frames = frames
        self._engine = engine
        self._block = max(1, frames // _BLOCKS)
        self._look = min(10.0, frames / 500)
        self._done = 0
        self._paused = self._bare = 0.0
        self._bare_frames = 0
        self._memory: list[float] = []

    def run(self) -> tuple[list[Figure], dict]:
        self._folder.mkdir()
        try:
            source = self._folder / 'in'
            _write(source, self._kind, self._pictures, self._frames)
            _speed(self._engine, self._pictures, 0.5)
            begun = time.perf_counter()
            summary = derain_bag(
                plan_bag(source, self._folder / 'out'), self._engine, progress=self._turn)
            seconds = time.perf_counter() - begun - self._paused
            two = self._two_workers(source)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        done = summary.derained.total()
        speeds = done / seconds, self._bare_frames / self._bare
        first = self._memory[len(self._memory) // 10]
        kind = self._kind
        return [
            Figure(f'{kind}: two workers / engine alone', two, '', Bar('>=', SHARE_BAR), 3),
            Figure(f'{kind}: one worker / engine alone', speeds[0] / speeds[1], '',
                   Bar('>=', SHARE_BAR), 3),
            Figure(f'{kind}: growth of memory after the first tenth', self._memory[-1] - first,
                   'MiB', Bar('<=', GROWTH_BAR)),
            Figure(f'{kind}: frames', done, digits=0),
            Figure(f'{kind}: one worker', speeds[0], 'frames/s'),
            Figure(f'{kind}: engine alone', speeds[1], 'frames/s'),
            Figure(f'{kind}: memory after the first tenth', first, 'MiB'),
            Figure(f'{kind}: memory at the end', self._memory[-1], 'MiB'),
        ], {'frames': done, 'seconds': seconds, 'engine_seconds': self._bare,
            'rss_mib': self._memory}

    def _two_workers(self, source: Path) -> float:
        """Return the speed of two workers, their start included, as a share of the engine's."""
        shutil.rmtree(self._folder / 'out')
        before = _speed(self._engine, self._pictures, self._look)
        begun = time.perf_counter()
        summary = derain_bag(plan_bag(source, self._folder / 'out'), self._engine, workers=2)
        speed = summary.derained.total() / (time.perf_counter() - begun)
        return 2 * speed / (before + _speed(self._engine, self._pictures, self._look))

    def _turn(self, count: int) -> None:
        """Give the engine alone a turn after each block."""
        self._done += count
        if self._done % self._block:
            return
        begun = time.perf_counter()
        self._memory.append(process_stats(os.getpid()).rss)
        # What the other threads have at hand is soon done: then nothing else runs here.
        time.sleep(_SETTLE)
        start = time.perf_counter()
        for number in range(self._block):
            self._engine.infer(self._pictures[number % len(self._pictures)][np.newaxis])
        self._bare += time.perf_counter() - start
        self._bare_frames += self._block
        self._paused += time.perf_counter() - begun


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
