"""The installed TensorRT: ``tensorrt`` (Jetson, desktop) or ``tensorrt_rtx`` (RTX GPUs).

Both have the same Python API, apart from the differences noted here.
"""

import importlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from derain_ros.engines.contract import EngineError
from derain_ros.engines.tensorrt.cuda_runtime import GpuIdentity

FLAVOURS = ('tensorrt', 'tensorrt_rtx')  # Python modules, in order of preference

_REMEDY = (
    'install TensorRT 10 or 11 (JetPack has it; on a desktop `pip install tensorrt`), or for RTX '
    'GPUs `pip install tensorrt_rtx_cu13`')
TROUBLE = (AttributeError, RuntimeError, TypeError, ValueError)
"""Raised by calls that a version of TensorRT lacks or defines differently."""

_OLDEST = 10
_NEW_RTX = 1
_KEPT_ERRORS = 20


@dataclass(frozen=True)
class Library:
    """An importable TensorRT: one of :data:`FLAVOURS`, with its full version.

    With ``needs_gpu`` it builds for the GPU that is present, and cannot build without one.
    """

    flavour: str
    version: str
    module: ModuleType
    needs_gpu: bool


def find_library(flavour: str = '') -> Library:
    """Import TensorRT; ``flavour`` is one of :data:`FLAVOURS`, or empty for the first available.

    Raises EngineError if there is none, or it is too old; the message says how to get one.
    """
    problems = []
    for name in [flavour] if flavour else FLAVOURS:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            problems.append(f'no module {error.name}')
            continue
        except Exception as error:  # a shared library that does not load
            problems.append(f'{name}: {error}')
            continue
        version = str(getattr(module, '__version__', ''))
        major = version.partition('.')[0]
        oldest = _NEW_RTX if name == 'tensorrt_rtx' else _OLDEST
        if not major.isdecimal() or int(major) < oldest:
            problems.append(f'{name} {version or "of no version"} is older than {oldest}')
            continue
        return Library(name, version, module, needs_gpu=name == 'tensorrt')
    raise EngineError(f'{"; ".join(problems)}: {_REMEDY}')


def check_gpu(library: Library, gpu: GpuIdentity) -> None:
    """Raise EngineError if a library does not support the compute capability of the GPU.

    TensorRT for RTX lists those that it builds for; TensorRT itself builds for the GPU present.
    """
    if library.needs_gpu or gpu.missing:
        return
    names = getattr(getattr(library.module, 'ComputeCapability', None), '__members__', ())
    # Such as SM89 and SM120: the last digit is the minor version.
    listed = [f'{found[1]}.{found[2]}' for name in names
              if (found := re.fullmatch(r'SM_?(\d+)(\d)', name))]
    # 7.5 is listed, but built for only on request; above 12.0 one engine serves all GPUs.
    listed = [one for one in listed if one != '7.5']
    newer = gpu.compute_capability.partition('.')[0]
    if listed and gpu.compute_capability not in listed and not (
            newer.isdecimal() and int(newer) > 12):
        raise EngineError(
            f'{library.flavour} {library.version} does not run on the {gpu.name}: that has '
            f'compute capability {gpu.compute_capability}, and {library.flavour} lists '
            f'{", ".join(listed)}; install TensorRT itself (`pip install tensorrt`)')


class LogBook:
    """Collects the errors that TensorRT logs, and passes its warnings to ``logging``.

    ``errors``: errors since the last call of :meth:`made`, one line each, at most the last 20.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []

    def made(self, make: Callable[..., Any], *arguments: Any, what: str) -> Any:
        """Return the object that a call of TensorRT makes; raises EngineError if it makes none.

        If the library returns a null pointer, constructors raise TypeError and methods return
        None; the reason is among the logged errors.
        """
        self.errors.clear()
        try:
            made = make(*arguments)
        except (TypeError, RuntimeError) as error:
            raise EngineError(f'{what}: {self.words(str(error))}') from error
        if made is None:
            raise EngineError(f'{what}: {self.words()}')
        return made

    def words(self, otherwise: str = 'it does not say why') -> str:
        """Return the first errors as part of a sentence."""
        return '; '.join(self.errors[:3]) or otherwise

    def logger(self, library: Library):
        """Return an ``ILogger`` that writes into this book."""
        severity = library.module.ILogger.Severity
        levels = {
            severity.INTERNAL_ERROR: logging.ERROR, severity.ERROR: logging.ERROR,
            severity.WARNING: logging.WARNING, severity.INFO: logging.DEBUG,
            severity.VERBOSE: logging.NOTSET}
        book = self

        class Logger(library.module.ILogger):
            def __init__(self) -> None:
                library.module.ILogger.__init__(self)

            def log(self, severity, message: str) -> None:
                level = levels.get(severity, logging.INFO)
                if level >= logging.ERROR:
                    book.errors.append(message.strip())
                    del book.errors[:-_KEPT_ERRORS]
                elif level > logging.NOTSET:
                    logging.getLogger(__name__).log(level, '%s', message.strip())

        return Logger()
