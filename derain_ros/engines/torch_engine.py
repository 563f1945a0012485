"""The network in torch: the reference that other engines are compared with."""

import numpy as np

from derain_ros.engines.contract import (
    Derained,
    Engine,
    EngineError,
    EngineInfo,
    check_images,
)
from derain_ros.models import ModelError, ModelInfo


def probe() -> tuple[str, str]:
    """Return device and version, or raise EngineError with what is missing."""
    torch = _import()
    return _device(torch)[1], f'torch {torch.__version__}'


def create(model: ModelInfo, precision: str) -> Engine:
    """Load a model; ``precision`` is auto, f32 or bf16. Raises EngineError, ModelError."""
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

    Parameters
    ----------
    model
        Model to load; its file is checked first.
    precision
        ``f32`` (also what ``auto`` means here) or ``bf16`` (autocast).

    Raises
    ------
    EngineError
        torch is missing, or the model has no weights for it.
    ModelError
        The weights are damaged.

    """

    def __init__(self, model: ModelInfo, precision: str) -> None:
        self._torch = torch = _import()
        if model.weights is None:
            raise EngineError(
                f'{model.onnx}: torch needs the weights of a zoo model; use engine openvino'
            )
        content = model.read(model.weights)
        from safetensors import SafetensorError
        from safetensors.torch import load

        from derain_ros.network.dual_stage import VARIANTS, DeployedNetwork, DualStageNetwork

        network = DualStageNetwork(VARIANTS[model.variant])
        try:
            network.load_state_dict(load(content))
        except (RuntimeError, ValueError, SafetensorError) as error:
            raise ModelError(f'{model.weights}: {error}') from error
        self._device, name = _device(torch)
        self._bf16 = precision == 'bf16'
        self._network = DeployedNetwork(network).eval().to(self._device)
        used = 'bf16' if self._bf16 else 'f32'
        self.info = EngineInfo('torch', name, model.name, used, 'the reference implementation')

    def infer(self, images: np.ndarray) -> Derained:
        """Derain a batch; see :meth:`Engine.infer`."""
        check_images(images)
        torch = self._torch
        if self._network is None:
            raise EngineError('the engine is closed')
        with torch.inference_mode(), torch.autocast(
            self._device, torch.bfloat16, enabled=self._bf16
        ):
            # ROS messages hand out read-only memory, which torch does not take.
            batch = torch.from_numpy(np.require(images, requirements='W')).to(self._device)
            try:
                derained, mask = self._network(batch)
            except RuntimeError as error:
                raise EngineError(f'torch inference failed: {error}') from error
        return Derained(derained.cpu().numpy(), mask.cpu().numpy())

    def close(self) -> None:
        """Release the network."""
        self._network = None
