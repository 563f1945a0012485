"""One update of network, optimizer and averaged weights, without a word from the host.

What the host decides for a step (learning rate, largest gradient, weight of the average) lies
in scalars on the device, and a step that is not finite undoes itself there: nothing waits, so
that a CUDA graph can hold all of it (:class:`CapturedUpdate`).
"""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from derain_ros.network.dual_stage import DualStageNetwork, Restoration, shown_mask
from derain_ros.network.second_look import make_state, warp
from derain_ros.training.batches import Batch
from derain_ros.training.config import TrainingConfig
from derain_ros.training.losses import restoration_loss

_EAGER_STEPS = 4

_MOST_MOVING = 0.1
"""Share of the flow of a clip that may not be zero before a camera that stands."""


def adamw(network: nn.Module, rate: Tensor, decay: float) -> torch.optim.AdamW:
    """Return fused AdamW, whose learning rate is a scalar on the device of the network."""
    return torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], rate, weight_decay=decay, fused=True,
        capturable=rate.device.type == 'cuda')


class Update:
    """Takes steps of AdamW on the loss of batches.

    ``network``: what learns, on its device. ``config``: optimizer and layout. ``dtype``: what the
    network computes in under autocast; None for float32. ``average``: the network with averaged
    weights. ``optimizer``, ``scaler``: AdamW, and the scale of the loss, which only float16 has.
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

    def order(self, rate: float, limit: float) -> None:
        """Set learning rate and largest norm of the gradient of the next step."""
        self._rate.fill_(rate)
        self._limit.fill_(limit)
        # The first weights are taken as they are.
        self._share.copy_(torch.where(self.average.n_averaged > 0, 1 - self.decay, 1.0))

    def __call__(self, model: nn.Module, micro: list[Batch]) -> tuple[dict[str, Tensor], Tensor]:
        """Take one step on the mean gradient of batches.

        ``model``: the network, or what wraps it for several processes. ``micro``: the batches, on
        the device. Returns ``parts`` (dict): mean parts of their losses, see
        :func:`derain_ros.training.losses.restoration_loss`. Returns ``norm`` (Tensor): norm of the
        gradient before it was cut; where it is not finite, nothing changed.
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
        loss, parts = (self._clip_loss if len(batch) == 4 else self._loss)(model, *batch)
        # A loss that is not finite makes every gradient so, in all processes, which then
        # skip the step together without another exchange.
        seed = torch.full_like(loss, share).masked_fill(~torch.isfinite(loss), math.nan)
        self.scaler.scale(loss).backward(seed)
        return parts

    def _run(
        self, model: nn.Module, rainy: Tensor, state: Tensor | None = None
    ) -> Restoration:
        if self.channels_last:
            rainy = rainy.contiguous(memory_format=torch.channels_last)
        more = () if state is None else (state,)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            output = model(rainy.float() / 255, *more)
        return Restoration(*(plane.float() for plane in output))

    def _loss(
        self, model: nn.Module, rainy: Tensor, dry: Tensor, streaks: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return restoration_loss(self._run(model, rainy), dry.float() / 255, streaks)

    def _clip_loss(
        self, model: nn.Module, rainy: Tensor, dry: Tensor, streaks: Tensor, flow: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of all frames but the first, which stands alone; see ``RainyClips``."""
        with torch.no_grad():
            output = self._run(model, rainy[:, 0])
        # Of a camera that drives something stands in the picture for four frames, such as the sky.
        stands = (flow != 0).any(2).flatten(1).float().mean(1) < _MOST_MOVING
        losses, found = [], []
        for frame in range(1, rainy.shape[1]):
            before = make_state(
                output.restored.detach(),
                shown_mask(torch.sigmoid(output.mask_logits.detach())))
            output = self._run(model, rainy[:, frame], warp(before, flow[:, frame - 1], stands))
            loss, parts = restoration_loss(
                output, dry[:, frame].float() / 255, streaks[:, frame])
            losses.append(loss)
            found.append(parts)
        parts = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
        return sum(losses) / len(losses), parts

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


class CapturedUpdate:
    """Takes the first steps of a session one kernel after the other, and then as a CUDA graph.

    A step of these networks is a few thousand small kernels; launched one by one from Python
    they leave a GPU idle most of the time. Called like :class:`Update`, always with batches of
    one shape.

    ``update``: what to capture. ``log``: called with a line if it cannot be captured; steps then
    go on as they began.
    """

    def __init__(self, update: Update, log: Callable[[str], None]) -> None:
        self._update = update
        self._log = log
        self._captures = True
        # Memory of the optimizer is laid out, and kernels are chosen, in the first steps.
        self._eager_left = _EAGER_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, model: nn.Module, micro: list[Batch]) -> tuple[dict[str, Tensor], Tensor]:
        """Take one step; see :meth:`Update.__call__`. The next step overwrites the results."""
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
                self._log(f'no CUDA graph, so slower ({reason}); `cuda_graph: false` avoids the '
                          'attempt')
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
