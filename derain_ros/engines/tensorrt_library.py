"""TensorRT as it is installed: ``tensorrt`` (Jetson, desktop) or ``tensorrt_rtx`` (RTX GPUs).

Both have the same Python API, apart from what is told here.
"""

import importlib
import logging
from dataclasses import dataclass
from types import ModuleType

from derain_ros.engines.contract import EngineError

FLAVOURS = ('tensorrt', 'tensorrt_rtx')
"""Python modules, in the order in which they are taken."""

_REMEDY = (
    'install TensorRT 10 or 11 (JetPack has it; on a desktop `pip install tensorrt`), or for RTX '
    'GPUs `pip install tensorrt_rtx_cu13`')
_OLDEST = 10
_NEW_RTX = 1


@dataclass(frozen=True)
class Library:
    """A TensorRT that can be imported.

    Attributes
    ----------
    flavour
        One of :data:`FLAVOURS`.
    version
        Full version.
    module
        The Python module.
    needs_gpu
        It builds for the GPU that is there, and not without one.

    """

    flavour: str
    version: str
    module: ModuleType
    needs_gpu: bool


def find_library(flavour: str = '') -> Library:
    """Import TensorRT.

    Parameters
    ----------
    flavour
        One of :data:`FLAVOURS`; empty takes the first that is there.

    Raises
    ------
    EngineError
        There is none, or it is too old; the message says how to get one.

    """
    problems = []
    for name in [flavour] if flavour else FLAVOURS:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            problems.append(f'no module {error.name}')
            continue
        except Exception as error:  # a library of it that does not load
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


class LogBook:
    """Collects what TensorRT says, and passes warnings on.

    Attributes
    ----------
    errors
        Errors since the start, one line each.

    """

    def __init__(self) -> None:
        self.errors: list[str] = []

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
                elif level > logging.NOTSET:
                    logging.getLogger(__name__).log(level, '%s', message.strip())

        return Logger()
