"""One update of network, optimizer and average, and its capture as a CUDA graph.

Without a GPU an update runs on torch's meta device, which shows what would copy from the CPU or
wait for a value and so could not be captured. AdamW's fused kernel is for CPU and CUDA alone:
there, plain gradient descent stands in its place.
"""

import contextlib

import pytest
import torch
from meta_device import NEEDS_GPU, OffDevice
from training_runs import small_config, tiny

from derain_ros.network.dual_stage import VARIANTS, DualStageNetwork
from derain_ros.training import update as update_module
from derain_ros.training.batches import batches
from derain_ros.training.config import TrainingConfig
from derain_ros.training.loop import Trainer
from derain_ros.training.ranks import Ranks
from derain_ros.training.update import Update


class Descent(torch.optim.SGD):
    """Plain gradient descent, which knows no mark of steps that are not finite."""

    def step(self):
        del self.found_inf
        super().step()


@pytest.mark.parametrize(('variant', 'micro'), [('nano', 2), ('base', 1)])
def test_an_update_stays_on_its_device(variant, micro, monkeypatch, tmp_path):
    # Neither autocast nor fused AdamW knows the meta device.
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(
        update_module, 'adamw',
        lambda network, _rate, _decay: Descent(network.parameters(), 0.1, foreach=True))
    network = DualStageNetwork(VARIANTS[variant]).to('meta').train()
    update = Update(network, TrainingConfig(data=tmp_path, out=tmp_path), None)
    update.order(1e-3, 0.5)
    picture = torch.empty(2, 3, 64, 64, dtype=torch.uint8, device='meta')
    streaks = torch.empty(2, 1, 64, 64, device='meta')
    with OffDevice() as watch:
        parts, norm = update(network, micro * [(picture, picture, streaks)])
    assert watch.found == []
    assert norm.shape == () and {'restored', 'coarse', 'mask'} <= parts.keys()


def test_the_average_follows(pictures, tmp_path):
    trainer = tiny(small_config(pictures, tmp_path, ema=0.75))
    crops = next(iter(batches(trainer.config, trainer.device, Ranks(), 0)[1]))
    seen = []
    trainer.network.train()
    for _ in range(3):
        trainer._step(trainer.network, [crops])
        seen.append(trainer.network.stem.weight.detach().clone())
    # The first weights as they are, then a quarter of each further ones.
    expected = 0.75 * (0.75 * seen[0] + 0.25 * seen[1]) + 0.25 * seen[2]
    torch.testing.assert_close(trainer.average.module.stem.weight, expected)
    assert int(trainer.average.n_averaged) == 3


def test_the_gradient_is_cut_to_the_limit(pictures, tmp_path):
    trainer = tiny(small_config(pictures, tmp_path, clip=1e-3))
    crops = next(iter(batches(trainer.config, trainer.device, Ranks(), 0)[1]))
    trainer.network.train()
    trainer._step(trainer.network, [crops])
    gradients = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients) == pytest.approx(1e-3, rel=1e-3)
    assert trainer.norms[0] > 1e-2


@pytest.mark.parametrize('step', [0, 1, 3])
def test_echoes_are_mirrored_and_go_on_where_they_were(step, pictures, tmp_path):
    plain = small_config(pictures, tmp_path)
    rendered = batches(plain, torch.device('cpu'), Ranks(), 0)[1]
    whole = [next(rendered) for _ in range(3)]
    echoed = batches(
        small_config(pictures, tmp_path, echo=2), torch.device('cpu'), Ranks(), step)[1]
    for number in range(step, 5):
        for ours, first in zip(next(echoed), whole[number // 2], strict=True):
            assert torch.equal(ours, first.flip(-1) if number % 2 else first)


@NEEDS_GPU
def test_a_captured_update_does_what_single_kernels_do(pictures, tmp_path):
    ends, lines = [], []
    for graph in (False, True):
        config = small_config(
            pictures, tmp_path / str(graph), steps=12, device='cuda', render='cpu',
            cuda_graph=graph)
        trainer = Trainer(config, lines.append)
        start = torch.cat([p.detach().flatten() for p in trainer.network.parameters()])
        trainer.run()
        ends.append(torch.cat([p.detach().flatten() for p in trainer.network.parameters()]))
        assert int(trainer.average.n_averaged) == 12
    assert not any('no CUDA graph' in line for line in lines)
    # Convolutions add in whatever order; a wrong step would go elsewhere.
    assert (ends[0] - ends[1]).norm() < 0.3 * (ends[0] - start).norm()
