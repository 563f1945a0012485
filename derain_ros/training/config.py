"""What a training run does, from YAML, the command line or code."""

import difflib
import math
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

from derain_ros.text import UserError


class ConfigError(UserError, ValueError):
    """A training configuration is wrong; the message names the field and the remedy."""


@dataclass(frozen=True)
class TrainingConfig:
    """What a run does.

    Attributes
    ----------
    data
        Folder of dry pictures, or a pack of them (``derain pack``).
    out
        Folder of the run: checkpoint, scores, sample grids and logs.
    validation
        Folder with ``clean/`` and rainy folders of the same file names, or None.
    videos
        Folder of dry MP4 videos, for a network that looks at the frame before as well, or None.
    init
        Weights to start from, a ``.safetensors`` file or the checkpoint of a run;
        ignored once the run has a checkpoint of its own. None starts at random.
    model
        Name of the network variant.
    steps
        Optimizer steps of the whole run; the learning rate falls to zero over them.
    batch, size
        Crops that a process holds at once, and their side in pixels, a multiple of 64.
    accumulate
        Such batches to a step in each process; the gradient is their mean.
    learning_rate
        Peak, after ``warm_up`` steps.
    weight_decay
        Decoupled weight decay of AdamW.
    clip
        Largest norm of the gradient; see also :mod:`derain_ros.training.clipping`.
    ema
        Decay of the averaged weights, which are the ones kept.
    non_finite_limit
        Stop after so many steps in a row whose loss or gradient was not finite.
    dry_share
        Share of crops without rain.
    intensity_low, intensity_high
        Range of the rain intensity of the other crops, 0–1.
    intensity_skew
        Their intensity is drawn as uᵏ over this range, u uniform: above 1, light rain is
        more frequent than heavy.
    pattern_share
        Share of crops with bars laid over them, :mod:`derain_ros.training.patterns`.
    blur_share
        Share of crops whose scene is blurred before the rain falls.
    echo
        Steps that use each rendered batch, mirrored in every other one of them: for a GPU
        that is faster than the renderer.
    camera
        Give crops and their truth the tone, noise and compression of a camera.
    seed
        Seeds weights and data.
    save_every, validate_every, log_every
        Steps between checkpoints, between validations (with a sample grid), and
        between lines of the log.
    samples
        Rows of a sample grid; 0 for none.
    workers
        Processes that render rain on the CPU.
    device
        ``cpu``, ``cuda``, or ``auto``: CUDA where there is one.
    amp
        Arithmetic of the network: ``off`` (float32), ``bf16``, ``fp16``, or ``auto``:
        bf16 on CUDA and on a CPU that computes in it, else off.
    channels_last
        Keep the channels of a pixel side by side, which convolutions prefer.
    cuda_graph
        On one CUDA GPU, replay the steps as a CUDA graph
        (:class:`derain_ros.training.update.CapturedUpdate`); with fp16 or several processes they
        are launched kernel by kernel.
    compile
        Let ``torch.compile`` fuse what the network does; takes a minute or more at the start.
    render
        Where rain is rendered: ``cpu`` (:mod:`derain_ros.rain`, in ``workers``),
        ``device`` (:mod:`derain_ros.training.gpu_rain`), or ``auto``: on the device
        if it is a GPU.

    Raises
    ------
    ConfigError
        A value is outside its range.

    """

    data: Path
    out: Path
    validation: Path | None = None
    videos: Path | None = None
    init: Path | None = None
    model: str = 'nano'
    steps: int = 20000
    batch: int = 8
    size: int = 128
    accumulate: int = 1
    learning_rate: float = 2e-3
    warm_up: int = 300
    weight_decay: float = 1e-4
    clip: float = 0.5
    ema: float = 0.999
    non_finite_limit: int = 20
    dry_share: float = 0.2
    intensity_low: float = 0.05
    intensity_high: float = 1.0
    intensity_skew: float = 1.8
    pattern_share: float = 0.15
    blur_share: float = 0.25
    echo: int = 1
    camera: bool = True
    seed: int = 1
    save_every: int = 250
    validate_every: int = 1000
    log_every: int = 50
    samples: int = 4
    workers: int = 1
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    amp: Literal['auto', 'off', 'bf16', 'fp16'] = 'auto'
    channels_last: bool = True
    cuda_graph: bool = True
    compile: bool = False
    render: Literal['auto', 'cpu', 'device'] = 'auto'

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for names, low, high in _RANGES:
            for name in names:
                value = getattr(self, name)
                if not low <= value <= high:
                    limit = f'{low} to {high}' if high < math.inf else f'at least {low}'
                    raise ConfigError(f'{name}: {value!r} is outside its range, {limit}')
        if self.size % 64:
            raise ConfigError(f'size: {self.size} is not a multiple of 64')
        for name in ('learning_rate', 'clip'):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f'{name}: {value!r} is not a positive number')
        if self.intensity_low > self.intensity_high:
            raise ConfigError(
                f'intensity_low: {self.intensity_low} exceeds intensity_high, '
                f'{self.intensity_high}')


_RANGES = (
    (('steps', 'batch', 'accumulate', 'echo', 'save_every', 'validate_every', 'log_every',
      'non_finite_limit'), 1, math.inf),
    (('size',), 64, 4096),
    (('warm_up', 'weight_decay', 'seed', 'samples', 'workers'), 0, math.inf),
    (('ema', 'dry_share', 'pattern_share', 'blur_share', 'intensity_low', 'intensity_high'), 0, 1),
    (('intensity_skew',), 0.1, 10),
)

_TYPES = get_type_hints(TrainingConfig)


def read_yaml(path: Path) -> dict[str, object]:
    """Read fields of :class:`TrainingConfig` from a YAML file.

    Parameters
    ----------
    path
        A mapping of field names to values. Relative paths in it are relative to the
        current folder.

    Returns
    -------
    dict
        Values in the types of the fields.

    Raises
    ------
    ConfigError
        The file is missing or is no YAML mapping, a key is no field (the message
        names the nearest one), or a value is not of the type of its field.

    """
    try:
        values = _parse(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(f'{path}: cannot be read as YAML: {reason}') from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ConfigError(f'{path}: expected lines of the form `field: value`')
    return {str(key): convert(str(key), value, str(path)) for key, value in values.items()}


def parse_assignment(text: str) -> tuple[str, object]:
    """Split ``FIELD=VALUE`` into the name of a field and a value of its type.

    Raises ConfigError: as for :func:`read_yaml`.
    """
    name, equals, value = text.partition('=')
    if not equals:
        raise ConfigError(f'--set {text}: expected FIELD=VALUE')
    try:
        parsed = _parse(value)
    except ValueError as error:
        raise ConfigError(f'--set {text}: the value cannot be read as YAML') from error
    return name, convert(name, parsed, '--set')


def _parse(text: str) -> object:
    """Read YAML 1.1, in which `off` and `yes` are truth values; raises ValueError."""
    from ruamel.yaml import YAML

    parser = YAML(typ='safe', pure=True)
    parser.version = (1, 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # 1e-3 has no point, and is taken all the same
            return parser.load(text)
    except Exception as error:  # it lets errors of its parts through on a hostile file
        raise ValueError(str(error)) from error


def convert(name: str, value: object, source: str) -> object:
    """Return a value in the type of the field ``name``; ``source`` is for the message.

    Raises ConfigError: there is no such field, or the value is not of its type.
    """
    if name not in _TYPES:
        near = difflib.get_close_matches(name, _TYPES, 1, 0.0)[0]
        raise ConfigError(f'{source}: unknown key {name!r}; the nearest known one is {near!r}')
    expected = _TYPES[name]
    choices = get_args(expected)
    if get_origin(expected) is Literal:
        value = 'off' if value is False and 'off' in choices else value
        if isinstance(value, str) and value in choices:
            return value
        raise ConfigError(f'{source}: {name}: {value!r} is not one of {", ".join(choices)}')
    if NoneType in choices:
        if value is None:
            return None
        expected = choices[0]
    if expected is Path and isinstance(value, (str, Path)) and str(value):
        return Path(value)
    if expected is float and isinstance(value, (int, float, str)) and type(value) is not bool:
        try:
            return float(value)
        except ValueError:
            pass
    elif type(value) is expected:
        return value
    wanted = {Path: 'a path', float: 'a number', int: 'a whole number', bool: 'true or false',
              str: 'text'}[expected]
    raise ConfigError(f'{source}: {name}: {value!r} is not {wanted}')


def make_config(values: Mapping[str, object]) -> TrainingConfig:
    """Make a configuration of values in the types of their fields.

    Raises
    ------
    ConfigError
        A field without a default is missing, or a value is outside its range.

    """
    for field in fields(TrainingConfig):
        if field.default is MISSING and field.name not in values:
            raise ConfigError(f'{field.name} is missing; give it in the configuration file or '
                              'on the command line')
    return TrainingConfig(**values)
