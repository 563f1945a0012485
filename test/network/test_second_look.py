"""The form of the network that looks at the frame before as well."""

import math

import numpy as np
import pytest
import torch
from memory_model import scene

from derain_ros.images import memory
from derain_ros.network.dual_stage import (
    DeployedNetwork,
    DualStageConfig,
    DualStageNetwork,
    shown_mask,
)
from derain_ros.network.second_look import (
    LEAST_KNOWN,
    MOVED,
    SecondLook,
    around,
    make_state,
    warp,
)

SMALL = DualStageConfig(stem=4, cell=8, token=16, token_blocks=(0, 0), clusters=4, past=6)


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(3)
    network = DualStageNetwork(SMALL)
    with torch.no_grad():
        for weights in network.parameters():
            # Convolutions that start at zero would hide what they are given.
            if weights.ndim == 4 and not weights.any():
                weights.normal_(std=0.1)
    return network.eval()


def pictures(seed=0):
    """A frame and a state as bytes: the state is dry on the left, unknown on the right."""
    frame, before = scene(seed, 64, 128), scene(seed + 1, 64, 128)
    dryness = np.full((64, 128, 1), 255, np.uint8)
    dryness[:, 64:] = 0
    return frame, np.concatenate([before, dryness], -1)


def certainty(logit):
    return 1 / (1 + math.exp(-logit))


def of_dryness(dryness):
    """A black state."""
    return torch.cat([torch.zeros_like(dryness).expand(-1, 3, -1, -1), dryness], 1)


def planes(picture):
    return torch.from_numpy(picture.transpose(2, 0, 1)[None] / np.float32(255))


def test_both_sides_agree_on_what_is_known():
    assert (memory.LEAST_KNOWN, memory.MOVED) == (LEAST_KNOWN, MOVED)


@torch.no_grad()
def test_without_a_state_it_is_the_network_of_single_frames(network):
    single = DualStageNetwork(DualStageConfig(**{**vars(SMALL), 'past': 0})).eval()
    single.load_state_dict({
        name: value for name, value in network.state_dict().items()
        if not name.startswith('second_look.')})
    frame, _ = pictures()
    unknown = torch.zeros(1, 4, 64, 128)
    for found in (network(planes(frame)), network(planes(frame), unknown)):
        for one, other in zip(single(planes(frame)), found, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@torch.no_grad()
def test_a_state_tells_where_it_is_known_alone(network):
    frame, state = pictures()
    state_planes = planes(state)
    look, known, *told = network.second_look(
        planes(frame) - state_planes[:, :3], state_planes)
    assert look[..., :16].abs().max() > 0.1
    assert not look[..., 16:].any()
    assert known[..., :16].all() and not known[..., 16:].any()
    for each in told:
        assert each[..., :16].any() and not each[..., 16:].any()
    with_state, without = network(planes(frame), planes(state)), network(planes(frame))
    assert (with_state.restored - without.restored)[..., :64].abs().mean() > 1e-3


@torch.no_grad()
def test_it_can_give_what_was_there_before(network):
    frame, state = pictures()
    trusting = DualStageNetwork(SMALL).eval()
    trusting.load_state_dict(network.state_dict())
    trusting.second_look.gate.bias.fill_(50)
    trusting.second_look.to_mask.weight.zero_()
    trusting.second_look.pixels.weight.zero_()
    trusting.second_look.slopes.zero_()
    trusting.mask_head.head.bias.fill_(50)  # all of it is rain
    restored = trusting(planes(frame), planes(state)).restored
    torch.testing.assert_close(
        restored[..., :64], planes(state)[:, :3, :, :64], rtol=0, atol=2e-3)


@torch.no_grad()
@pytest.mark.parametrize('half', [False, True])
def test_as_deployed_it_computes_the_same(network, half):
    frame, state = pictures()
    deployed = DeployedNetwork(network, half=half).eval()
    derained, mask = deployed(*(torch.from_numpy(each[None]) for each in (frame, state)))
    expected = network(planes(frame), planes(state))
    picture = (expected.restored.clamp(0, 1) * 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(derained[0].numpy() - picture).max() < (4 if half else 0.6)
    rain = 255 * shown_mask(torch.sigmoid(expected.mask_logits))[0, 0].numpy()
    assert np.abs(mask[0].numpy() - rain).max() < (6 if half else 0.6)


def test_states_of_the_vehicle_and_of_the_training_are_the_same():
    before = scene(5, 64, 128)
    rain = (255 * np.linspace(0, 1, 128, dtype=np.float32)).astype(np.uint8)[None].repeat(64, 0)
    flow = np.random.default_rng(0).uniform(-2, 2, (16, 32, 2)).astype(np.float32)
    flow[:8, 9:] = 0
    state = np.dstack([before, 255 - (rain >> 3)])
    moved = memory.move(state.copy(), flow, ~flow.any(2))
    ours = warp(make_state(planes(before), planes(rain[..., None])),
                torch.from_numpy(flow.transpose(2, 0, 1)[None]))[0].permute(1, 2, 0).numpy()
    # Bytes, and a remap of 1/32 of a pixel.
    assert np.abs(255 * ours - moved).mean() < 1.5
    for level in (LEAST_KNOWN - 4, 255 - MOVED):
        assert ((moved[..., 3] > level) == (255 * ours[..., 3] > level)).mean() > 0.97
    stands = moved[..., 3] > 255 - MOVED
    assert stands[:24, 44:].all() and not stands[:, :44].any() and not stands[24:].any()
    # Before a camera that moves nothing stands, on the vehicle and in training.
    one, two = make_state(planes(before), planes(rain[..., None])).repeat(2, 1, 1, 1), np.stack(
        [flow.transpose(2, 0, 1)] * 2)
    both = warp(one, torch.from_numpy(two), torch.tensor([True, False]))
    assert torch.equal(both[0], warp(one, torch.from_numpy(two))[0])
    assert both[1, 3].max() <= (255 - MOVED) / 255 + 1e-6
    assert (memory.move(state, flow)[..., 3] <= 255 - MOVED).all()


def test_golden_state():
    state = make_state(torch.tensor([[[[1.5]], [[0.5]], [[-1.0]]]]), torch.tensor([[[[1.0]]]]))
    expected = [1.0, 0.5, 0.0, 224 / 255]
    torch.testing.assert_close(state.flatten(), torch.tensor(expected))
    look = SecondLook(2, 4)
    for dryness, known in ((224, 1), (160, 1), (150, 0)):
        cell = torch.full((1, 1, 4, 4), dryness / 255)
        nothing = torch.zeros(1, 3, 4, 4)
        assert look(nothing, of_dryness(cell))[1].item() == known
    # One pixel of the cell is brighter by 0.1, another one was wet.
    change, dryness = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    change[..., 1, 2], dryness[..., 2, 3] = 0.1, 224 / 255
    with torch.no_grad():
        look.slopes.zero_()
        look.pixels.weight.zero_()
        look.pixels.weight[5, 6] = look.pixels.weight[5, 22] = look.pixels.weight[21, 43] = 0.5
    expected = torch.zeros(32)
    expected[5], expected[21] = 8 * (0.05 + 0.05), 8 * 0.5
    for moved in (0, 32 / 255, 64 / 255):
        told = torch.cat(look(change, of_dryness(dryness - moved))[2:], 1)
        torch.testing.assert_close(told.flatten(), expected)


@torch.no_grad()
@pytest.mark.parametrize('scale', [1.0, 255.0])
@pytest.mark.parametrize(('moved', 'wet', 'thin', 'darker', 'expected'), [
    (0, 0, 0.2, 0, 256 * (0.1 - 0.02) * certainty(4 - 1.6 * 32 * 0.005)),
    (0, 0, 0.05, 0, 256 * (0.05 - 0.02) * certainty(4 - 1.6 * 32 * 0.005)),  # no thin thing
    (0, 1, 0.2, 0, 0),  # a lamp that was switched on
    (64 / 255, 0, 0.2, 0, 256 * (0.1 - 0.02) * certainty(-6 - 1.6 * 32 * 0.005)),
    # As much became darker: nothing but motion makes that.
    (0, 0, 0.2, 0.1, 256 * (0.1 - 0.02)
     * certainty(4 - 1.6 * 32 * 0.005 - 5 * 0.005 / 0.00516)),
    (32 / 255, 0, 0.2, 0, 256 * (0.1 - 0.02) * certainty(4 - 1.6 * 32 * 0.005)),  # turned
], ids=['rain', 'broad', 'lamp', 'moved', 'darker', 'turned'])
def test_golden_streak(scale, moved, wet, thin, darker, expected):
    look = SecondLook(2, 4)
    look.pixels.weight.zero_()
    look.slopes.copy_(torch.tensor([1.0, 0.5]))
    look.least_rise.fill_(0.02)
    change, dryness = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4) - moved
    change[..., 1, 2], change[..., 3, 0] = 0.1, -darker
    dryness[..., 1, 2] -= wet * 31 / 255
    told = torch.cat(look(
        change * scale, of_dryness(dryness * scale), torch.full((1, 1, 2, 2), thin),
        scale=scale)[2:], 1)
    wanted = torch.zeros(1, 32, 1, 1)
    wanted[0, 6], wanted[0, 22] = expected, expected / 2
    torch.testing.assert_close(told, wanted, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_before_a_camera_that_turns_edges_and_what_became_darker_count_more():
    look = SecondLook(2, 4)
    look.pixels.weight.zero_()
    look.slopes.copy_(torch.tensor([1.0, 0.5]))
    look.least_rise.fill_(0.02)
    change, state = torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 8, 8)
    change[..., 1, 2], change[..., 3, 0] = 0.1, -0.1
    state[..., 4] = 0.1  # an edge beside the upper right four pixels of the first cell
    state[:, 3] = 223 / 255
    told = look(change, state, torch.ones(1, 1, 4, 4))[2][0, 6, 0, 0]
    # Half of the contrast times 0.45 goes to the noise; there is none around what is darker.
    rise, fall = (0.1 - 0.02 - 0.45 * 0.05) / 64, (0.1 - 0.02) / 64
    share = 3 * fall / (rise + 1.6e-4)
    expected = 256 * (0.1 - 0.02 - 0.0225) * certainty(4 - 1.6 * 32 * rise - 5 * share)
    torch.testing.assert_close(told.item(), float(expected), rtol=1e-3, atol=1e-4)


def test_the_surroundings_of_a_square_reach_one_pixel_beyond_it():
    luma = torch.zeros(1, 1, 8, 12)
    luma[0, 0, 2, 3] = 1
    expected = torch.zeros(1, 1, 4, 6)
    expected[0, 0, 0:2, 1:3] = 1  # rows -1 to 2 and 1 to 4, columns 1 to 4 and 3 to 6
    assert torch.equal(around(luma), expected)
    assert torch.equal(around(torch.cat([luma, luma.flip(3)], 1)),
                       torch.cat([expected, expected.flip(3)], 1))
    assert torch.equal(-around(-torch.ones(1, 1, 4, 8)), torch.ones(1, 1, 2, 4))
