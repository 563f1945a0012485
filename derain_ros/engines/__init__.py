"""Inference back ends behind one interface."""

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from derain_ros.engines.contract import (
    MINIMUM_SIDE,
    Derained,
    Engine,
    EngineError,
    EngineInfo,
    EngineOptions,
)
from derain_ros.engines.models import ModelError, find_model

__all__ = [
    'ENGINES', 'MINIMUM_SIDE', 'PRECISIONS', 'UNPROVEN', 'Derained', 'Engine', 'EngineError',
    'EngineInfo', 'EngineOptions', 'EngineStatus', 'auto_engines', 'check_engine',
    'create_engine', 'engine_report',
]

ENGINES = {
    'tensorrt': 'derain_ros.engines.tensorrt.tensorrt_engine',
    'openvino': 'derain_ros.engines.openvino_engine',
    'torch': 'derain_ros.engines.torch.torch_engine',
}
"""Back ends by name, best first; each module has ``probe()`` and ``create()``."""

UNPROVEN = frozenset({'tensorrt'})
"""Back ends that have not been run on a GPU yet; they are used only if asked for by name.

Each verifies its results, but a crash inside a library takes the whole process down.
"""

PRECISIONS = ('auto', 'f32', 'f16', 'bf16')
"""Values of ``precision``; ``auto`` is f16 or bf16 where that is fast and agrees with f32."""


@dataclass(frozen=True)
class EngineStatus:
    """Whether a back end can run here.

    ``device`` is what it would run on, empty if the back end is not available; ``detail`` is its
    version, or what is missing and how to get it.
    """

    engine: str
    available: bool
    device: str
    detail: str


def auto_engines() -> list[str]:
    """Return the back ends that ``auto`` tries, best first."""
    return [name for name in ENGINES if name not in UNPROVEN]


def engine_report() -> list[EngineStatus]:
    """Return the state of every back end, best first."""
    report = []
    for name, module in ENGINES.items():
        try:
            device, detail = importlib.import_module(module).probe()
        except EngineError as error:
            report.append(EngineStatus(name, False, '', str(error)))
        else:
            report.append(EngineStatus(name, True, device, detail))
    return report


def check_engine(engine: str, precision: str = 'auto') -> None:
    """Raise EngineError unless these are ``auto`` or a back end, and one of PRECISIONS."""
    if engine not in ('auto', *ENGINES):
        raise EngineError(f'unknown engine {engine!r}; known: auto, {", ".join(ENGINES)}')
    if precision not in PRECISIONS:
        raise EngineError(f'unknown precision {precision!r}; known: {", ".join(PRECISIONS)}')


def create_engine(
    engine: str | Sequence[str] = 'auto', model: str = 'nano', *, precision: str = 'auto',
    options: EngineOptions | None = None,
) -> Engine:
    """Create an engine and load a model into it.

    ``engine`` is the name of a back end, or several names of which the first that works here is
    used, or ``auto`` for :func:`auto_engines`; the choice is logged and explained in
    ``info.reason``. ``model`` is a name in the model zoo, or the path of an ``.onnx`` file, and
    ``precision`` one of :data:`PRECISIONS`. Raises EngineError if a name is unknown, or no back
    end works; the message says what to do.
    """
    names = [engine] if isinstance(engine, str) else engine
    for name in names:
        check_engine(name, precision)
    if engine == 'auto':
        names = auto_engines()
    try:
        found = find_model(model)
    except ModelError as error:
        raise EngineError(str(error)) from error
    failed = []
    for name in names:
        try:
            engine = importlib.import_module(ENGINES[name]).create(
                found, precision, options or EngineOptions())
        except (EngineError, ModelError) as error:
            failed.append(f'{name}: {error}')
            continue
        why = 'the first that works here' if len(names) > 1 else 'as requested'
        reasons = [f'{name} is {why}', engine.info.reason, *(f'not {text}' for text in failed)]
        engine.info = replace(engine.info, model=model, reason='; '.join(reasons))
        logging.getLogger(__name__).info(
            'engine %s on %s, model %s, %s: %s', name, engine.info.device, model,
            engine.info.precision, engine.info.reason)
        return engine
    if len(names) == 1:
        raise EngineError(f'engine {failed[0]}')
    raise EngineError('no engine works here: ' + '; '.join(failed))
