"""The torch network on a GPU as a CUDA graph, with buffers of its own for one batch shape.

A capture may contain only kernels and copies within the GPU. A network that makes a tensor on
the CPU and moves it, or reads a value back, cannot be captured; ``test_torch_graph.py`` checks
for that without a GPU.
"""

import functools
import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch

_WARM_UP_RUNS = 3
_PIECE = 1 << 20


@functools.cache
def _streams() -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Return the streams on which all engines of this process run, and capture graphs.

    They share them, as libraries keep scratch memory for each stream that they have seen: cuBLAS
    32 MiB on a Hopper GPU. They are two because results that a caller drops record events on the
    stream that they came from, which must not happen during a capture.
    """
    return torch.cuda.Stream(), torch.cuda.Stream()


def time_queued(work: Callable[[], object], runs: int) -> list[float]:
    """Queue work on the current stream; returns the ms between events around each run."""
    marks = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        marks.append((start, end))
    torch.cuda.current_stream().synchronize()
    return [start.elapsed_time(end) for start, end in marks]


class CapturedNetwork:
    """Copies a batch to the GPU, infers, and copies the results back.

    The graph holds the network alone; copies are queued before and after it. So each result has
    memory of its own, which goes to the caller uncopied, and the network can be timed by itself.

    ``forward``: the network: takes uint8 tensors of ``shapes``, N×H×W×C, returns uint8 tensors.
    ``not_captured``: why there is no CUDA graph; empty if there is one.
    """

    def __init__(
        self, forward: Callable[..., Sequence[torch.Tensor]], shapes: Sequence[tuple[int, ...]]
    ):
        self._forward = forward
        self._stream, capturing = _streams()
        self._inputs = [
            torch.zeros(shape, dtype=torch.uint8, device='cuda') for shape in shapes]
        self._host_inputs = [
            torch.zeros(shape, dtype=torch.uint8, pin_memory=True) for shape in shapes]
        # Weights and input were queued on the stream of the caller.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            # Libraries choose their kernels in the first runs, which cannot be captured.
            for _ in range(_WARM_UP_RUNS):
                self._outputs = self._forward(*self._inputs)
        self._stream.synchronize()
        self._graph, self.not_captured = torch.cuda.CUDAGraph(), ''
        try:
            # The stream is also set outside: after a failed capture torch leaves its own set.
            # GPU work of other threads must not invalidate the capture.
            with torch.cuda.stream(capturing), torch.cuda.graph(
                    self._graph, stream=capturing, capture_error_mode='thread_local'):
                self._outputs = self._forward(*self._inputs)
        except RuntimeError as error:
            # The error from ending a failed capture hides the original one.
            self._graph, self.not_captured = None, str(error.__context__ or error)
            logging.getLogger(__name__).warning(
                '%dx%d: no CUDA graph (%s)', shapes[0][2], shapes[0][1], self.not_captured)

    def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Infer a batch of the shapes that this was made for; the caller owns the results."""
        with torch.cuda.stream(self._stream):
            for array, host, target in zip(
                    arrays, self._host_inputs, self._inputs, strict=True):
                self._upload(array, host, target)
            self._infer()
            # From torch's pool of pinned memory, to which it returns when the caller drops it.
            results = [torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
                       for found in self._outputs]
            for result, found in zip(results, self._outputs, strict=True):
                result.copy_(found, non_blocking=True)
        self._stream.synchronize()
        return [result.numpy() for result in results]

    def time(self, runs: int) -> list[float]:
        """Time the network on the last batch, without copies: ms between events, per run."""
        with torch.cuda.stream(self._stream):
            return time_queued(self._infer, runs)

    @staticmethod
    def _upload(array: np.ndarray, pinned: torch.Tensor, device: torch.Tensor) -> None:
        """Queue the copy to the GPU in pieces, while the CPU copies the next to pinned memory."""
        pieces = [x.reshape(-1) for x in (array, pinned.numpy())]
        host, target = pinned.view(-1), device.view(-1)
        for first in range(0, array.size, _PIECE):
            piece = slice(first, first + _PIECE)
            np.copyto(pieces[1][piece], pieces[0][piece])
            target[piece].copy_(host[piece], non_blocking=True)

    def _infer(self) -> None:
        if self._graph is None:
            self._outputs = self._forward(*self._inputs)
        else:
            self._graph.replay()
