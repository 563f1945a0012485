"""A compiled engine with its buffers for one batch shape, ready to run."""

import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from derain_ros.engines.contract import Derained, EngineError
from derain_ros.engines.tensorrt.cuda_runtime import CudaStream, DeviceMemory, Graph, PinnedArray
from derain_ros.engines.tensorrt.engine_cache import EngineCache, EngineKey
from derain_ros.engines.tensorrt.tensorrt_library import TROUBLE, LogBook

KERNELS = '.kernels'
"""Suffix of compiled kernels in the engine cache."""

_OUTPUTS = ('derained', 'rain_mask')
_LOG = logging.getLogger(__name__)

_IDLE = re.compile(r'reformat|no_?op|constant|shape|signal|wait|copy|train_?station', re.I)
"""Types of layers that compute nothing."""

# The first match in a description counts: 'Half', or 'Row major linear FP16 format'.
_TYPES = (
    ('bf16', re.compile(r'bf16|bfloat', re.I)),
    ('f16', re.compile(r'fp16|half|float16', re.I)),
    ('fp8', re.compile(r'fp8|float8', re.I)),
    ('int8', re.compile(r'(?<!u)int8', re.I)),
    ('f32', re.compile(r'fp32|tf32|float', re.I)),
)


class RuntimeCache:
    """Keeps the kernels that TensorRT for RTX compiles when the engine of a key first runs.

    TensorRT itself compiles kernels during the build, and its engines have no such cache. This
    object must outlive the contexts it creates. If the cache cannot be used, only time is lost.
    """

    def __init__(self, cache: EngineCache, key: EngineKey):
        self._entry = cache, key
        self._known = b''
        self._compiled: Any = None

    def create_context(self, trt: ModuleType, engine):
        """Return an execution context of an engine; None if TensorRT creates none."""
        try:
            config = self._config(trt, engine)
        except TROUBLE as error:
            _LOG.warning('no cache of compiled kernels: %s', error)
            config = self._compiled = None
        if config is None:
            return engine.create_execution_context()
        return engine.create_execution_context(config)

    def _config(self, trt: ModuleType, engine):
        # Later versions of TensorRT 10 have runtime configurations, but no such cache.
        config = getattr(engine, 'create_runtime_config', lambda: None)()
        if not hasattr(config, 'create_runtime_cache'):
            return None
        strategies = getattr(trt, 'DynamicShapesKernelSpecializationStrategy', None)
        if strategies is not None:
            # Specialise at once, as a CUDA graph keeps the kernels that it was captured with.
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._compiled = config.create_runtime_cache()
        if self._compiled is None:
            return config
        cache, key = self._entry
        self._known = cache.read(key, KERNELS)
        if self._known and not self._compiled.deserialize(self._known):
            _LOG.info('the stored kernels do not fit this engine; they are compiled again')
            self._known = b''
        config.set_runtime_cache(self._compiled)
        return config

    def keep(self) -> None:
        """Write the kernels to the cache, after a run; a failure is only logged."""
        if self._compiled is None:
            return
        try:
            found = bytes(self._compiled.serialize() or b'')
        except TROUBLE as error:
            _LOG.warning('the compiled kernels are not stored: %s', error)
            return
        if found not in (b'', self._known):
            self._known = found
            cache, key = self._entry
            cache.write(key, found, KERNELS)


@dataclass(frozen=True)
class LayerTypes:
    """The number of layers of an engine that compute in each type.

    ``counts``: number of layers by type: f16, f32, bf16, int8, fp8. A layer has the type of its
    outputs, or of its inputs if that is no arithmetic type. Empty if TensorRT reports nothing.
    """

    counts: dict[str, int]

    def share(self, name: str) -> float:
        """Return the share of layers of a type, 0–1."""
        return self.counts.get(name, 0) / max(1, sum(self.counts.values()))

    def __str__(self) -> str:
        total = sum(self.counts.values())
        if not total:
            return 'TensorRT does not report the types of its layers'
        parts = ', '.join(f'{100 * self.share(name):.0f} % {name}' for name in sorted(
            self.counts, key=self.counts.get, reverse=True))
        return f'{total} {"layer" if total == 1 else "layers"}: {parts}'


def inspect(trt: ModuleType, engine, context) -> LayerTypes:
    """Return the layer types of an engine that was built with detailed verbosity."""
    try:
        inspector = engine.create_engine_inspector()
        # With the context, the inspector also knows the dynamic shapes of the engine.
        inspector.execution_context = context
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    except TROUBLE as error:
        _LOG.debug('no engine inspector: %s', error)
        return LayerTypes({})
    return read_layers(text)


def read_layers(text: str) -> LayerTypes:
    """Read the inspector's JSON in any of its formats; unknown types are left out."""
    try:
        # Names of layers may hold control characters.
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return LayerTypes({})
    layers = found.get('Layers') if isinstance(found, dict) else found
    types = [_type_of(layer) for layer in _dicts(layers)
             if not _IDLE.search(str(layer.get('LayerType', '')))]
    return LayerTypes(dict(Counter(name for name in types if name)))


def _type_of(layer: dict[str, Any]) -> str:
    for tensors in (layer.get('Outputs'), layer.get('Inputs')):
        names = {_named(str(tensor.get('Format/Datatype', tensor.get('Datatype', ''))))
                 for tensor in _dicts(tensors)} - {''}
        if names:
            # The most precise one, as the layer does not compute in less.
            return 'f32' if 'f32' in names else min(names)
    return _named(str(layer.get('Precision', '')))


def _named(description: str) -> str:
    return next((name for name, words in _TYPES if words.search(description)), '')


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


class Plan:
    """Copies a batch to the GPU, infers, and copies the results back, as one CUDA graph.

    ``trt``: TensorRT module. ``engine``: the deserialized engine. ``shapes``: shapes of its inputs
    by name, N×H×W×C. ``stream``: the stream to use. ``book``: collects the errors of TensorRT.
    ``kernels``: keeps the kernels compiled when the engine first runs. ``layers``: the types of
    the layers. ``not_captured``: why there is no CUDA graph; empty if there is one. Raises
    EngineError: the inputs or outputs are not as expected, or there is not enough memory.
    """

    def __init__(
        self, trt, engine, shapes: dict[str, tuple[int, ...]], stream: CudaStream,
        book: LogBook, kernels: RuntimeCache,
    ):
        self._engine = engine
        self._inputs = list(shapes)
        self._stream = stream
        self._book = book
        self._kernels: RuntimeCache | None = kernels
        self._graph: Graph | None = None
        self._releases = contextlib.ExitStack()
        self._memory: dict[str, tuple[PinnedArray, DeviceMemory]] = {}
        self.not_captured = ''
        try:
            self._context = book.made(
                kernels.create_context, trt, engine,
                what='TensorRT cannot get ready for {2}x{1}'.format(*shapes['image']))
            for name, shape in shapes.items():
                if not self._context.set_input_shape(name, shape):
                    raise EngineError(f'TensorRT refuses the shape {shape}: {book.words()}')
            for name in (*shapes, *_OUTPUTS):
                self._bind(trt, name)
            self.layers = inspect(trt, engine, self._context)
            # Once without a graph: some kernels are loaded or compiled at first use.
            self._queue()
            stream.wait()
            kernels.keep()
            self._capture()
        except BaseException:
            self.close()
            raise

    def _bind(self, trt, name: str) -> None:
        shape = tuple(self._context.get_tensor_shape(name))
        if self._engine.get_tensor_dtype(name) != trt.DataType.UINT8 or min(shape, default=0) < 1:
            raise EngineError(
                f'the engine has {name} as {self._engine.get_tensor_dtype(name)} of shape '
                f'{shape}, expected uint8')
        host = PinnedArray(shape)
        self._releases.callback(host.free)
        device = DeviceMemory(host.array.nbytes)
        self._releases.callback(device.free)
        self._memory[name] = host, device
        if not self._context.set_tensor_address(name, device.pointer):
            raise EngineError(f'TensorRT refuses the memory of {name}')

    def _queue(self) -> None:
        for name in self._inputs:
            self._stream.upload(*self._memory[name])
        self._execute()
        for name in _OUTPUTS:
            host, device = self._memory[name]
            self._stream.download(device, host)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f'TensorRT could not queue the inference: {self._book.words()}')

    def _capture(self) -> None:
        try:
            self._graph = self._stream.capture(self._queue)
            self._releases.callback(self._graph.close)
        except EngineError as error:
            self.not_captured = str(error)

    def run(self, images: np.ndarray, states: np.ndarray | None = None) -> Derained:
        """Derain a batch of the shape that this was made for."""
        for name, array in zip(self._inputs, (images, states), strict=False):
            np.copyto(self._memory[name][0].array, 0 if array is None else array)
        if self._graph is None:
            self._queue()
        else:
            self._graph.launch()
        self._stream.wait()
        return Derained(*(self._memory[name][0].array.copy() for name in _OUTPUTS))

    def time(self, runs: int) -> list[float]:
        """Time the network on the last batch, without copies: ms between events, per run."""
        execution: Graph | None = None
        if self._graph is not None:
            with contextlib.suppress(EngineError):
                execution = self._stream.capture(self._execute)
        try:
            return self._stream.time(
                self._execute if execution is None else execution.launch, runs)
        finally:
            if execution is not None:
                execution.close()

    def close(self) -> None:
        """Release its memory; calling it twice is harmless."""
        self._memory.clear()
        # The context first: it uses the others.
        self._graph = self._context = None
        self._kernels = self._engine = None
        # Frees all of them even if one fails: after a GPU fault each does.
        with contextlib.suppress(EngineError):
            self._releases.close()
