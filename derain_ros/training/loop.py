"""The training loop: seeded, resumable to the step, over one process or many."""

import copy
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from msgspec.structs import asdict, replace
from torch import Tensor, nn

from derain_ros.network.dual_stage import VARIANTS, DualStageConfig, DualStageNetwork
from derain_ros.replacing import replacing
from derain_ros.text import UserError
from derain_ros.training.arithmetic import choose_device, choose_dtype, mix_seeds
from derain_ros.training.batches import Batch, batches, renders_on_device
from derain_ros.training.checkpoint import (
    fit_optimizer,
    fit_weights,
    load_checkpoint,
    load_weights,
)
from derain_ros.training.clipping import REMEMBERED, clipping_limit
from derain_ros.training.config import ConfigError, TrainingConfig
from derain_ros.training.fit import Fit
from derain_ros.training.ranks import Ranks
from derain_ros.training.run_log import Meter, RunLog, sample_grid
from derain_ros.training.step_clock import StepClock
from derain_ros.training.stopping import StopRequest
from derain_ros.training.update import CapturedUpdate, Update
from derain_ros.training.validation import score

UNKNOWN_STEPS = 10**9
"""Steps of a run that is to fit its time, before its speed is known."""

_SWITCHES = ('mask_attention', 'morphology', 'clustering', 'stage2')


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; the message says why and what to change."""


class Trainer:
    """One run; :meth:`run` trains from the last checkpoint, if there is one, to the last step.

    ``log`` is called with lines worth showing, ``progress`` with the step after every one, both in
    the first of several processes only; ``network`` is what to train in place of the variant that
    ``config`` names. :attr:`network` has the weights of the optimizer, on :attr:`device`,
    :attr:`average` averaged ones; :attr:`step` counts the steps taken, and :attr:`norms` are those
    of the last gradients before they were cut. Raises ConfigError: the variant is not known, the
    device is not there, or the weights to start from, or the checkpoint, do not fit.
    """

    def __init__(
        self,
        config: TrainingConfig,
        log: Callable[[str], None] = print,
        *,
        progress: Callable[[int], None] = lambda _step: None,
        network: DualStageConfig | None = None,
    ) -> None:
        self.config = config
        self.ranks = Ranks.of_environment()
        first = self.ranks.rank == 0
        self.log = log if first else lambda _line: None
        self.progress = progress if first else lambda _step: None
        if config.model not in VARIANTS:
            raise ConfigError(
                f'model: unknown variant {config.model!r}; known: {", ".join(VARIANTS)}')
        if config.validation and not (config.validation / 'clean').is_dir():
            raise ConfigError(
                f'validation: {config.validation} has no folder clean/; give a folder with '
                'clean/ and folders of rainy pictures of the same names')
        self.device = choose_device(config.device, self.ranks.local)
        self.dtype = choose_dtype(config.amp, self.device)
        torch.manual_seed(config.seed)
        built = DualStageNetwork(network or VARIANTS[config.model]).to(self.device)
        self.network = built.to(memory_format=(
            torch.channels_last if config.channels_last else torch.contiguous_format))
        # What a network for streams gives for single frames stays.
        learn = tuple(config.learn.split()) or (
            'second_look.' if self.network.config.past else '',)
        names = [name for name, _ in self.network.named_parameters()]
        for beginning in learn:
            if not any(name.startswith(beginning) for name in names):
                known = sorted({name.split('.')[0] for name in names})
                raise ConfigError(f'learn: no weights of {config.model} begin with '
                                  f'{beginning!r}; known: {", ".join(known)}')
        for name, weights in self.network.named_parameters():
            weights.requires_grad_(name.startswith(learn))
        self.update = self._take = Update(self.network, config, self.dtype)
        self.average = self.update.average
        self.norms: deque[float] = deque(maxlen=REMEMBERED)
        self.step = self._skipped = 0
        self._saved_steps = config.steps
        config.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = config.out / 'checkpoint.pt'
        if self.checkpoint.exists():
            self._load()
        elif config.init:
            self._warm_start()

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, then half a cosine down to zero."""
        config = self.config
        if step < config.warm_up:
            return config.learning_rate * (step + 1) / config.warm_up
        done = (step - config.warm_up) / max(1, config.steps - config.warm_up)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def averaged(self) -> DualStageNetwork:
        """Return the network with averaged weights and current centres, on the CPU."""
        network = copy.deepcopy(self.average.module).cpu()
        network = network.to(memory_format=torch.contiguous_format)
        network.load_state_dict(dict(self.network.named_buffers()), strict=False)
        return network.eval()

    def run(
        self, *, minutes: float | None = None, fit: bool = False, profile: bool = False
    ) -> DualStageNetwork:
        """Train; returns the network with averaged weights, in evaluation mode.

        SIGINT, SIGTERM and the end of the time let the present step end, save a
        checkpoint and leave.

        ``minutes``: train at most so long, the start included, then save and return. ``fit``: set
        the steps so that the schedule ends within ``minutes``. ``profile``: log how much of the
        time the device was at work. Raises FileNotFoundError, ConfigError, PackError: the data
        cannot be used, or the schedule cannot be fitted. Raises TrainingError: too many steps in a
        row were not finite. Raises KeyboardInterrupt: after SIGINT, when all is saved.
        """
        config = self.config
        fitting = self._fitting(minutes) if fit else None
        if self.step >= self.config.steps:
            return self.averaged()
        with StopRequest(minutes) as stop, self.ranks.group(self.device), self._stream():
            self.ranks.require_same_step(self.step)
            samples, source = batches(config, self.device, self.ranks, self.step)
            kind = 'float32' if self.dtype is None else str(self.dtype).removeprefix('torch.')
            self.log(
                f'{config.model} on {self.device}, {kind}; crops a step (batch x accumulate x '
                f'processes): {config.batch} x {config.accumulate} x {self.ranks.world} of '
                f'{config.size} x {config.size} px')
            whole = all(getattr(self.network.config, name) for name in _SWITCHES)
            model = torch.compile(self.network) if config.compile else self.network
            model = self.ranks.parallel(model, has_unused=not whole)
            clock = StepClock(self.device) if profile else None
            run_log = RunLog(config.out, self.step, self.log) if self.ranks.rank == 0 else None
            try:
                self._train(model, source, samples, stop, fitting, clock, run_log)
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
                f'fit: the run has begun; give --steps {self._saved_steps} instead of --fit')
        if minutes is None or self.ranks.world > 1 or self.config.validation:
            raise ConfigError(
                'fit: needs a time (--minutes), one process, and no validation on the way')
        self.config = replace(self.config, steps=UNKNOWN_STEPS)
        return Fit(minutes, self.config)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """Work on a stream of the GPU that can be captured, and as one graph where that goes."""
        if self.device.type != 'cuda':
            yield
            return
        torch.backends.cudnn.benchmark = True
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        if self.config.cuda_graph and self.ranks.world == 1 and (
                not self.update.scaler.is_enabled()):
            self._take = CapturedUpdate(self.update, self.log)
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._take = self.update
            torch.cuda.current_stream(self.device).wait_stream(stream)

    def _train(
        self, model: nn.Module, source: Iterator[Batch], samples: Batch, stop: StopRequest,
        fitting: Fit | None, clock: StepClock | None, run_log: RunLog | None,
    ) -> None:
        config, saved, meter = self.config, self.step, Meter()
        self.network.train(not self.network.config.past)
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
            if fitting and (steps := fitting.steps(self.step)):
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
                self._validate(run_log, samples)
        if self.step > saved:
            self._save()
        if self.step < self.config.steps:
            how = 'run the same command again to resume'
            if fitting and self.config.steps < UNKNOWN_STEPS:
                how = f'give --steps {self.config.steps} instead of --fit to resume'
            elif fitting:
                how = 'its speed is not known yet: remove it and give more --minutes'
            self.log(f'stopped and saved at step {self.step}; {how}')

    def _step(self, model: nn.Module, micro: list[Batch]) -> dict[str, Tensor]:
        """Take one step on the mean gradient of batches; returns the parts of their losses."""
        # Seeded anew, so that a resumed run draws what an uninterrupted one would have.
        torch.manual_seed(mix_seeds(self.config.seed, self.step, self.ranks.rank))
        self.update.order(self.rate(self.step), clipping_limit(self.config.clip, self.norms))
        parts, norm = self._take(model, micro)
        size = float(norm)
        if math.isfinite(size):
            self.norms.append(size)
            self._skipped = 0
            return parts
        self._skipped += 1
        self.log(f'step {self.step + 1}  loss or gradient not finite: step skipped '
                 f'({self._skipped} in a row)')
        if self._skipped >= self.config.non_finite_limit:
            raise TrainingError(
                f'{self._skipped} steps in a row with a loss or gradient that is not finite; '
                'lower learning_rate, or set amp to off; the last checkpoint is '
                f'{self.checkpoint if self.checkpoint.exists() else "not written yet"}')
        return parts

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

    def _validate(self, run_log: RunLog, samples: Batch) -> None:
        """Score the averaged weights on the validation pairs, and write a sample grid."""
        network = self.averaged().to(self.device)
        if self.config.validation:
            began = time.monotonic()
            figures = score(network, self.config.validation)
            text = '  '.join(f'{name} {value:.4g}' for name, value in figures.items())
            self.log(f'step {self.step}  {text}')
            run_log.validation(self.step, figures, time.monotonic() - began)
        if self.config.samples:
            rainy, dry = (plane[:, 0] if plane.ndim == 5 else plane for plane in samples[:2])
            rainy, dry = rainy.float() / 255, dry.float() / 255
            with torch.no_grad():
                output = network(rainy)
            run_log.picture(self.step, sample_grid(rainy, output, dry))

    def _save(self) -> None:
        if self.ranks.rank:
            return
        state = {
            'step': self.step,
            'network': self.network.state_dict(),
            'average': self.average.state_dict(),
            'optimizer': self.update.optimizer.state_dict(),
            'scaler': self.update.scaler.state_dict(),
            'norms': list(self.norms),
            'random': torch.get_rng_state(),
            'config': {name: str(value) for name, value in asdict(self.config).items()},
        }
        with replacing(self.checkpoint) as partial, partial.open('wb') as file:
            torch.save(state, file)

    def _load(self) -> None:
        state = load_checkpoint(self.checkpoint)
        learnt = state.get('config', {}).get('learn', '')
        if learnt.split() != self.config.learn.split():
            raise ConfigError(f'learn: the run of {self.checkpoint} has {learnt!r}, not '
                              f'{self.config.learn!r}; give the same, or another folder')
        try:
            new = fit_weights(self.network, state['network'])
            averages = dict(state['average'])
            self.average.n_averaged.copy_(averages.pop('n_averaged'))
            fit_weights(self.average.module, {
                name.removeprefix('module.'): value for name, value in averages.items()})
            names = [name for name, p in self.network.named_parameters() if p.requires_grad]
            fixed = {name for name, _ in self.network.named_buffers()} | {
                name for name, p in self.network.named_parameters() if not p.requires_grad}
            earlier = [name for name in state['network'] if name not in fixed]
            fit_optimizer(self.update.optimizer, state['optimizer'], names, earlier)
        except (RuntimeError, ValueError, IndexError, KeyError) as error:
            raise ConfigError(
                f'{self.checkpoint}: is from another network than {self.config.model!r}; give the '
                f'model of that run, or another folder ({error})') from error
        if state.get('scaler') and self.update.scaler.is_enabled():
            self.update.scaler.load_state_dict(state['scaler'])
        self.norms.extend(state.get('norms', ()))
        self.step = state['step']
        self._saved_steps = state.get('config', {}).get('steps', self.config.steps)
        self.log(f'{self.checkpoint}: resumes at step {self.step}')
        self._name_new(new)

    def _warm_start(self) -> None:
        weights = load_weights(self.config.init)
        try:
            for network in (self.network, self.average.module):
                new = fit_weights(network, weights)
        except RuntimeError as error:
            raise ConfigError(f'init: {self.config.init}: does not fit the network '
                              f'{self.config.model!r} ({error})') from error
        self.log(f'{self.config.init}: starts from these weights')
        self._name_new(new)

    def _name_new(self, names: list[str]) -> None:
        if names:
            self.log('the weights are of an earlier network; what it lacked starts untrained: '
                     f'{", ".join(names)}')
