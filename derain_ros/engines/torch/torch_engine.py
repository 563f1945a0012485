"""The network in torch: the reference on a CPU, and a fast engine on an NVIDIA GPU."""

import logging
from collections import OrderedDict
from typing import Any

import numpy as np

from derain_ros.engines.agreement import LEAST_DB, agreement, state_for, test_frame
from derain_ros.engines.contract import (
    KERNELS,
    Derained,
    Engine,
    EngineError,
    EngineInfo,
    EngineOptions,
    check_images,
    ready_for,
)
from derain_ros.engines.models import ModelError, ModelInfo
from derain_ros.text import how_to_install, why_not_imported


def probe() -> tuple[str, str]:
    """Return device and version, or raise EngineError with what is missing."""
    torch = _import()
    return _device(torch)[1], f'torch {torch.__version__}'


def create(model: ModelInfo, precision: str, options: EngineOptions) -> Engine:
    """Load a model; ``precision`` is auto, f32, f16 or bf16. Raises EngineError, ModelError."""
    return TorchEngine(model, precision, options.kernels)


def untrained(variant: str, precision: str):
    """Return an untrained variant as it is deployed, in float16 unless ``precision`` is f32.

    For figures that depend on the layers alone, such as the cost. Needs torch.
    """
    from derain_ros.network.dual_stage import VARIANTS, DeployedNetwork, DualStageNetwork

    return DeployedNetwork(DualStageNetwork(VARIANTS[variant]), half=precision != 'f32')


def _import():
    name = 'torch'
    try:
        import torch
        name = 'safetensors'
        import safetensors.torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise EngineError(f'{error}; {how_to_install("torch", "safetensors")}') from error
    except Exception as error:  # of various types if a shared library does not load
        raise EngineError(why_not_imported(error, name)) from error
    return torch


def _device(torch) -> tuple[str, str]:
    if torch.cuda.is_available():
        return 'cuda', torch.cuda.get_device_name()
    return 'cpu', f'CPU, {torch.get_num_threads()} threads'


def read_network(model: ModelInfo):
    """Return the network of a model with its weights, in f32 on the CPU; raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from derain_ros.network.dual_stage import VARIANTS, DualStageNetwork

    content = model.read(model.weights)
    if model.variant not in VARIANTS:
        raise ModelError(f'{model.weights}: unknown variant {model.variant!r}; known: '
                         f'{", ".join(VARIANTS)}; install the package again')
    network = DualStageNetwork(VARIANTS[model.variant])
    try:
        network.load_state_dict(load(content))
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(f'{model.weights}: {error}') from error
    return network


class TorchEngine(Engine):
    """Runs the safetensors weights of a model.

    On a GPU each batch shape has buffers of its own and, if the network can be captured, a CUDA
    graph.

    ``model``: model to load; its file is checked first. ``precision``: ``f32``, ``f16``, ``bf16``
    (autocast), or ``auto``: on a GPU f16 if the result agrees with f32 to
    :data:`derain_ros.engines.agreement.LEAST_DB`, on a CPU f32. ``kernels``: on a GPU, one of
    :data:`derain_ros.engines.contract.KERNELS`. Raises EngineError: torch is missing, or the model
    has no weights for it. Raises ModelError: the weights are damaged.
    """

    def __init__(self, model: ModelInfo, precision: str, kernels: str = 'plain') -> None:
        self._torch = _import()
        if model.weights is None:
            raise EngineError(
                f'{model.onnx}: torch needs the weights of a zoo model; use engine openvino'
            )
        network = read_network(model)
        self._device, name = _device(self._torch)
        self.on_gpu = self._device == 'cuda'
        if kernels not in KERNELS:
            raise EngineError(f'unknown kernels {kernels!r}; known: {", ".join(KERNELS)}')
        self._kernels = kernels
        if self._kernels == 'compiled':
            self.preparation_limit = 600.0
        self._captured: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._remembers = bool(network.config.past)
        precision, reason = self._choose(network, precision)
        if self._kernels == 'compiled':
            self._load(network, precision, compiled=True)
            reason += '; compiled by torch'
        self.info = EngineInfo(
            'torch', name, model.name, precision, reason, self._remembers)

    def _load(
        self, network, precision: str, *, fused: bool = False, compiled: bool = False
    ) -> None:
        from derain_ros.network.dual_stage import DeployedNetwork

        self._captured.clear()
        self._bf16 = precision == 'bf16'
        deployed = DeployedNetwork(network, half=precision == 'f16').eval().to(self._device)
        if fused:
            from derain_ros.engines.torch.torch_fused import fuse

            # Fused kernels need channels last; those of torch are no faster for it on an H100.
            deployed = deployed.to(memory_format=self._torch.channels_last)
            fuse(deployed.network)
        if compiled:
            # Compiled for each size, as kernels for any size are slower. torch compiles eight
            # sizes and runs further ones uncompiled.
            deployed = self._torch.compile(deployed, dynamic=False)
        self._network = deployed

    def _choose(self, network, precision: str) -> tuple[str, str]:
        """Load the network in the best way that agrees with f32; returns precision and reason."""
        asked = f'{precision} was requested'
        if not self.on_gpu and precision == 'auto':
            precision, asked = 'f32', 'the reference implementation'
        if not self.on_gpu or precision not in ('auto', 'f16'):
            self._load(network, precision)
            return precision, asked
        self._load(network, 'f32')
        reference = self._try()
        if self._kernels == 'fused':
            found = self._agreement_fused(network, reference)
            if found >= LEAST_DB:
                return 'f16', f'f16, by fused kernels, agrees with f32 to {found:.0f} dB'
        self._load(network, 'f16')
        found = agreement(reference, self._try())
        if found >= LEAST_DB:
            return 'f16', f'f16 agrees with f32 to {found:.0f} dB'
        reason = f'f16 agrees with f32 to {found:.1f} dB only'
        if precision == 'f16':
            raise EngineError(f'{reason}, expected {LEAST_DB:g}; use precision f32')
        self._load(network, 'f32')
        return 'f32', reason

    def _agreement_fused(self, network, reference: Derained) -> float:
        """Load the network with fused kernels; returns the agreement in dB, 0 if they fail."""
        try:
            self._load(network, 'f16', fused=True)
            return agreement(reference, self._try())
        except Exception as error:
            # A kernel compiler may raise anything, and fused kernels are optional.
            logging.getLogger(__name__).warning(
                'no fused kernels, so slower: %s', (str(error) or repr(error)).splitlines()[0])
            return 0.0

    def _try(self) -> Derained:
        frame = test_frame()
        return self.infer(frame, state_for(frame) if self._remembers else None)

    def infer(self, images: np.ndarray, states: np.ndarray | None = None) -> Derained:
        """Derain a batch; see :meth:`Engine.infer`."""
        check_images(images, states, remembers=self._remembers)
        if self._network is None:
            raise EngineError('the engine is closed')
        try:
            if self.on_gpu:
                if self._remembers and states is None:
                    states = np.zeros((*images.shape[:3], 4), np.uint8)
                given = (images,) if states is None else (images, states)
                return Derained(*self._captured_for(images.shape).run(*given))
            # Arrays of ROS messages are read-only, which torch does not accept.
            given = (self._torch.from_numpy(np.require(each, requirements='W'))
                     for each in (images, states) if each is not None)
            derained, mask = self._forward(*given)
        except RuntimeError as error:
            raise EngineError(f'torch inference failed: {error}') from error
        return Derained(derained.numpy(), mask.numpy())

    def time_device(self, images: np.ndarray, runs: int) -> list[float]:
        """Time the network alone on the GPU; see :meth:`Engine.time_device`."""
        self.infer(images)
        return self._captured_for(images.shape).time(runs) if self.on_gpu else []

    def _forward(self, *inputs):
        torch = self._torch
        with torch.inference_mode(), torch.autocast(
            self._device, torch.bfloat16, enabled=self._bf16
        ):
            return self._network(*inputs)

    def _captured_for(self, shape: tuple[int, ...]):
        from derain_ros.engines.torch.torch_graph import CapturedNetwork

        shapes = [shape, (*shape[:3], 4)] if self._remembers else [shape]
        return ready_for(self._captured, shape, lambda: CapturedNetwork(self._forward, shapes))

    def close(self) -> None:
        """Release the network, and the GPU memory that torch would keep for reuse."""
        self._captured.clear()
        self._network = None
        if self.on_gpu:
            self._torch.cuda.empty_cache()
