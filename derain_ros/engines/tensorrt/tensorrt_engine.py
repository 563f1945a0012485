"""TensorRT on an NVIDIA GPU: compiled for each frame size, cached, verified before use."""

import hashlib
import logging
import threading
from collections import OrderedDict
from dataclasses import replace

import numpy as np

from derain_ros.engines.agreement import (
    LEAST_DB,
    LEAST_MASK_DB,
    agreement,
    mask_agreement,
    state_for,
    test_frame,
)
from derain_ros.engines.contract import (
    Derained,
    Engine,
    EngineError,
    EngineInfo,
    EngineOptions,
    check_images,
    ready_for,
)
from derain_ros.engines.models import ModelInfo
from derain_ros.engines.onnx_file import takes_state
from derain_ros.engines.reference import Reference
from derain_ros.engines.tensorrt.cuda_runtime import CudaStream, GpuIdentity, find_gpu
from derain_ros.engines.tensorrt.engine_cache import CancelledError, EngineCache, EngineKey
from derain_ros.engines.tensorrt.tensorrt_build import (
    BuildRequest,
    Progress,
    build_engine,
    timings_for,
)
from derain_ros.engines.tensorrt.tensorrt_library import Library, LogBook, check_gpu, find_library
from derain_ros.engines.tensorrt.tensorrt_plan import Plan, RuntimeCache

MOST_F32 = 0.5  # largest share of f32 layers in an f16 engine without a warning

_FILES = {'f16': 'fp16', 'f32': 'fp32'}


class DisagreementError(EngineError):
    """A compiled engine does not compute what the model does."""


def probe() -> tuple[str, str]:
    """Return device and version, or raise EngineError with what is missing."""
    gpu, library = _find()
    return (f'{gpu.name}, compute capability {gpu.compute_capability}',
            f'{library.flavour} {library.version}')


def create(model: ModelInfo, precision: str, options: EngineOptions) -> Engine:
    """Load a model; ``precision`` is auto, f16 or f32. Raises EngineError, ModelError."""
    return TensorRtEngine(model, precision, options)


def _find() -> tuple[GpuIdentity, Library]:
    # The GPU first: without one the library need not be loaded.
    gpu = find_gpu()
    if gpu.missing:
        raise EngineError(gpu.missing)
    library = find_library()
    check_gpu(library, gpu)
    return gpu, library


class TensorRtEngine(Engine):
    """Runs a model compiled by TensorRT, separately for each batch shape.

    A freshly compiled engine is compared with f32 on the CPU, on a test frame of its size, and
    neither used nor kept if images agree to less than ``LEAST_DB``, or masks to less than
    ``LEAST_MASK_DB``, of :mod:`derain_ros.engines.agreement`.

    ``model``: model to load, checked first. ``precision``: ``f16``, ``f32``, or ``auto``: f16 if
    there is a float16 file. ``options``: cache and scratch memory of engines. Raises EngineError:
    there is no GPU or no TensorRT, or it cannot be used. Raises ModelError: the file is damaged.
    """

    preparation_limit = 1800.0
    on_gpu = True

    def __init__(self, model: ModelInfo, precision: str, options: EngineOptions) -> None:
        if precision == 'bf16':
            raise EngineError('TensorRT runs the types of the file: f16 or f32')
        self._gpu, self._library = _find()
        self._log = logging.getLogger(__name__)
        self._cache = EngineCache(
            options.cache_directory, limit=options.cache_limit, log=self._log.warning)
        self._workspace = options.workspace
        reason = f'{precision} was requested'
        if precision == 'auto':
            precision = 'f32' if model.onnx_fp16 is None else 'f16'
            reason = 'the model has no file in f16' if precision == 'f32' else 'f16 is faster'
        self._model, self._precision = model, precision
        self._content = self._request((1, 64, 64, 3)).read()
        self._stop = threading.Event()
        self._book = LogBook()
        self._logger = self._book.logger(self._library)
        self._runtime = self._book.made(
            self._library.module.Runtime, self._logger, what='TensorRT has no runtime here')
        self._stream = CudaStream()
        self._layers = ''
        self._plans: OrderedDict[tuple[int, ...], Plan] = OrderedDict()
        if model.origin:
            reason = f'{reason}; {model.origin}'
        self.info = EngineInfo(
            'tensorrt', f'{self._gpu.name}, {self._library.flavour} {self._library.version}',
            model.name, precision, reason, takes_state(self._content))

    def infer(self, images: np.ndarray, states: np.ndarray | None = None) -> Derained:
        """Derain a batch; see :meth:`Engine.infer`. A new shape compiles first, for minutes."""
        check_images(images, states, remembers=self.info.remembers)
        return self._plan_for(images.shape).run(images, states)

    def time_device(self, images: np.ndarray, runs: int) -> list[float]:
        """Time the network alone on the GPU; see :meth:`Engine.time_device`."""
        self.infer(images)
        return self._plan_for(images.shape).time(runs)

    def _plan_for(self, shape: tuple[int, ...]) -> Plan:
        if self._runtime is None:
            raise EngineError('the engine is closed')
        return ready_for(self._plans, shape, lambda: self._plan(shape))

    def cancel(self) -> None:
        """Abort a build that is under way; may be called from any thread."""
        self._stop.set()

    def close(self) -> None:
        """Release all memory of the GPU; calling it twice is harmless."""
        if self._runtime is None:
            return
        while self._plans:
            self._plans.popitem()[1].close()
        self._stream.close()
        self._runtime = None

    def _request(self, shape: tuple[int, ...]) -> BuildRequest:
        return BuildRequest(
            self._model, _FILES[self._precision], shape[1:3], batch=shape[0],
            workspace=self._workspace)

    def _plan(self, shape: tuple[int, ...]) -> Plan:
        """Load the engine of a shape from the cache, or compile and verify it."""
        request = self._request(shape)
        key = request.key(self._content, self._library, self._gpu)
        ready: list[Plan] = []

        def build() -> bytes:
            reference = Reference(self._model)  # fails before a build of minutes
            serialized = build_engine(
                request, self._content, self._library, report=self._report, stop=self._stop,
                timings=timings_for(self._cache, self._library, self._gpu))
            ready.append(self._load(serialized, shape, key))
            self._verify(ready[0], shape, reference)
            return serialized

        try:
            serialized, found = self._cache.get_or_build(
                key, build, stop=self._stop, waiting=self._tell_of_waiting)
            plan = ready[0] if ready else self._load_kept(serialized, shape, key)
            known = self._cache.is_verified(key)
            if found and not known:
                # Built by `derain build-engine`, which does not run what it builds.
                self._verify(plan, shape)
            if not known:
                self._cache.mark_verified(key)
        except CancelledError as error:
            raise EngineError(str(error)) from error
        except DisagreementError:
            self._cache.discard(key)
            raise
        finally:
            self.activity = ''
        self._tell(plan, shape)
        return plan

    def _load_kept(self, serialized: bytes, shape: tuple[int, ...], key: EngineKey) -> Plan:
        """Load an engine from the cache; one that TensorRT refuses is discarded."""
        try:
            return self._load(serialized, shape, key)
        except EngineError:
            self._cache.discard(key)
            raise

    def _load(self, serialized: bytes, shape: tuple[int, ...], key: EngineKey) -> Plan:
        engine = self._book.made(self._runtime.deserialize_cuda_engine, serialized,
                                 what='TensorRT cannot load the engine')
        shapes = {'image': shape}
        if self.info.remembers:
            shapes['state_in'] = (*shape[:3], 4)
        return Plan(self._library.module, engine, shapes, self._stream, self._book,
                    RuntimeCache(self._cache, key))

    def _verify(
        self, plan: Plan, shape: tuple[int, ...], reference: Reference | None = None
    ) -> None:
        """Compare a plan with the reference; if they disagree, close it and raise."""
        try:
            reference = reference or Reference(self._model)
            self.activity = f'{shape[2]}x{shape[1]}: comparing with the reference'
            frame = test_frame(*shape[1:3])
            given = (frame, state_for(frame)) if self.info.remembers else (frame,)
            given = [np.ascontiguousarray(np.broadcast_to(x, (shape[0], *x.shape[1:])))
                     for x in given]
            expected, result = reference.infer(*given), plan.run(*given)
            found, mask = agreement(expected, result), mask_agreement(expected, result)
            self._log.info(
                '%dx%d: agrees with %s in f32 to %.1f dB, its mask to %.1f dB; sha256 of the '
                'model %s', shape[2], shape[1], reference.name, found, mask,
                hashlib.sha256(self._content).hexdigest()[:16])
            if found < LEAST_DB or mask < LEAST_MASK_DB:
                raise DisagreementError(
                    f'{shape[2]}x{shape[1]}: the compiled engine agrees with the f32 reference to '
                    f'{found:.1f} dB only, its mask to {mask:.1f} dB, expected {LEAST_DB:g} and '
                    f'{LEAST_MASK_DB:g}; it is not used: set the engine to openvino or torch, or '
                    'the precision to f32')
        except BaseException:
            plan.close()
            raise

    def _tell(self, plan: Plan, shape: tuple[int, ...]) -> None:
        """State in the log and in ``info.reason`` the types that a plan computes in."""
        size = f'{shape[2]}x{shape[1]}'
        if plan.not_captured:
            self._log.warning('%s: no CUDA graph (%s)', size, plan.not_captured)
        wrong = self._precision == 'f16' and plan.layers.share('f32') > MOST_F32
        self._log.log(
            logging.WARNING if wrong else logging.INFO, '%s: %s%s', size, plan.layers,
            '; most of an engine in f16 should not run in f32' if wrong else '')
        if plan.layers.counts:
            # Others may have extended the reason since the engine was created.
            reason = self.info.reason.removesuffix(self._layers)
            self._layers = f'; at {size} {plan.layers}'
            self.info = replace(self.info, reason=f'{reason}{self._layers}')

    def _report(self, progress: Progress) -> None:
        self.activity = (f'building, {progress.percent:.0f} %, {progress.seconds:.0f} s: '
                         f'{progress.phase}')

    def _tell_of_waiting(self) -> None:
        self.activity = 'another process is building this engine; waiting for it'
        self._log.info(self.activity)
