"""The torch network can be captured as a CUDA graph; on a GPU, that it is.

Without a GPU the network runs on torch's meta device, which has shapes and no values: whatever
it makes on the CPU shows, and whatever asks for a value fails. What is not asserted: that the
libraries of a GPU do not wait or copy inside their own calls.
"""

import numpy as np
import pytest
import torch
from meta_device import NEEDS_GPU, OffDevice
from pictures import frames

from derain_ros.bench.prenet import PReNet
from derain_ros.engines import EngineOptions, create_engine
from derain_ros.evaluation.metrics import psnr
from derain_ros.network.dual_stage import VARIANTS, DeployedNetwork, DualStageNetwork


def off_device(forward, shape=(1, 61, 100, 3)):
    """Run on the meta device; return what left it, and the results."""
    with torch.inference_mode(), OffDevice() as watch:
        results = forward(torch.empty(shape, dtype=torch.uint8, device='meta'))
    return watch.found, results


@pytest.mark.parametrize(('variant', 'half', 'shape'), [
    ('nano', False, (1, 61, 100, 3)), ('base', True, (2, 480, 640, 3)),
    *(pytest.param(name, True, (1, 61, 100, 3), marks=pytest.mark.slow) for name in VARIANTS)])
def test_the_network_stays_on_its_device(variant, half, shape):
    with torch.device('meta'):
        network = DeployedNetwork(DualStageNetwork(VARIANTS[variant]), half=half).eval()
    found, (image, mask) = off_device(network, shape)
    assert found == []
    assert (image.shape, mask.shape) == (shape, shape[:3])
    assert image.dtype == mask.dtype == torch.uint8


def test_the_peer_stays_on_its_device():
    found, (image,) = off_device(PReNet('f16').to('meta'))
    assert found == []
    assert image.shape == (1, 61, 100, 3)


@pytest.mark.parametrize('copies', [
    lambda x: x == torch.arange(3).to(x).view(1, 1, 1, 3),
    lambda x: x.float() * torch.tensor(0.5),
    lambda x: x[torch.tensor([0])],
])
def test_a_tensor_from_the_cpu_is_seen(copies):
    assert off_device(copies)[0]


@pytest.mark.parametrize('waits', [
    lambda x: x * x.float().mean().item(), lambda x: x[x > 3], lambda x: x.cpu()])
def test_asking_for_a_value_fails(waits):
    with pytest.raises((RuntimeError, NotImplementedError), match=r'meta'):
        off_device(waits)


@pytest.mark.slow
def test_a_compiled_network_sees_the_same():
    images = frames(64, 96)
    plain = create_engine('torch', precision='f32')
    compiled = create_engine('torch', precision='f32', options=EngineOptions(kernels='compiled'))
    assert 'compiled' in compiled.info.reason and 'compiled' not in plain.info.reason
    assert psnr(compiled.infer(images).image, plain.infer(images).image) > 50
    for engine in (plain, compiled):
        engine.close()


def test_a_cpu_tells_no_device_times():
    engine = create_engine('torch', precision='f32')
    assert engine.time_device(frames(64, 96), 2) == [] or engine.on_gpu
    engine.close()


@NEEDS_GPU
@pytest.mark.parametrize('precision', ['f32', 'f16', 'bf16'])
def test_the_network_is_captured(precision):
    from derain_ros.engines.torch.torch_graph import CapturedNetwork

    network = DeployedNetwork(DualStageNetwork(VARIANTS['nano']), half=precision == 'f16')
    network = network.eval().cuda()

    def forward(batch):
        with torch.inference_mode(), torch.autocast(
                'cuda', torch.bfloat16, enabled=precision == 'bf16'):
            return network(batch)

    images = frames(61, 100)
    captured = CapturedNetwork(forward, [images.shape])
    assert captured.not_captured == ''
    expected = [x.cpu().numpy() for x in forward(torch.from_numpy(images).cuda())]
    first = captured.run(images)
    kept = [x.copy() for x in first]
    captured.run(255 - images)
    for one, two, three in zip(first, kept, expected, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)
    times = captured.time(5)
    assert len(times) == 5 and min(times) > 0


@NEEDS_GPU
def test_a_network_that_waits_runs_without_a_graph():
    from derain_ros.engines.torch.torch_graph import CapturedNetwork

    def forward(batch):
        return batch - batch.min().item(), batch[..., 0].clone()

    images = frames(64, 96)
    captured = CapturedNetwork(forward, [images.shape])
    assert captured.not_captured
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    darker, _ = captured.run(images)
    assert np.array_equal(darker, images - images.min())
    assert len(captured.time(2)) == 2
