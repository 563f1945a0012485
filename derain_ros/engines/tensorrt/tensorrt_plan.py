"""A compiled engine with its memory for one shape of frames, ready to run."""

import contextlib

import numpy as np

from derain_ros.engines.contract import Derained, EngineError
from derain_ros.engines.tensorrt.cuda_runtime import CudaStream, DeviceMemory, Graph, PinnedArray
from derain_ros.engines.tensorrt.engine_inspection import inspect
from derain_ros.engines.tensorrt.kernel_caches import RuntimeCache
from derain_ros.engines.tensorrt.tensorrt_library import LogBook

_OUTPUTS = ('derained', 'rain_mask')


class Plan:
    """Copies a batch to the GPU, infers, and copies the results back, as one CUDA graph.

    ``trt``: module of TensorRT. ``engine``: the engine, deserialized. ``shape``: of the batch,
    N×H×W×3. ``stream``: where the work goes. ``book``: where TensorRT tells its errors.
    ``kernels``: keeps what is compiled when the engine first runs. ``layers``: what the layers
    compute in. ``not_captured``: why there is no CUDA graph; empty where there is one. Raises
    EngineError: the engine does not fit, or there is no memory.
    """

    def __init__(
        self, trt, engine, shape: tuple[int, ...], stream: CudaStream, book: LogBook,
        kernels: RuntimeCache,
    ):
        self._engine = engine
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
                what=f'TensorRT cannot get ready for {shape[2]}x{shape[1]}')
            if not self._context.set_input_shape('image', shape):
                raise EngineError(f'TensorRT refuses the shape {shape}: {book.words()}')
            for name in ('image', *_OUTPUTS):
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
        self._stream.upload(*self._memory['image'])
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

    def run(self, images: np.ndarray) -> Derained:
        """Derain a batch of the shape that this was made for."""
        np.copyto(self._memory['image'][0].array, images)
        if self._graph is None:
            self._queue()
        else:
            self._graph.launch()
        self._stream.wait()
        return Derained(*(self._memory[name][0].array.copy() for name in _OUTPUTS))

    def time(self, runs: int) -> list[float]:
        """Time the network on the last batch, without copies, in ms between events."""
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
        # All of them, also where one fails: after a fault of the GPU each does.
        with contextlib.suppress(EngineError):
            self._releases.close()
