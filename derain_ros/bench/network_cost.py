"""What a network must compute and move at a size, and the least time that takes on a device."""

from collections.abc import Callable
from dataclasses import dataclass

from derain_ros.bench.gpu_ceilings import Ceilings


@dataclass(frozen=True)
class LayerCost:
    """One run of a layer that holds no other layer.

    Attributes
    ----------
    flops
        Floating-point operations; a multiply-add counts two.
    size
        Bytes of its inputs, weights and outputs, each once.

    """

    flops: int
    size: int


@dataclass(frozen=True)
class NetworkCost:
    """A network at one size and precision.

    Attributes
    ----------
    flops
        Of convolutions and matrix products, those of attention among them; a multiply-add
        counts two. Morphology, activations and the like are left out.
    input_size, weights_size, output_size
        Bytes of the uint8 frame, of the weights, and of the uint8 frame and mask.
    layers
        The layers in the order in which they run.

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


@dataclass(frozen=True)
class Floors:
    """Least times of a network on a device, in ms.

    Attributes
    ----------
    ideal
        The network alone: the longer of all operations at the rate of a matrix product, and
        of input, weights and outputs moved once at the rate of a copy.
    layers
        The network alone, layer by layer: the same for each layer, with its activations, and
        all added up. What is no layer (products of attention, morphology) is left out.
    copies
        The frame to the device, frame and mask back, from and to pinned memory.

    """

    ideal: float
    layers: float
    copies: float


def floors(cost: NetworkCost, ceilings: Ceilings, precision: str) -> Floors:
    """Return what a cost comes to at the rates of a device."""
    rate = ceilings.products[precision]

    def at_best(flops: int, size: int) -> float:
        return 1e3 * max(flops / rate, size / ceilings.copy)

    frames = at_best(0, cost.input_size + cost.output_size)
    return Floors(
        ideal=at_best(cost.flops, cost.ideal_size),
        layers=frames + sum(at_best(layer.flops, layer.size) for layer in cost.layers),
        copies=1e3 * (cost.input_size / ceilings.upload + cost.output_size / ceilings.download))


def model_cost(variant: str, precision: str, width: int, height: int) -> NetworkCost:
    """Count the cost of a variant of our network; see :func:`network_cost`."""
    from derain_ros.engines.torch.torch_engine import untrained

    # bfloat16 takes as many bytes as float16.
    return network_cost(lambda: untrained(variant, precision), width, height)


def peer_cost(precision: str, width: int, height: int) -> NetworkCost:
    """Count the cost of the peer; see :func:`network_cost`."""
    from derain_ros.bench.prenet import DeployedPReNet

    return network_cost(lambda: DeployedPReNet(precision), width, height)


def network_cost(build: Callable[[], object], width: int, height: int) -> NetworkCost:
    """Count what a network does with a frame, without doing it.

    Parameters
    ----------
    build
        Makes the network: uint8 in, N×H×W×3, tuple of uint8 tensors out.
    width, height
        Of the frame, in pixels.

    Raises
    ------
    ImportError
        torch is missing.

    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = build().eval().to('meta')
    layers: list[LayerCost] = []

    def count(module, inputs, output) -> None:
        tensors = [*inputs, *module.parameters(), output]
        layers.append(LayerCost(
            _flops(module, output),
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


def _flops(module, output) -> int:
    """Of a convolution or a linear layer; 0 for others."""
    weight = getattr(module, 'weight', None)
    if weight is None or weight.ndim < 2:
        return 0
    return 2 * output.numel() * weight[0].numel()
