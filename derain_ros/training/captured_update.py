"""Updates replayed as a CUDA graph.

A step of these networks is a few thousand small kernels; launched one by one from Python they
leave a GPU idle most of the time.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from derain_ros.training.batches import Batch
from derain_ros.training.update import Update

_EAGER_STEPS = 4


class CapturedUpdate:
    """Takes the first steps of a session one kernel after the other, and then as one graph.

    Called like :class:`derain_ros.training.update.Update`, always with batches of one shape.

    Parameters
    ----------
    update
        What to capture.
    log
        Called with a line if it cannot be captured; steps then go on as they began.

    """

    def __init__(self, update: Update, log: Callable[[str], None]) -> None:
        self._update = update
        self._log = log
        self._captures = True
        # Memory of the optimizer is laid out, and kernels are chosen, in the first steps.
        self._eager_left = _EAGER_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, model: nn.Module, micro: list[Batch]) -> tuple[dict[str, Tensor], Tensor]:
        """Take one step; see :meth:`derain_ros.training.update.Update.__call__`.

        What is returned is overwritten by the next step.
        """
        if self._eager_left or not self._captures:
            self._eager_left = max(0, self._eager_left - 1)
            return self._update(model, micro)
        if self._graph is None:
            try:
                self._capture(model, micro)
            except RuntimeError as error:
                self._captures, self._graph = False, None
                # The end of a capture that failed hides why it failed.
                reason = str(error.__context__ or error).splitlines()[0]
                self._log(f'no CUDA graph, so slower ({reason}); `cuda_graph: false` tries none')
                # torch may leave its generator as in a capture, where it draws nothing more.
                generator = torch.cuda.default_generators[torch.cuda.current_device()]
                generator.graphsafe_set_state(generator.clone_state())
                return self._update(model, micro)
        for held, batch in zip(self._micro, micro, strict=True):
            for ours, given in zip(held, batch, strict=True):
                ours.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._results

    def _capture(self, model: nn.Module, micro: list[Batch]) -> None:
        self._micro = [tuple(torch.empty_like(plane) for plane in batch) for batch in micro]
        torch.cuda.synchronize()
        self._graph, capture = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        # The stream is set around it too: where a capture fails torch leaves its own set. What
        # other threads do with the GPU meanwhile, such as pinning batches, is no fault of it.
        with torch.cuda.stream(capture), torch.cuda.graph(
                self._graph, stream=capture, capture_error_mode='thread_local'):
            self._results = self._update(model, self._micro)
