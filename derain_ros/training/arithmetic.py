"""The device and the arithmetic in which the network is trained."""

from pathlib import Path

import numpy as np
import torch

from derain_ros.training.config import ConfigError


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    ``name``: ``auto`` takes CUDA where there is one. ``local_rank``: number of this process among
    those of its machine, and of its GPU. Raises ConfigError: CUDA was requested but is not
    available, or there are too few GPUs.
    """
    if name == 'cpu' or (name == 'auto' and not torch.cuda.is_available()):
        return torch.device('cpu')
    if not torch.cuda.is_available():
        raise ConfigError('device: torch finds no CUDA GPU; use device cpu or auto')
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f'device: process {local_rank} of this machine has no GPU of its own, there are '
            f'{torch.cuda.device_count()}; start fewer processes')
    return torch.device('cuda', local_rank)


def choose_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Return the type that the network computes in under autocast, None for float32.

    ``auto`` is bf16 on CUDA and on a CPU that computes in it: with AMX tiles a step of nano took
    62 ms instead of 70, with avx512_bf16 alone (AMD EPYC, one core) 88 instead of 148.
    """
    if amp == 'auto':
        amp = 'bf16' if device.type == 'cuda' or _cpu_has_bf16() else 'off'
    return {'off': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}[amp]


def mix_seeds(*numbers: int) -> int:
    """Return one seed for torch made of several non-negative numbers of any size."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _cpu_has_bf16() -> bool:
    try:
        flags = set(Path('/proc/cpuinfo').read_text(encoding='utf-8').split())
    except OSError:
        return False
    return bool(flags & {'amx_bf16', 'avx512_bf16'})
