"""What TensorRT has measured or compiled, kept so that the next build or start is shorter.

Nothing depends on either: whatever is wrong costs time alone, and it is made anew.
"""

import logging
from types import ModuleType
from typing import Any

from derain_ros.engines.tensorrt.cuda_runtime import GpuIdentity
from derain_ros.engines.tensorrt.engine_cache import EngineCache, EngineKey
from derain_ros.engines.tensorrt.tensorrt_library import Library

KERNELS, TIMING = '.kernels', '.timing'
"""Suffixes of the entries in the cache of engines."""

_LOG = logging.getLogger(__name__)
_TROUBLE = (AttributeError, RuntimeError, TypeError, ValueError)


def timings_for(cache: EngineCache, library: Library, gpu: GpuIdentity) -> 'TimingCache | None':
    """Return the timing cache of a library on a GPU; None where it has no use for one.

    TensorRT for RTX measures nothing while it builds; it says that its timing cache does nothing.
    """
    if library.flavour == 'tensorrt_rtx' or gpu.missing:
        return None
    return TimingCache(cache, library, gpu)


class TimingCache:
    """What one TensorRT measured of its kernels on one GPU in earlier builds.

    ``cache``: where it is kept. ``library``, ``gpu``: what the times hold for.
    """

    def __init__(self, cache: EngineCache, library: Library, gpu: GpuIdentity):
        self._cache = cache
        self.key = EngineKey('', library.flavour, library.version, gpu.name,
                             gpu.compute_capability, gpu.driver)
        self._attached: Any = None

    def attach(self, config) -> None:
        """Give a builder configuration what is known."""
        try:
            for content in dict.fromkeys((self._cache.read(self.key, TIMING), b'')):
                # Kept, as the configuration does not own it.
                self._attached = config.create_timing_cache(content)
                # False: TensorRT itself checks that the times are of this GPU.
                if self._attached is not None and config.set_timing_cache(self._attached, False):
                    return
        except _TROUBLE as error:
            _LOG.warning('no timing cache: %s', error)
        self._attached = None

    def keep(self, config) -> None:
        """Write what is known after a build, with what others have written meanwhile."""
        if self._attached is None:
            return
        try:
            before = self._cache.read(self.key, TIMING)
            if before:
                theirs = config.create_timing_cache(before)
                if theirs is not None:
                    self._attached.combine(theirs, False)
            found = self._attached.serialize()
            if found is not None and bytes(found) != before:
                self._cache.write(self.key, bytes(found), TIMING)
        except _TROUBLE as error:
            _LOG.warning('the timing cache is not kept: %s', error)
        finally:
            self._attached = None


class RuntimeCache:
    """Kernels that TensorRT for RTX compiles when an engine first runs.

    TensorRT itself compiles them while it builds, and its engines have no such cache. It has to
    live as long as contexts made by it.

    ``cache``: where they are kept. ``key``: key of the engine that they belong to.
    """

    def __init__(self, cache: EngineCache, key: EngineKey):
        self._entry = cache, key
        self._known = b''
        self._compiled: Any = None

    def create_context(self, trt: ModuleType, engine):
        """Return an execution context of an engine; None where TensorRT makes none."""
        try:
            config = self._config(trt, engine)
        except _TROUBLE as error:
            _LOG.warning('no cache of compiled kernels: %s', error)
            config = self._compiled = None
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
        self._compiled = config.create_runtime_cache()
        if self._compiled is None:
            return config
        cache, key = self._entry
        self._known = cache.read(key, KERNELS)
        if self._known and not self._compiled.deserialize(self._known):
            _LOG.info('the kernels kept for this engine do not fit; they are compiled anew')
            self._known = b''
        config.set_runtime_cache(self._compiled)
        return config

    def keep(self) -> None:
        """Write the kernels, after a run; a failure is logged."""
        if self._compiled is None:
            return
        try:
            found = bytes(self._compiled.serialize() or b'')
        except _TROUBLE as error:
            _LOG.warning('the compiled kernels are not kept: %s', error)
            return
        if found not in (b'', self._known):
            self._known = found
            cache, key = self._entry
            cache.write(key, found, KERNELS)
