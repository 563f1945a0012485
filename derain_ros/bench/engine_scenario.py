"""The engines alone, frames in memory; needs no ROS.

Times of engines on a GPU stand beside the least time that their network could take there, and
beside those of a peer.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any, NamedTuple

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.engine_timing import EngineTiming, in_words, test_picture, time_engine
from derain_ros.bench.floors import Ceilings, NetworkCost, measure_ceilings, network_cost
from derain_ros.bench.setting import Setting
from derain_ros.engines import EngineOptions, create_engine, engine_report
from derain_ros.engines.models import find_model
from derain_ros.engines.openvino_engine import LayerTime
from derain_ros.report.plots import SpeedRow

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

_SECONDS = 5.0
_PROFILED_RUNS = 25
_FLOORS = {'ideal': 'ideal', 'layer by layer': 'layers'}


class Measured(NamedTuple):
    """One engine and model at one size, and what it is compared with, None where unknown.

    ``floors`` are those of its network on this GPU, see :meth:`NetworkCost.floors_ms`; ``peer`` is
    PReNet at the same size and precision.
    """

    timing: EngineTiming
    cost: NetworkCost | None = None
    floors: dict[str, float] | None = None
    peer: EngineTiming | None = None

    @property
    def speed_up(self) -> float:
        """How many times as fast as the peer, uint8 to uint8; NaN where it was not timed."""
        return math.nan if self.peer is None else self.peer.median_ms / self.timing.median_ms

    def figures(self) -> list[Figure]:
        """Return the figures, those with bars where bars apply."""
        timing, what = self.timing, self.timing.what
        barred = timing.on_gpu and (
            timing.precision, timing.width, timing.height) == ('f16', *BARRED_SIZE)
        limit = BARS_MS.get(timing.model) if barred else None
        found = _time_figures(timing, limit and Bar('<=', limit))
        if self.cost is not None:
            found += [
                Figure(f'{what}, operations', self.cost.flops / 1e9, 'GFLOP'),
                Figure(f'{what}, bytes, ideal', self.cost.ideal_size / 1e6, 'MB'),
                Figure(f'{what}, bytes, layer by layer', self.cost.layers_size / 1e6, 'MB')]
        for name, key in _FLOORS.items() if self.floors else ():
            floor = self.floors[key]
            whole = floor + self.floors['copies']
            found += [
                Figure(f'{what}, {name} floor', whole, 'ms', digits=2),
                Figure(f'{what} / {name} floor', timing.median_ms / whole, '',
                       Bar('<=', 3) if barred and timing.model == 'base' else None),
                Figure(f'{what}, network alone, {name} floor', floor, 'ms', digits=2),
                Figure(f'{what}, network alone / {name} floor', timing.device_median_ms / floor)]
        if self.peer is not None:
            found.append(Figure(f'{what}, speed / PReNet', self.speed_up, '',
                                limit and Bar('>=', 20)))
            if timing.on_gpu:
                found.append(Figure(f'{what}, speed / PReNet, network alone',
                                    self.peer.device_median_ms / timing.device_median_ms))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return everything by name."""
        cost = self.cost and {
            'flops': self.cost.flops, 'bytes_ideal': self.cost.ideal_size,
            'bytes_layer_by_layer': self.cost.layers_size, 'layers': len(self.cost.layers)}
        return asdict(self.timing) | {
            'cost': cost, 'floors_ms': self.floors,
            'peer': self.peer and asdict(self.peer), 'speed_up': self.speed_up}


def engine(setting: Setting) -> Result:
    """Time each engine and model at each size, uint8 frames in, uint8 frames and masks out."""
    seconds, timings, profiles, notes = setting.seconds(_SECONDS), [], {}, []
    for name in setting.engines or [found.engine for found in engine_report() if found.available]:
        for model in setting.models or (setting.parameters['model'],):
            options = EngineOptions(kernels=setting.kernels)
            with closing(create_engine(name, model, options=options)) as running:
                timings += [time_engine(running, *size, seconds) for size in setting.sizes]
                if setting.profile and name == 'openvino':
                    for width, height in setting.sizes:
                        what = f'{name} {model} {running.info.precision} {width}x{height}'
                        cpu, layers = running.profile(test_picture(width, height), _PROFILED_RUNS)
                        profiles[what] = [layer._asdict() for layer in layers]
                        notes += profile_lines(what, cpu, layers)
    if not timings:
        notes.append('no engine can run here; `derain info` says why')
    ceilings, peers = None, []
    try:
        if any(timing.on_gpu for timing in timings):
            ceilings = _ceilings({timing.precision for timing in timings}, notes)
        if setting.peer:
            peers = _time_peers(timings, seconds, notes)
        found = [assemble(timing, _cost(timing), ceilings, peers) for timing in timings]
    except ImportError as error:
        notes.append(f'neither cost nor floors nor peer, as torch is missing ({error})')
        found = [Measured(timing) for timing in timings]
    figures = [figure for one in found for figure in one.figures()]
    figures += [figure for peer in peers for figure in _time_figures(peer)]
    if ceilings is not None:
        notes += [f'{name}: {meaning}' for name, meaning in DEFINITIONS.items()]
        figures += [
            Figure('copy within the GPU, read + written', ceilings.copy / 1e9, 'GB/s'),
            Figure('host to GPU, pinned', ceilings.upload / 1e9, 'GB/s'),
            Figure('GPU to host, pinned', ceilings.download / 1e9, 'GB/s'),
            *(Figure(f'matrix product, {precision}', rate / 1e12, 'TFLOP/s')
              for precision, rate in ceilings.products.items())]
    for peer in peers:
        graph = f', no CUDA graph ({peer.not_captured})' if peer.not_captured else ''
        notes.append(f'{peer.what}: random weights, {peer.device}, {peer.layout}{graph}')
    return Result(
        'engine: frames in memory, one after the other',
        # Stable: those with bars first, each group in its order.
        sorted(figures, key=lambda figure: figure.bar is None), notes,
        {'timings': [one.as_json() for one in found],
         'ceilings': ceilings and asdict(ceilings),
         'peers': [asdict(peer) for peer in peers], 'definitions': DEFINITIONS,
         'profiles': profiles})


def profile_lines(what: str, cpu: float, layers: Sequence[LayerTime]) -> list[str]:
    """Add up layers by kernel, the slowest first, with what they reach a second."""
    kernels: dict[tuple[str, str], list[LayerTime]] = {}
    for layer in layers:
        kernels.setdefault((layer.kind, layer.kernel), []).append(layer)
    sums = [(sum(one.ms for one in same), len(same), sum(one.flops for one in same),
             sum(one.size for one in same), ' '.join(kernel)) for kernel, same in kernels.items()]
    lines = [f'{what}, one thread: {cpu:.1f} ms of CPU time; by kernel:']
    for ms, count, flops, size, kernel in sorted(sums, reverse=True):
        if ms >= cpu / 200:
            reached = f'{flops / ms / 1e6:.0f} GFLOP/s, ' if flops else ''
            lines.append(f'{ms:.1f} ms, {count} x {kernel}: {reached}{size / ms / 1e6:.1f} GB/s')
    return lines


def assemble(
    timing: EngineTiming, cost: NetworkCost | None, ceilings: Ceilings | None,
    peers: Sequence[EngineTiming],
) -> Measured:
    """Put a timing beside the floors of its network and the peer of its size and precision."""
    peer = next((peer for peer in peers if peer.case == timing.case), None)
    known = cost is not None and ceilings is not None and timing.on_gpu
    return Measured(
        timing, cost, cost.floors_ms(ceilings, timing.precision) if known else None, peer)


def plot_rows(result: Result) -> list[SpeedRow]:
    """Return what to draw of a result of :func:`engine`: engines, then the peer."""
    rows = []
    for one in result.details['timings'] + result.details['peers']:
        floors = one.get('floors_ms') or {}
        label = in_words(*map(one.get, ('engine', 'model', 'precision', 'width', 'height')))
        rows.append(SpeedRow(
            label, one['median_ms'], one['device_median_ms'],
            *(floors.get(key, math.nan) + floors.get('copies', 0) for key in _FLOORS.values())))
    return rows


def _time_figures(timing: EngineTiming, bar: Bar | None = None) -> list[Figure]:
    found = [Figure(f'{timing.what} p50', timing.median_ms, 'ms', bar, 2),
             Figure(f'{timing.what} p95', timing.p95_ms, 'ms', digits=2)]
    if timing.on_gpu:
        found += [
            Figure(f'{timing.what}, network alone p50', timing.device_median_ms, 'ms', digits=2),
            Figure(f'{timing.what}, network alone p95', timing.device_p95_ms, 'ms', digits=2)]
    return found


def _ceilings(precisions: Iterable[str], notes: list[str]) -> Ceilings | None:
    try:
        return measure_ceilings(sorted(precisions))
    except (RuntimeError, AssertionError) as error:
        # torch has no CUDA beside TensorRT, or the GPU has no room.
        notes.append(f'no floors, as the rates of the GPU cannot be measured ({error})')
        return None


def _time_peers(
    timings: Iterable[EngineTiming], seconds: float, notes: list[str]
) -> list[EngineTiming]:
    """Time the peer once for each size and precision; torch on a CPU does f32 alone well."""
    import torch

    from derain_ros.bench.prenet import time_peer

    on_gpu = torch.cuda.is_available()
    # Never a peer on the CPU beside an engine on a GPU.
    wanted = dict.fromkeys(timing.case for timing in timings if timing.on_gpu == on_gpu
                           and (on_gpu or timing.precision == 'f32'))
    peers = []
    for precision, width, height in wanted:
        try:
            peers.append(time_peer(precision, width, height, seconds))
        except RuntimeError as error:  # no memory left, mostly
            notes.append(f'PReNet {precision} {width}x{height} failed: {error}')
    return peers


def _cost(timing: EngineTiming) -> NetworkCost | None:
    variant = find_model(timing.model).variant
    if not variant:
        return None
    from derain_ros.engines.torch.torch_engine import untrained

    # bfloat16 takes as many bytes as float16.
    return network_cost(lambda: untrained(variant, timing.precision), timing.width, timing.height)
