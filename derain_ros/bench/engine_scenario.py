"""Time the engines alone, with frames in memory; needs no ROS.

Times of engines on a GPU are compared with lower bounds (floors) of the time that their network
could take there, and with the times of a peer network, PReNet.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from derain_ros.bench.measures import Figure, Result, percentile
from derain_ros.bench.setting import VGA, Setting
from derain_ros.engines import Derained, Engine, EngineOptions, create_engine, engine_report
from derain_ros.engines.agreement import state_for
from derain_ros.engines.models import find_model, model_names
from derain_ros.engines.openvino_engine import LayerTime
from derain_ros.images.memory import Memory
from derain_ros.rain import RainClip
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
"""Definitions of the figures."""

BARRED_SIZE = (1920, 1080)
BARS_MS = {'base': 5.0, 'nano': 1.5}
"""Upper limits of the time from uint8 to uint8 in f16 at :data:`BARRED_SIZE`, ms, by model."""

_SECONDS = 5.0
_PROFILED_RUNS = 25
_FLOORS = {'ideal': 'ideal', 'layer by layer': 'layers'}
_WARM_UP_RUNS = 3
_LEAST_RUNS = 5
_PAN_FRAMES = 16
_DEVICE_RUNS, _PEER_DEVICE_RUNS = 200, 20
_QUEUED_WARM_UP_RUNS, _QUEUED_RUNS = 5, 20
_COPIED_BYTES = 1 << 30  # far more than the caches of a device hold


@dataclass(frozen=True)
class EngineTiming:
    """Times of one engine at one frame size, ms.

    ``median_ms`` and ``p95_ms`` are from the call with a uint8 frame in memory to the return of
    the uint8 frame and mask. ``device_median_ms`` and ``device_p95_ms`` are of the network alone,
    between CUDA events, without copies; NaN if the engine does not measure them. Only for the
    peer, ``layout`` is its faster tensor layout, and ``not_captured`` why it has no CUDA graph.
    """

    engine: str
    device: str
    model: str
    precision: str
    on_gpu: bool
    width: int
    height: int
    runs: int
    median_ms: float
    p95_ms: float
    device_median_ms: float = math.nan
    device_p95_ms: float = math.nan
    layout: str = ''
    not_captured: str = ''

    @property
    def case(self) -> tuple[str, int, int]:
        """Precision and size."""
        return self.precision, self.width, self.height

    @property
    def what(self) -> str:
        """Engine, model, precision and size, in words."""
        return in_words(self.engine, self.model, *self.case)


def in_words(engine: str, model: str | None, precision: str, width: int, height: int) -> str:
    """Return a label of what was timed."""
    return ' '.join(filter(None, (engine, model, precision, f'{width}x{height}')))


def time_engine(engine: Engine, width: int, height: int, seconds: float) -> EngineTiming:
    """Time an engine for ``seconds`` after a warm-up, one frame after the other.

    A recurrent model gets a state, which is not made anew for each frame, see
    :func:`time_in_turns`.
    """
    frame = test_picture(width, height)
    given = (frame, state_for(frame)) if engine.info.remembers else (frame,)
    times = time_calls(lambda: engine.infer(*given), seconds)
    device = engine.time_device(frame, min(len(times), _DEVICE_RUNS))
    info = engine.info
    return EngineTiming(
        info.engine, info.device, info.model, info.precision, engine.on_gpu, width, height,
        len(times), *median_and_p95(times), *median_and_p95(device))


def time_calls(call: Callable[[], object], seconds: float) -> list[float]:
    """Time repeated calls for ``seconds`` after a warm-up, at least a few; returns ms."""
    for _ in range(_WARM_UP_RUNS):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < _LEAST_RUNS:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def time_in_turns(
    single: Engine, recurrent: Engine, frames: Sequence[np.ndarray], seconds: float,
) -> tuple[float, float, float]:
    """Time a single-frame model and a recurrent one with its memory, frame by frame in turns.

    ``frames``, uint8, 1×H×W×3, are played over and over at 30 Hz; what else runs on the machine
    slows both down alike. Returns medians of ``single``, ``recurrent``, and the share of the
    latter that is not inference (motion, warping, bound), ms.
    """
    memory, times = Memory(), ([], [], [])

    def infer(*given: np.ndarray) -> Derained:
        times[2].append(-time.perf_counter())
        result = recurrent.infer(*given)
        times[2][-1] += time.perf_counter()
        return result

    numbers = itertools.count()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 2 * len(frames):
        number = next(numbers)
        frame = frames[number % len(frames)]
        for call, found in (
                (single.infer, times[0]), (memory.through(infer, number / 30), times[1])):
            start = time.perf_counter()
            call(frame)
            found.append(time.perf_counter() - start)
    # The first frames find no state, and the engines warm up.
    kept = [1e3 * np.array(one)[len(frames):] for one in times]
    one, both, inference = kept
    return tuple(float(np.median(found)) for found in (one, both, both - inference))


def rainy_pan(width: int, height: int) -> list[np.ndarray]:
    """Return a clip of a camera that pans by four pixels a frame in moderate rain, as a loop.

    Frames are uint8, 1×H×W×3.
    """
    scene, shower = test_picture(width, height)[0], RainClip(0.5, 1)
    places = [4 * abs(step) for step in range(-_PAN_FRAMES // 2, _PAN_FRAMES // 2)]
    return [shower.render(np.roll(scene, place, 1), number).image[np.newaxis]
            for number, place in enumerate(places)]


def median_and_p95(times: list[float]) -> tuple[float, float]:
    """Return median and 95th percentile; NaN if there are no times."""
    return percentile(times, 50), percentile(times, 95)


def test_picture(width: int, height: int) -> np.ndarray:
    """Return smooth coloured noise, uint8, 1×H×W×3: an image with structure at several scales."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64):
        coarse = rng.random((cells, cells, 3), dtype=np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total * 85, 0, 255).astype(np.uint8)[np.newaxis]


test_picture.__test__ = False  # pytest would otherwise collect it as a test


# Floors: the cost of a network at the measured rates of a device

@dataclass(frozen=True)
class Ceilings:
    """Measured rates of a device, medians of copies and matrix products on random data.

    ``copy`` is bytes read plus bytes written per second, within the device; ``upload`` and
    ``download`` are bytes per second from pinned host memory and back, in copies of frame size;
    ``products`` is FLOP/s of a product of square matrices, by precision, where ``f32`` is TF32 on
    a GPU that has it, which is the default for convolutions there.
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
    """Measure the rates of a device with torch; raises ImportError if that is missing.

    ``precisions`` are those of the products, among ``f32``, ``f16`` and ``bf16``, of matrices of
    ``side`` × ``side``. On ``cpu``, upload and download are ordinary copies. ``copied`` is the
    number of bytes copied within the device, ``frame`` that of copies from and to the host.
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
    """Return the median time of work in seconds, measured with CUDA events on a GPU."""
    if not on_gpu:
        return float(np.median(time_calls(work, 0))) / 1e3
    from derain_ros.engines.torch.torch_graph import time_queued

    time_queued(work, _QUEUED_WARM_UP_RUNS)
    return float(np.median(time_queued(work, _QUEUED_RUNS))) / 1e3


class LayerCost(NamedTuple):
    """FLOP count of a layer, and the bytes of its inputs, weights and outputs, each once."""

    flops: int
    size: int


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network at one frame size and precision.

    ``flops`` counts convolutions and matrix products, including those of attention; a multiply-add
    counts as two, and morphology, activations and the like are left out. Sizes are in bytes, of
    the uint8 input frame, of the weights, and of the uint8 output frame and mask; ``layers`` are
    in order of execution.
    """

    flops: int
    input_size: int
    weights_size: int
    output_size: int
    layers: tuple[LayerCost, ...]

    @property
    def ideal_size(self) -> int:
        """Bytes of input, weights and outputs, each counted once."""
        return self.input_size + self.weights_size + self.output_size

    @property
    def layers_size(self) -> int:
        """Bytes moved if every layer reads and writes its activations once."""
        return self.input_size + self.output_size + sum(layer.size for layer in self.layers)

    def floors_ms(self, ceilings: Ceilings, precision: str) -> dict[str, float]:
        """Return lower bounds of the time at the rates of a device, ms.

        ``ideal``: the network alone, the longer of all operations at the rate of a matrix
        product, and of input, weights and outputs moved once at the rate of a copy. ``layers``:
        the sum of the same bound for each layer, with its activations; what is no layer (products
        of attention, morphology) is left out. ``copies``: the frame to the device, frame and mask
        back, from and to pinned memory.
        """
        def at_best(flops: int, size: int) -> float:
            return 1e3 * max(flops / ceilings.products[precision], size / ceilings.copy)

        return {
            'ideal': at_best(self.flops, self.ideal_size),
            'layers': at_best(0, self.input_size + self.output_size)
            + sum(at_best(*layer) for layer in self.layers),
            'copies': 1e3 * (self.input_size / ceilings.upload
                             + self.output_size / ceilings.download)}


def network_cost(
    build: Callable[[], object], width: int, height: int, channels: Sequence[int] = (3,),
) -> NetworkCost:
    """Count the operations and bytes of a network for one frame, on torch's meta device.

    ``build`` makes the network: uint8 in, N×H×W×C, with the ``channels`` of each input, tuple of
    uint8 tensors out. Raises ImportError.
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
    given = [torch.empty((1, height, width, count), dtype=torch.uint8, device='meta')
             for count in channels]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        outputs = network(*given)
    return NetworkCost(
        flops=counter.get_total_flops(), input_size=sum(one.numel() for one in given),
        weights_size=sum(x.numel() * x.element_size() for x in network.parameters()),
        output_size=sum(x.numel() for x in outputs), layers=tuple(layers))


# The scenario

class Measured(NamedTuple):
    """The timing of one engine and model at one size, and its references, None if unknown.

    ``floors`` are those of its network on this GPU, see :meth:`NetworkCost.floors_ms`; ``peer`` is
    the timing of PReNet at the same size and precision.
    """

    timing: EngineTiming
    cost: NetworkCost | None = None
    floors: dict[str, float] | None = None
    peer: EngineTiming | None = None

    @property
    def speed_up(self) -> float:
        """Speed relative to the peer, uint8 to uint8; NaN if the peer was not timed."""
        return math.nan if self.peer is None else self.peer.median_ms / self.timing.median_ms

    def figures(self) -> list[Figure]:
        """Return the figures, with bars where there are any for this case."""
        timing, what = self.timing, self.timing.what
        barred = timing.on_gpu and (
            timing.precision, timing.width, timing.height) == ('f16', *BARRED_SIZE)
        limit = BARS_MS.get(timing.model) if barred else None
        found = _time_figures(timing, f'<= {limit:g}' if limit else '')
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
                Figure(f'{what} / {name} floor', timing.median_ms / whole,
                       bar='<= 3' if barred and timing.model == 'base' else ''),
                Figure(f'{what}, network alone, {name} floor', floor, 'ms', digits=2),
                Figure(f'{what}, network alone / {name} floor', timing.device_median_ms / floor)]
        if self.peer is not None:
            found.append(Figure(f'{what}, speed / PReNet', self.speed_up,
                                bar='>= 20' if limit else ''))
            if timing.on_gpu:
                found.append(Figure(f'{what}, speed / PReNet, network alone',
                                    self.peer.device_median_ms / timing.device_median_ms))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return all values by name, for the JSON file."""
        cost = self.cost and {
            'flops': self.cost.flops, 'bytes_ideal': self.cost.ideal_size,
            'bytes_layer_by_layer': self.cost.layers_size, 'layers': len(self.cost.layers)}
        return asdict(self.timing) | {
            'cost': cost, 'floors_ms': self.floors,
            'peer': self.peer and asdict(self.peer), 'speed_up': self.speed_up}


def engine(setting: Setting) -> Result:
    """Time each engine and model at each size, uint8 frames in, uint8 frames and masks out."""
    seconds, timings, turns, profiles, notes = setting.seconds(_SECONDS), [], [], {}, []
    for name in setting.engines or [found.engine for found in engine_report() if found.available]:
        for model in setting.models or (setting.parameters['model'],):
            options = EngineOptions(kernels=setting.kernels)
            with closing(create_engine(name, model, options=options)) as running:
                timings += [time_engine(running, *size, seconds) for size in setting.sizes]
                single = model.removesuffix('-t')
                if running.info.remembers and single in set(model_names()) - {model}:
                    with closing(create_engine(name, single, options=options)) as other:
                        for size in setting.sizes:
                            turns += _in_turns(other, running, *size, seconds)
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
    figures = [figure for one in found for figure in one.figures()] + turns
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
    return Result('engine: frames in memory, one after the other', figures, notes, {
        'timings': [one.as_json() for one in found], 'ceilings': ceilings and asdict(ceilings),
        'peers': [asdict(peer) for peer in peers], 'definitions': DEFINITIONS,
        'profiles': profiles})


def _in_turns(
    single: Engine, recurrent: Engine, width: int, height: int, seconds: float,
) -> list[Figure]:
    one, both, memory = time_in_turns(single, recurrent, rainy_pan(width, height), 2 * seconds)
    info = recurrent.info
    what = in_words(info.engine, info.model, info.precision, width, height) + ', panned'
    return [
        Figure(f'{what}, with memory / {single.info.model}', both / one,
               '', '<= 1.25' if (width, height) == VGA else '', 2),
        Figure(f'{what}, memory alone p50', memory, 'ms', digits=2)]


def profile_lines(what: str, cpu: float, layers: Sequence[LayerTime]) -> list[str]:
    """Return a line for each kernel, the slowest first: total time, FLOP/s and bytes/s."""
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
    """Combine a timing with the floors of its network and the peer of its size and precision."""
    peer = next((peer for peer in peers if peer.case == timing.case), None)
    known = cost is not None and ceilings is not None and timing.on_gpu
    return Measured(
        timing, cost, cost.floors_ms(ceilings, timing.precision) if known else None, peer)


def plot_rows(result: Result) -> list[SpeedRow]:
    """Return the rows of a speed plot from a result of :func:`engine`: engines, then peers."""
    rows = []
    for one in result.details['timings'] + result.details['peers']:
        floors = one.get('floors_ms') or {}
        label = in_words(*map(one.get, ('engine', 'model', 'precision', 'width', 'height')))
        rows.append(SpeedRow(
            label, one['median_ms'], one['device_median_ms'],
            *(floors.get(key, math.nan) + floors.get('copies', 0) for key in _FLOORS.values())))
    return rows


def _time_figures(timing: EngineTiming, bar: str = '') -> list[Figure]:
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
        # torch may lack CUDA where TensorRT works, or the GPU is out of memory.
        notes.append(f'no floors, as the rates of the GPU cannot be measured ({error})')
        return None


def _time_peers(
    timings: Iterable[EngineTiming], seconds: float, notes: list[str]
) -> list[EngineTiming]:
    """Time the peer once for each size and precision; on a CPU, only f32 is fast in torch."""
    import torch

    on_gpu = torch.cuda.is_available()
    # Never compare a peer on the CPU with an engine on a GPU.
    wanted = dict.fromkeys(timing.case for timing in timings if timing.on_gpu == on_gpu
                           and (on_gpu or timing.precision == 'f32'))
    peers = []
    for precision, width, height in wanted:
        try:
            peers.append(min((
                _time_peer(precision, width, height, seconds, layout)
                for layout in ('channels_last', 'contiguous')), key=lambda peer: peer.median_ms))
        except RuntimeError as error:  # usually out of memory
            notes.append(f'PReNet {precision} {width}x{height} failed: {error}')
    return peers


def _time_peer(
    precision: str, width: int, height: int, seconds: float, layout: str
) -> EngineTiming:
    """Time PReNet in the same way as our torch engine, on the GPU, or on the CPU without one."""
    import torch

    from derain_ros.bench.prenet import PReNet

    on_gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    network = PReNet(precision).eval().to('cuda' if on_gpu else 'cpu')
    if layout == 'channels_last':
        network = network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(batch: Any) -> Any:
        return network(batch)

    frame = test_picture(width, height)
    if on_gpu:
        from derain_ros.engines.torch.torch_graph import CapturedNetwork

        captured = CapturedNetwork(forward, [frame.shape])
        times = time_calls(lambda: captured.run(frame), seconds)
        device_times, problem = captured.time(_PEER_DEVICE_RUNS), captured.not_captured
        name = torch.cuda.get_device_name()
    else:
        times = time_calls(
            lambda: [found.numpy() for found in forward(torch.from_numpy(frame))], seconds)
        device_times, problem, name = [], '', f'CPU, {torch.get_num_threads()} threads'
    return EngineTiming('PReNet', name, '', precision, on_gpu, width, height, len(times),
                        *median_and_p95(times), *median_and_p95(device_times), layout, problem)


def _cost(timing: EngineTiming) -> NetworkCost | None:
    variant = find_model(timing.model).variant
    if not variant:
        return None
    from derain_ros.engines.torch.torch_engine import untrained

    # bfloat16 takes as many bytes as float16.
    deployed = untrained(variant, timing.precision)
    channels = (3, 4) if deployed.network.config.past else (3,)
    return network_cost(lambda: deployed, timing.width, timing.height, channels)
