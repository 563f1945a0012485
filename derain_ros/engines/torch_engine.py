"""The network in torch: the reference on a CPU, and a fast engine on an NVIDIA GPU."""

from collections import OrderedDict
from typing import Any

import numpy as np

from derain_ros.engines.agreement import LEAST_DB, agreement, test_frame
from derain_ros.engines.contract import (
    Derained,
    Engine,
    EngineError,
    EngineInfo,
    EngineOptions,
    check_images,
    forget_shapes,
)
from derain_ros.models import ModelError, ModelInfo


def probe() -> tuple[str, str]:
    """Return device and version, or raise EngineError with what is missing."""
    torch = _import()
    return _device(torch)[1], f'torch {torch.__version__}'


def create(
    model: ModelInfo, precision: str, options: EngineOptions | None = None
) -> Engine:
    """Load a model; ``precision`` is auto, f32, f16 or bf16. Raises EngineError, ModelError."""
    return TorchEngine(model, precision)


def _import():
    try:
        import safetensors.torch  # noqa: F401
        import torch
    except ImportError as error:
        raise EngineError(
            f'{error}; install it with `pip install "derain_ros[train]"`'
        ) from error
    return torch


def _device(torch) -> tuple[str, str]:
    if torch.cuda.is_available():
        return 'cuda', torch.cuda.get_device_name()
    return 'cpu', f'CPU, {torch.get_num_threads()} threads'


class TorchEngine(Engine):
    """Runs the safetensors weights of a model.

    On a GPU each shape has memory of its own and a CUDA graph of copies and kernels, where it
    can be captured.

    Parameters
    ----------
    model
        Model to load; its file is checked first.
    precision
        ``f32``, ``f16``, ``bf16`` (autocast), or ``auto``: on a GPU f16 where the result agrees
        with f32 to :data:`derain_ros.engines.agreement.LEAST_DB`, on a CPU f32.

    Raises
    ------
    EngineError
        torch is missing, or the model has no weights for it.
    ModelError
        The weights are damaged.

    """

    def __init__(self, model: ModelInfo, precision: str) -> None:
        self._torch = _import()
        if model.weights is None:
            raise EngineError(
                f'{model.onnx}: torch needs the weights of a zoo model; use engine openvino'
            )
        network = self._read(model)
        self._device, name = _device(self._torch)
        self._on_gpu = self._device == 'cuda'
        self._captured: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        reason = f'{precision} was asked for'
        if precision == 'auto':
            precision, reason = self._choose_precision(network)
        self._load(network, precision)
        self.info = EngineInfo('torch', name, model.name, precision, reason)

    def _read(self, model: ModelInfo):
        content = model.read(model.weights)
        from safetensors import SafetensorError
        from safetensors.torch import load

        from derain_ros.network.dual_stage import VARIANTS, DualStageNetwork

        network = DualStageNetwork(VARIANTS[model.variant])
        try:
            network.load_state_dict(load(content))
        except (RuntimeError, ValueError, SafetensorError) as error:
            raise ModelError(f'{model.weights}: {error}') from error
        return network

    def _load(self, network, precision: str) -> None:
        from derain_ros.network.dual_stage import DeployedNetwork

        self._captured.clear()
        self._bf16 = precision == 'bf16'
        deployed = DeployedNetwork(network, half=precision == 'f16').eval().to(self._device)
        if self._on_gpu:
            # The layout in which the matrix units of a GPU take convolutions.
            deployed = deployed.to(memory_format=self._torch.channels_last)
        self._network = deployed

    def _choose_precision(self, network) -> tuple[str, str]:
        if not self._on_gpu:
            return 'f32', 'the reference implementation'
        results = []
        for precision in ('f32', 'f16'):
            self._load(network, precision)
            results.append(self.infer(test_frame()))
        found = agreement(*results)
        if found < LEAST_DB:
            return 'f32', f'f16 agrees with f32 to {found:.1f} dB only'
        return 'f16', f'f16 agrees with f32 to {found:.0f} dB'

    def infer(self, images: np.ndarray) -> Derained:
        """Derain a batch; see :meth:`Engine.infer`."""
        check_images(images)
        if self._network is None:
            raise EngineError('the engine is closed')
        try:
            if self._on_gpu:
                return self._captured_for(images.shape).run(images)
            # ROS messages hand out read-only memory, which torch does not take.
            batch = self._torch.from_numpy(np.require(images, requirements='W'))
            derained, mask = self._forward(batch)
        except RuntimeError as error:
            raise EngineError(f'torch inference failed: {error}') from error
        return Derained(derained.numpy(), mask.numpy())

    def _forward(self, batch):
        torch = self._torch
        with torch.inference_mode(), torch.autocast(
            self._device, torch.bfloat16, enabled=self._bf16
        ):
            return self._network(batch)

    def _captured_for(self, shape: tuple[int, ...]):
        if shape in self._captured:
            self._captured.move_to_end(shape)
        else:
            from derain_ros.engines.torch_graph import CapturedNetwork

            self._captured[shape] = CapturedNetwork(self._forward, shape)
            forget_shapes(self._captured)
        return self._captured[shape]

    def close(self) -> None:
        """Release the network."""
        self._captured.clear()
        self._network = None
