"""Figures of engines on a GPU beside the least time that their network could take there."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from derain_ros.bench.bars import Bar, Figure
from derain_ros.bench.gpu_ceilings import Ceilings
from derain_ros.bench.gpu_peer import PeerTiming
from derain_ros.bench.network_cost import Floors, NetworkCost, floors
from derain_ros.bench.speed import EngineTiming

DEFINITIONS = {
    'uint8 to uint8': 'from the call with a frame in memory to the return of frame and mask',
    'network alone': 'between two events on the GPU, without copies from and to the host',
    'ideal floor': 'the longer of: input, weights and outputs moved once at the rate of a copy '
                   'within the device; all operations at the rate of a matrix product',
    'layer by layer floor': 'the same for each layer with its activations read and written once, '
                            'added up; products of attention and morphology left out',
    'floor from uint8 to uint8': 'that of the network plus frame up, and frame and mask down, at '
                                 'the rates of copies from and to pinned memory',
}
"""What the figures mean."""

BARRED_SIZE = (1920, 1080)
BARS_MS = {'base': 5.0, 'nano': 1.5}
"""Most milliseconds from uint8 to uint8 in f16 at :data:`BARRED_SIZE`, by model."""

_FLOOR_BAR = Bar('<=', 3)
_PEER_BAR = Bar('>=', 20)


@dataclass(frozen=True)
class Measured:
    """One engine and model at one size, and what it is compared with.

    Attributes
    ----------
    timing
        Of the engine.
    cost
        Of its network; None where it cannot be counted.
    floors
        Of that network on this GPU; None where the engine is not on a GPU, or its rates are not
        known.
    peer
        PReNet at the same size and precision, if timed.

    """

    timing: EngineTiming
    cost: NetworkCost | None = None
    floors: Floors | None = None
    peer: PeerTiming | None = None

    @property
    def speed_up(self) -> float:
        """How many times as fast as the peer, uint8 to uint8; NaN where it was not timed."""
        return math.nan if self.peer is None else self.peer.median_ms / self.timing.median_ms

    def figures(self) -> list[Figure]:
        """Return the figures, those with bars where bars apply."""
        timing = self.timing
        barred = (timing.on_gpu and timing.precision == 'f16'
                  and (timing.width, timing.height) == BARRED_SIZE)
        limit = BARS_MS.get(timing.model) if barred else None
        bar = None if limit is None else Bar('<=', limit)
        found = [Figure(f'{timing.what} p50', timing.median_ms, 'ms', bar, 2),
                 Figure(f'{timing.what} p95', timing.p95_ms, 'ms', digits=2)]
        if timing.on_gpu:
            found += [
                Figure(f'{timing.what}, network alone p50', timing.device_median_ms, 'ms',
                       digits=2),
                Figure(f'{timing.what}, network alone p95', timing.device_p95_ms, 'ms',
                       digits=2)]
        if self.cost is not None:
            found += [Figure(f'{timing.what}, operations', self.cost.flops / 1e9, 'GFLOP'),
                      Figure(f'{timing.what}, bytes, ideal', self.cost.ideal_size / 1e6, 'MB'),
                      Figure(f'{timing.what}, bytes, layer by layer',
                             self.cost.layers_size / 1e6, 'MB')]
        if self.floors is not None:
            close = _FLOOR_BAR if barred and timing.model == 'base' else None
            for name, floor in (('ideal', self.floors.ideal),
                                ('layer by layer', self.floors.layers)):
                whole = floor + self.floors.copies
                found += [
                    Figure(f'{timing.what}, {name} floor', whole, 'ms', digits=2),
                    Figure(f'{timing.what} / {name} floor', timing.median_ms / whole, '', close),
                    Figure(f'{timing.what}, network alone, {name} floor', floor, 'ms', digits=2),
                    Figure(f'{timing.what}, network alone / {name} floor',
                           timing.device_median_ms / floor)]
        if self.peer is not None:
            found.append(Figure(f'{timing.what}, speed / PReNet', self.speed_up, '',
                                _PEER_BAR if limit is not None else None))
            if timing.on_gpu:
                found.append(Figure(f'{timing.what}, speed / PReNet, network alone',
                                    self.peer.device_median_ms / timing.device_median_ms))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return everything by name."""
        cost = self.cost and {
            'flops': self.cost.flops, 'bytes_ideal': self.cost.ideal_size,
            'bytes_layer_by_layer': self.cost.layers_size, 'layers': len(self.cost.layers)}
        return asdict(self.timing) | {
            'cost': cost, 'floors_ms': self.floors and asdict(self.floors),
            'peer': self.peer and asdict(self.peer), 'speed_up': self.speed_up}


def assemble(
    timing: EngineTiming, cost: NetworkCost | None, ceilings: Ceilings | None,
    peers: Sequence[PeerTiming],
) -> Measured:
    """Put a timing beside the floors of its network and the peer of its size and precision."""
    key = (timing.precision, timing.width, timing.height)
    peer = next((peer for peer in peers if (peer.precision, peer.width, peer.height) == key), None)
    known = cost is not None and ceilings is not None and timing.on_gpu
    return Measured(
        timing, cost, floors(cost, ceilings, timing.precision) if known else None, peer)
