"""OpenVINO on the CPU: the engine for machines without an NVIDIA GPU."""

import math
import time
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from derain_ros.engines.agreement import LEAST_DB, agreement, state_for, test_frame
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
from derain_ros.engines.onnx_file import check_interface, check_one_file
from derain_ros.text import why_not_imported

SMALL_PIXELS = 1 << 16
"""Up to this many pixels, one thread is as fast as several and uses less CPU time.

For 192×256 pixels in bf16, one thread took 10 ms; two took 8–11 ms, and 13–15 ms of CPU time.
"""


class LayerTime(NamedTuple):
    """A layer as OpenVINO runs it.

    ``kind`` is the layer type, ``kernel`` the chosen kernel, which names its instruction set,
    ``ms`` the shortest time of several runs, ``flops`` the operations of convolutions and linear
    layers, a multiply-add counting as two, 0 for other layers, and ``size`` the bytes of inputs,
    weights and outputs, each counted once.
    """

    kind: str
    kernel: str
    ms: float
    flops: int
    size: int


def probe() -> tuple[str, str]:
    """Return device and version, or raise EngineError with what is missing."""
    openvino = _import()
    core = openvino.Core()
    device = core.get_property('CPU', 'FULL_DEVICE_NAME')
    return device, f'OpenVINO {openvino.__version__.split("-")[0]}'


def create(model: ModelInfo, precision: str, options: EngineOptions) -> Engine:
    """Load a model; ``precision`` is auto, f32 or bf16. Raises EngineError, ModelError."""
    return OpenVinoEngine(model, precision, options.threads)


def _import():
    try:
        import openvino
        openvino.Core  # noqa: B018, older releases have it elsewhere
    except Exception as error:  # of various types if a shared library does not load
        raise EngineError(why_not_imported(error, 'openvino')) from error
    return openvino


class OpenVinoEngine(Engine):
    """Runs an ONNX model on the CPU, compiled for each batch shape when it first occurs.

    ``model``: model to load; its file is checked first. ``precision``: ``f32``, ``bf16``, or
    ``auto``: bf16 if the CPU supports it and the result agrees with f32 to
    :data:`derain_ros.engines.agreement.LEAST_DB`. ``threads``: threads per inference; 0 takes one
    per core. Raises EngineError: OpenVINO is missing or cannot read the model, or the CPU lacks
    bf16. Raises ModelError: the model file is damaged.
    """

    def __init__(self, model: ModelInfo, precision: str, threads: int = 0) -> None:
        self._openvino = openvino = _import()
        self._threads = threads
        content = model.read(model.onnx)
        check_one_file(model.onnx, content)
        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(content)
        except RuntimeError as error:
            raise EngineError(f'{model.onnx}: OpenVINO cannot read it: {error}') from error
        self._remembers = check_interface(
            model.onnx, *([port.any_name for port in ports] for ports in (
                self._model.inputs, self._model.outputs)))
        self._requests: OrderedDict = OrderedDict()
        native = 'BF16' in self._core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        if precision == 'f16':
            raise EngineError('OpenVINO computes in f32 or bf16 on a CPU; use one of them or auto')
        if precision == 'bf16' and not native:
            raise EngineError('this CPU has no bf16 arithmetic; use precision f32 or auto')
        self._precision, reason = precision, f'{precision} was requested'
        if precision == 'auto':
            self._precision, reason = self._choose_precision(native)
        if model.origin:
            reason = f'{reason}; {model.origin}'
        device = self._core.get_property('CPU', 'FULL_DEVICE_NAME')
        self.info = EngineInfo(
            'openvino', device, model.name, self._precision, reason, self._remembers)

    def _choose_precision(self, native: bool) -> tuple[str, str]:
        if not native:
            return 'f32', 'the CPU has no bf16 arithmetic'
        frame = test_frame()
        results = []
        for self._precision in ('f32', 'bf16'):
            try:
                results.append(self.infer(frame, state_for(frame) if self._remembers else None))
            except EngineError as error:
                if self._precision == 'f32':
                    raise
                self._requests.clear()
                return 'f32', f'the model does not run in bf16: {error}'
            self._requests.clear()
        found = agreement(*results)
        if found < LEAST_DB:
            return 'f32', f'bf16 agrees with f32 only to {found:.1f} dB'
        return 'bf16', f'bf16 agrees with f32 to {found:.0f} dB'

    def infer(self, images: np.ndarray, states: np.ndarray | None = None) -> Derained:
        """Derain a batch; see :meth:`Engine.infer`. The first batch of a shape compiles."""
        check_images(images, states, remembers=self._remembers)
        shape = images.shape
        request = ready_for(self._requests, shape, lambda: self._compile(shape))
        # New memory for each result, which OpenVINO then fills without a copy.
        result = Derained(np.empty(shape, np.uint8), np.empty(shape[:3], np.uint8))
        try:
            for name, array in (('derained', result.image), ('rain_mask', result.rain_mask)):
                request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))
            request.infer(self._inputs(images, states), share_inputs=True)
        except RuntimeError as error:
            raise EngineError(f'OpenVINO inference failed: {error}') from error
        return result

    def _inputs(self, images: np.ndarray, states: np.ndarray | None = None) -> dict:
        if not self._remembers:
            return {'image': images}
        if states is None:
            states = np.zeros((*images.shape[:3], 4), np.uint8)
        return {'image': images, 'state_in': states}

    def profile(self, images: np.ndarray, runs: int) -> tuple[float, list[LayerTime]]:
        """Time each layer on one thread; returns the least CPU time of a run, ms, and the layers.

        Each layer has its shortest time of ``runs`` runs; ``images`` are as for :meth:`infer`.
        """
        check_images(images)
        request = self._compile(
            images.shape, {'PERF_COUNT': True, 'INFERENCE_NUM_THREADS': 1})
        whole, times = [], []
        for _ in range(runs):
            begin = time.process_time()
            request.infer(self._inputs(images))
            whole.append(1e3 * (time.process_time() - begin))
            parts = request.profiling_info
            times.append([1e3 * part.real_time.total_seconds() for part in parts])
        costs = {op.get_friendly_name(): _cost(op)
                 for op in request.get_compiled_model().get_runtime_model().get_ordered_ops()}
        return min(whole), [
            LayerTime(part.node_type, part.exec_type, ms, *costs.get(part.node_name, (0, 0)))
            for part, ms in zip(parts, np.min(times, 0).tolist(), strict=True)]

    def _compile(self, shape: tuple[int, ...], more: dict | None = None):
        """Compile for one shape, as static shapes run faster; returns an inference request."""
        if self._model is None:
            raise EngineError('the engine is closed')
        options = {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': self._precision,
            # The driver, DDS and the detector share these cores.
            'ENABLE_CPU_PINNING': False,
        }
        if threads := 1 if math.prod(shape[:3]) <= SMALL_PIXELS else self._threads:
            options['INFERENCE_NUM_THREADS'] = threads
        options.update(more or {})
        try:
            model = self._model.clone()
            model.reshape({port.any_name: [*shape[:3], port.get_partial_shape()[3].get_length()]
                           for port in model.inputs})
            compiled = self._core.compile_model(model, 'CPU', options)
        except RuntimeError as error:
            raise EngineError(f'OpenVINO cannot compile for {shape}: {error}') from error
        return compiled.create_infer_request()

    def close(self) -> None:
        """Release the compiled models."""
        self._requests.clear()
        self._model = None


def _cost(op) -> tuple[int, int]:
    """Return operations and bytes of a layer of a compiled model."""
    ports = [*op.inputs(), *op.outputs()]
    size = sum(math.prod(port.get_shape()) * port.get_element_type().size for port in ports)
    leading = {'Convolution': 1, 'GroupConvolution': 2, 'FullyConnected': 1}.get(
        op.get_rt_info()['layerType'].astype(str))
    if leading is None:
        return 0, size
    return 2 * math.prod(op.output(0).get_shape()) * math.prod(
        list(op.input(1).get_shape())[leading:]), size
