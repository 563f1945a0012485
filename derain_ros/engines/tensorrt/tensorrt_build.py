"""Compile an ONNX model with TensorRT.

Networks are strongly typed: the precision is that of the ONNX file, as TensorRT 11 has no
precision flags any more. So a float16 engine is built from ``<name>_fp16.onnx``.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from derain_ros.engines.contract import MINIMUM_SIDE, EngineError
from derain_ros.engines.models import ModelInfo
from derain_ros.engines.onnx_file import check_interface, check_one_file
from derain_ros.engines.tensorrt.cuda_runtime import GpuIdentity
from derain_ros.engines.tensorrt.engine_cache import EngineCache, EngineKey
from derain_ros.engines.tensorrt.tensorrt_library import TROUBLE, Library, LogBook

PRECISIONS = ('fp16', 'fp32')
"""Precisions that an engine may be built in, best first."""

TIMING = '.timing'  # suffix of timing caches in the engine cache

_QUIET_SECONDS = 1.0
_LOG = logging.getLogger(__name__)


class BuildAbortedError(EngineError):
    """The build was told to stop."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build: a model in one of :data:`PRECISIONS`.

    ``size`` is the height and width of the frames in pixels, ``batch`` the largest batch size,
    ``workspace`` the limit of scratch memory on the GPU in bytes; None leaves it to TensorRT.
    """

    model: ModelInfo
    precision: str
    size: tuple[int, int]
    batch: int = 1
    workspace: int | None = None

    def __post_init__(self) -> None:
        height, width = self.size
        if min(self.size) < MINIMUM_SIDE:
            raise EngineError(
                f'size: {width}x{height} is too small; the network needs at least '
                f'{MINIMUM_SIDE} pixels on each side')

    def read(self) -> bytes:
        """Return the content of the ONNX file, verified.

        Raises EngineError if the model has no file of this precision, ModelError if it is damaged.
        """
        model = self.model
        file = model.onnx if self.precision == 'fp32' else model.onnx_fp16
        if file is None:
            raise EngineError(
                f'{model.name} has no file in float16; use precision fp32, or export the model '
                'with `derain export`, which writes both')
        content = model.read(file)
        check_one_file(file, content)
        return content

    def key(self, content: bytes, library: Library, gpu: GpuIdentity) -> EngineKey:
        """Return the cache key of the engine; ``content`` is what :meth:`read` returned."""
        return EngineKey(
            model_sha256=hashlib.sha256(content).hexdigest(),
            flavour=library.flavour, version=library.version,
            gpu=gpu.name, compute_capability=gpu.compute_capability, driver=gpu.driver,
            shape=(self.batch, *self.size),
            precision=self.precision,
            options={'workspace': '' if self.workspace is None else str(self.workspace),
                     'verbosity': 'detailed'})


class Progress(NamedTuple):
    """Progress of a build.

    ``phase`` is the current phase, as the builder names it; ``percent`` never decreases;
    ``seconds`` is the time since the start.
    """

    phase: str
    percent: float
    seconds: float


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class ProgressTree:
    """Turns nested phases, as reported to an ``IProgressMonitor``, into one percentage.

    A phase refines the current step of its parent. All steps of a phase count the same, although
    they take different times. ``report`` is called at each further percent, and about once a
    second in between; ``stop`` may be set to abort the build.
    """

    def __init__(self, report: Callable[[Progress], None], stop: threading.Event):
        self._report = report
        self._stop = stop
        self._start = self._last = time.monotonic()
        self._phases: dict[str, _Phase] = {}
        self._highest, self._told = 0.0, -1
        # The builder calls from threads of its own.
        self._lock = threading.Lock()

    def phase_start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of ``steps`` steps, within the phase ``parent`` if there is one."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(1, steps))
            self._tell(name)

    def step_complete(self, name: str, step: int) -> bool:
        """Mark a step, counted from 0, as done; returns whether the build is to go on."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = min(phase.steps, max(phase.done, step + 1))
                self._tell(name)
        return not self._stop.is_set()

    def phase_finish(self, name: str) -> None:
        """End a phase."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None and phase.parent is None:
                self._highest = 100.0
                self._tell(name)

    def _tell(self, name: str) -> None:
        # From this phase up; no phase is visited twice, whatever the builder reports.
        share, above, current = 0.0, dict(self._phases), name
        while (phase := above.pop(current, None)) is not None:
            share, current = min(1.0, (phase.done + share) / phase.steps), phase.parent
        self._highest = max(self._highest, 100 * share)
        now = time.monotonic()
        if int(self._highest) > self._told or now - self._last >= _QUIET_SECONDS:
            self._told, self._last = int(self._highest), now
            self._report(Progress(name, self._highest, now - self._start))


def timings_for(cache: EngineCache, library: Library, gpu: GpuIdentity) -> 'TimingCache | None':
    """Return the timing cache of a library on a GPU; None if the library does not use one.

    TensorRT for RTX measures nothing during a build and says that its timing cache does nothing.
    """
    if library.flavour == 'tensorrt_rtx' or gpu.missing:
        return None
    return TimingCache(cache, library, gpu)


class TimingCache:
    """Kernel timings of one TensorRT version on one GPU, kept in the engine cache between builds.

    It only makes builds faster; if it cannot be used, a new one is started.
    """

    def __init__(self, cache: EngineCache, library: Library, gpu: GpuIdentity):
        self._cache = cache
        self.key = EngineKey('', library.flavour, library.version, gpu.name,
                             gpu.compute_capability, gpu.driver)
        self._attached: Any = None

    def attach(self, config) -> None:
        """Attach the known timings to a builder configuration."""
        try:
            for content in dict.fromkeys((self._cache.read(self.key, TIMING), b'')):
                # Keep a reference, as the configuration does not own it.
                self._attached = config.create_timing_cache(content)
                # False: TensorRT itself checks that the times are of this GPU.
                if self._attached is not None and config.set_timing_cache(self._attached, False):
                    return
        except TROUBLE as error:
            _LOG.warning('no timing cache: %s', error)
        self._attached = None

    def keep(self, config) -> None:
        """Write the timings after a build, merged with those that others wrote meanwhile."""
        if self._attached is None:
            return
        try:
            before = self._cache.read(self.key, TIMING)
            if before:
                theirs = config.create_timing_cache(before)
                if theirs is not None:
                    self._attached.combine(theirs, False)
            found = self._attached.serialize()
            if found is not None and bytes(found) != before:
                self._cache.write(self.key, bytes(found), TIMING)
        except TROUBLE as error:
            _LOG.warning('the timing cache is not kept: %s', error)
        finally:
            self._attached = None


def build_engine(
    request: BuildRequest, content: bytes, library: Library, *,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None, timings: TimingCache | None = None,
) -> bytes:
    """Compile a model from the content of its ONNX file; returns the serialized engine.

    ``report`` is called with the progress, from threads of TensorRT; setting ``stop`` aborts the
    build, which raises BuildAbortedError; ``timings`` is the timing cache to use. Raises
    EngineError with the first errors of TensorRT if it cannot read or build the model.
    """
    trt, book = library.module, LogBook()
    stop = stop or threading.Event()
    logger = book.logger(library)
    what = f'{request.model.name}, {request.precision}: TensorRT has no builder here'
    builder = book.made(trt.Builder, logger, what=what)
    network = book.made(builder.create_network, _network_flags(trt), what=what)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        told = [parser.get_error(number).desc() for number in range(parser.num_errors)]
        raise _failed(request, 'TensorRT cannot read the model', told or book.errors)
    check_interface(
        request.model.onnx,
        [network.get_input(number).name for number in range(network.num_inputs)],
        [network.get_output(number).name for number in range(network.num_outputs)])
    config = book.made(builder.create_builder_config, what=what)
    # So that the inspector reports the types of the layers.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        largest = (request.batch, *request.size, tensor.shape[3])
        profile.set_shape(tensor.name, (1, *largest[1:]), largest, largest)
    if config.add_optimization_profile(profile) < 0:
        raise _failed(request, 'its profile is refused', book.errors)
    class Monitor(ProgressTree, trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            ProgressTree.__init__(self, report, stop)

    # Kept in a variable: the configuration does not own it.
    monitor = Monitor()
    config.progress_monitor = monitor
    if timings is not None:
        timings.attach(config)
    serialized = builder.build_serialized_network(network, config)
    if timings is not None:
        timings.keep(config)
    if serialized is None:
        if stop.is_set():
            raise BuildAbortedError(f'{request.model.name}: the build was aborted')
        raise _failed(request, 'TensorRT cannot build the model', book.errors)
    return bytes(serialized)


def _network_flags(trt) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    # In versions without this flag, all networks are strongly typed.
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, 'STRONGLY_TYPED') else 0


def _failed(request: BuildRequest, what: str, told: Sequence[str]) -> EngineError:
    words = '; '.join(told[:3]) or 'it does not say why'
    height, width = request.size
    return EngineError(
        f'{request.model.name}, {request.precision}, {width}x{height}: {what}: {words}')
