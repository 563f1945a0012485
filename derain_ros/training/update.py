"""One update of network, optimizer and averaged weights, without a word from the host.

What the host decides for a step (learning rate, largest gradient, weight of the average) lies
in scalars on the device, and a step that is not finite undoes itself there: nothing waits, so
that a CUDA graph can hold all of it (:mod:`derain_ros.training.captured_update`).
"""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from derain_ros.network.dual_stage import DualStageNetwork, Restoration
from derain_ros.training.arithmetic import adamw, autocast
from derain_ros.training.batches import Batch
from derain_ros.training.config import TrainingConfig
from derain_ros.training.losses import restoration_loss


class Update:
    """Takes steps of AdamW on the loss of batches.

    Parameters
    ----------
    network
        What learns, on its device.
    config
        Optimizer and layout.
    dtype
        What the network computes in under autocast; None for float32.

    Attributes
    ----------
    average
        The network with averaged weights.
    optimizer, scaler
        AdamW, and the scale of the loss, which only float16 has.

    """

    def __init__(
        self, network: DualStageNetwork, config: TrainingConfig, dtype: torch.dtype | None
    ) -> None:
        self.network = network
        self.dtype = dtype
        self.device = next(network.parameters()).device
        self.channels_last = config.channels_last
        self.decay = config.ema
        self.average = torch.optim.swa_utils.AveragedModel(
            network, device=self.device, use_buffers=False)
        self._rate, self._limit, self._share = (
            torch.zeros((), device=self.device) for _ in range(3))
        self.optimizer = adamw(network, self._rate, config.weight_decay)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=dtype is torch.float16)
        self._averaged = 0

    def order(self, rate: float, limit: float) -> None:
        """Set learning rate and largest norm of the gradient of the next step."""
        self._rate.fill_(rate)
        self._limit.fill_(limit)
        # The first weights are taken as they are.
        self._share.fill_(1 - self.decay if self._averaged else 1.0)

    def taken(self) -> None:
        """Note that the step was finite."""
        self._averaged += 1

    def __call__(self, model: nn.Module, micro: list[Batch]) -> tuple[dict[str, Tensor], Tensor]:
        """Take one step on the mean gradient of batches.

        Parameters
        ----------
        model
            The network, or what wraps it for several processes.
        micro
            The batches, on the device.

        Returns
        -------
        parts : dict
            Mean parts of their losses, see
            :func:`derain_ros.training.losses.restoration_loss`.
        norm : Tensor
            Norm of the gradient before it was cut; where it is not finite, nothing changed.

        """
        before = [buffer.clone() for buffer in self.network.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        parts: dict[str, Tensor] = {}
        for left, batch in zip(reversed(range(len(micro))), micro, strict=True):
            # Processes exchange gradients with the last batch only.
            alone = model.no_sync() if left and hasattr(model, 'no_sync') else nullcontext()
            with alone:
                found = self._backward(model, batch, 1 / len(micro))
            for name, value in found.items():
                parts[name] = parts.get(name, 0.0) + value / len(micro)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = self._cut()
        finite = torch.isfinite(norm)
        # Fused AdamW leaves weights and moments alone where this is 1.
        self.optimizer.found_inf = (~finite).float()
        self.optimizer.step()
        if self.scaler.is_enabled():
            self.scaler.update()
        self._follow(finite)
        for buffer, earlier in zip(self.network.buffers(), before, strict=True):
            buffer.copy_(torch.where(finite, buffer, earlier))
        return parts, norm

    def _backward(self, model: nn.Module, batch: Batch, share: float) -> dict[str, Tensor]:
        rainy, dry, streaks = batch
        if self.channels_last:
            rainy = rainy.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.dtype):
            output = model(rainy.float() / 255)
        output = Restoration(*(plane.float() for plane in output))
        loss, parts = restoration_loss(output, dry.float() / 255, streaks)
        # A loss that is not finite makes every gradient so, in all processes, which then
        # skip the step together without another exchange.
        seed = torch.full_like(loss, share).masked_fill(~torch.isfinite(loss), math.nan)
        self.scaler.scale(loss).backward(seed)
        return parts

    def _cut(self) -> Tensor:
        """Cut the gradient to the largest norm; returns the norm that it had."""
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (self._limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def _follow(self, finite: Tensor) -> None:
        """Move the averaged weights towards those of the network."""
        averaged = [p.detach() for p in self.average.module.parameters()]
        moved = torch._foreach_sub([p.detach() for p in self.network.parameters()], averaged)
        torch._foreach_mul_(moved, self._share * finite)
        torch._foreach_add_(averaged, moved)
        self.average.n_averaged.add_(finite)

    def resume(self, averaged: int) -> None:
        """Go on after ``averaged`` finite steps, with the optimizer's state as loaded."""
        self._averaged = averaged
        for group in self.optimizer.param_groups:
            group['lr'] = self._rate

    def optimizer_state(self) -> dict:
        """State of the optimizer for a checkpoint, its learning rate as a number."""
        state = self.optimizer.state_dict()
        for group in state['param_groups']:
            group['lr'] = float(group['lr'])
        return state
