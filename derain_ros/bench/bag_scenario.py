"""Compare ``derain bag`` with the engine alone: speed and memory on a long bag; without ROS."""

import multiprocessing
import os
import shutil
import signal
import time
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from derain_ros.bags.derain import derain_bag
from derain_ros.bags.plan import plan_bag
from derain_ros.bags.topics import COMPRESSED_IMAGE, IMAGE, message_types
from derain_ros.bench.engine_scenario import test_picture, time_calls
from derain_ros.bench.measures import Figure, Result, process_figures
from derain_ros.bench.setting import Setting
from derain_ros.engines import Engine, create_engine
from derain_ros.images.cdr import encode_header, restamped, write_compressed_image, write_image
from derain_ros.node.process_memory import keep_large_buffers
from derain_ros.rain import RainClip

_FRAMES, _QUICK_FRAMES = 10_000, 60
_SIZE, _QUICK_SIZE = (640, 480), (192, 144)
_PICTURES = 24
_BLOCKS = 20
_SETTLE = 0.3
_LOOK_EVERY = 0.5
# Memory is compared between these two parts of the frames.
_FIRST, _LAST = (0.1, 0.2), (0.9, 1.0)
_RATE = 30
_START = 1_700_000_000_000_000_000
_TOPICS = {'raw': ('/camera/image_raw', IMAGE),
           'jpeg': ('/camera/image_raw/compressed', COMPRESSED_IMAGE)}


def bag(setting: Setting) -> Result:
    """Derain a synthetic bag, with one process and with two, alternating with the engine alone."""
    size = _QUICK_SIZE if setting.quick else _SIZE
    if len(setting.sizes) == 1:
        size, = setting.sizes
    # As ``derain bag`` does.
    keep_large_buffers()
    figures, details = [], {}
    with closing(create_engine(
            setting.parameters['engine'], setting.parameters['model'])) as engine:
        shower, scene = RainClip(0.5, 1), test_picture(*size)[0]
        pictures = [shower.render(np.roll(scene, 4 * number, 1), number).image
                    for number in range(_PICTURES)]
        frames = _QUICK_FRAMES if setting.quick else _FRAMES
        if setting.duration is not None:
            frames = max(_QUICK_FRAMES, round(setting.duration * _speed(engine, pictures, 2.0)))
        for kind in _TOPICS:
            found, details[kind] = _compare(
                setting.folder / f'bag_{kind}', kind, pictures, frames, engine)
            figures += found
    return Result('bag: derain bag, and the engine alone', figures, [
        f'{frames} frames of {size[0]}x{size[1]} each; the engine had {_BLOCKS} turns between',
        'memory is the sum of this process and its workers, sampled; growth is from the second '
        'tenth of the frames to the last',
        f'{engine.info.engine} on {engine.info.device}, {engine.info.precision}'], details)


def _compare(
    folder: Path, kind: str, pictures: list[np.ndarray], frames: int, engine: Engine
) -> tuple[list[Figure], dict]:
    """Derain a bag with one process and with two, interleaved with runs of the engine alone."""
    from derain_ros.bags.pool import local_pool  # it loads Dask

    folder.mkdir()
    found = {}
    try:
        _write(folder / 'in', kind, pictures, frames)
        _speed(engine, pictures, 0.5)
        for workers in (1, 2):
            found[workers] = turns = Turns(engine, pictures, max(1, frames // _BLOCKS), workers)
            begun = time.perf_counter()
            with local_pool(workers) if workers > 1 else nullcontext() as pool:
                derain_bag(plan_bag(folder / 'in', folder / 'out'), engine, pool=pool,
                           progress=turns.take)
            turns.seconds = time.perf_counter() - begun - turns.paused
            shutil.rmtree(folder / 'out')
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures = [figure for workers, name in ((2, 'two workers'), (1, 'one worker'))
               for figure in found[workers].figures(f'{kind}: {name}')]
    return figures, {'one_worker': found[1].as_json(), 'two_workers': found[2].as_json()}


class Turns:
    """Samples memory as frames are done, and times the engine alone after each block of frames.

    Worker processes, those of the pool of ``derain bag``, are stopped during such a turn. The
    turns took ``paused`` seconds, deraining without them ``seconds``, to be set by the caller.
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
        """Count frames done; with more than one process, they arrive several at a time."""
        begun = time.perf_counter()
        before, self._done = self._done, self._done + count
        workers = [process.pid for process in multiprocessing.active_children()]
        blocks = self._done // self._block - before // self._block
        if len(workers) == self._processes and (blocks or begun - self._looked > _LOOK_EVERY):
            self._looked = begun
            with suppress(ProcessLookupError):  # a worker has just ended
                found = [process_figures(pid) for pid in (os.getpid(), *workers)]
                self._memory.append((self._done, sum(one.rss for one in found),
                                     sum(one.anonymous for one in found)))
        if blocks:
            try:
                _signal(workers, signal.SIGSTOP)
                # The other threads soon finish their current work: then nothing else runs here.
                time.sleep(_SETTLE)
                self._infer(blocks * self._block)
            finally:
                _signal(workers, signal.SIGCONT)
        self.paused += time.perf_counter() - begun

    def _infer(self, count: int) -> None:
        start = time.perf_counter()
        for number in range(count):
            self._engine.infer(self._pictures[number % len(self._pictures)][np.newaxis])
        self._bare += time.perf_counter() - start
        self._bare_frames += count

    def figures(self, name: str) -> list[Figure]:
        """Return figures of speed and memory, their names beginning with ``name``."""
        speed = self._done / self.seconds
        alone = self._bare_frames / self._bare if self._bare else float('nan')
        first, last = (self._level(*share) for share in (_FIRST, _LAST))
        highest = [max((sample[column] for sample in self._memory), default=float('nan'))
                   for column in (1, 2)]
        return [
            Figure(f'{name} / engine alone', speed / alone, bar='>= 0.9', digits=3),
            Figure(f'{name}: growth of memory (RSS) after the first tenth', last[0] - first[0],
                   'MiB', '<= 20'),
            Figure(f'{name}: growth of anonymous memory', last[1] - first[1], 'MiB', '<= 20'),
            Figure(f'{name}: memory after the first tenth', first[0], 'MiB'),
            Figure(f'{name}: memory at the end', last[0], 'MiB'),
            Figure(f'{name}: most memory', highest[0], 'MiB'),
            Figure(f'{name}: most anonymous memory', highest[1], 'MiB'),
            Figure(f'{name}: frames', self._done, digits=0),
            Figure(f'{name}: speed', speed, 'frames/s'),
            Figure(f'{name}: engine alone, in turns with it', alone, 'frames/s'),
        ]

    def _level(self, start: float, stop: float) -> tuple[float, float]:
        """Return median RSS and anonymous memory, MiB, between two fractions of the frames."""
        chosen = [sample[1:] for sample in self._memory
                  if start * self._done <= sample[0] <= stop * self._done]
        return tuple(map(float, np.median(chosen, 0))) if chosen else (float('nan'),) * 2

    def as_json(self) -> dict:
        """Return all measurements; memory samples are frames done, RSS and anonymous, MiB."""
        return {'frames': self._done, 'seconds': self.seconds, 'engine_frames': self._bare_frames,
                'engine_seconds': self._bare, 'memory_mib': self._memory}


def _signal(processes: list[int], number: int) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _speed(engine: Engine, pictures: list[np.ndarray], seconds: float) -> float:
    """Return frames per second of the engine alone, from a short run."""
    times = time_calls(lambda: engine.infer(pictures[0][np.newaxis]), seconds)
    return 1e3 * len(times) / sum(times)


def _write(path: Path, kind: str, pictures: list[np.ndarray], frames: int) -> None:
    topic, msgtype = _TOPICS[kind]
    header, height, width = encode_header(0, 0, 'camera'), *pictures[0].shape[:2]
    messages = [
        write_compressed_image(header, format='bgr8; jpeg compressed bgr8',
                               data=cv2.imencode('.jpg', picture)[1]) if kind == 'jpeg' else
        write_image(header, height=height, width=width, encoding='bgr8', step=3 * width,
                    data=picture)
        for picture in pictures]
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, msgtype, typestore=message_types())
        for number in range(frames):
            stamp = _START + number * 10**9 // _RATE
            message = restamped(messages[number % len(messages)], stamp)
            writer.write(connection, stamp, message)
