"""The facts that reports state about a model: file, digest, engine, cost."""

from dataclasses import dataclass

from derain_ros.engines import Engine
from derain_ros.engines.models import digest, find_model
from derain_ros.text import printable


@dataclass(frozen=True)
class ModelFacts:
    """A model as an engine runs it.

    ``model`` is the requested name, printable; ``file`` is the name of the file that is run, and
    ``sha256`` its digest, hexadecimal; ``parameters`` and ``flops_per_pixel`` (a multiply-add
    counts as two) are None if unknown; for the rest see :class:`derain_ros.engines.EngineInfo`.
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
    """Return the facts of a model, given by zoo name or ONNX file, as ``engine`` runs it.

    Raises ModelError if there is no such model.
    """
    model, info = find_model(name), engine.info
    file = model.weights if info.engine == 'torch' else model.onnx
    if (info.engine, info.precision) == ('tensorrt', 'f16'):
        file = model.onnx_fp16
    return ModelFacts(
        model=printable(name), file=printable(file.name), sha256=digest(file),
        engine=info.engine, device=info.device, precision=info.precision, reason=info.reason,
        parameters=model.parameters or None, flops_per_pixel=model.flops_per_pixel or None)
