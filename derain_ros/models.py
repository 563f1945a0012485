"""The model zoo: which networks are there, and what is known of them.

A model is a set of files in ``models/``: ``<name>.onnx`` (what engines run, float32),
``<name>_fp16.onnx`` (the same in float16, for engines that keep the types of the graph),
``<name>.safetensors`` (weights, for training and for the torch engine) and ``<name>.json``
(the facts below and the sha256 of these files). ``<name>.md`` is its card for people.
"""

import hashlib
import json
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


class ModelError(ValueError):
    """A model is unknown, incomplete or damaged; the message says which and what to do."""


@dataclass(frozen=True)
class ModelInfo:
    """A model and its facts.

    Attributes
    ----------
    name
        Name in the zoo, or the stem of the file.
    onnx
        ONNX file, float32.
    onnx_fp16
        ONNX file in float16, or None where there is none.
    weights
        safetensors file, or None where only an ONNX file was given.
    variant
        Name of the network variant, empty where unknown.
    description
        What it is for, one sentence.
    licence
        SPDX identifier, empty where unknown.
    parameters
        Number of trained parameters, 0 where unknown.
    flops_per_pixel
        Floating-point operations (a multiply-add counts two) per pixel at 640×480,
        0 where unknown.
    figures
        Measured figures by name, PSNR in dB.
    sha256
        Expected digest of each file by file name.

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
    figures: dict | None = None
    sha256: dict | None = None

    def verify(self, file: Path) -> None:
        """Raise ModelError unless ``file`` has the digest recorded for it, if any."""
        expected = (self.sha256 or {}).get(file.name)
        if expected and expected != digest(file):
            raise ModelError(
                f'{file}: sha256 differs from the one in {self.name}.json; '
                f'the file is damaged or was replaced: install the package again'
            )


def digest(file: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    sha256 = hashlib.sha256()
    with file.open('rb') as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def share_directory() -> Path:
    """Return the folder that holds ``models/``, ``config/`` and ``launch/``.

    A source checkout comes first, then ``share/derain_ros`` of the prefix that the
    package is installed under (a colcon workspace, a virtual environment, a system).

    Raises
    ------
    ModelError
        There is no such folder.

    """
    package = Path(__file__).resolve().parent
    prefixes = [parent for parent in package.parents if (parent / 'lib') in package.parents]
    prefixes += [Path(sys.prefix), Path(sysconfig.get_path('data'))]
    candidates = [package.parent] + [prefix / 'share' / 'derain_ros' for prefix in prefixes]
    for candidate in candidates:
        if (candidate / 'models').is_dir() and (candidate / 'config').is_dir():
            return candidate
    raise ModelError(
        'the folder with models and config was not found; looked in '
        + ', '.join(str(candidate) for candidate in candidates)
        + '; install the package with `colcon build` or `pip install .`'
    )


def list_models() -> list[ModelInfo]:
    """Return the models that are installed, by name."""
    return [_read(path) for path in sorted((share_directory() / 'models').glob('*.json'))]


def find_model(name: str) -> ModelInfo:
    """Find a model.

    Parameters
    ----------
    name
        Name in the zoo (``nano``), or the path of an ``.onnx`` file.

    Raises
    ------
    ModelError
        No such model or file; the message lists the known names.

    """
    if name.endswith('.onnx'):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelError(f'{path}: no such file; give an existing ONNX file or a model name')
        return ModelInfo(name=path.stem, onnx=path)
    known = {model.name: model for model in list_models()}
    if name not in known:
        raise ModelError(
            f'unknown model {name!r}; known: {", ".join(known) or "none"}, '
            f'or the path of an .onnx file'
        )
    return known[name]


def _read(path: Path) -> ModelInfo:
    fp16 = path.with_name(f'{path.stem}_fp16.onnx')
    try:
        facts = json.loads(path.read_text(encoding='utf-8'))
        model = ModelInfo(
            name=path.stem,
            onnx=path.with_suffix('.onnx'),
            onnx_fp16=fp16 if fp16.is_file() else None,
            weights=path.with_suffix('.safetensors'),
            **facts,
        )
    except (OSError, TypeError, ValueError) as error:
        raise ModelError(f'{path}: {error}; install the package again') from error
    for file in (model.onnx, model.weights):
        if not file.is_file():
            raise ModelError(f'{file}: missing beside {path.name}; install the package again')
    return model
