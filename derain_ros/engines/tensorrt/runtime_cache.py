"""Kernels that TensorRT for RTX compiles when an engine first runs, kept for the next start.

TensorRT itself compiles them while it builds, and its engines have no such cache.
"""

import logging
from types import ModuleType
from typing import Any

from derain_ros.engines.tensorrt.side_file import SideFile

_LOG = logging.getLogger(__name__)
_TROUBLE = (AttributeError, RuntimeError, TypeError, ValueError)


class RuntimeCache:
    """The compiled kernels of one engine; has to live as long as contexts made by it.

    Parameters
    ----------
    file
        Where they are kept; None keeps none.

    """

    def __init__(self, file: SideFile | None = None):
        self._file = file
        self._known = b''
        self._cache: Any = None

    def create_context(self, trt: ModuleType, engine):
        """Return an execution context of an engine; None where TensorRT makes none."""
        try:
            config = self._config(trt, engine)
        except _TROUBLE as error:
            _LOG.warning('no cache of compiled kernels: %s', error)
            config = self._cache = None
        if config is None:
            return engine.create_execution_context()
        return engine.create_execution_context(config)

    def _config(self, trt: ModuleType, engine):
        # TensorRT 10 has runtime configurations from some version on, without such a cache.
        config = getattr(engine, 'create_runtime_config', lambda: None)()
        if not hasattr(config, 'create_runtime_cache'):
            return None
        strategies = getattr(trt, 'DynamicShapesKernelSpecializationStrategy', None)
        if strategies is not None:
            # Before the first run ends: a CUDA graph keeps the kernels that it was captured with.
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._cache = config.create_runtime_cache()
        if self._cache is None:
            return config
        self._known = b'' if self._file is None else self._file.read()
        if self._known and not self._cache.deserialize(self._known):
            _LOG.info('the kernels kept for this engine do not fit; they are compiled anew')
            self._known = b''
        config.set_runtime_cache(self._cache)
        return config

    def keep(self) -> None:
        """Write the kernels, after a run; a failure is logged."""
        if self._cache is None or self._file is None:
            return
        try:
            found = bytes(self._cache.serialize() or b'')
        except _TROUBLE as error:
            _LOG.warning('the compiled kernels are not kept: %s', error)
            return
        if found not in (b'', self._known):
            self._known = found
            self._file.write(found)
