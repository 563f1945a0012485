"""The training loop: seeded, resumable to the step."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from derain_ros.network.dual_stage import VARIANTS, DualStageNetwork
from derain_ros.training.dataset import DryPictures, RainyCrops
from derain_ros.training.losses import restoration_loss
from derain_ros.training.validation import score


@dataclass(frozen=True)
class TrainingConfig:
    """What a run does.

    Attributes
    ----------
    data
        Folder of dry pictures.
    out
        Folder of checkpoints and of the log.
    validation
        Folder with ``clean/`` and rainy folders of the same file names, or None.
    model
        Name of the network variant.
    steps
        Optimizer steps of the whole run; the learning rate falls to zero over them.
    batch, size
        Crops in a step, and their side in pixels, a multiple of 64.
    learning_rate
        Peak, after ``warm_up`` steps.
    clip
        Largest norm of the gradient.
    ema
        Decay of the averaged weights, which are the ones kept.
    dry_share
        Share of crops without rain.
    seed
        Seeds weights and data.
    save_every, validate_every
        Steps between checkpoints and between validations.
    workers
        Processes that render rain.

    """

    data: Path
    out: Path
    validation: Path | None = None
    model: str = 'nano'
    steps: int = 20000
    batch: int = 8
    size: int = 128
    learning_rate: float = 1.5e-3
    warm_up: int = 300
    clip: float = 0.5
    ema: float = 0.999
    dry_share: float = 0.25
    seed: int = 1
    save_every: int = 250
    validate_every: int = 1000
    workers: int = 1


class Trainer:
    """One run; :meth:`run` trains from the last checkpoint to the last step.

    Parameters
    ----------
    config
        What to do.
    log
        Called with lines worth showing.

    Raises
    ------
    FileNotFoundError
        The data folder is missing or holds no usable picture.

    """

    def __init__(self, config: TrainingConfig, log=print) -> None:
        self.config = config
        self.log = log
        torch.manual_seed(config.seed)
        self.network = DualStageNetwork(VARIANTS[config.model])
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema),
            use_buffers=False,
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=1e-4
        )
        self.step = 0
        config.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = config.out / 'checkpoint.pt'
        if self.checkpoint.exists():
            self._load()

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, then half a cosine down to zero."""
        config = self.config
        if step < config.warm_up:
            return config.learning_rate * (step + 1) / config.warm_up
        done = (step - config.warm_up) / max(1, config.steps - config.warm_up)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def run(self) -> DualStageNetwork:
        """Train; returns the network with averaged weights, in evaluation mode."""
        config = self.config
        if self.step < config.steps:
            # OpenCV's thread pool does not survive the fork of the workers.
            cv2.setNumThreads(0)
            crops = RainyCrops(
                DryPictures(config.data, config.size),
                batch=config.batch,
                size=config.size,
                dry_share=config.dry_share,
                seed=config.seed,
                first=self.step,
            )
            loader = DataLoader(
                crops,
                batch_size=None,
                num_workers=config.workers,
                prefetch_factor=4 if config.workers else None,
            )
            self._train(iter(loader))
        return self.averaged()

    def averaged(self) -> DualStageNetwork:
        """Return the network with averaged weights and current cluster centres."""
        network = self.average.module
        network.load_state_dict(dict(self.network.named_buffers()), strict=False)
        return network.eval()

    def _train(self, batches) -> None:
        config = self.config
        self.network.train()
        began, seen, sums = time.monotonic(), 0, {}
        while self.step < config.steps:
            parts = self._one(*next(batches))
            self.step += 1
            seen += 1
            sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
            if self.step % 50 == 0 or self.step == config.steps:
                speed = seen / (time.monotonic() - began)
                left = (config.steps - self.step) / speed / 60
                means = '  '.join(f'{name} {value / seen:.4f}' for name, value in sums.items())
                self.log(f'step {self.step}  {means}  {speed:.2f} steps/s  {left:.0f} min left')
                began, seen, sums = time.monotonic(), 0, {}
            if self.step % config.save_every == 0 or self.step == config.steps:
                self._save()
            if config.validation and self.step % config.validate_every == 0:
                self.log(f'step {self.step}  ' + self.validate())

    def _one(self, rainy: Tensor, dry: Tensor, streaks: Tensor) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group['lr'] = self.rate(self.step)
        output = self.network(rainy.float() / 255)
        loss, parts = restoration_loss(output, dry.float() / 255, streaks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.average.update_parameters(self.network)
        return parts

    def validate(self) -> str:
        """Score the averaged weights on the validation pairs, as a line."""
        figures = score(self.averaged(), self.config.validation)
        return '  '.join(f'{name} {value:.4g}' for name, value in figures.items())

    def _save(self) -> None:
        state = {
            'step': self.step,
            'network': self.network.state_dict(),
            'average': self.average.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'random': torch.get_rng_state(),
            'config': {name: str(value) for name, value in asdict(self.config).items()},
        }
        partial = self.checkpoint.with_suffix('.partial')
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.step = state['step']
        self.network.load_state_dict(state['network'])
        self.average.load_state_dict(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        torch.set_rng_state(state['random'])
        self.log(f'{self.checkpoint}: goes on from step {self.step}')
