"""The model zoo: which models there are, and the facts recorded about them.

A model is a set of files in ``models/``: ``<name>.onnx`` (what engines run, float32),
``<name>_fp16.onnx`` (the same in float16, for engines that keep the types of the graph),
``<name>.safetensors`` (weights, for training and for the torch engine) and ``<name>.json``
(the facts below and the sha256 of these files). ``<name>.md`` is the model card.
"""

import contextlib
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from derain_ros.text import UserError

MAXIMUM_BYTES = 2**31 - 1  # largest model file, in bytes; protobuf allows no more

_FACTS = {'variant': str, 'description': str, 'licence': str, 'parameters': int,
          'flops_per_pixel': int, 'figures': dict, 'sha256': dict}
_AGAIN = 'install the package again'
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_-]*')
_DIGEST = re.compile(r'[0-9a-fA-F]{64}')


class ModelError(UserError, ValueError):
    """A model is unknown, incomplete or damaged; the message says which and what to do."""


@dataclass(frozen=True)
class ModelInfo:
    """A model and its facts; unknown values are empty, 0 or None.

    ``name`` is the name in the zoo, or the stem of the file. Files are ``onnx`` (float32),
    ``onnx_fp16`` (the same in float16) and ``weights`` (safetensors); ``sha256`` maps file names
    to expected digests. ``variant`` is that of the network, ``licence`` an SPDX identifier,
    ``flops_per_pixel`` the operations at 640×480, a multiply-add counting as two; ``figures`` are
    measured values by name, PSNR in dB. For a file given by path, ``origin`` states its real path,
    its digest, and what the digest was checked against.
    """

    name: str
    onnx: Path
    onnx_fp16: Path | None = None
    weights: Path | None = None
    variant: str = ''
    description: str = ''
    licence: str = ''
    parameters: int = 0
    flops_per_pixel: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    origin: str = ''

    def read(self, file: Path) -> bytes:
        """Return the content of one of the files, checked against its recorded digest.

        Engines load these bytes and not the file, which may change after the check. Raises
        ModelError if the file is missing or damaged, or has no recorded digest.
        """
        remedy = 'copy it again' if self.origin else _AGAIN
        try:
            _check_size(file)
            content = file.read_bytes()
        except OSError as error:
            raise ModelError(f'{file}: {error.strerror or error}; {remedy}') from error
        expected = self.sha256.get(file.name)
        if not expected:
            raise ModelError(f'{self.onnx.with_suffix(".json")}: no sha256 of {file.name}; '
                             f'{remedy}')
        if expected != hashlib.sha256(content).hexdigest():
            raise ModelError(f'{file}: sha256 differs from the one recorded for it; the file is '
                             f'damaged or was replaced: {remedy}')
        return content

    def problems(self) -> list[str]:
        """Return a sentence for each file that is missing or damaged."""
        found = []
        for file in filter(None, (self.onnx, self.onnx_fp16, self.weights)):
            try:
                self.read(file)
            except ModelError as error:
                found.append(str(error))
        return found


def digest(file: Path, progress: Callable[[int], Any] = lambda count: None) -> str:
    """Return the sha256 of a file, hexadecimal; ``progress`` is called with the bytes read."""
    sha256 = hashlib.sha256()
    with file.open('rb') as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
            progress(len(block))
    return sha256.hexdigest()


def share_directory() -> Path:
    """Return the folder that holds ``models/``, ``config/`` and ``launch/``.

    A source checkout takes precedence over ``share/derain_ros`` in the prefix that the package is
    installed in (colcon workspace, virtual environment, system). Raises ModelError without one.
    """
    package = Path(__file__).resolve().parents[1]
    prefixes = [parent for parent in package.parents if (parent / 'lib') in package.parents]
    prefixes += [Path(sys.prefix), Path(sysconfig.get_path('data'))]
    candidates = [package.parent] + [prefix / 'share' / 'derain_ros' for prefix in prefixes]
    for candidate in candidates:
        if (candidate / 'models').is_dir() and (candidate / 'config').is_dir():
            return candidate
    raise ModelError(
        'the folder with models and config was not found; looked in '
        + ', '.join(str(candidate) for candidate in candidates)
        + '; install the package with `colcon build` or `pip install .`')


def model_names() -> list[str]:
    """Return the sorted names of the installed models, including those that lack files."""
    return sorted({file.stem.removesuffix('_fp16' if file.suffix == '.onnx' else '')
                   for file in (share_directory() / 'models').iterdir()
                   if file.suffix in ('.json', '.onnx', '.safetensors')})


def find_model(name: str) -> ModelInfo:
    """Find a model and read its facts; files of the zoo are checked when they are loaded.

    ``name`` is one of the zoo (``nano``), or the path of a file, which has to end in ``.onnx``.
    Raises ModelError if there is no such model or file, if the facts are damaged, or if a file
    given by path does not match the ``.sha256`` beside it.
    """
    if name.endswith('.onnx'):
        return _find_file(name)
    if not _NAME.fullmatch(name):
        raise ModelError(
            f'{name!a} is not a name of a model (letters a to z, digits, _ and -); give a name '
            'that `derain info` lists, or the path of a file that ends in .onnx')
    path = share_directory() / 'models' / f'{name}.json'
    if not path.is_file() and name not in (known := model_names()):
        raise ModelError(f'unknown model {name!r}; known: {", ".join(known) or "none"}, '
                         'or the path of an .onnx file')
    try:
        facts = _read_facts(path)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise ModelError(f'{path}: {reason}; {_AGAIN}') from error
    fp16 = path.with_name(f'{name}_fp16.onnx')
    return ModelInfo(
        name=name, onnx=path.with_suffix('.onnx'), weights=path.with_suffix('.safetensors'),
        onnx_fp16=fp16 if fp16.name in facts.get('sha256', ()) else None, **facts)


def _read_facts(path: Path) -> dict:
    """Read the JSON of a model; raises OSError, ValueError, RecursionError."""
    facts = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(facts, dict) or any(
            type(value) is not _FACTS.get(key) or (type(value) is int and value < 0)
            for key, value in facts.items()):
        raise ValueError('these are not the facts of a model')
    return facts


def _find_file(name: str) -> ModelInfo:
    if not name.isprintable():  # such a path could also forge log lines
        raise ModelError(f'{name!a}: control characters in the path; rename the file')
    try:
        path = Path(name).expanduser()
        # The real path, so that a symbolic link that is redirected later changes nothing.
        real = path.resolve(strict=True)
        if not real.is_file():
            raise FileNotFoundError
        _check_size(real)
        found = digest(real)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, 'strerror', None) or 'no such file'
        raise ModelError(
            f'{name}: {reason[0].lower()}{reason[1:]}; give an existing ONNX file or a model name'
        ) from error
    pins = [pin for place in dict.fromkeys((path.absolute(), real))
            if (pin := place.with_name(f'{place.name}.sha256')).exists()]
    for pin in pins:
        if _read_pin(pin) != found:
            raise ModelError(
                f'{real}: sha256 is {found}, not the one in {pin}; the file is damaged or was '
                f'replaced: copy it again, or write {pin.name} again with sha256sum')
    checked = f'as in {", ".join(map(str, pins))}' if pins else f'no {real.name}.sha256 beside it'
    origin = f'model from {real}, sha256 {found}, {checked}'
    facts = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        beside = _read_facts(real.with_suffix('.json'))  # as `derain export` writes it
        if beside.get('sha256', {}).get(real.name) == found:
            facts = {key: beside[key] for key in ('parameters', 'flops_per_pixel')
                     if key in beside}
    return ModelInfo(name=path.stem, onnx=real, sha256={real.name: found}, origin=origin, **facts)


def _check_size(file: Path) -> None:
    if file.stat().st_size > MAXIMUM_BYTES:
        raise ModelError(f'{file}: larger than {MAXIMUM_BYTES} bytes; use another model')


def _read_pin(pin: Path) -> str:
    try:
        with pin.open('rb') as stream:
            first = stream.read(4096).split()[:1]
    except OSError as error:
        raise ModelError(f'{pin}: {error.strerror or error}; repair or remove it') from error
    text = first[0].decode('ascii', 'replace') if first else ''
    if not _DIGEST.fullmatch(text):
        raise ModelError(
            f'{pin}: does not begin with a sha256; write it again with `sha256sum {pin.stem} > '
            f'{pin.name}`')
    return text.lower()
