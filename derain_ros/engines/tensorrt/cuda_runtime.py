"""The CUDA runtime through ``cuda-bindings``: the GPU, memory, streams and graphs, errors by name.

All calls are made on the thread that owns the engine; these objects are not thread-safe.
"""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from derain_ros.engines.contract import EngineError
from derain_ros.text import how_to_install

BINDINGS = (
    'the bindings must be those of the installed CUDA: on JetPack 6 (CUDA 12.6) '
    f"""{how_to_install('"cuda-python==12.6.*"')}, with another CUDA 12 """
    '"cuda-python==12.*", with CUDA 13 (JetPack 7) "cuda-python==13.*"')
"""Remedy for bindings that are missing, or newer than the driver."""


@functools.cache
def cuda() -> ModuleType:
    """Return the module of the CUDA runtime; raises EngineError if there is none."""
    try:
        try:
            from cuda.bindings import runtime
        except ImportError:
            from cuda import cudart as runtime  # cuda-python before 12.6
    except ImportError as error:
        raise EngineError(
            f'cuda.bindings cannot be imported ({error}); {BINDINGS}') from error
    return runtime


def ask(answer: tuple) -> Any:
    """Return the value of a CUDA runtime result; raises EngineError if it is an error."""
    error, *values = answer
    if error != cuda().cudaError_t.cudaSuccess:
        name = getattr(error, 'name', str(error))
        remedy = f'; {BINDINGS}' if name == 'cudaErrorInsufficientDriver' else ''
        raise EngineError(f'CUDA: {name}{remedy}')
    return values[0] if values else None


@dataclass(frozen=True)
class GpuIdentity:
    """A GPU as its driver identifies it, or why there is none (``missing``).

    ``compute_capability`` is, for example, ``8.7``; ``driver`` is the CUDA version that the driver
    supports, for example ``13.0``.
    """

    name: str = ''
    compute_capability: str = ''
    driver: str = ''
    missing: str = ''


def find_gpu() -> GpuIdentity:
    """Return the first GPU that the CUDA runtime reports."""
    try:
        properties = ask(cuda().cudaGetDeviceProperties(0))
        driver = ask(cuda().cudaDriverGetVersion())
    except EngineError as error:
        return GpuIdentity(missing=f'no NVIDIA GPU can be used ({error})')
    return GpuIdentity(
        name=properties.name.split(b'\0')[0].decode('ascii', 'replace'),
        compute_capability=f'{properties.major}.{properties.minor}',
        driver=f'{driver // 1000}.{driver % 1000 // 10}')


class PinnedArray:
    """Page-locked host memory, which the GPU copies from and to without the CPU.

    ``array``: uint8, of the shape asked for. ``pointer``: its address.
    """

    def __init__(self, shape: tuple[int, ...]):
        size = int(np.prod(shape))
        self.pointer = ask(cuda().cudaHostAlloc(size, cuda().cudaHostAllocDefault))
        memory = (ctypes.c_uint8 * size).from_address(self.pointer)
        self.array = np.frombuffer(memory, np.uint8).reshape(shape)

    def free(self) -> None:
        """Free the memory; the array must not be used after that."""
        self.array = None
        ask(cuda().cudaFreeHost(self.pointer))


class DeviceMemory:
    """Memory of the GPU, ``size`` bytes at the address ``pointer``."""

    def __init__(self, size: int):
        self.size = size
        self.pointer = ask(cuda().cudaMalloc(size))

    def free(self) -> None:
        """Free the memory."""
        ask(cuda().cudaFree(self.pointer))


class CudaStream:
    """A queue of work for the GPU; ``handle`` is the integer that other libraries take."""

    def __init__(self) -> None:
        self._stream = ask(cuda().cudaStreamCreateWithFlags(cuda().cudaStreamNonBlocking))
        self.handle = int(self._stream)

    def upload(self, source: PinnedArray, target: DeviceMemory) -> None:
        """Queue a copy to the GPU."""
        ask(cuda().cudaMemcpyAsync(
            target.pointer, source.pointer, target.size,
            cuda().cudaMemcpyKind.cudaMemcpyHostToDevice, self._stream))

    def download(self, source: DeviceMemory, target: PinnedArray) -> None:
        """Queue a copy from the GPU."""
        ask(cuda().cudaMemcpyAsync(
            target.pointer, source.pointer, source.size,
            cuda().cudaMemcpyKind.cudaMemcpyDeviceToHost, self._stream))

    def time(self, queue: Callable[[], None], runs: int) -> list[float]:
        """Return the milliseconds between events on the GPU around each of several runs."""
        marks = []
        try:
            for _ in range(runs):
                marks += [ask(cuda().cudaEventCreate()), ask(cuda().cudaEventCreate())]
                ask(cuda().cudaEventRecord(marks[-2], self._stream))
                queue()
                ask(cuda().cudaEventRecord(marks[-1], self._stream))
            self.wait()
            pairs = zip(marks[::2], marks[1::2], strict=True)
            return [ask(cuda().cudaEventElapsedTime(*pair)) for pair in pairs]
        finally:
            for mark in marks:
                cuda().cudaEventDestroy(mark)

    def wait(self) -> None:
        """Wait until all that was queued is done."""
        ask(cuda().cudaStreamSynchronize(self._stream))

    def capture(self, queue: Callable[[], None]) -> 'Graph':
        """Record what a function queues, without running it; raises EngineError."""
        mode = cuda().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        ask(cuda().cudaStreamBeginCapture(self._stream, mode))
        try:
            queue()
        except BaseException:
            # Always end the capture, or the stream would refuse all other work.
            error, graph = cuda().cudaStreamEndCapture(self._stream)
            if error == cuda().cudaError_t.cudaSuccess:
                cuda().cudaGraphDestroy(graph)
            raise
        return Graph(ask(cuda().cudaStreamEndCapture(self._stream)), self._stream)

    def close(self) -> None:
        """Destroy the stream."""
        ask(cuda().cudaStreamDestroy(self._stream))


class Graph:
    """A CUDA graph, launched as a whole; made by :meth:`CudaStream.capture`."""

    def __init__(self, graph: Any, stream: Any):
        self._stream = stream
        try:
            self._runnable = ask(cuda().cudaGraphInstantiate(graph, 0))
        finally:
            ask(cuda().cudaGraphDestroy(graph))

    def launch(self) -> None:
        """Queue the graph on its stream."""
        ask(cuda().cudaGraphLaunch(self._runnable, self._stream))

    def close(self) -> None:
        """Destroy the graph."""
        ask(cuda().cudaGraphExecDestroy(self._runnable))
