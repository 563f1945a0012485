"""The least time that a network can take on a device, from its cost and the device's rates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from derain_ros.bench.engine_timing import time_calls

_WARM_UP_RUNS = 5
_RUNS = 20
_COPIED_BYTES = 1 << 30  # far more than the caches of a device hold


@dataclass(frozen=True)
class Ceilings:
    """Rates of a device, medians of copies and products on random data.

    ``copy`` is bytes read plus bytes written a second, within the device; ``upload`` and
    ``download`` bytes a second from pinned memory of the host and back, in copies as large as a
    frame; ``products`` floating-point operations a second of a product of square matrices, by
    precision, where ``f32`` is TF32 on a GPU that has it, as convolutions there are by default.
    """

    device: str
    copy: float
    upload: float
    download: float
    products: Mapping[str, float]


def measure_ceilings(
    precisions: Sequence[str], *, device: str = 'cuda', copied: int = _COPIED_BYTES,
    frame: int = 3 * 1920 * 1080, side: int = 8192,
) -> Ceilings:
    """Measure the rates of a device with torch; ImportError where that is missing.

    Parameters
    ----------
    precisions
        Which products to measure, of ``f32``, ``f16`` and ``bf16``.
    device
        ``cuda``, or ``cpu``, where there is nothing to upload and a copy stands in for it.
    copied, frame
        Bytes of the copy within the device, and of those from and to the host.
    side
        Of the square matrices.

    """
    import torch

    on_gpu = device == 'cuda'
    host = torch.randint(0, 256, (frame,), dtype=torch.uint8)
    host, there = host.pin_memory() if on_gpu else host, torch.empty_like(host, device=device)
    source = torch.randint(0, 256, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    products = {}
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high')
    try:
        for name in precisions:
            kind = {'f32': torch.float32, 'f16': torch.float16, 'bf16': torch.bfloat16}[name]
            first, second = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
            product = torch.empty_like(first)
            products[name] = 2 * side**3 / _seconds(
                lambda a=first, b=second, out=product: torch.mm(a, b, out=out), on_gpu)
    finally:
        torch.set_float32_matmul_precision(before)
    return Ceilings(
        torch.cuda.get_device_name() if on_gpu else 'CPU',
        2 * copied / _seconds(lambda: target.copy_(source), on_gpu),
        frame / _seconds(lambda: there.copy_(host, non_blocking=True), on_gpu),
        frame / _seconds(lambda: host.copy_(there, non_blocking=True), on_gpu), products)


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


class LayerCost(NamedTuple):
    """Operations of a layer, and the bytes of its inputs, weights and outputs, each once."""

    flops: int
    size: int


@dataclass(frozen=True)
class NetworkCost:
    """A network at one size and precision.

    ``flops`` are of convolutions and matrix products, those of attention among them; a
    multiply-add counts two, and morphology, activations and the like are left out. Sizes are bytes
    of the uint8 frame, of the weights, and of the uint8 frame and mask; ``layers`` are in the
    order in which they run.
    """

    flops: int
    input_size: int
    weights_size: int
    output_size: int
    layers: tuple[LayerCost, ...]

    @property
    def ideal_size(self) -> int:
        """Bytes of input, weights and outputs, each once."""
        return self.input_size + self.weights_size + self.output_size

    @property
    def layers_size(self) -> int:
        """Bytes of all layers, each with its activations read and written once."""
        return self.input_size + self.output_size + sum(layer.size for layer in self.layers)

    def floors_ms(self, ceilings: Ceilings, precision: str) -> dict[str, float]:
        """Return what this comes to at the rates of a device, ms.

        ``ideal``: the network alone, the longer of all operations at the rate of a matrix
        product, and of input, weights and outputs moved once at the rate of a copy. ``layers``:
        the same for each layer, with its activations, and all added up; what is no layer
        (products of attention, morphology) is left out. ``copies``: the frame to the device,
        frame and mask back, from and to pinned memory.
        """
        def at_best(flops: int, size: int) -> float:
            return 1e3 * max(flops / ceilings.products[precision], size / ceilings.copy)

        return {
            'ideal': at_best(self.flops, self.ideal_size),
            'layers': at_best(0, self.input_size + self.output_size)
            + sum(at_best(*layer) for layer in self.layers),
            'copies': 1e3 * (self.input_size / ceilings.upload
                             + self.output_size / ceilings.download)}


def network_cost(build: Callable[[], object], width: int, height: int) -> NetworkCost:
    """Count what a network does with a frame, without doing it; ImportError without torch.

    ``build`` makes the network: uint8 in, N×H×W×3, tuple of uint8 tensors out.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = build().eval().to('meta')
    layers: list[LayerCost] = []

    def count(module, inputs, output) -> None:
        tensors = [*inputs, *module.parameters(), output]
        weight = getattr(module, 'weight', None)
        convolves = weight is not None and weight.ndim > 1
        layers.append(LayerCost(
            2 * output.numel() * weight[0].numel() if convolves else 0,
            sum(x.numel() * x.element_size() for x in tensors if x is not None)))

    for module in network.modules():
        if not any(module.children()):
            module.register_forward_hook(count)
    frame = torch.empty((1, height, width, 3), dtype=torch.uint8, device='meta')
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        outputs = network(frame)
    return NetworkCost(
        flops=counter.get_total_flops(), input_size=frame.numel(),
        weights_size=sum(x.numel() * x.element_size() for x in network.parameters()),
        output_size=sum(x.numel() for x in outputs), layers=tuple(layers))
