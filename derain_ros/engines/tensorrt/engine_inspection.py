"""In what arithmetic a compiled engine really runs, as TensorRT's inspector tells it."""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_LOG = logging.getLogger(__name__)

_IDLE = re.compile(r'reformat|no_?op|constant|shape|signal|wait|copy|train_?station', re.I)
"""Types of layers that compute nothing."""

# The first that is found in a description such as 'Half', or 'Row major linear FP16 format'.
_TYPES = (
    ('bf16', re.compile(r'bf16|bfloat', re.I)),
    ('f16', re.compile(r'fp16|half|float16', re.I)),
    ('fp8', re.compile(r'fp8|float8', re.I)),
    ('int8', re.compile(r'(?<!u)int8', re.I)),
    ('f32', re.compile(r'fp32|tf32|float', re.I)),
)


@dataclass(frozen=True)
class LayerTypes:
    """How many layers of an engine compute in which type.

    ``counts``: number of layers by type: f16, f32, bf16, int8, fp8. A layer counts by what it puts
    out, or, where that is no arithmetic type, by what it takes. Empty where nothing is told.
    """

    counts: dict[str, int]

    def share(self, name: str) -> float:
        """Return the share of layers of a type, 0–1."""
        return self.counts.get(name, 0) / max(1, sum(self.counts.values()))

    def __str__(self) -> str:
        total = sum(self.counts.values())
        if not total:
            return 'TensorRT does not tell the types of its layers'
        parts = ', '.join(f'{100 * self.share(name):.0f} % {name}' for name in sorted(
            self.counts, key=self.counts.get, reverse=True))
        return f'{total} {"layer" if total == 1 else "layers"}: {parts}'


def inspect(trt: ModuleType, engine, context) -> LayerTypes:
    """Ask TensorRT for the layers of an engine that was built with detailed verbosity."""
    try:
        inspector = engine.create_engine_inspector()
        # With it the inspector also knows the shapes that are left open in the engine.
        inspector.execution_context = context
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        _LOG.debug('no engine inspector: %s', error)
        return LayerTypes({})
    return read_layers(text)


def read_layers(text: str) -> LayerTypes:
    """Read the JSON of the inspector, in whatever of its shapes; what is unknown is left out."""
    try:
        # Names of layers may hold control characters.
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return LayerTypes({})
    layers = found.get('Layers') if isinstance(found, dict) else found
    types = [_type_of(layer) for layer in _dicts(layers)
             if not _IDLE.search(str(layer.get('LayerType', '')))]
    return LayerTypes(dict(Counter(name for name in types if name)))


def _type_of(layer: dict[str, Any]) -> str:
    for tensors in (layer.get('Outputs'), layer.get('Inputs')):
        names = {_named(str(tensor.get('Format/Datatype', tensor.get('Datatype', ''))))
                 for tensor in _dicts(tensors)} - {''}
        if names:
            # The most exact one: such a layer cannot compute in less.
            return 'f32' if 'f32' in names else min(names)
    return _named(str(layer.get('Precision', '')))


def _named(description: str) -> str:
    return next((name for name, words in _TYPES if words.search(description)), '')


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
