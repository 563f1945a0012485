"""What is known of a model that was measured: file, digest, engine, cost."""

import json
from dataclasses import dataclass
from pathlib import Path

from derain_ros.engines import Engine
from derain_ros.engines.models import digest, find_model
from derain_ros.text import printable


@dataclass(frozen=True)
class ModelFacts:
    """What was measured.

    Attributes
    ----------
    model
        Name as it was asked for; printable.
    file, sha256
        The file that ran, and its digest, hexadecimal.
    engine, device, precision, reason
        See :class:`derain_ros.engines.EngineInfo`.
    parameters, flops_per_pixel
        Size and cost (a multiply-add counts two); None where unknown.

    """

    model: str
    file: str
    sha256: str
    engine: str
    device: str
    precision: str
    reason: str
    parameters: int | None
    flops_per_pixel: int | None


def model_facts(name: str, engine: Engine) -> ModelFacts:
    """Return what is known of a model.

    Parameters
    ----------
    name
        Name in the zoo, or an ONNX file.
    engine
        The engine that runs it.

    Raises
    ------
    ModelError
        There is no such model.

    """
    model, info = find_model(name), engine.info
    file = model.weights if info.engine == 'torch' else model.onnx
    if (info.engine, info.precision) == ('tensorrt', 'f16'):
        file = model.onnx_fp16
    sha256 = digest(file)
    facts = {'parameters': model.parameters, 'flops_per_pixel': model.flops_per_pixel}
    if not model.flops_per_pixel:
        facts.update(_facts_beside(model.onnx, sha256))
    return ModelFacts(
        model=printable(name), file=printable(file.name), sha256=sha256,
        engine=info.engine, device=info.device, precision=info.precision,
        reason=info.reason, parameters=facts['parameters'] or None,
        flops_per_pixel=facts['flops_per_pixel'] or None)


def _facts_beside(onnx: Path, sha256: str) -> dict[str, int]:
    """Read size and cost of an ONNX file from the JSON that ``derain export`` put beside it."""
    try:
        found = json.loads(onnx.with_suffix('.json').read_text(encoding='utf-8'))
        if found['sha256'][onnx.name] != sha256:
            return {}
        facts = {key: found[key] for key in ('parameters', 'flops_per_pixel')}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return facts if all(type(value) is int and value >= 0 for value in facts.values()) else {}
