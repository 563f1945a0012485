"""What a device can do at best, measured: how fast it moves bytes and multiplies matrices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from derain_ros.bench.speed import time_calls

_WARM_UP_RUNS = 5
_RUNS = 20

COPIED_BYTES = 1 << 30
"""Of the copy within the device: far more than its caches hold."""

SIDE = 8192
"""Of the square matrices."""


@dataclass(frozen=True)
class Ceilings:
    """Rates of a device, medians of copies and products on random data.

    Attributes
    ----------
    device
        Its name.
    copy
        Bytes read plus bytes written a second, copying within the device.
    upload, download
        Bytes a second from pinned memory of the host to the device, and back, in copies as
        large as a frame.
    products
        Floating-point operations a second of a product of square matrices, by precision.
        ``f32`` is TF32 on a GPU that has it, as convolutions there are by default.

    """

    device: str
    copy: float
    upload: float
    download: float
    products: Mapping[str, float]


def measure_ceilings(
    precisions: Sequence[str], *, device: str = 'cuda', copied: int = COPIED_BYTES,
    frame: int = 3 * 1920 * 1080, side: int = SIDE,
) -> Ceilings:
    """Measure the rates of a device with torch.

    Parameters
    ----------
    precisions
        Which products to measure, of ``f32``, ``f16`` and ``bf16``.
    device
        ``cuda``, or ``cpu``, where there is nothing to upload and a copy stands in for it.
    copied, frame
        Bytes of the copy within the device, and of those from and to the host.
    side
        Of the matrices.

    Raises
    ------
    ImportError
        torch is missing.

    """
    import torch

    on_gpu = device == 'cuda'
    host = torch.randint(0, 256, (frame,), dtype=torch.uint8)
    host, there = host.pin_memory() if on_gpu else host, torch.empty_like(host, device=device)
    upload = frame / _seconds(lambda: there.copy_(host, non_blocking=True), on_gpu)
    download = frame / _seconds(lambda: host.copy_(there, non_blocking=True), on_gpu)
    return Ceilings(
        torch.cuda.get_device_name() if on_gpu else 'CPU', _copy_rate(device, copied), upload,
        download, {name: _product_rate(name, device, side) for name in precisions})


def _copy_rate(device: str, size: int) -> float:
    import torch

    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _seconds(lambda: target.copy_(source), device == 'cuda')


def _product_rate(precision: str, device: str, side: int) -> float:
    import torch

    kind = {'f32': torch.float32, 'f16': torch.float16, 'bf16': torch.bfloat16}[precision]
    first, second = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    product = torch.empty_like(first)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high')
    try:
        seconds = _seconds(lambda: torch.mm(first, second, out=product), device == 'cuda')
    finally:
        torch.set_float32_matmul_precision(before)
    return 2 * side**3 / seconds


def _seconds(work: Callable[[], object], on_gpu: bool) -> float:
    """Return the median time of queued work, by events where it runs on a GPU."""
    import torch

    if not on_gpu:
        return float(np.median(time_calls(work, 0))) / 1e3
    for _ in range(_WARM_UP_RUNS):
        work()
    marks = []
    for _ in range(_RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        marks.append((start, end))
    torch.cuda.synchronize()
    return float(np.median([start.elapsed_time(end) for start, end in marks])) / 1e3
