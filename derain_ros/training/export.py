"""From trained weights to the files that are shipped."""

import json
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from derain_ros.models import digest
from derain_ros.network.dual_stage import DeployedNetwork, DualStageNetwork

OPSET = 18

DESCRIPTIONS = {'nano': 'For CPUs and GPUs of the Jetson Orin Nano class.'}
"""What each variant is for, one sentence."""


def flops_per_pixel(network: DualStageNetwork, height: int = 480, width: int = 640) -> int:
    """Floating-point operations per pixel at a size that needs no padding.

    Counts convolutions and matrix products, as the literature does; a multiply-add
    counts two.
    """
    image = torch.zeros(1, 3, height, width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return round(counter.get_total_flops() / (height * width))


def export_onnx(network: DualStageNetwork, path: Path) -> None:
    """Write the network as engines run it.

    Parameters
    ----------
    network
        Trained network; put into evaluation mode.
    path
        Written, opset 18: input ``image`` uint8 N×H×W×3 BGR, outputs ``derained``
        like it and ``rain_mask`` uint8 N×H×W, N, H and W symbolic.

    """
    import onnx

    deployed = DeployedNetwork(network).eval()
    # Traced on a size whose every axis differs and needs padding.
    example = torch.zeros(2, 96, 136, 3, dtype=torch.uint8)
    axes = {
        0: torch.export.Dim('N', min=1, max=64),
        1: torch.export.Dim('H', min=32, max=16384),
        2: torch.export.Dim('W', min=32, max=16384),
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            deployed,
            (example,),
            str(path),
            input_names=['image'],
            output_names=['derained', 'rain_mask'],
            dynamic_shapes={'image': axes},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(path)
    # The exporter cannot see that padding and cropping cancel.
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
    description: str,
    figures: dict[str, float],
    licence: str = 'Apache-2.0',
) -> None:
    """Write ``<name>.safetensors``, ``<name>.onnx`` and ``<name>.json`` into a folder.

    Parameters
    ----------
    network
        Trained network.
    folder
        Made where missing.
    name
        Name of the model; also the name of its variant.
    description
        What it is for, one sentence.
    figures
        Measured figures by name, PSNR in dB.
    licence
        SPDX identifier of the weights.

    """
    folder.mkdir(parents=True, exist_ok=True)
    network.eval()
    weights, onnx_file = folder / f'{name}.safetensors', folder / f'{name}.onnx'
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
    export_onnx(network, onnx_file)
    facts = {
        'variant': name,
        'description': description,
        'licence': licence,
        'parameters': sum(p.numel() for p in network.parameters()),
        'flops_per_pixel': flops_per_pixel(network),
        'figures': figures,
        'sha256': {file.name: digest(file) for file in (weights, onnx_file)},
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False) + '\n'
    (folder / f'{name}.json').write_text(text, encoding='utf-8')
