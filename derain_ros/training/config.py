"""What a training run does, from YAML, the command line or code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from derain_ros.files.checked import explain, parse_yaml, read_yaml
from derain_ros.text import UserError

_Count = Annotated[int, Meta(ge=1)]
_Number = Annotated[int, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Positive = Annotated[float, Meta(gt=0, le=1e6)]


class ConfigError(UserError, ValueError):
    """A training configuration is wrong; the message names the field and the remedy."""


class TrainingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What a run does; :func:`make_config` holds the values against their ranges.

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
    learn
        Beginnings of the names of the weights that are trained, separated by spaces, such as
        ``fine. up.``. By default all of them, or, of a network that looks at the frame before,
        those of its second look.
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

    """

    data: Path
    out: Path
    validation: Path | None = None
    videos: Path | None = None
    init: Path | None = None
    model: str = 'nano'
    learn: str = ''
    steps: _Count = 20000
    batch: _Count = 8
    size: Annotated[int, Meta(ge=64, le=4096, multiple_of=64)] = 128
    accumulate: _Count = 1
    learning_rate: _Positive = 2e-3
    warm_up: _Number = 300
    weight_decay: Annotated[float, Meta(ge=0, le=1e6)] = 1e-4
    clip: _Positive = 0.5
    ema: _Share = 0.999
    non_finite_limit: _Count = 20
    dry_share: _Share = 0.2
    intensity_low: _Share = 0.05
    intensity_high: _Share = 1.0
    intensity_skew: Annotated[float, Meta(ge=0.1, le=10)] = 1.8
    pattern_share: _Share = 0.15
    blur_share: _Share = 0.25
    echo: _Count = 1
    camera: bool = True
    seed: _Number = 1
    save_every: _Count = 250
    validate_every: _Count = 1000
    log_every: _Count = 50
    samples: _Number = 4
    workers: _Number = 1
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    amp: Literal['auto', 'off', 'bf16', 'fp16'] = 'auto'
    channels_last: bool = True
    cuda_graph: bool = True
    compile: bool = False
    render: Literal['auto', 'cpu', 'device'] = 'auto'


def make_config(values: Mapping[str, Any]) -> TrainingConfig:
    """Make a configuration of values by the names of their fields.

    Raises ConfigError: a field is not known, missing, or its value does not fit.
    """
    found = _convert(values)
    if found.intensity_low > found.intensity_high:
        raise ConfigError(f'intensity_low: {found.intensity_low} exceeds intensity_high, '
                          f'{found.intensity_high}')
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Read values of some fields from a YAML file; relative paths are of the current folder.

    Raises ConfigError, FileError, OSError: it is no YAML, or a value does not fit.
    """
    return _fitting(read_yaml(path) or {}, str(path))


def parse_assignment(text: str) -> dict[str, Any]:
    """Read ``FIELD=VALUE``, the value being YAML; raises as :func:`read_config`."""
    name, equals, value = text.partition('=')
    if not equals:
        raise ConfigError(f'--set {text}: expected FIELD=VALUE')
    return _fitting({name: parse_yaml(value, f'--set {text}')}, f'--set {text}')


def _fitting(values: Any, source: str) -> dict[str, Any]:
    """Return values if each of them fits by itself; the error begins with their source."""
    if isinstance(values, dict):
        values = {str(name): value for name, value in values.items()}
    try:
        _convert({'data': '.', 'out': '.', **values} if isinstance(values, dict) else values)
    except ConfigError as error:
        raise ConfigError(f'{source}: {error}') from error
    return values


def _convert(values: Any) -> TrainingConfig:
    try:
        return msgspec.convert(values, TrainingConfig, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(error, values, TrainingConfig)) from error


def _path(_type: type, value: Any) -> Path:
    if isinstance(value, str | Path) and str(value):
        return Path(value)
    raise TypeError('Expected a path')
