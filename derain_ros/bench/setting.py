"""Settings of the scenarios, and the clips that they play."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from derain_ros.rain import RainClip

VGA = (640, 480)
_CLIP_PIXELS = 24 * 640 * 480
_WITHOUT_BF16 = ('SSE41', 'AVX', 'AVX2', 'AVX2_VNNI', 'AVX512_CORE', 'AVX512_CORE_VNNI')
_INSTRUCTION_SETS = ('amx_bf16', 'avx512_bf16', 'avx512f', 'avx2', 'avx', 'sve', 'asimd')


def instruction_set() -> str:
    """Return the best vector instruction set of this CPU, and the limit for oneDNN, if set."""
    try:
        flags = set(Path('/proc/cpuinfo').read_text().split())
    except OSError:
        flags = set()
    found = next((name for name in _INSTRUCTION_SETS if name in flags), 'unknown')
    limit = os.environ.get('ONEDNN_MAX_CPU_ISA')
    return f'{found} (ONEDNN_MAX_CPU_ISA={limit})' if limit else found


def has_bf16() -> bool:
    """Return whether the instruction set in use supports bf16 multiplication."""
    limit = os.environ.get('ONEDNN_MAX_CPU_ISA', '').upper()
    return 'bf16' in instruction_set().partition(' ')[0] and limit not in _WITHOUT_BF16


class ClipFile(NamedTuple):
    """A .npy file of frames, and the indices of its dry and rainy frames."""

    path: Path
    dry: range
    rainy: range


@dataclass(frozen=True)
class Setting:
    """How to run the scenarios.

    ``bag`` is a rosbag2 with a dry clip on ``topic``; ``folder`` is for clips and logs;
    ``parameters`` are the node parameters in every scenario, ``model`` and ``engine``. For the
    scenario ``engine`` only: ``engines`` (empty for all that can run), ``models`` (empty for that
    of the node), ``kernels`` (:data:`derain_ros.engines.contract.KERNELS`), and whether to also
    time PReNet (``peer``) and each OpenVINO layer (``profile``). ``sizes``, width and height in
    pixels, are for ``engine`` and ``stages``; ``rate`` is the frame rate of ``vga``, Hz;
    ``duration`` replaces the duration of each scenario, s. ``quick`` runs are as short as
    possible, to check that everything works, not for timing.
    """

    bag: Path
    folder: Path
    topic: str
    parameters: Mapping[str, str]
    engines: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    kernels: str = 'plain'
    peer: bool = False
    profile: bool = False
    sizes: tuple[tuple[int, int], ...] = ((640, 480), (1280, 720), (1920, 1080))
    rate: float = 30.0
    duration: float | None = None
    quick: bool = False

    def seconds(self, usual: float) -> float:
        """Return how long to measure, s; ``usual`` is the duration without other options."""
        if self.duration is not None:
            return self.duration
        return min(usual, 2.0) if self.quick else usual

    def clip(self, width: int, height: int) -> ClipFile:
        """Return a clip of dry frames and the same frames with rain, made if it does not exist.

        At large sizes there are fewer frames, so that they are made quickly and fit in memory.
        """
        from derain_ros.live.played import load_frames  # needs ROS, unlike the engine scenario

        path = self.folder / f'{width}x{height}.npy'
        if not path.exists():
            frames = load_frames(self.bag, self.topic)
            count = max(4, _CLIP_PIXELS // (width * height))
            dry = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
                   for frame in frames[:count]]
            shower = RainClip(0.5, 1)
            rainy = [shower.render(frame, index).image for index, frame in enumerate(dry)]
            np.save(path, np.stack(dry + rainy))
        half = len(np.load(path, mmap_mode='r')) // 2
        return ClipFile(path, range(half), range(half, 2 * half))
