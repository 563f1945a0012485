"""PReNet, timed as our torch engine is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from derain_ros.bench.speed import median_and_p95, test_picture, time_calls

_DEVICE_RUNS = 20


@dataclass(frozen=True)
class PeerTiming:
    """Times of PReNet at one size.

    Attributes
    ----------
    device, precision, layout
        Where and in what it ran; of both layouts the quicker.
    width, height
        Frame size in pixels.
    runs
        Frames timed.
    median_ms, p95_ms
        From uint8 frame in memory to uint8 frame, median and 95th percentile.
    device_median_ms, device_p95_ms
        The network alone, by events on the GPU; NaN on a CPU.
    not_captured
        Why there is no CUDA graph; empty where there is one.

    """

    device: str
    precision: str
    layout: str
    width: int
    height: int
    runs: int
    median_ms: float
    p95_ms: float
    device_median_ms: float
    device_p95_ms: float
    not_captured: str = ''


def time_peer(precision: str, width: int, height: int, seconds: float) -> PeerTiming:
    """Time PReNet on the GPU, or where there is none on the CPU.

    Parameters
    ----------
    precision
        ``f32``, ``f16`` or ``bf16``.
    width, height
        Frame size in pixels.
    seconds
        How long to measure each layout, after a warm-up.

    Raises
    ------
    ImportError
        torch is missing.
    RuntimeError
        It does not fit in memory.

    """
    timings = [_time(precision, width, height, seconds, layout)
               for layout in ('channels_last', 'contiguous')]
    return min(timings, key=lambda timing: timing.median_ms)


def _time(
    precision: str, width: int, height: int, seconds: float, layout: str
) -> PeerTiming:
    import torch

    from derain_ros.bench.prenet import DeployedPReNet

    on_gpu = torch.cuda.is_available()
    device = 'cuda' if on_gpu else 'cpu'
    torch.manual_seed(0)
    network = DeployedPReNet(precision).eval().to(device)
    if layout == 'channels_last':
        network = network.to(memory_format=torch.channels_last)

    def forward(batch):
        with torch.inference_mode():
            return network(batch)

    frame = test_picture(width, height)
    infer, device_times, problem = _on_cpu(forward), [], ''
    if on_gpu:
        from derain_ros.engines.torch.torch_graph import CapturedNetwork, streams

        captured = CapturedNetwork(forward, frame.shape, streams())
        infer, problem = captured.run, captured.not_captured
    times = time_calls(lambda: infer(frame), seconds)
    if on_gpu:
        device_times = captured.time(_DEVICE_RUNS)
    name = torch.cuda.get_device_name() if on_gpu else f'CPU, {torch.get_num_threads()} threads'
    return PeerTiming(name, precision, layout, width, height, len(times), *median_and_p95(times),
                      *median_and_p95(device_times), problem)


def _on_cpu(forward: Callable) -> Callable[[np.ndarray], list[np.ndarray]]:
    import torch

    return lambda images: [found.numpy() for found in forward(torch.from_numpy(images))]
