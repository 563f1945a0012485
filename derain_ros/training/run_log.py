"""Curves, scores and pictures that a run writes."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from derain_ros.network.dual_stage import Restoration, shown_mask
from derain_ros.replacing import replace_file

SCORES = 'scores.jsonl'
"""Validation scores in the folder of a run, one JSON object per line."""

COLUMNS = ('rainy', 'coarse', 'restored', 'mask', 'truth')
"""What the columns of a grid show, from left to right."""

_HEADER, _GAP = 18, 2


class Meter:
    """Means of the parts of the loss, and the speed, since the meter was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._steps = 0
        self._sums: dict[str, object] = {}

    def add(self, parts: dict[str, object]) -> None:
        """Add the parts of a step, floats or scalar tensors, without waiting for the device."""
        self._steps += 1
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def means(self) -> tuple[dict[str, float], float]:
        """Return the mean of each part, and steps a second."""
        means = {name: float(value) / self._steps for name, value in self._sums.items()}
        return means, self._steps / (time.monotonic() - self._began)


class RunLog:
    """TensorBoard events, ``scores.jsonl`` and ``samples/`` of a run.

    ``folder``: of the run; TensorBoard finds the events under ``tensorboard/`` in it. ``step``:
    step from which the run resumes; records of later steps are dropped. ``log``: called
    with a line if TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int, log) -> None:
        self.scores = folder / SCORES
        self._drop_after(step)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.writer = None
            log('tensorboard is not installed: no curves are written (pip install tensorboard); '
                'scores still go to scores.jsonl')
        else:
            self.writer = SummaryWriter(folder / 'tensorboard', purge_step=step + 1)

    def values(self, step: int, group: str, values: dict[str, float]) -> None:
        """Add a point to each curve ``group/name``."""
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(f'{group}/{name}', value, step)

    def validation(self, step: int, figures: dict[str, float], seconds: float) -> None:
        """Add the scores of a validation; ``seconds`` is how long it took."""
        self.values(step, 'validation', figures)
        line = json.dumps({'step': step, **figures, 'seconds': round(seconds, 1)})
        with self.scores.open('a', encoding='utf-8') as file:
            file.write(line + '\n')

    def picture(self, step: int, grid: np.ndarray) -> None:
        """Add a sample grid, uint8 H×W×3 BGR."""
        folder = self.scores.parent / 'samples'
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f'step_{step:07d}.png'), grid)
        if self.writer:
            self.writer.add_image('samples', grid[:, :, ::-1], step, dataformats='HWC')

    def close(self) -> None:
        """Write what is still buffered, and close."""
        if self.writer:
            self.writer.close()

    def _drop_after(self, step: int) -> None:
        if not self.scores.exists():
            return
        lines = self.scores.read_text(encoding='utf-8').splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            replace_file(self.scores, ''.join(kept))


def sample_grid(rainy: Tensor, output: Restoration, dry: Tensor) -> np.ndarray:
    """Lay samples out as rows, with the names of the columns above.

    ``rainy``, ``dry``: BGR, 0–1, N×3×H×W, on any device. ``output``: output of the network for
    ``rainy``. Returns uint8, BGR, (18 + N·(H+2))×(5·(W+2))×3.
    """
    mask = shown_mask(torch.sigmoid(output.mask_logits.float())).expand(-1, 3, -1, -1)
    columns = (rainy, output.coarse, output.restored, mask, dry)
    width = rainy.shape[3] + _GAP
    planes = torch.stack([column.detach().float().cpu() for column in columns], 1)
    planes = torch.nn.functional.pad(planes, (0, _GAP, 0, _GAP))
    # N×5×3×H×W to rows N·H, columns 5·W.
    grid = planes.permute(0, 3, 1, 4, 2).reshape(-1, len(COLUMNS) * width, 3)
    picture = (grid.clamp(0, 1) * 255).round().byte().numpy()
    header = np.zeros((_HEADER, picture.shape[1], 3), np.uint8)
    for index, name in enumerate(COLUMNS):
        place = (index * width + 4, 13)
        cv2.putText(header, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255,) * 3, 1,
                    cv2.LINE_AA)
    return np.concatenate([header, picture])


def _step_of(line: str) -> float:
    """Return the step of a line; a line cut short by a crash counts as later than all."""
    try:
        return json.loads(line)['step']
    except (ValueError, KeyError, TypeError):
        return float('inf')
