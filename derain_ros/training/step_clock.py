"""Where the time of a run goes."""

import time

import torch


class StepClock:
    """Measures how much of the wall time the device is at work.

    On CUDA, an event is recorded before and after the work of each step, rendering
    included; what lies between the two counts as busy, also gaps between kernels that
    were launched late, so that the share is an upper bound. On the CPU the share is the
    time not spent waiting for batches.

    Parameters
    ----------
    device
        Where the network is trained.
    skip
        First steps to leave out, in which memory is laid out and kernels are chosen.

    """

    def __init__(self, device: torch.device, skip: int = 10) -> None:
        self.cuda = device.type == 'cuda'
        self.skip = skip
        self.steps = 0
        self.busy = 0.0
        self._began: float | None = None
        self._mark: float | torch.cuda.Event | None = None
        self._open: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(self) -> None:
        """Note that work for the device begins."""
        if self.steps == self.skip and self._began is None:
            if self.cuda:
                torch.cuda.synchronize()
            self._began = time.perf_counter()
        self._mark = self._now()

    def stop(self) -> None:
        """Note that all work of the step has been given to the device."""
        if self._began is not None:
            if self.cuda:
                self._open.append((self._mark, self._now()))
            else:
                self.busy += self._now() - self._mark
        self.steps += 1

    def report(self) -> str:
        """Return what was measured, as a line."""
        if self._began is None:
            return f'profile: too few steps, more than {self.skip} are needed'
        if self.cuda:
            torch.cuda.synchronize()
            self.busy = sum(a.elapsed_time(b) for a, b in self._open) / 1000
        wall = time.perf_counter() - self._began
        steps = self.steps - self.skip
        what = 'GPU busy' if self.cuda else 'not waiting for batches'
        return (f'profile: {steps} steps in {wall:.2f} s, {1000 * wall / steps:.1f} ms a step, '
                f'{what} {100 * self.busy / wall:.1f} % of the wall time')

    def _now(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
