"""The interface that every inference back end implements."""

import math
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from derain_ros.text import UserError

MINIMUM_SIDE = 32
"""Shortest image height or width in pixels that the network accepts."""

KEPT_SIZES = 24
"""Largest number of batch shapes that an engine keeps ready; each takes about 40 MB."""
KEPT_PIXELS = 24_000_000
"""Largest sum of N·H·W over the shapes kept ready; each pixel takes about 130 bytes."""
FEW_SIZES = 4
"""Up to this many shapes are kept ready whatever their size."""

KERNELS = ('plain', 'fused', 'compiled')
"""Kernels of the torch engine: its own; fused ones where they work and agree, on a GPU in f16
(:mod:`derain_ros.engines.torch.torch_fused`, not run on a GPU yet); or those of ``torch.compile``,
which takes up to minutes for each frame size. The last two need a C compiler."""


def can_keep(shapes: Collection[tuple[int, ...]]) -> bool:
    """Return whether the limits above hold for distinct shapes, N×H×W×3."""
    return len(shapes) <= KEPT_SIZES and (
        len(shapes) <= FEW_SIZES or sum(math.prod(each[:3]) for each in shapes) <= KEPT_PIXELS)


def forget_shapes(kept: OrderedDict[tuple[int, ...], Any]) -> None:
    """Close and drop the least recently used shapes, N×H×W×3, until all can be kept."""
    while not can_keep(kept):
        getattr(kept.popitem(last=False)[1], 'close', lambda: None)()


def ready_for(
    kept: OrderedDict[tuple[int, ...], Any], shape: tuple[int, ...], make: Callable[[], Any]
) -> Any:
    """Return what is kept ready for a shape, N×H×W×3, made by ``make`` if there is nothing."""
    if shape not in kept:
        kept[shape] = make()
    kept.move_to_end(shape)
    forget_shapes(kept)
    return kept[shape]


def default_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/derain_ros/engines``; see the XDG Base Directory specification."""
    base = Path(os.environ.get('XDG_CACHE_HOME', ''))
    if not base.is_absolute():  # the specification says to ignore it
        base = Path('~/.cache').expanduser()
    return base / 'derain_ros' / 'engines'


class EngineError(UserError, RuntimeError):
    """An engine could not be created or could not run; the message says what to do."""


class Derained(NamedTuple):
    """One inference result.

    Restored frames ``image``, uint8, N×H×W×3, BGR, 0–255, and the rain probability of each pixel,
    ``rain_mask``, uint8, N×H×W, 0 = dry, 255 = rain.
    """

    image: np.ndarray
    rain_mask: np.ndarray


@dataclass(frozen=True)
class EngineInfo:
    """What an engine runs, in the words that logs and ``/diagnostics`` use.

    ``engine`` is the back end, ``tensorrt``, ``openvino`` or ``torch``; ``device`` is the name
    that it reports, ``model`` a name of the zoo or the path of a file, ``precision`` the
    arithmetic, ``f32``, ``f16`` or ``bf16``; ``reason`` says in one sentence why they were chosen.
    ``remembers`` is true if the model also uses the previous frame, that is, takes a state.
    """

    engine: str
    device: str
    model: str
    precision: str
    reason: str
    remembers: bool = False


@dataclass(frozen=True)
class EngineOptions:
    """Options besides model and precision; each engine uses those that concern it.

    Compiled engines are kept in ``cache_directory`` (None: :func:`default_cache`) and may take
    ``cache_limit`` bytes there. ``threads`` is the number of threads per inference in OpenVINO, 0
    for one per core; ``workspace`` limits the scratch memory on the GPU, in bytes, None leaves
    it to the back end; ``kernels``, one of :data:`KERNELS`, is for torch on a GPU.
    """

    cache_directory: Path | None = None
    cache_limit: int = 4 << 30
    threads: int = 0
    workspace: int | None = None
    kernels: str = 'plain'


class Engine(ABC):
    """Turns uint8 frames into uint8 frames and masks; not thread-safe: one caller at a time."""

    info: EngineInfo

    preparation_limit: float = 60.0
    """Seconds after which the first inference of a shape, which compiles, counts as stuck."""

    activity: str = ''
    """What is being prepared and how far it has got; empty while nothing is."""

    on_gpu: bool = False
    """Whether the network runs on an NVIDIA GPU."""

    @abstractmethod
    def infer(self, images: np.ndarray, states: np.ndarray | None = None) -> Derained:
        """Derain a batch; the caller owns the result, which the next call does not overwrite.

        ``images`` are uint8, N×H×W×3, BGR, 0–255, C-contiguous, H and W at least
        :data:`MINIMUM_SIDE`. ``states`` are those from the previous frames, uint8, N×H×W×4,
        C-contiguous, see :meth:`derain_ros.images.memory.Memory.recall`, only for an engine with
        ``info.remembers``; None for independent frames. Raises ValueError if an array has the
        wrong type, layout or size, EngineError if the back end failed.
        """

    def warm_up(self, height: int, width: int, batch: int = 1) -> None:
        """Run once at a size, in pixels, so that the first real frame is not slow."""
        self.infer(np.zeros((batch, height, width, 3), np.uint8))

    def time_device(self, images: np.ndarray, runs: int) -> list[float]:
        """Time the network alone on the GPU, without the copies to and from it.

        Returns for each of ``runs`` runs the milliseconds between two GPU events around it; empty
        if the engine cannot measure them. ``images`` are as for :meth:`infer`.
        """
        return []

    def cancel(self) -> None:
        """Abort a long preparation; the only method that any thread may call."""
        return  # most engines have none

    @abstractmethod
    def close(self) -> None:
        """Release device and host memory; calling it twice is harmless."""


def check_images(
    images: np.ndarray, states: np.ndarray | None = None, *, remembers: bool = False
) -> None:
    """Raise ValueError unless the arrays are as :meth:`Engine.infer` requires."""
    if states is not None and (not remembers or states.dtype != np.uint8 or (
            states.shape != (*images.shape[:3], 4))):
        raise ValueError(
            f'expected uint8 states of shape {(*images.shape[:3], 4)}, got {states.dtype} of '
            f'shape {states.shape}' if remembers else 'the model takes single frames, no states')
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f'expected uint8 images of shape (N, H, W, 3), got {images.dtype} of '
                         f'shape {images.shape}')
    if images.shape[0] < 1:
        raise ValueError('expected at least one image, got an empty batch')
    if min(images.shape[1:3]) < MINIMUM_SIDE:
        raise ValueError(f'images are {images.shape[2]}x{images.shape[1]} pixels; the network '
                         f'needs at least {MINIMUM_SIDE} on each side')
