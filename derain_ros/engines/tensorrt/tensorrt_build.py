"""Compile an ONNX model by TensorRT.

Networks are strongly typed: the precision is that of the ONNX file. (TensorRT 11 has no flags for
it any more.) So a float16 engine is built from ``<name>_fp16.onnx``.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from derain_ros.engines.contract import MINIMUM_SIDE, EngineError
from derain_ros.engines.models import ModelInfo
from derain_ros.engines.onnx_file import check_interface, check_one_file
from derain_ros.engines.tensorrt.build_progress import Progress, ProgressTree
from derain_ros.engines.tensorrt.cuda_runtime import GpuIdentity
from derain_ros.engines.tensorrt.engine_cache import EngineKey
from derain_ros.engines.tensorrt.kernel_caches import TimingCache
from derain_ros.engines.tensorrt.tensorrt_library import Library, LogBook

PRECISIONS = ('fp16', 'fp32')
"""What an engine may compute in, best first."""


class BuildAbortedError(EngineError):
    """The build was told to stop."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes
    ----------
    model
        The model.
    precision
        One of :data:`PRECISIONS`.
    size
        Height and width in pixels of the frames.
    batch
        Most frames at once.
    workspace
        Most bytes of scratch memory on the GPU; None leaves it to TensorRT.

    """

    model: ModelInfo
    precision: str
    size: tuple[int, int]
    batch: int = 1
    workspace: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise EngineError(
                f'unknown precision {self.precision!r}; known: {", ".join(PRECISIONS)}')
        if self.batch < 1:
            raise EngineError(f'batch: expected at least 1, got {self.batch}')
        height, width = self.size
        if min(self.size) < MINIMUM_SIDE:
            raise EngineError(
                f'size: {width}x{height} is too small; the network needs at least '
                f'{MINIMUM_SIDE} pixels on each side')

    def read(self) -> bytes:
        """Return the ONNX file, checked.

        Raises
        ------
        EngineError
            The model has no file of this precision.
        ModelError
            The file is damaged.

        """
        model = self.model
        file = model.onnx if self.precision == 'fp32' else model.onnx_fp16
        if file is None:
            raise EngineError(
                f'{model.name} has no file in float16; use precision fp32, or export the model '
                'with `derain export`, which writes both')
        content = model.read(file)
        check_one_file(file, content)
        return content

    def key(self, content: bytes, library: Library, gpu: GpuIdentity) -> EngineKey:
        """Return what the engine depends on; ``content`` is that of :meth:`read`."""
        return EngineKey(
            model_sha256=hashlib.sha256(content).hexdigest(),
            flavour=library.flavour, version=library.version,
            gpu=gpu.name, compute_capability=gpu.compute_capability, driver=gpu.driver,
            shape=(self.batch, *self.size),
            precision=self.precision,
            options={'workspace': '' if self.workspace is None else str(self.workspace),
                     'verbosity': 'detailed'})


def build_engine(
    request: BuildRequest, content: bytes, library: Library, *,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None, timings: TimingCache | None = None,
) -> bytes:
    """Compile a model.

    Parameters
    ----------
    request
        What to build.
    content
        Its ONNX file.
    library
        TensorRT.
    report
        Called with the progress, from threads of TensorRT.
    stop
        Aborts the build when set.
    timings
        What earlier builds have measured.

    Returns
    -------
    bytes
        The serialized engine.

    Raises
    ------
    BuildAbortedError
        ``stop`` was set.
    EngineError
        TensorRT cannot read or build the model; the message has its first errors.

    """
    trt, book = library.module, LogBook()
    stop = stop or threading.Event()
    logger = book.logger(library)
    what = f'{request.model.name}, {request.precision}: TensorRT has no builder here'
    builder = book.made(trt.Builder, logger, what=what)
    network = book.made(builder.create_network, _network_flags(trt), what=what)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        told = [parser.get_error(number).desc() for number in range(parser.num_errors)]
        raise _failed(request, 'TensorRT cannot read the model', told or book.errors)
    check_interface(
        request.model.onnx,
        [network.get_input(number).name for number in range(network.num_inputs)],
        [network.get_output(number).name for number in range(network.num_outputs)])
    config = book.made(builder.create_builder_config, what=what)
    # So that the inspector can tell what the layers compute in.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace)
    profile = builder.create_optimization_profile()
    largest = (request.batch, *request.size, 3)
    profile.set_shape('image', (1, *request.size, 3), largest, largest)
    if config.add_optimization_profile(profile) < 0:
        raise _failed(request, 'its profile is refused', book.errors)
    # Kept in a variable: the configuration does not own it.
    monitor = _monitor(trt, ProgressTree(report, stop))
    config.progress_monitor = monitor
    if timings is not None:
        timings.attach(config)
    serialized = builder.build_serialized_network(network, config)
    if timings is not None:
        timings.keep(config)
    if serialized is None:
        if stop.is_set():
            raise BuildAbortedError(f'{request.model.name}: the build was aborted')
        raise _failed(request, 'TensorRT cannot build the model', book.errors)
    return bytes(serialized)


def _network_flags(trt) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    # Where there is no such flag all networks are strongly typed.
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, 'STRONGLY_TYPED') else 0


def _monitor(trt, tree: ProgressTree):
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name, parent_phase, num_steps) -> None:
            tree.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name, step) -> bool:
            return tree.step(phase_name, step)

        def phase_finish(self, phase_name) -> None:
            tree.finish(phase_name)

    return Monitor()


def _failed(request: BuildRequest, what: str, told: Sequence[str]) -> EngineError:
    words = '; '.join(told[:3]) or 'it does not say why'
    height, width = request.size
    return EngineError(
        f'{request.model.name}, {request.precision}, {width}x{height}: {what}: {words}')
