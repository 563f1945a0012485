"""The engines alone, frames in memory; needs no ROS."""

import math
from collections.abc import Iterable
from dataclasses import asdict

from derain_ros.bench.bars import Figure, Result
from derain_ros.bench.gpu_ceilings import Ceilings, measure_ceilings
from derain_ros.bench.gpu_figures import DEFINITIONS, Measured, assemble
from derain_ros.bench.gpu_peer import PeerTiming, time_peer
from derain_ros.bench.gpu_plot import SpeedRow
from derain_ros.bench.network_cost import NetworkCost, model_cost
from derain_ros.bench.setting import Setting
from derain_ros.bench.speed import EngineTiming, time_engine
from derain_ros.engines import EngineOptions, create_engine, engine_report
from derain_ros.engines.models import find_model

_SECONDS = 5.0


def engine(setting: Setting) -> Result:
    """Time each engine and model at each size, uint8 frames in, uint8 frames and masks out.

    Raises
    ------
    EngineError
        No engine can run, or one failed.

    """
    seconds = setting.seconds(_SECONDS)
    timings = []
    for name in setting.engines or _available():
        for model in setting.models or (setting.parameters['model'],):
            running = create_engine(name, model, options=EngineOptions(kernels=setting.kernels))
            try:
                timings += [time_engine(running, *size, seconds) for size in setting.sizes]
            finally:
                running.close()
    notes = [] if timings else ['no engine can run here; `derain info` says why']
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
    notes += _notes(ceilings, peers)
    return Result(
        'engine: frames in memory, one after the other', _figures(found, ceilings, peers), notes,
        {'timings': [one.as_json() for one in found],
         'ceilings': ceilings and asdict(ceilings),
         'peers': [asdict(peer) for peer in peers], 'definitions': DEFINITIONS})


def _ceilings(precisions: Iterable[str], notes: list[str]) -> Ceilings | None:
    try:
        return measure_ceilings(sorted(precisions))
    except (RuntimeError, AssertionError) as error:
        # torch has no CUDA beside TensorRT, or the GPU has no room.
        notes.append(f'no floors, as the rates of the GPU cannot be measured ({error})')
        return None


def plot_rows(result: Result) -> list[SpeedRow]:
    """Return what to draw of a result of :func:`run`: engines, then the peer."""
    rows = []
    for one in result.details['timings']:
        floors = one['floors_ms']
        least = [math.nan if floors is None else floors[name] + floors['copies']
                 for name in ('ideal', 'layers')]
        rows.append(SpeedRow(
            f'{one["engine"]} {one["model"]} {one["precision"]} {one["width"]}x{one["height"]}',
            one['median_ms'], one['device_median_ms'], *least))
    return rows + [
        SpeedRow(f'PReNet {one["precision"]} {one["width"]}x{one["height"]}', one['median_ms'],
                 one['device_median_ms'])
        for one in result.details['peers']]


def _time_peers(
    timings: Iterable[EngineTiming], seconds: float, notes: list[str]
) -> list[PeerTiming]:
    """Time the peer once for each size and precision; torch on a CPU does f32 alone well."""
    import torch

    # Never a peer on the CPU beside an engine on a GPU.
    wanted = dict.fromkeys(
        (timing.precision, timing.width, timing.height) for timing in timings
        if timing.on_gpu == torch.cuda.is_available())
    peers = []
    for precision, width, height in wanted:
        if not torch.cuda.is_available() and precision != 'f32':
            continue
        try:
            peers.append(time_peer(precision, width, height, seconds))
        except RuntimeError as error:  # no memory left, mostly
            notes.append(f'PReNet {precision} {width}x{height} failed: {error}')
    return peers


def _cost(timing: EngineTiming) -> NetworkCost | None:
    variant = find_model(timing.model).variant
    if not variant:
        return None
    return model_cost(variant, timing.precision, timing.width, timing.height)


def _figures(
    found: Iterable[Measured], ceilings: Ceilings | None, peers: Iterable[PeerTiming]
) -> list[Figure]:
    figures = [figure for one in found for figure in one.figures()]
    for peer in peers:
        what = f'PReNet {peer.precision} {peer.width}x{peer.height}'
        figures += [Figure(f'{what} p50', peer.median_ms, 'ms', digits=2),
                    Figure(f'{what} p95', peer.p95_ms, 'ms', digits=2)]
        if not math.isnan(peer.device_median_ms):
            figures.append(
                Figure(f'{what}, network alone p50', peer.device_median_ms, 'ms', digits=2))
    if ceilings is not None:
        figures += [
            Figure('copy within the GPU, read + written', ceilings.copy / 1e9, 'GB/s'),
            Figure('host to GPU, pinned', ceilings.upload / 1e9, 'GB/s'),
            Figure('GPU to host, pinned', ceilings.download / 1e9, 'GB/s')]
        figures += [Figure(f'matrix product, {precision}', rate / 1e12, 'TFLOP/s')
                    for precision, rate in ceilings.products.items()]
    # Stable: those with bars first, each group in its order.
    return sorted(figures, key=lambda figure: figure.bar is None)


def _notes(ceilings: Ceilings | None, peers: Iterable[PeerTiming]) -> list[str]:
    notes = []
    if ceilings is not None:
        notes += [f'{name}: {meaning}' for name, meaning in DEFINITIONS.items()]
    for peer in peers:
        graph = f', no CUDA graph ({peer.not_captured})' if peer.not_captured else ''
        notes.append(f'PReNet {peer.precision} {peer.width}x{peer.height}: random weights, '
                     f'{peer.device}, {peer.layout}{graph}')
    return notes


def _available() -> list[str]:
    return [status.engine for status in engine_report() if status.available]
