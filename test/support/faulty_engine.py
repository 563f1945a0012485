"""An engine that fails on command, from outside its process and while it runs.

The folder that the environment names as ``FAULTY_ENGINES`` holds ``<name>.json``, the
:class:`Command` for the engine of that name, and ``log.jsonl``: what the engines were asked
to do, each line with the time and thread. Tests write and read these by :class:`Controls`.
An engine that holds the GIL while it hangs cannot be had here: nothing in Python survives it.
"""

import ctypes
import json
import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from derain_ros.engines import Derained, Engine, EngineError, EngineInfo
from derain_ros.engines.contract import check_images

FOLDER = 'FAULTY_ENGINES'
"""Environment variable with the folder of commands and log."""

POLL_SECONDS = 0.01
_ERRORS = {'raise': EngineError, 'crash': ZeroDivisionError, 'memory': MemoryError}


@dataclass(frozen=True)
class Command:
    """What an engine shall do from the next call on.

    ``mode`` is ``ok``: the image is :func:`mark` of the input; ``raise``, ``crash`` or ``memory``:
    EngineError, ZeroDivisionError, MemoryError; ``hang``: sleep until another mode is commanded;
    ``stuck``: wait in native code for ever, deaf to signals; ``black``: what a cast makes of NaN;
    ``nan``: NaN itself, as float32; ``shape``: half of the rows. ``creation`` is ``ok``, ``fail``
    (EngineError), ``hang`` or ``stuck`` (as above). ``infer_ms`` and ``warm_up_ms`` are how long
    one inference, and the warm-up of one size, take besides, ``model_ms`` how long one inference
    of a model takes in place of ``infer_ms``. ``mask`` is the rain probability of every pixel,
    0–255; -1 takes the first value of each image.
    """

    mode: str = 'ok'
    creation: str = 'ok'
    infer_ms: float = 0.0
    warm_up_ms: float = 0.0
    model_ms: dict[str, float] = field(default_factory=dict)
    mask: int = 200


class Controls:
    """The other end: commands engines, by files in a folder, and reads their log."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = {FOLDER: str(folder)}
        self._folder = folder

    def command(self, engine: str = 'faulty', **values: object) -> None:
        """Set what an engine does, from the start if no value is given."""
        file = self._folder / f'{engine}.json'
        new = file.with_suffix('.new')
        new.write_text(json.dumps(asdict(Command(**values))))
        new.replace(file)

    def events(self, kind: str | None = None, since: float = 0.0) -> list[dict]:
        """Return what was logged, of one kind, from a time of ``time.monotonic`` on."""
        log = self._folder / 'log.jsonl'
        lines = log.read_text().splitlines() if log.exists() else []
        events = [json.loads(line) for line in lines]
        return [event for event in events
                if kind in (None, event['event']) and event['time'] >= since]


def mark(picture: np.ndarray) -> np.ndarray:
    """Return a picture, uint8, as the engine derains it: each value is 16 up or down."""
    return picture ^ 16


def probe() -> tuple[str, str]:
    """Return device and version."""
    return 'test bench', 'faulty'


def create(name, model, precision, options=None) -> Engine:
    """Create the engine of a name; see the contract of ``derain_ros.engines``."""
    creation = _command(name).creation
    _log(name, 'create')  # what is logged is decided: a later command does not change it
    if creation == 'fail':
        raise EngineError(f'{name}: creation fails as commanded')
    if creation == 'hang':
        while _command(name).creation == 'hang':
            time.sleep(POLL_SECONDS)
    elif creation == 'stuck':
        _wait_for_ever()
    return FaultyEngine(name, model.name)


class FaultyEngine(Engine):
    """See the module."""

    def __init__(self, name: str, model: str):
        self.info = EngineInfo(name, 'test bench', model, 'f32', 'it was commanded')
        self._name = name
        self._closed = False
        self._running = 0
        self._lock = threading.Lock()
        self._id = f'{name} {time.monotonic_ns()}'
        _log(name, 'created', engine=self._id)

    def infer(self, images: np.ndarray) -> Derained:
        """Derain a batch, or what is commanded."""
        with self._alone('infer', shape=images.shape):
            return self._infer(images)

    def _infer(self, images: np.ndarray) -> Derained:
        if self._closed:
            raise EngineError(f'{self._name}: the engine is closed')
        check_images(images)
        command = _command(self._name)
        time.sleep(command.model_ms.get(self.info.model, command.infer_ms) * 1e-3)
        error = _ERRORS.get(command.mode)
        if error:
            raise error(f'{self._name}: {command.mode} as commanded')
        if command.mode == 'stuck':
            _wait_for_ever()
        while command.mode == 'hang' and _command(self._name).mode == 'hang':
            time.sleep(POLL_SECONDS)
        levels = images[:, 0, 0, 0] if command.mask < 0 else np.full(len(images), command.mask)
        masks = np.broadcast_to(levels[:, None, None], images.shape[:3]).astype(np.uint8)
        if command.mode == 'black':
            return Derained(np.zeros_like(images), np.zeros_like(masks))
        if command.mode == 'nan':
            return Derained(np.full(images.shape, np.nan, np.float32), masks)
        if command.mode == 'shape':
            return Derained(mark(images[:, ::2]), masks[:, ::2])
        return Derained(mark(images), masks)

    def warm_up(self, height: int, width: int, batch: int = 1) -> None:
        """Take the time that is commanded, then infer once."""
        with self._alone('warm_up', shape=(batch, height, width, 3)):
            time.sleep(_command(self._name).warm_up_ms * 1e-3)
            self._infer(np.zeros((batch, height, width, 3), np.uint8))

    def close(self) -> None:
        """Note the end."""
        _log(self._name, 'closed while running' if self._running else 'close', engine=self._id)
        self._closed = True

    @contextmanager
    def _alone(self, event: str, **more: object):
        with self._lock:
            found = 'two at once' if self._running else event
            self._running += 1
        try:
            _log(self._name, found, engine=self._id, **more)
            yield
        finally:
            with self._lock:
                self._running -= 1


def _command(name: str) -> Command:
    file = Path(os.environ[FOLDER]) / f'{name}.json'
    return Command(**json.loads(file.read_text())) if file.exists() else Command()


def _log(name: str, event: str, **more: object) -> None:
    line = json.dumps({'name': name, 'event': event, 'time': time.monotonic(),
                       'thread': threading.get_native_id(), **more})
    # A disk that is full is for the node to stand, not for this engine to fail by.
    with suppress(OSError), (Path(os.environ[FOLDER]) / 'log.jsonl').open('a') as log:
        log.write(line + '\n')


def _wait_for_ever() -> None:
    # A mutex of zeros that is locked twice: no signal ends it, and the GIL is not held.
    mutex = ctypes.create_string_buffer(128)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
