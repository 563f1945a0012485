"""Distributed training by several processes, as ``torchrun`` starts them.

Every process holds the whole network; gradients are averaged over all of them
(DistributedDataParallel). Of W processes, process r takes in micro-step k of step i the
batch (i · A + k) · W + r, with A the ``accumulate`` of the configuration, so that the
processes together see in step i the batches i · A · W to (i + 1) · A · W − 1, as one
process with ``accumulate`` A · W would.

Cluster centres are buffers that follow the tokens of the process
(:class:`derain_ros.network.attention.ClusteredAttention`). DistributedDataParallel, by its
default ``broadcast_buffers``, sends those of process 0 to all others before a step, so that
the centres follow the share of the crops that process 0 sees, 1 / W of all, and are the same
everywhere. Only in this do W processes differ from one with ``accumulate`` A · W.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from derain_ros.training.config import ConfigError


@dataclass(frozen=True)
class Ranks:
    """The number of this process, and how many there are.

    ``rank``, ``world``: number of the process, from 0, and number of processes. ``local``: number
    of the process among those of this machine, from 0.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> 'Ranks':
        """Read the environment that ``torchrun`` sets; without it there is one process."""
        names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')
        return cls(*(int(os.environ.get(n, d)) for n, d in zip(names, (0, 1, 0), strict=True)))

    @contextmanager
    def group(self, device: torch.device) -> Iterator[None]:
        """Connect the processes for as long as the context lasts."""
        if self.world == 1:
            yield
            return
        # On every machine, Gloo carries tensors on the CPU, such as requests to stop.
        backend = 'cpu:gloo,cuda:nccl' if device.type == 'cuda' else 'gloo'
        if device.type == 'cuda':
            torch.cuda.set_device(device)
        distributed.init_process_group(backend, rank=self.rank, world_size=self.world)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def parallel(self, network: nn.Module, *, has_unused: bool) -> nn.Module:
        """Wrap the network so that gradients are averaged over the processes."""
        if self.world == 1:
            return network
        # Weights of one row or column are the same in either layout, but torch warns of them.
        warnings.filterwarnings('ignore', message='Grad strides do not match bucket view')
        return DistributedDataParallel(network, find_unused_parameters=has_unused)

    def require_same_step(self, step: int) -> None:
        """Check that every process resumes at the same step.

        Raises ConfigError if not, as when a machine does not see the checkpoint of the others.
        """
        if self.world == 1:
            return
        steps = torch.zeros(self.world, dtype=torch.int64)
        steps[self.rank] = step
        distributed.all_reduce(steps)
        if len(set(steps.tolist())) > 1:
            raise ConfigError(
                f'out: the processes go on from different steps, {steps.tolist()}; every '
                'machine must see the same run folder')

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if self.world == 1:
            return flag
        flags = torch.tensor(int(flag))
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return bool(flags)
