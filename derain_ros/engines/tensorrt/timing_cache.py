"""What TensorRT measured of its kernels in earlier builds, so that the next one is shorter.

TensorRT for RTX measures nothing while it builds; it says that its timing cache does nothing.
"""

import hashlib
import json
import logging
from typing import Any

from derain_ros.engines.tensorrt.engine_cache import EngineCache
from derain_ros.engines.tensorrt.gpu_identity import GpuIdentity
from derain_ros.engines.tensorrt.side_file import SideFile
from derain_ros.engines.tensorrt.tensorrt_library import Library

_LOG = logging.getLogger(__name__)
_TROUBLE = (AttributeError, RuntimeError, TypeError, ValueError)


def timings_for(cache: EngineCache, library: Library, gpu: GpuIdentity) -> 'TimingCache | None':
    """Return the timing cache of a library on a GPU; None where it has no use for one."""
    if library.flavour == 'tensorrt_rtx' or gpu.missing:
        return None
    return TimingCache(cache, library, gpu)


class TimingCache:
    """The timing cache of one TensorRT on one GPU; whatever fails costs time alone.

    Parameters
    ----------
    cache
        Whose folder keeps it, as ``<digest>.timing``.
    library, gpu
        What the times hold for.

    """

    def __init__(self, cache: EngineCache, library: Library, gpu: GpuIdentity):
        facts = [library.flavour, library.version, gpu.name, gpu.compute_capability, gpu.driver]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        self._file = SideFile(cache, f'{name}.timing', _LOG.warning)
        self._attached: Any = None

    def attach(self, config) -> None:
        """Give a builder configuration what is known."""
        try:
            for content in dict.fromkeys((self._file.read(), b'')):
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
            before = self._file.read()
            if before:
                theirs = config.create_timing_cache(before)
                if theirs is not None:
                    self._attached.combine(theirs, False)
            found = self._attached.serialize()
            if found is not None and bytes(found) != before:
                self._file.write(bytes(found))
        except _TROUBLE as error:
            _LOG.warning('the timing cache is not kept: %s', error)
        finally:
            self._attached = None
