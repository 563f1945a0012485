"""What the tests of training share: tiny pictures, tiny runs, runs as processes."""

import os
import subprocess
import sys

import cv2
import numpy as np
from msgspec.structs import replace

from derain_ros.training.config import TrainingConfig

# One thread: the runs are tiny, and threads that wait for each other starve on a busy machine.
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}


def write_pictures(folder):
    """Write three small pictures of two scenes, and a file that is none."""
    rng = np.random.default_rng(0)
    for name in ('road_1', 'road_2', 'field'):
        coarse = rng.integers(20, 180, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{name}.png'), cv2.resize(coarse, (160, 128)))
    (folder / 'notes.txt').write_text('not a picture')
    return folder


def small_config(pictures, out, **changes):
    """Return a configuration of a run of seconds, in float32 on the CPU."""
    small = TrainingConfig(
        data=pictures,
        out=out,
        steps=30,
        batch=2,
        size=64,
        warm_up=5,
        learning_rate=2e-3,
        save_every=10,
        workers=0,
        device='cpu',
        amp='off',
    )
    return replace(small, **changes)


def tiny(config, log=lambda _line: None, **options):
    """Return a trainer of a network as small as it can be."""
    from derain_ros.network.dual_stage import DualStageConfig
    from derain_ros.training.loop import Trainer

    return Trainer(config, log, network=DualStageConfig(stem=4, cell=8, token=16), **options)


def derain(*arguments, check=True):
    """Run ``derain`` as a process of its own and return what it says."""
    return subprocess.run(
        [sys.executable, '-m', 'derain_ros.cli', *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=check, env=ENVIRONMENT)


def python(script, *arguments, processes=1):
    """Run a Python script, under torchrun if it takes several processes."""
    launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}']
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), str(script), *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=True, env=ENVIRONMENT)
