"""The training loop: seeded, resumable to the step, over one process or many."""

import copy
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from derain_ros.network.dual_stage import DualStageConfig, DualStageNetwork, Restoration
from derain_ros.training.batches import Batch, batches, renders_on_device
from derain_ros.training.config import ConfigError, TrainingConfig
from derain_ros.training.fit import Fit
from derain_ros.training.learner import Learner, TrainingError
from derain_ros.training.run_log import Meter, RunLog
from derain_ros.training.sample_grid import sample_grid
from derain_ros.training.step_clock import StepClock
from derain_ros.training.stopping import StopRequest
from derain_ros.training.validation import score

UNKNOWN_STEPS = 10**9
"""Steps of a run that is to fit its time, before its speed is known."""

__all__ = ['Trainer', 'TrainingConfig', 'TrainingError']


class Trainer(Learner):
    """One run; :meth:`run` trains from the last checkpoint to the last step.

    Parameters
    ----------
    config
        What to do.
    log
        Called with lines worth showing, in the first of several processes only.
    progress
        Called with the step after every one, likewise.
    network
        What to train, in place of the variant that ``config`` names.

    Raises
    ------
    ConfigError
        The variant is not known, the device is not there, or the weights to start
        from, or the checkpoint, do not fit.

    """

    def __init__(
        self,
        config: TrainingConfig,
        log: Callable[[str], None] = print,
        *,
        progress: Callable[[int], None] = lambda _step: None,
        network: DualStageConfig | None = None,
    ) -> None:
        super().__init__(config, log, network)
        self.progress = progress if self.ranks.rank == 0 else lambda _step: None
        if config.validation and not (config.validation / 'clean').is_dir():
            raise ConfigError(
                f'validation: {config.validation} has no folder clean/; give a folder with '
                'clean/ and folders of rainy pictures of the same names')

    def run(
        self, *, minutes: float | None = None, fit: bool = False, profile: bool = False
    ) -> DualStageNetwork:
        """Train; returns the network with averaged weights, in evaluation mode.

        SIGINT, SIGTERM and the end of the time let the present step end, save a
        checkpoint and leave.

        Parameters
        ----------
        minutes
            Train at most so long, the start included, then save and return.
        fit
            Set the steps so that the schedule ends within ``minutes``.
        profile
            Log how much of the time the device was at work.

        Raises
        ------
        FileNotFoundError, ConfigError, PackError
            The data cannot be used, or the schedule cannot be fitted.
        TrainingError
            Too many steps in a row were not finite.
        KeyboardInterrupt
            After SIGINT, when all is saved.

        """
        config = self.config
        self._fit = self._fitting(minutes) if fit else None
        if self.step >= config.steps and not fit:
            return self.averaged()
        with StopRequest(minutes) as stop, self.ranks.group(self.device), self._stream():
            self.ranks.require_same_step(self.step)
            samples, source = batches(config, self.device, self.ranks, self.step)
            self.log(self._plan())
            switches = ('mask_attention', 'morphology', 'clustering', 'stage2')
            whole = all(getattr(self.network.config, name) for name in switches)
            model = torch.compile(self.network) if config.compile else self.network
            model = self.ranks.parallel(model, has_unused=not whole)
            clock = StepClock(self.device) if profile else None
            run_log = RunLog(config.out, self.step, self.log) if self.ranks.rank == 0 else None
            try:
                self._train(model, source, samples, stop, clock, run_log)
            finally:
                if run_log:
                    run_log.close()
        if clock:
            self.log(clock.report())
        if stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        return self.averaged()

    def _fitting(self, minutes: float | None) -> Fit:
        if self.step:
            raise ConfigError(
                f'fit: the run has begun; give --steps {self.saved_steps} in place of --fit')
        if minutes is None or self.ranks.world > 1 or self.config.validation:
            raise ConfigError(
                'fit: needs a time (--minutes), one process, and no validation on the way')
        self.config = replace(self.config, steps=UNKNOWN_STEPS)
        return Fit(minutes, self.config)

    def averaged(self) -> DualStageNetwork:
        """Return the network with averaged weights and current centres, on the CPU."""
        network = copy.deepcopy(self.average.module).cpu()
        network = network.to(memory_format=torch.contiguous_format)
        network.load_state_dict(dict(self.network.named_buffers()), strict=False)
        return network.eval()

    def _plan(self) -> str:
        config, ranks = self.config, self.ranks
        kind = 'float32' if self.dtype is None else str(self.dtype).removeprefix('torch.')
        shares = f'{config.batch} x {config.accumulate} x {ranks.world}'
        return (f'{config.model} on {self.device}, {kind}; crops a step (batch x accumulate x '
                f'processes): {shares} of {config.size} x {config.size} px')

    def validate(self) -> str:
        """Score the averaged weights on the validation pairs, as a line."""
        return _as_line(self._scores())

    def _scores(self) -> dict[str, float]:
        network = self.averaged()
        if self.device.type != 'cpu':
            network = _Elsewhere(network, self.device)
        return score(network, self.config.validation)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """Work on a stream of the GPU that can be captured, and as one graph where that goes."""
        if self.device.type != 'cuda':
            yield
            return
        torch.backends.cudnn.benchmark = True
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        if self.config.cuda_graph and self.ranks.world == 1 and not self.scaler.is_enabled():
            from derain_ros.training.captured_update import CapturedUpdate

            self._take = CapturedUpdate(self.update, self.log)
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._take = self.update
            torch.cuda.current_stream(self.device).wait_stream(stream)

    def _train(
        self,
        model: nn.Module,
        source: Iterator[Batch],
        samples: Batch,
        stop: StopRequest,
        clock: StepClock | None,
        run_log: RunLog | None,
    ) -> None:
        config, saved = self.config, self.step
        self.network.train()
        meter = Meter()
        # Rain that the device renders is work of the device.
        here = renders_on_device(config, self.device)
        while self.step < self.config.steps and not self.ranks.any(stop.due()):
            if clock and here:
                clock.start()
            micro = [next(source) for _ in range(config.accumulate)]
            if clock and not here:
                clock.start()
            meter.add(self._step(model, micro))
            if clock:
                clock.stop()
            self.step += 1
            if self._fit and (steps := self._fit.steps(self.step)):
                self.config = replace(config, steps=steps)
                self.log(f'step {self.step}  there is time for {steps} steps')
            self.progress(self.step)
            if self.step % config.log_every == 0 or self.step == self.config.steps:
                self._report(meter, run_log)
                meter = Meter()
            if self.step % config.save_every == 0:
                self._save()
                saved = self.step
            if self.step % config.validate_every == 0 and run_log:
                self._look(run_log, samples)
        if self.step > saved:
            self._save()
        if self.step < self.config.steps:
            how = 'the same command goes on from there'
            if self._fit and self.config.steps < UNKNOWN_STEPS:
                how = f'--steps {self.config.steps} in place of --fit goes on from there'
            elif self._fit:
                how = 'its speed is not known yet: remove it and give more --minutes'
            self.log(f'stopped and saved at step {self.step}; {how}')

    def _report(self, meter: Meter, run_log: RunLog | None) -> None:
        means, speed = meter.means()
        text = '  '.join(f'{name} {value:.4f}' for name, value in means.items())
        left = ''
        if self.config.steps < UNKNOWN_STEPS:
            left = f'  {(self.config.steps - self.step) / speed / 60:.0f} min left'
        self.log(f'step {self.step}  {text}  {speed:.2f} steps/s{left}')
        if run_log:
            curves = {**means, 'learning_rate': self.rate(self.step - 1), 'steps_per_s': speed}
            run_log.values(self.step, 'training', curves)

    def _look(self, run_log: RunLog, samples: Batch) -> None:
        """Validate, and write a sample grid."""
        if self.config.validation:
            began = time.monotonic()
            figures = self._scores()
            self.log(f'step {self.step}  {_as_line(figures)}')
            run_log.validation(self.step, figures, time.monotonic() - began)
        if not self.config.samples:
            return
        rainy, dry = (plane.float() / 255 for plane in samples[:2])
        with torch.no_grad():
            output = self.averaged().to(self.device)(rainy)
        run_log.picture(self.step, sample_grid(rainy, output, dry))


class _Elsewhere(nn.Module):
    """Run a network on a device for callers whose tensors are on the CPU."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network = network.to(device)
        self.device = device

    def forward(self, image: Tensor) -> Restoration:
        return Restoration(*(plane.cpu() for plane in self.network(image.to(self.device))))


def _as_line(figures: dict[str, float]) -> str:
    return '  '.join(f'{name} {value:.4g}' for name, value in figures.items())
