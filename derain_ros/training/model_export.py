"""Export of trained weights to the files that are shipped."""

import copy
import json
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from derain_ros.engines.models import digest
from derain_ros.network.dual_stage import DeployedNetwork, DualStageNetwork
from derain_ros.replacing import replace_file

OPSET = 18

DESCRIPTIONS = {
    'pico': 'For CPUs without bf16 arithmetic.',
    'nano': 'For CPUs and GPUs of the Jetson Orin Nano class.',
    'base': 'For GPUs of the Jetson Orin class and up, and for files on a CPU.',
    'large': 'For quality without a deadline, on a desktop GPU.',
    'nano-t': '`nano` for streams: also uses the previous frame.',
    'base-t': '`base` for streams: also uses the previous frame.',
}
"""What each variant is for, one sentence."""


def flops_per_pixel(network: DualStageNetwork, height: int = 480, width: int = 640) -> int:
    """Floating-point operations per pixel at a size that needs no padding.

    Counts convolutions and matrix products, as the literature does; a multiply-add
    counts as two.
    """
    # On the meta device, as counting needs no data.
    image, state = (torch.zeros(1, channels, height, width, device='meta') for channels in (3, 4))
    counted = copy.deepcopy(network).eval().to('meta')
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counted(image, state if network.config.past else None)
    return round(counter.get_total_flops() / (height * width))


def export_onnx(network: DualStageNetwork, path: Path, *, half: bool = False) -> None:
    """Write the network as engines run it; puts it into evaluation mode.

    Opset 18: input ``image`` uint8 N×H×W×3 BGR, outputs ``derained`` like it and ``rain_mask``
    uint8 N×H×W, N, H and W symbolic. A network that uses the previous frame has a second input,
    ``state_in`` uint8 N×H×W×4. With ``half`` weights and activations are in float16 (strongly
    typed: engines keep the types of the graph), else in float32.
    """
    import onnx

    deployed = DeployedNetwork(network, half=half).eval()
    # Traced at a size whose axes all differ and need padding.
    inputs = {'image': 3, 'state_in': 4} if network.config.past else {'image': 3}
    examples = tuple(
        torch.zeros(2, 104, 136, channels, dtype=torch.uint8) for channels in inputs.values())
    axes = {
        0: torch.export.Dim('N', min=1, max=64),
        1: torch.export.Dim('H', min=32, max=16384),
        2: torch.export.Dim('W', min=32, max=16384),
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            deployed,
            examples,
            str(path),
            input_names=list(inputs),
            output_names=['derained', 'rain_mask'],
            dynamic_shapes=dict.fromkeys(inputs, axes),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(path)
    # The exporter cannot see that padding and cropping cancel out.
    for output in model.graph.output:
        for dimension, name in zip(output.type.tensor_type.shape.dim, 'NHW', strict=False):
            dimension.dim_param = name
    for node in model.graph.node:
        # Stack traces of the exporting machine.
        del node.metadata_props[:]
        node.doc_string = ''
    for value in model.graph.value_info:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_model(
    network: DualStageNetwork,
    folder: Path,
    name: str,
    *,
    variant: str,
    figures: dict[str, float],
) -> None:
    """Write the files of a model into a folder, which is made if missing.

    These are ``<name>.safetensors``, ``<name>.onnx`` (float32), ``<name>_fp16.onnx`` and
    ``<name>.json``, with the ``variant`` of the network, and measured ``figures`` by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network.eval()
    weights = folder / f'{name}.safetensors'
    onnx_file, fp16_file = folder / f'{name}.onnx', folder / f'{name}_fp16.onnx'
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
    # safetensors makes the file readable by its owner only.
    weights.chmod(0o644)
    export_onnx(network, onnx_file)
    export_onnx(network, fp16_file, half=True)
    facts = {
        'variant': variant,
        'description': DESCRIPTIONS[variant],
        'licence': 'Apache-2.0',
        'parameters': sum(p.numel() for p in network.parameters()),
        'flops_per_pixel': flops_per_pixel(network),
        'figures': figures,
        'sha256': {file.name: digest(file) for file in (weights, onnx_file, fp16_file)},
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False) + '\n'
    replace_file(folder / f'{name}.json', text)
