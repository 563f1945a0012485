"""Files beside compiled engines that save time and that nothing depends on.

Whatever is wrong with one, it counts as empty, and is written anew.
"""

import hashlib
from collections.abc import Callable

from derain_ros.engines.tensorrt.engine_cache import CacheError, EngineCache
from derain_ros.replacing import replace_file

_DIGEST_BYTES = 32
_MOST_BYTES = 1 << 28


class SideFile:
    """Bytes behind their sha256, in the folder of a cache.

    Parameters
    ----------
    cache
        Whose folder; its rules on who may write there hold.
    name
        Of the file.
    log
        Gets a sentence about what is wrong.

    """

    def __init__(self, cache: EngineCache, name: str, log: Callable[[str], None]):
        self._cache = cache
        self._path = cache.directory / name
        self._log = log

    def read(self) -> bytes:
        """Return the content, empty where there is none that is sound."""
        try:
            self._cache.prepare()
            with self._path.open('rb') as stream:
                digest, content = stream.read(_DIGEST_BYTES), stream.read(_MOST_BYTES)
        except FileNotFoundError:
            return b''
        except (OSError, CacheError) as error:
            self._log(f'{self._path.name} is not used: {error}')
            return b''
        if hashlib.sha256(content).digest() != digest:
            self._log(f'{self._path.name} is damaged; it is not used and will be written anew')
            return b''
        return content

    def write(self, content: bytes) -> None:
        """Replace the content, whole or not at all; a failure is logged."""
        try:
            self._cache.prepare()
            replace_file(self._path, hashlib.sha256(content).digest() + content)
        except (OSError, CacheError) as error:
            self._log(f'{self._path.name} is not kept: {error}')
