"""A compiled engine with its memory for one shape of frames, ready to run."""

import numpy as np

from derain_ros.engines.contract import Derained, EngineError
from derain_ros.engines.cuda_runtime import DeviceMemory, Graph, PinnedArray, Stream

_OUTPUTS = ('derained', 'rain_mask')


class Plan:
    """Copies a batch to the GPU, infers, and copies the results back, as one CUDA graph.

    Parameters
    ----------
    trt
        Module of TensorRT.
    engine
        The engine, deserialized.
    shape
        Of the batch, N×H×W×3.
    stream
        Where the work goes.

    Attributes
    ----------
    not_captured
        Why there is no CUDA graph; empty where there is one.

    Raises
    ------
    EngineError
        The engine does not fit, or there is no memory.

    """

    def __init__(self, trt, engine, shape: tuple[int, ...], stream: Stream):
        self._engine = engine
        self._stream = stream
        self._graph: Graph | None = None
        self._memory: dict[str, tuple[PinnedArray, DeviceMemory]] = {}
        self.not_captured = ''
        try:
            self._context = engine.create_execution_context()
            if self._context is None or not self._context.set_input_shape('image', shape):
                raise EngineError(f'TensorRT refuses the shape {shape}; not enough memory?')
            for name in ('image', *_OUTPUTS):
                self._bind(trt, name)
            # Once without a graph: some kernels are loaded or compiled at first use.
            self._queue()
            stream.wait()
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
        try:
            device = DeviceMemory(host.array.nbytes)
        except EngineError:
            host.free()
            raise
        self._memory[name] = host, device
        if not self._context.set_tensor_address(name, device.pointer):
            raise EngineError(f'TensorRT refuses the memory of {name}')

    def _queue(self) -> None:
        self._stream.upload(*self._memory['image'])
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError('TensorRT could not queue the inference')
        for name in _OUTPUTS:
            host, device = self._memory[name]
            self._stream.download(device, host)

    def _capture(self) -> None:
        try:
            self._graph = self._stream.capture(self._queue)
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

    def close(self) -> None:
        """Release its memory; calling it twice is harmless."""
        if self._graph is not None:
            self._graph.close()
        while self._memory:
            for memory in self._memory.popitem()[1]:
                memory.free()
        self._graph = self._context = self._engine = None
