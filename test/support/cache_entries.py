"""An entry of the cache of compiled engines, and a process that builds it."""

import os
import time
from pathlib import Path

from derain_ros.engines.tensorrt.engine_cache import EngineCache, EngineKey

KEY = EngineKey(
    model_sha256='ab' * 32, flavour='tensorrt', version='10.3.0', gpu='Orin',
    compute_capability='8.7', driver='12.6', shape=(1, 480, 640), precision='fp16',
    options={'workspace': ''})
CONTENT = bytes(range(256)) * 20


def build_slowly(directory, started, built):
    """Build an entry, if nobody else does; for a process of its own."""
    def build():
        built.put(os.getpid())
        started.set()
        time.sleep(0.5)
        return CONTENT

    content, _ = EngineCache(Path(directory)).get_or_build(KEY, build)
    assert content == CONTENT
