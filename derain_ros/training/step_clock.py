"""Measures how the time of a run is spent."""

import time

import torch

_SKIPPED = 10
"""First steps, not measured, in which memory is allocated and kernels are chosen."""


class StepClock:
    """Measures how much of the wall time the device is at work.

    On CUDA, an event is recorded before and after the work of each step, rendering
    included; the time between the two counts as busy, even gaps between kernels that
    were launched late, so that the share is an upper bound. On the CPU the share is the
    time not spent waiting for batches.

    ``device``: where the network is trained.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == 'cuda'
        self._began = 0.0
        self._marks: list[list] = []

    def start(self) -> None:
        """Note that work for the device begins."""
        if len(self._marks) == _SKIPPED:
            self._began = self._time()
        self._marks.append([self._mark()])

    def stop(self) -> None:
        """Note that all work of the step has been given to the device."""
        self._marks[-1].append(self._mark())

    def report(self) -> str:
        """Return what was measured, as a line."""
        measured = self._marks[_SKIPPED:]
        if not measured:
            return f'profile: too few steps, more than {_SKIPPED} are needed'
        wall = self._time() - self._began
        busy = sum(start.elapsed_time(end) / 1000 if self.cuda else end - start
                   for start, end in measured)
        what = 'GPU busy' if self.cuda else 'not waiting for batches'
        return (f'profile: {len(measured)} steps in {wall:.2f} s, '
                f'{1000 * wall / len(measured):.1f} ms a step, '
                f'{what} {100 * busy / wall:.1f} % of the wall time')

    def _time(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
