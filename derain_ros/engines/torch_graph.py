"""The torch network on a GPU with memory of its own for one shape, as a CUDA graph."""

import logging
from collections.abc import Callable

import numpy as np
import torch

from derain_ros.engines.contract import Derained

_WARM_UP_RUNS = 3


class CapturedNetwork:
    """Copies a batch to the GPU, infers, and copies the results back.

    Parameters
    ----------
    forward
        The network: uint8 tensor, N×H×W×3, in; image and mask, uint8, out.
    shape
        Of the batch, N×H×W×3.

    Attributes
    ----------
    not_captured
        Why there is no CUDA graph; empty where there is one.

    """

    def __init__(
        self, forward: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
        shape: tuple[int, ...],
    ):
        self._forward = forward
        self._stream = torch.cuda.Stream()
        self._input = torch.zeros(shape, dtype=torch.uint8, device='cuda')
        self._host_input = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        self._host_outputs = tuple(
            torch.zeros(size, dtype=torch.uint8, pin_memory=True) for size in (shape, shape[:3]))
        self._graph = torch.cuda.CUDAGraph()
        self.not_captured = ''
        with torch.cuda.stream(self._stream):
            # Libraries choose their kernels in the first runs, which cannot be captured.
            for _ in range(_WARM_UP_RUNS):
                self._queue()
        self._stream.synchronize()
        try:
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._queue()
        except RuntimeError as error:
            self.not_captured = str(error)
            logging.getLogger(__name__).warning(
                '%dx%d: no CUDA graph (%s)', shape[2], shape[1], error)

    def _queue(self) -> None:
        self._input.copy_(self._host_input, non_blocking=True)
        for host, found in zip(self._host_outputs, self._forward(self._input), strict=True):
            host.copy_(found, non_blocking=True)

    def run(self, images: np.ndarray) -> Derained:
        """Derain a batch of the shape that this was made for."""
        np.copyto(self._host_input.numpy(), images)
        with torch.cuda.stream(self._stream):
            if self.not_captured:
                self._queue()
            else:
                self._graph.replay()
        self._stream.synchronize()
        return Derained(*(host.numpy().copy() for host in self._host_outputs))
