"""Compiled engines on disk, found again by everything that they depend on.

An entry is two files: ``<digest>.engine``, and ``<digest>.json`` with the key, size and sha256 of
the former. The JSON is written last, so an entry without it does not count, and each file
appears whole or not at all. What does not agree with its JSON in every byte is removed and
built anew: a compiled engine is a program, and one that was cut, changed, or made for another
GPU or version must not reach the runtime.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from derain_ros.replacing import replace_file

FORMAT = 1
"""Version of the entries; others are built anew."""

DEFAULT_LIMIT = 4 << 30
"""Bytes that all entries together may take."""

KERNELS = '.kernels'
"""Suffix of what was compiled when an engine first ran; it goes when the engine goes."""

_LOOK_SECONDS = 0.1
_OLD_TEMPORARY = 3600.0


class CacheError(RuntimeError):
    """The cache cannot be used; the message says where, why and what to do."""


class CancelledError(RuntimeError):
    """The wait for another process that builds the same engine was given up."""


@dataclass(frozen=True)
class EngineKey:
    """Everything that a compiled engine depends on.

    Attributes
    ----------
    model_sha256
        Digest of the ONNX file, hexadecimal.
    flavour, version
        ``tensorrt`` or ``tensorrt_rtx``, and its full version.
    gpu, compute_capability, driver
        What it was made for, as the driver names it; empty where it was made without a GPU.
    shapes
        Largest batch, height and width of each profile.
    precision
        Arithmetic of the ONNX file, ``fp32`` or ``fp16``.
    options
        What else the builder was told, by name.

    """

    model_sha256: str
    flavour: str
    version: str
    gpu: str
    compute_capability: str
    driver: str
    shapes: tuple[tuple[int, int, int], ...]
    precision: str
    options: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict:
        """Return the key as it stands in the JSON of an entry."""
        return json.loads(json.dumps(asdict(self)))

    def digest(self) -> str:
        """Return the name of the entry: sha256 of the key's canonical JSON, hexadecimal."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(',', ':'))
        return hashlib.sha256(text.encode()).hexdigest()


def default_directory() -> Path:
    """Return ``$XDG_CACHE_HOME/derain_ros/engines``; see the XDG Base Directory specification."""
    base = Path(os.environ.get('XDG_CACHE_HOME', ''))
    if not base.is_absolute():  # to be ignored, says the specification
        base = Path('~/.cache').expanduser()
    return base / 'derain_ros' / 'engines'


class EngineCache:
    """A folder of compiled engines, shared by any number of processes of one user.

    Parameters
    ----------
    directory
        The folder; made when it is needed. None takes :func:`default_directory`.
    limit
        Bytes that all entries together may take; those used longest ago go first.
    log
        Gets a sentence about what is wrong with the cache or was removed.

    """

    def __init__(
        self, directory: Path | None = None, *, limit: int = DEFAULT_LIMIT,
        log: Callable[[str], None] = lambda text: None,
    ):
        self.directory = default_directory() if directory is None else directory
        self._limit = limit
        self._log = log

    def get_or_build(
        self, key: EngineKey, build: Callable[[], bytes], *,
        stop: threading.Event | None = None, waiting: Callable[[], None] = lambda: None,
    ) -> tuple[bytes, bool]:
        """Return an engine, from the cache or freshly built.

        Of several processes that ask for the same engine at once, one builds and the others wait.
        If the cache cannot be used, that is logged and the engine is built without it.

        Parameters
        ----------
        key
            What is wanted.
        build
            Makes it; whatever it raises goes to the caller, and nothing is kept.
        stop
            Ends a wait for another process.
        waiting
            Called once before such a wait.

        Returns
        -------
        tuple of bytes and bool
            The serialized engine, and whether it was in the cache.

        Raises
        ------
        CancelledError
            ``stop`` was set while another process was building.

        """
        with contextlib.ExitStack() as stack:
            try:
                self.prepare()
                lock = self.directory / f'{key.digest()}.lock'
                stack.enter_context(_locked(lock, stop, waiting))
                found = self._load(key)
            except (OSError, CacheError) as error:
                self._log(f'{self._without(error)}; the engine is built without it')
                return build(), False
            if found is not None:
                return found, True
            content = build()
            try:
                self._store(key, content)
            except OSError as error:
                self._log(f'{self._without(error)}; the engine is used but not kept')
            return content, False

    def prepare(self) -> None:
        """Make the folder where there is none.

        Raises
        ------
        OSError
            It cannot be made.
        CacheError
            Others may write there.

        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = self.directory.stat()
        if found.st_uid not in (os.getuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            # Who can write there could have this process run a program of theirs.
            raise CacheError(
                f'{self.directory}: others may write there; `chmod go-w` it, or name a folder of '
                'your own')

    def load(self, key: EngineKey) -> bytes | None:
        """Return the engine of a key; None where there is none that is sound.

        Raises
        ------
        CacheError
            The folder cannot be used.

        """
        try:
            self.prepare()
            return self._load(key)
        except OSError as error:
            raise CacheError(self._without(error)) from error

    def store(self, key: EngineKey, content: bytes) -> None:
        """Keep an engine, and remove those used longest ago if that is too much.

        Raises
        ------
        CacheError
            The folder cannot be written.

        """
        try:
            self.prepare()
            self._store(key, content)
        except OSError as error:
            raise CacheError(self._without(error)) from error

    def note(self, key: EngineKey, name: str, value: object) -> None:
        """Write down something about an engine that is kept; it goes when the engine goes."""
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            facts = self._paths(key)[1]
            found = json.loads(facts.read_bytes())
            found['notes'] = {**self.notes(key), name: value}
            replace_file(facts, json.dumps(found, indent=2) + '\n')

    def notes(self, key: EngineKey) -> dict[str, object]:
        """Return what was noted about an engine."""
        try:
            found = json.loads(self._paths(key)[1].read_bytes())['notes']
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def discard(self, key: EngineKey) -> None:
        """Remove an engine that turned out to be of no use."""
        engine, facts = self._paths(key)
        with contextlib.suppress(OSError):
            _remove(facts, engine, facts.with_suffix(KERNELS))

    def _without(self, error: Exception) -> str:
        if isinstance(error, CacheError):
            return str(error)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return (f'{self.directory}: the cache of engines cannot be used ({reason}); make room or '
                'name another folder')

    def _load(self, key: EngineKey) -> bytes | None:
        engine, facts = self._paths(key)
        try:
            recorded = facts.read_bytes()
        except FileNotFoundError:
            return None
        wrong, content = self._compare(key, recorded, engine)
        if wrong:
            self._log(f'{engine.name}: {wrong}; it is removed and built anew')
            _remove(facts, engine, facts.with_suffix(KERNELS))
            return None
        with contextlib.suppress(OSError):
            os.utime(facts)  # the time of the last use
        return content

    def _compare(self, key: EngineKey, recorded: bytes, engine: Path) -> tuple[str, bytes]:
        """Say what is wrong with an entry, if anything, and return its engine."""
        try:
            found = json.loads(recorded)
            version, made_for = found['format'], found['key']
            size, sha256 = found['bytes'], found['sha256']
        except (ValueError, KeyError, TypeError, RecursionError):
            return 'its JSON is damaged', b''
        if version != FORMAT:
            return f'it is of format {version!r}, expected {FORMAT}', b''
        if made_for != key.as_json():
            return 'it was made for something else', b''
        try:
            content = engine.read_bytes()
        except FileNotFoundError:
            return 'it is missing', b''
        if len(content) != size:
            return f'it has {len(content)} bytes, expected {size}', b''
        if hashlib.sha256(content).hexdigest() != sha256:
            return 'its content has changed', b''
        return '', content

    def _store(self, key: EngineKey, content: bytes) -> None:
        engine, facts = self._paths(key)
        _remove(facts)
        replace_file(engine, content)
        replace_file(facts, json.dumps({
            'format': FORMAT, 'key': key.as_json(), 'bytes': len(content),
            'sha256': hashlib.sha256(content).hexdigest(),
        }, indent=2) + '\n')
        self._make_room(keep=facts)

    def _make_room(self, keep: Path) -> None:
        with _locked(self.directory / 'room.lock', None, lambda: None):
            self._sweep()
            entries = []
            for facts in self.directory.glob('*.json'):
                with contextlib.suppress(FileNotFoundError):
                    engine, kernels = facts.with_suffix('.engine'), facts.with_suffix(KERNELS)
                    size = engine.stat().st_size
                    size += kernels.stat().st_size if kernels.exists() else 0
                    entries.append((facts.stat().st_mtime_ns, size, facts))
            total = sum(size for _, size, _ in entries)
            for _, size, facts in sorted(entries):
                if total <= self._limit:
                    break
                if facts != keep:
                    self._log(f'{facts.stem}.engine: removed, as the cache has '
                              f'{total >> 20} MiB of {self._limit >> 20} MiB')
                    _remove(facts, facts.with_suffix('.engine'), facts.with_suffix(KERNELS))
                    total -= size

    def _sweep(self) -> None:
        """Remove what killed processes left: half-written files, engines without their JSON."""
        now = time.time()
        for path in self.directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                orphan = path.suffix in ('.engine', KERNELS) and (
                    not path.with_suffix('.json').exists())
                if (orphan or '.partial' in path.suffixes) and (
                        now - path.stat().st_mtime > _OLD_TEMPORARY):
                    path.unlink()

    def _paths(self, key: EngineKey) -> tuple[Path, Path]:
        name = key.digest()
        return self.directory / f'{name}.engine', self.directory / f'{name}.json'


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(
    path: Path, stop: threading.Event | None, waiting: Callable[[], None]
) -> Iterator[None]:
    """Hold a lock that the kernel lets go of when the process ends, however it ends."""
    with path.open('ab') as stream:
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
                    'another process is building this engine, and the wait for it was ended')
        yield
