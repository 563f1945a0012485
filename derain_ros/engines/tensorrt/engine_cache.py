"""Disk cache of compiled engines, and of data that shortens the next build or start.

An entry is a file, such as ``<digest>.engine``, and a JSON beside it with the key, size and sha256
of the file. The JSON is written last, so a file without one is ignored. A file that does not
match its JSON is removed and built anew: a compiled engine is a program, and one that was
truncated, changed, or made for another GPU or version must not reach the runtime.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from derain_ros.engines.contract import default_cache
from derain_ros.replacing import replace_file

FORMAT = 2
"""Version of the entry format; entries of another version are built anew."""

DEFAULT_LIMIT = 4 << 30  # bytes that all entries together may take

ENGINE = '.engine'

_LOOK_SECONDS = 0.1
_OLD_SECONDS = 3600.0


class CacheError(RuntimeError):
    """The cache cannot be used; the message says where, why and what to do."""


class CancelledError(RuntimeError):
    """The wait for another process that builds the same engine was cancelled."""


@dataclass(frozen=True)
class EngineKey:
    """Everything that a compiled engine depends on.

    That is the digest of the ONNX file, hexadecimal, and its arithmetic (``precision``, ``fp32``
    or ``fp16``); ``tensorrt`` or ``tensorrt_rtx`` (``flavour``) and its full version; the GPU as
    its driver identifies it, empty without one; the largest batch, height and width (``shape``);
    and the other ``options`` of the builder, by name.
    """

    model_sha256: str
    flavour: str
    version: str
    gpu: str
    compute_capability: str
    driver: str
    shape: tuple[int, ...] = ()
    precision: str = ''
    options: dict[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """Return the name of the entries: sha256 of the key's canonical JSON, hexadecimal."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(',', ':'))
        return hashlib.sha256(text.encode()).hexdigest()


class EngineCache:
    """A folder of entries, shared by any number of processes of one user.

    If the folder or an entry cannot be used, only time is lost: ``log`` gets a sentence about
    that, and about each removal. ``directory`` is made when it is needed, None takes
    :func:`default_cache`; all entries together may take ``limit`` bytes, and the least recently
    used keys are removed first.
    """

    def __init__(
        self, directory: Path | None = None, *, limit: int = DEFAULT_LIMIT,
        log: Callable[[str], None] = lambda text: None,
    ):
        self.directory = directory or default_cache()
        self._limit = limit
        self._log = log

    def path(self, key: EngineKey, kind: str = ENGINE) -> Path:
        """Return where an entry is kept; ``kind`` is its suffix."""
        return self.directory / f'{key.digest()}{kind}'

    def get_or_build(
        self, key: EngineKey, build: Callable[[], bytes], *,
        stop: threading.Event | None = None, waiting: Callable[[], None] = lambda: None,
    ) -> tuple[bytes, bool]:
        """Return an engine, from the cache or freshly built.

        Of several processes that ask for the same engine at once, one builds and the others wait.
        If the cache cannot be used, the engine is built without it.

        ``key``: the engine wanted. ``build``: builds it; whatever it raises is passed on, and
        nothing is kept. ``stop``: ends a wait for another process. ``waiting``: called once before
        such a wait. Returns the serialized engine, and whether it was in the cache. Raises
        CancelledError: ``stop`` was set while another process was building.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._locked(key.digest(), stop, waiting))
            except (OSError, CacheError) as error:
                self._log(f'{self._words(error)}; the engine is built without it')
                return build(), False
            found = self.read(key)
            if found:
                return found, True
            content = build()
            self.write(key, content)
            return content, False

    def read(self, key: EngineKey, kind: str = ENGINE) -> bytes:
        """Return the content of an entry; empty if there is none or it is damaged."""
        path = self.path(key, kind)
        try:
            with self._locked():
                if not _beside(path).exists():
                    return b''
                wrong, content = _compare(key, path)
                if wrong:
                    self._log(f'{path.name}: {wrong}; it is removed and built again')
                    _remove(path)
                    return b''
                os.utime(_beside(path))  # the time of the last use
                return content
        except (OSError, CacheError) as error:
            self._log(f'{path.name} is not used: {self._words(error)}')
            return b''

    def write(self, key: EngineKey, content: bytes, kind: str = ENGINE) -> None:
        """Store an entry; if the cache is then too large, remove the least recently used ones."""
        path = self.path(key, kind)
        try:
            with self._locked():
                _beside(path).unlink(missing_ok=True)
                replace_file(path, content)
                _note(path, {'format': FORMAT, 'key': asdict(key), 'bytes': len(content),
                             'sha256': hashlib.sha256(content).hexdigest()})
                self._make_room(keep=key.digest())
        except (OSError, CacheError) as error:
            self._log(f'{path.name} is not kept: {self._words(error)}')

    def is_verified(self, key: EngineKey) -> bool:
        """Return whether :meth:`mark_verified` was called for the engine that is kept."""
        return _facts(self.path(key)).get('verified') is True

    def mark_verified(self, key: EngineKey) -> None:
        """Record with the kept engine that its results were verified."""
        path = self.path(key)
        with contextlib.suppress(OSError, CacheError), self._locked():
            if facts := _facts(path):
                _note(path, {**facts, 'verified': True})

    def discard(self, key: EngineKey) -> None:
        """Remove an engine that cannot be used, and all other entries of its key."""
        with contextlib.suppress(OSError, CacheError), self._locked():
            for path in self.directory.glob(f'{key.digest()}.*'):
                if path.suffix != '.lock':
                    path.unlink(missing_ok=True)

    def _words(self, error: Exception) -> str:
        if isinstance(error, CacheError):
            return str(error)
        return (f'{self.directory}: the cache of engines cannot be used '
                f'({getattr(error, "strerror", None) or error}); make room or name another folder')

    def _make_room(self, keep: str) -> None:
        keys: dict[str, list[Path]] = defaultdict(list)
        for path in self.directory.iterdir():
            if path.suffix == '.json' or _beside(path).exists():
                keys[path.name.partition('.')[0]].append(path)
            elif path.suffix != '.lock' and time.time() - path.stat().st_mtime > _OLD_SECONDS:
                path.unlink()  # left by a process that was killed
        found = []
        for digest, paths in keys.items():
            stats = [path.stat() for path in paths]
            found.append((max(each.st_mtime_ns for each in stats),
                          sum(each.st_size for each in stats), digest))
        total = sum(size for _, size, _ in found)
        for _, size, digest in sorted(found):
            if total <= self._limit:
                break
            if digest != keep:
                self._log(f'{digest}{ENGINE}: removed, as the cache has {total >> 20} MiB of '
                          f'{self._limit >> 20} MiB')
                _remove(*keys[digest])
                total -= size

    @contextlib.contextmanager
    def _locked(
        self, name: str = 'room', stop: threading.Event | None = None,
        waiting: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """Hold a file lock in the folder; the kernel releases it when the process ends."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = self.directory.stat()
        if found.st_uid not in (os.getuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            # Whoever can write there could make this process run their code.
            raise CacheError(f'{self.directory}: other users may write there; `chmod go-w` it, or '
                             'name a folder of your own')
        with (self.directory / f'{name}.lock').open('ab') as stream:
            told = False
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        told = True
                        waiting()
                if stop is None:
                    time.sleep(_LOOK_SECONDS)
                elif stop.wait(_LOOK_SECONDS):
                    raise CancelledError(
                        'another process is building this engine, and waiting for it was aborted')
            yield


def _beside(path: Path) -> Path:
    return path.with_name(f'{path.name}.json')


def _note(path: Path, facts: dict) -> None:
    replace_file(_beside(path), json.dumps(facts, indent=2) + '\n')


def _facts(path: Path) -> dict:
    """Return the JSON of an entry; empty if it is missing or damaged."""
    try:
        found = json.loads(_beside(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _compare(key: EngineKey, path: Path) -> tuple[str, bytes]:
    """Say what is wrong with an entry, if anything, and return its content."""
    facts = _facts(path)
    if not facts.keys() >= {'format', 'key', 'bytes', 'sha256'}:
        return 'its JSON is damaged', b''
    if facts['format'] != FORMAT:
        return f'it is of format {facts["format"]!r}, expected {FORMAT}', b''
    if facts['key'] != json.loads(json.dumps(asdict(key))):
        return 'it was made for something else', b''
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 'it is missing', b''
    if len(content) != facts['bytes']:
        return f'it has {len(content)} bytes, expected {facts["bytes"]}', b''
    if hashlib.sha256(content).hexdigest() != facts['sha256']:
        return 'its content has changed', b''
    return '', content


def _remove(*paths: Path) -> None:
    for path in paths:
        _beside(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
