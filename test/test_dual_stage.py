"""The whole network: any size, every switch, every gradient."""

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch', reason='the network needs the extra `train`')

from derain_ros.network.dual_stage import (  # noqa: E402
    DeployedNetwork,
    DualStageConfig,
    DualStageNetwork,
    pad_to_multiple,
)

SMALL = DualStageConfig(stem=4, cell=8, token=16)
PARTS = ('mask_attention', 'morphology', 'clustering', 'stage2')


def awake(config=SMALL):
    """Build a network whose residuals are not zero."""
    torch.manual_seed(0)
    network = DualStageNetwork(config)
    for name, parameter in network.named_parameters():
        if name.startswith(('coarse', 'fine')):
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 64), (50, 131)])
@pytest.mark.parametrize('batch', [1, 2])
def test_any_size_comes_back(size, batch):
    with torch.no_grad():
        output = awake()(torch.rand(batch, 3, *size))
    assert output.restored.shape == output.coarse.shape == (batch, 3, *size)
    assert output.mask_logits.shape == (batch, 1, *size)
    assert all(torch.isfinite(x).all() for x in output)


def test_wrong_layout_is_refused():
    with pytest.raises(ValueError, match='N×3×H×W'):
        awake()(torch.rand(1, 64, 64, 3))


def test_untrained_network_returns_its_input():
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        output = DualStageNetwork(SMALL).eval()(image)
    assert torch.equal(output.restored, image)
    assert torch.equal(output.coarse, image)


@pytest.mark.parametrize('part', PARTS)
def test_each_part_can_be_switched_off_and_changes_the_result(part):
    config = replace(SMALL, **{part: False})
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        output = awake(config)(image)
    assert output.restored.shape == image.shape
    count = {
        switch: sum(p.numel() for p in DualStageNetwork(c).parameters())
        for switch, c in (('on', SMALL), ('off', config))
    }
    if part == 'mask_attention':  # the same weights, used otherwise
        network = awake()
        other = DualStageNetwork(config).eval()
        other.load_state_dict(network.state_dict())
        with torch.no_grad():
            assert not torch.equal(network(image).restored, other(image).restored)
    else:
        assert count['off'] < count['on']
    assert torch.equal(output.restored, output.coarse) == (part == 'stage2')


def test_every_parameter_gets_a_gradient():
    network = awake().train()
    output = network(torch.rand(2, 3, 64, 64))
    sum(x.square().mean() for x in output).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_inference_is_deterministic_and_independent_of_the_batch():
    network = awake()
    images = torch.rand(2, 3, 64, 128)
    with torch.no_grad():
        both = network(images).restored
        assert torch.equal(both, network(images).restored)
        alone = network(images[1:]).restored
    assert torch.allclose(both[1:], alone, atol=1e-5)


def test_padding_repeats_the_border():
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    padded = pad_to_multiple(image, (2, 3))
    assert padded.shape == (1, 1, 32, 64)
    assert torch.equal(padded[:, :, :3, :4], image)
    assert padded[0, 0, 10, :6].tolist() == [8, 9, 10, 11, 11, 11]
    channels_last = pad_to_multiple(image.permute(0, 2, 3, 1), (1, 2))
    assert torch.equal(channels_last.permute(0, 3, 1, 2), padded)


def test_deployed_network_rounds_what_the_network_returns():
    network = awake()
    image = torch.randint(0, 256, (2, 40, 70, 3), dtype=torch.uint8)
    with torch.no_grad():
        derained, mask = DeployedNetwork(network)(image)
        output = network(image.permute(0, 3, 1, 2) / 255)
    assert derained.dtype == mask.dtype == torch.uint8
    expected = (output.restored.clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
    assert (derained.float() - expected).abs().max() <= 1
    expected = (torch.sigmoid(output.mask_logits) * 255).round().squeeze(1)
    assert mask.shape == (2, 40, 70)
    assert (mask.float() - expected).abs().max() <= 1
