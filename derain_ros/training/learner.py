"""What learns: the network, its averaged weights, the optimizer, and one step of them."""

import math
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor, nn

from derain_ros.network.dual_stage import VARIANTS, DualStageConfig, DualStageNetwork
from derain_ros.replacing import replacing
from derain_ros.training.arithmetic import choose_device, choose_dtype, mix_seeds
from derain_ros.training.batches import Batch
from derain_ros.training.checkpoint import (
    fit_optimizer,
    fit_weights,
    load_checkpoint,
    load_weights,
)
from derain_ros.training.clipping import Clipping
from derain_ros.training.config import ConfigError, TrainingConfig
from derain_ros.training.ranks import Ranks
from derain_ros.training.update import Update


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


class Learner:
    """State of a run, which a checkpoint holds; starts from the checkpoint if there is one.

    Parameters
    ----------
    config
        What to do.
    log
        Called with lines worth showing, in the first of several processes only.
    network
        What to train, in place of the variant that ``config`` names.

    Attributes
    ----------
    network
        With the weights of the optimizer, on :attr:`device`.
    average
        With averaged weights.
    step
        Steps taken.
    saved_steps
        Steps of the whole run, as its checkpoint says.

    Raises
    ------
    ConfigError
        The variant is not known, the device is not there, or the checkpoint, or the
        weights to start from, do not fit.

    """

    def __init__(
        self,
        config: TrainingConfig,
        log: Callable[[str], None],
        network: DualStageConfig | None = None,
    ) -> None:
        self.config = config
        self.ranks = Ranks.of_environment()
        self.log = log if self.ranks.rank == 0 else lambda _line: None
        if config.model not in VARIANTS:
            raise ConfigError(
                f'model: unknown variant {config.model!r}; known: {", ".join(VARIANTS)}')
        self.device = choose_device(config.device, self.ranks.local)
        self.dtype = choose_dtype(config.amp, self.device)
        torch.manual_seed(config.seed)
        built = DualStageNetwork(network or VARIANTS[config.model]).to(self.device)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.network = built.to(memory_format=layout)
        self.update = Update(self.network, config, self.dtype)
        self.average = self.update.average
        self.optimizer, self.scaler = self.update.optimizer, self.update.scaler
        self._take = self.update
        self.step = 0
        self.saved_steps = config.steps
        self.skipped = 0
        config.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = config.out / 'checkpoint.pt'
        self.clipping = Clipping(config.clip)
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

    def _one(self, rainy: Tensor, dry: Tensor, streaks: Tensor) -> dict[str, Tensor]:
        """Take one step on one batch, in this process alone."""
        return self._step(self.network, [(rainy, dry, streaks)])

    def _step(self, model: nn.Module, micro: list[Batch]) -> dict[str, Tensor]:
        """Take one step on the mean gradient of batches; returns the parts of their losses."""
        # Seeded anew, so that a resumed run draws what an uninterrupted one would have.
        torch.manual_seed(mix_seeds(self.config.seed, self.step, self.ranks.rank))
        self.update.order(self.rate(self.step), self.clipping.limit())
        parts, norm = self._take(model, micro)
        size = float(norm)
        if math.isfinite(size):
            self.clipping.add(size)
            self.update.taken()
            self.skipped = 0
        else:
            self._skip()
        return parts

    def _skip(self) -> None:
        """Say that a step changed nothing, and give up after many."""
        self.skipped += 1
        self.log(f'step {self.step + 1}  loss or gradient not finite: step skipped '
                 f'({self.skipped} in a row)')
        if self.skipped >= self.config.non_finite_limit:
            raise TrainingError(
                f'{self.skipped} steps in a row with a loss or gradient that is not finite; '
                'lower learning_rate, or set amp to off; the last checkpoint is '
                f'{self.checkpoint if self.checkpoint.exists() else "not written yet"}')

    def _save(self) -> None:
        if self.ranks.rank:
            return
        state = {
            'step': self.step,
            'network': self.network.state_dict(),
            'average': self.average.state_dict(),
            'optimizer': self.update.optimizer_state(),
            'scaler': self.scaler.state_dict(),
            'norms': self.clipping.norms(),
            'random': torch.get_rng_state(),
            'config': {name: str(value) for name, value in asdict(self.config).items()},
        }
        with replacing(self.checkpoint) as partial, partial.open('wb') as file:
            torch.save(state, file)

    def _load(self) -> None:
        state = load_checkpoint(self.checkpoint)
        try:
            new = fit_weights(self.network, state['network'])
            averages = dict(state['average'])
            self.average.n_averaged.copy_(averages.pop('n_averaged'))
            fit_weights(self.average.module, {
                name.removeprefix('module.'): value for name, value in averages.items()})
            names = [name for name, _ in self.network.named_parameters()]
            buffers = {name for name, _ in self.network.named_buffers()}
            earlier = [name for name in state['network'] if name not in buffers]
            fit_optimizer(self.optimizer, state['optimizer'], names, earlier)
        except (RuntimeError, ValueError, IndexError, KeyError) as error:
            raise ConfigError(
                f'{self.checkpoint}: is of another network than {self.config.model!r}; give '
                f'the model of that run, or another folder ({error})') from error
        if state.get('scaler') and self.scaler.is_enabled():
            self.scaler.load_state_dict(state['scaler'])
        self.clipping.load(state.get('norms', ()))
        self.update.resume(int(self.average.n_averaged))
        self.step = state['step']
        self.saved_steps = state.get('config', {}).get('steps', self.config.steps)
        self.log(f'{self.checkpoint}: goes on from step {self.step}')
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
            self.log(f'of an earlier network; what it had not starts at zero: {", ".join(names)}')
