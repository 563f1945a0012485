"""``model: auto``: chooses the best model that keeps up with the cameras on this machine."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from derain_ros.engines import Derained, Engine, EngineError, EngineInfo
from derain_ros.engines.contract import default_cache
from derain_ros.engines.models import ModelError, ModelInfo, find_model, model_names
from derain_ros.images.memory import Memory
from derain_ros.node.frame_sizes import Size
from derain_ros.replacing import replace_file

RESERVE = 0.85  # a model is chosen only if it needs at most this share of the frame interval

PATIENCE = 5.0
"""Seconds for which the model in use may be too slow before a cheaper one replaces it."""

RUNS = 3
LOOK_SECONDS = 1.0


def models_by_cost() -> list[ModelInfo]:
    """Return the installed models with readable metadata, the cheapest first."""
    found = []
    for name in model_names():
        with suppress(ModelError):
            found.append(find_model(name))
    return sorted(found, key=lambda model: model.flops_per_pixel)


def time_memory(height: int, width: int) -> float:
    """Return the seconds that the memory of a camera that turns takes for a frame of a size."""
    memory, seconds = Memory(), []
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    scene = cv2.GaussianBlur(noise, (0, 0), 2)

    def infer(images: np.ndarray, *_: np.ndarray) -> Derained:
        return Derained(images, np.zeros(images.shape[:3], np.uint8))

    for number in range(2 * RUNS):
        frame = np.roll(scene, 4 * number, 1)[np.newaxis]
        start = time.monotonic()
        memory.through(infer, number / 30)(frame)
        seconds.append(time.monotonic() - start)
    return min(seconds[RUNS:])


class ModelChoice(Engine):
    """An engine that chooses its model by measured times; later it only changes to cheaper ones.

    ``make`` creates the engine of a model; ``demand`` returns the frames per second of all cameras
    by the size that they are derained at, None while unknown; ``budget`` is the share of all CPU
    cores that inference may use. Inference times are cached in ``directory``, by default
    ``~/.cache/derain_ros/engines``; ``setup`` is part of their key, for what else they depend on.
    ``log`` gets a sentence about each choice. Raises EngineError if no model can be loaded.
    """

    def __init__(
        self, make: Callable[[str], Engine], demand: Callable[[], Mapping[Size, float] | None],
        budget: float, setup: str, directory: Path | None, log: Callable[[str], None],
    ):
        self._make, self._demand, self._log = make, demand, log
        self._allowed = budget * len(os.sched_getaffinity(0))
        self._file = (directory or default_cache()) / 'model_times.json'
        self._models = models_by_cost()
        self._engines: dict[str, Engine] = {}
        self._seconds: dict[tuple[str, Size], list[float]] = {}  # wall time, CPU time
        self._memory_seconds: dict[Size, float] = {}
        self._used, self._settled, self._keeps = 0, False, True
        self._why = 'no model is installed; install the package again'
        self._looked = self._kept_up = time.monotonic()
        while not (self._models and self._load(0)):
            if not self._models:
                raise EngineError(self._why)
        self._why = 'the rate of the cameras is not known yet'
        first = self._engines[self._models[0].name]
        self._setup = f'{first.info.engine} {first.info.device} {setup}'
        self.preparation_limit = first.preparation_limit * len(self._models)

    @property
    def info(self) -> EngineInfo:
        """The engine in use, and the reason for the choice of its model."""
        found = self._engines[self._models[self._used].name].info
        return replace(found, reason=f'{found.reason}; model auto: {self._why}')

    @property
    def activity(self) -> str:
        """What the first busy engine is preparing; empty if none is."""
        return next((one.activity for one in tuple(self._engines.values()) if one.activity), '')

    def infer(self, images: np.ndarray, *states: np.ndarray) -> Derained:
        """Derain with the model in use, then check whether to change the model."""
        name, size = self._models[self._used].name, images.shape[1:3]
        engine = self._engines[name]
        start = time.monotonic()
        # The caller may have made the state for a model that was replaced since.
        result = engine.infer(images, *(states if engine.info.remembers else ()))
        now = time.monotonic()
        if times := self._seconds.get((name, size)):
            times[0] += 0.2 * (now - start - times[0])
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            self._settle()
            self._step_down(now)
        return result

    def warm_up(self, height: int, width: int, batch: int = 1) -> None:
        """Time the models at a size, choose one if none is chosen yet, and warm it up."""
        size = height, width
        number = 0
        while number < (self._used + 1 if self._settled else len(self._models)):
            if self._time(number, size):
                number += 1
        self._settle()
        # Also the cheaper ones, in case they have to take over.
        for model in self._models[:self._used + 1 if self._settled else None]:
            self._engines[model.name].warm_up(*size)
        self.infer(np.zeros((batch, height, width, 3), np.uint8))

    def cancel(self) -> None:
        """Abort a preparation in progress."""
        for engine in tuple(self._engines.values()):
            engine.cancel()

    def close(self) -> None:
        """Release all models."""
        for engine in self._engines.values():
            engine.close()

    # Times

    def _load(self, number: int) -> bool:
        """Load a model; on failure, log it, leave the model out for good and return False."""
        name = self._models[number].name
        if name not in self._engines:
            try:
                self._engines[name] = self._make(name)
            except (EngineError, ModelError) as error:
                self._why = f'{name} is left out: {error}'
                self._log(f'model auto: {self._why}')
                del self._models[number]
                return False
        return True

    def _time(self, number: int, size: Size) -> bool:
        """Get a model's times from the cache or by measuring; return False if it is left out."""
        if not self._load(number):
            return False
        model = self._models[number]
        if (model.name, size) in self._seconds:
            return True
        known = self._remembered().get(self._key(model, size))
        if known is None:
            self._engines[model.name].warm_up(*size)
            images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
            runs = []
            for _ in range(RUNS):
                start = time.monotonic(), time.process_time()
                self._engines[model.name].infer(images)
                runs.append([time.monotonic() - start[0], time.process_time() - start[1]])
            known = min(runs)
            self._remember(model, size, known)
        self._seconds[model.name, size] = list(known)
        if self._engines[model.name].info.remembers and size not in self._memory_seconds:
            self._memory_seconds[size] = time_memory(*size)
        return True

    def _key(self, model: ModelInfo, size: Size) -> str:
        digest = model.sha256.get(model.onnx.name, '')[:16]
        return f'{model.name} {digest} {size[1]}x{size[0]} {self._setup}'

    def _remembered(self) -> dict[str, list[float]]:
        try:
            found = json.loads(self._file.read_text())
            return {key: [float(wall), float(cpu)] for key, (wall, cpu) in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):  # none yet, or damaged
            return {}

    def _remember(self, model: ModelInfo, size: Size, seconds: list[float]) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._file, json.dumps(
                self._remembered() | {self._key(model, size): seconds}, indent=1))
        except OSError as error:
            if self._keeps:
                self._keeps = False
                self._log(f'{self._file} cannot be written ({error.strerror}), so that the models '
                          'are timed again at each start; set engine_cache to another folder')

    # The choice

    def _needs(self, number: int, demand: Mapping[Size, float]) -> float:
        """Return the larger of the shares of wall time and CPU budget that a model needs."""
        wall, cpu = (sum(rate * (self._taken(number, size)[kind] + self._aside(number, size))
                         for size, rate in demand.items()) for kind in range(2))
        return max(wall, cpu / self._allowed)

    def _taken(self, number: int, size: Size) -> list[float]:
        """Return wall and CPU seconds of a model; zeros for a size not measured yet."""
        return self._seconds.get((self._models[number].name, size), [0.0, 0.0])

    def _aside(self, number: int, size: Size) -> float:
        """Return the seconds that a model's frames take besides inference."""
        engine = self._engines.get(self._models[number].name)
        return self._memory_seconds.get(size, 0.0) if engine and engine.info.remembers else 0.0

    def _settle(self) -> None:
        demand = None if self._settled else self._demand()
        numbers = range(len(self._models))
        if not demand or not all(
                self._taken(number, size)[0] for number in numbers for size in demand):
            return
        fits = [number for number in numbers if self._needs(number, demand) <= RESERVE]
        self._settled = True
        self._use(max(fits, default=0), numbers, demand)

    def _step_down(self, now: float) -> None:
        demand = self._demand() if self._settled and self._used else None
        needs = self._needs(self._used, demand) if demand else 0.0
        if needs <= 1.0:
            self._kept_up = now
        elif now - self._kept_up > PATIENCE:
            for size in demand:
                if (times := self._taken(self._used, size))[0]:
                    self._remember(self._models[self._used], size, times)
            self._use(self._used - 1, [self._used], demand)
            self._kept_up = now

    def _use(self, number: int, compared: Sequence[int], demand: Mapping[Size, float]) -> None:
        """Change to a model and log the times and shares of the models it was compared with."""
        rate = sum(demand.values())
        times = []
        for one in compared:
            seconds = sum(
                each * (self._taken(one, size)[0] + self._aside(one, size))
                for size, each in demand.items()) / rate
            times.append(f'{self._models[one].name} {seconds * 1e3:.0f} ms '
                         f'({self._needs(one, demand):.0%})')
        self._used = number
        self._why = (f'an inference takes {", ".join(times)} of the {1e3 / rate:.0f} ms between '
                     'the frames of all cameras')
        self._log(f'model auto takes {self._models[number].name}: {self._why}')
        for model in self._models[number + 1:]:
            if engine := self._engines.pop(model.name, None):
                engine.close()
