"""The whole network: any size, every switch, every gradient."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import avg_pool2d, pixel_shuffle, relu

from derain_ros import rain_gate
from derain_ros.network.blocks import BOUND, REACH, GatedBlock, TokenLevel
from derain_ros.network.dual_stage import (
    MASK_ODDS,
    VARIANTS,
    DeployedNetwork,
    DualStageConfig,
    DualStageNetwork,
    correction_share,
    pad_to_multiple,
    shown_mask,
)
from derain_ros.training.checkpoint import fit_weights
from derain_ros.training.model_export import flops_per_pixel

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


@pytest.mark.parametrize('unit', [1, 2])
@pytest.mark.parametrize(('batch', 'size'), [
    (1, (32, 32)), (2, (33, 47)), (1, (64, 64)), (2, (50, 131))])
def test_any_size_comes_back(size, batch, unit):
    with torch.no_grad():
        output = awake(replace(SMALL, unit=unit))(torch.rand(batch, 3, *size))
    assert output.restored.shape == output.coarse.shape == (batch, 3, *size)
    assert output.mask_logits.shape == (batch, 1, *size)
    assert all(torch.isfinite(x).all() for x in output)


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
    without, whole = DualStageNetwork(config), DualStageNetwork(SMALL)
    if part == 'clustering':  # local windows stand in its place
        assert not any('centres' in name for name, _ in without.named_buffers())
        assert any('centres' in name for name, _ in whole.named_buffers())
    elif part == 'mask_attention':  # the same weights, used otherwise
        network = awake()
        other = DualStageNetwork(config).eval()
        other.load_state_dict(network.state_dict())
        with torch.no_grad():
            assert not torch.equal(network(image).restored, other(image).restored)
    else:
        assert sum(p.numel() for p in without.parameters()) < sum(
            p.numel() for p in whole.parameters())
    opened = image + (output.coarse - image) * correction_share(torch.sigmoid(output.mask_logits))
    assert torch.allclose(output.restored, opened, atol=1e-6) == (part == 'stage2')


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


def test_share_of_the_correction_against_hand_computed_values():
    mask = torch.tensor([0.0, 1 / 4, 0.5, 1.0])
    assert torch.allclose(correction_share(mask), torch.tensor([0.0, 0.5, 3 / 4, 1.0]))


def test_shown_mask_against_hand_computed_values():
    chance = torch.tensor([0.0, 5 / 16, 0.5, 1.0])
    assert torch.allclose(shown_mask(chance), torch.tensor([0.0, 0.5, 11 / 16, 1.0]))
    assert rain_gate.MASK_ODDS == MASK_ODDS


def test_a_sure_dry_mask_returns_the_image():
    network = awake()
    torch.nn.init.zeros_(network.mask_head.head.weight)
    torch.nn.init.zeros_(network.mask_head.prior.weight)
    torch.nn.init.constant_(network.mask_head.head.bias, -30)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        output = network(image)
    assert torch.allclose(output.restored, image, atol=1e-6)
    assert not torch.allclose(output.coarse, image, atol=1e-3)


def test_gated_blocks_are_bounded_whatever_comes():
    block = GatedBlock(8).eval()
    torch.nn.init.zeros_(block.value.bias)
    features = 7 * torch.rand(1, 8, 16, 16) - 3.5
    with torch.no_grad():
        added = block(features) - features
        for size in (1e3, 1e6):
            assert block(size * features).abs().max() == REACH
        # One side of the product alone may not grow either.
        torch.nn.init.constant_(block.value.bias, 1e6)
        most = BOUND**2 * block.merge.weight.abs().sum((1, 2, 3)) + block.merge.bias.abs()
        driven = block(features) - features
    assert (added.abs().amax((0, 2, 3)) <= most).all()
    assert (driven.abs().amax((0, 2, 3)) <= most + 1e-5).all()


def test_what_lies_far_away_counts_by_the_overview_alone():
    near = replace(SMALL, clustering=False)
    image = torch.rand(1, 3, 64, 320)
    other = image.clone()
    other[..., 256:] = 0

    def change(network):
        with torch.no_grad():
            return (network(image).restored - network(other).restored)[..., :64].abs().max()
    seeing = awake(replace(near, overview=8))
    assert change(awake(near)) == change(seeing) == 0  # it tells nothing before it has learnt
    torch.nn.init.normal_(seeing.overview.tell.weight)
    assert change(seeing) > 1e-4


def test_weights_without_an_overview_go_over():
    torch.manual_seed(0)
    small, image = awake(), torch.rand(1, 3, 64, 64)
    seeing = DualStageNetwork(replace(SMALL, overview=8)).eval()
    new = fit_weights(seeing, small.state_dict())
    assert new and all(name.startswith('overview.') for name in new)
    with torch.no_grad():
        assert torch.equal(seeing(image).restored, small(image).restored)


def test_a_level_of_tokens_is_bounded():
    level = TokenLevel(8, 16, (0, 0), []).eval()
    with torch.no_grad():
        cells, _ = level(1e6 * torch.randn(1, 8, 16, 16), torch.zeros(1, 1, 8, 8))
    assert cells.abs().max() == REACH


@pytest.mark.parametrize('name', [
    *(name for name in VARIANTS if name != 'large'),
    pytest.param('large', marks=pytest.mark.slow)])
def test_variants_run_and_keep_to_their_cost(name):
    most = {'pico': 7_000, 'nano': 16_000, 'nano-t': 17_300, 'base': 160_000, 'base-t': 162_000,
            'large': 1_000_000}[name]
    with torch.device('meta'):  # shapes alone
        network = DualStageNetwork(VARIANTS[name]).eval()
        assert network(torch.rand(1, 3, 64, 64)).restored.shape == (1, 3, 64, 64)
    assert 0.2 * most < flops_per_pixel(network) <= most


def test_weights_go_over_to_a_unit_of_two():
    torch.manual_seed(0)
    small = awake(replace(SMALL, overview=8))
    large = DualStageNetwork(replace(SMALL, half_blocks=(0, 1), unit=2)).eval()
    assert fit_weights(large, small.state_dict()) == [
        'mask_fine.weight', 'mask_fine.bias']
    stem, cells = torch.rand(1, 4, 32, 64), torch.rand(1, 8, 16, 32)

    def twice(planes):
        return planes.repeat_interleave(2, 2).repeat_interleave(2, 3)

    with torch.no_grad():
        # What lies on larger cells sees the mean of 2×2 places, and gives each to all four.
        torch.testing.assert_close(large.cells(stem), small.cells(avg_pool2d(stem, 2)))
        torch.testing.assert_close(large.up(cells), twice(small.up(cells)))
        for name, factors in (('coarse', (2, 2)), ('mask_detail', (4,))):
            one, other = (getattr(network, name)(cells) for network in (small, large))
            for factor in factors:
                one = pixel_shuffle(one, factor)
            for factor in (*factors[:-1], 2 * factors[-1]):
                other = pixel_shuffle(other, factor)
            torch.testing.assert_close(other, twice(one))
        details = large.half_after(relu(stem))
        assert torch.equal(details, stem)
        assert torch.equal(large.fine(details), small.fine(stem))
        assert not large.mask_fine(details).any()
        image = torch.rand(1, 3, 64, 128)
        one = small.mask_head(cells, small.response(image))
        other = large.mask_head(cells, large.response(twice(image)))
        torch.testing.assert_close(pixel_shuffle(other, 8), twice(pixel_shuffle(one, 4)))


def test_padding_mirrors_rows_and_columns():
    image = torch.arange(33.0 * 40).reshape(1, 1, 33, 40)
    padded = pad_to_multiple(image, (2, 3))
    assert padded.shape == (1, 1, 64, 64)
    assert torch.equal(padded[:, :, :33, :40], image)
    assert padded[0, 0, 2, 38:42].tolist() == [118, 119, 119, 118]
    assert padded[0, 0, 2, 63] == 80 + 16
    assert torch.equal(padded[0, 0, 33:], padded[0, 0, 2:33].flip(0))
    channels_last = pad_to_multiple(image.permute(0, 2, 3, 1), (1, 2))
    assert torch.equal(channels_last.permute(0, 3, 1, 2), padded)
    # The smallest picture that there may be.
    small = image[..., :32]
    assert pad_to_multiple(small, (2, 3))[0, 0, 0, [32, 63]].tolist() == [31, 0]
    twice = pad_to_multiple(small, (2, 3), 2)[0, 0, 0]
    assert twice[[32, 63, 64, 95, 96, 127]].tolist() == [31, 0, 0, 31, 31, 0]


@pytest.mark.parametrize('unit', [1, 2])
def test_deployed_network_rounds_what_the_network_returns(unit):
    network = awake(replace(SMALL, unit=unit))
    image = torch.randint(0, 256, (2, 40, 70, 3), dtype=torch.uint8)
    with torch.no_grad():
        derained, mask = DeployedNetwork(network)(image)
        output = network(image.permute(0, 3, 1, 2) / 255)
    assert derained.dtype == mask.dtype == torch.uint8
    expected = (output.restored.clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
    assert (derained.float() - expected).abs().max() <= 1
    expected = (shown_mask(torch.sigmoid(output.mask_logits)) * 255).round().squeeze(1)
    assert mask.shape == (2, 40, 70)
    assert (mask.float() - expected).abs().max() <= 1


def test_half_precision_agrees_with_float32():
    network = awake()
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        full, mask = DeployedNetwork(network)(image)
        half, half_mask = DeployedNetwork(network, half=True)(image)
    assert half.dtype == half_mask.dtype == torch.uint8
    assert (full.float() - half.float()).abs().mean() < 0.5
    assert (mask.float() - half_mask.float()).abs().mean() < 1
