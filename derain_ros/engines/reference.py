"""Reference results in f32 on the CPU, which compiled engines are compared with."""

import importlib
from contextlib import closing

import numpy as np

from derain_ros.engines.contract import Derained, EngineError
from derain_ros.engines.models import ModelInfo
from derain_ros.text import how_to_install


class Reference:
    """Derains in f32 on the CPU, by OpenVINO, or by torch where OpenVINO is missing.

    ``name`` is the library used, ``OpenVINO`` or ``torch``; torch needs the weights of the model.
    Raises EngineError if neither can run here; the message says how to get one.
    """

    def __init__(self, model: ModelInfo):
        self._model = model
        missing = [] if model.weights else [
            f'torch needs the weights of a zoo model, not {model.onnx.name}']
        for self.name, *modules in (('OpenVINO', 'openvino'),
                                    ('torch', 'torch', 'safetensors.torch')):
            try:
                for module in modules:
                    importlib.import_module(module)
            except Exception as error:  # of various types if a shared library does not load
                missing.append(str(error))
                continue
            if self.name == 'OpenVINO' or model.weights:
                return
        raise EngineError(
            'a compiled engine is compared with the CPU before use, but no engine for that is '
            f'available ({"; ".join(missing)}); {how_to_install("openvino")}')

    def infer(self, *inputs: np.ndarray) -> Derained:
        """Derain a batch as ``Engine.infer`` does; raises EngineError, ModelError."""
        return self._by_openvino(*inputs) if self.name == 'OpenVINO' else self._by_torch(*inputs)

    def _by_openvino(self, *inputs: np.ndarray) -> Derained:
        from derain_ros.engines.openvino_engine import OpenVinoEngine

        with closing(OpenVinoEngine(self._model, 'f32')) as engine:
            return engine.infer(*inputs)

    def _by_torch(self, *inputs: np.ndarray) -> Derained:
        import torch

        from derain_ros.engines.torch.torch_engine import read_network
        from derain_ros.network.dual_stage import DeployedNetwork

        network = read_network(self._model)
        with torch.inference_mode():
            image, mask = DeployedNetwork(network).eval()(
                *(torch.from_numpy(each.copy()) for each in inputs))
        return Derained(image.numpy(), mask.numpy())
