"""The streak response and the mask head, against values worked out by hand."""

import pytest

torch = pytest.importorskip('torch', reason='the network needs the extra `train`')

from derain_ros.network.rain_mask import (  # noqa: E402
    RainMaskHead,
    StreakResponse,
    dilate,
    erode,
    line_steps,
    open_along,
    white_top_hat_across,
)


def row(*values):
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def test_dilation_and_erosion_of_a_row():
    image = row(0, 0, 5, 1, 1, 0)
    assert dilate(image, (1, 3)).flatten().tolist() == [0, 5, 5, 5, 1, 1]
    assert erode(image, (1, 3)).flatten().tolist() == [0, 0, 0, 1, 0, 0]


def test_top_hat_keeps_the_thin_peak_and_drops_the_wide_one():
    # A peak of one pixel on a ramp, and a plateau of three.
    image = row(1, 1, 9, 2, 2, 7, 7, 7, 2)
    # Opening by three pixels: each pixel gets the best minimum of a triple around it.
    opened = [1, 1, 2, 2, 2, 7, 7, 7, 2]
    expected = [value - low for value, low in zip(image.flatten(), opened, strict=True)]
    assert white_top_hat_across(image, 3).flatten().tolist() == expected


def test_line_steps_draw_a_line_without_gaps():
    steps = line_steps(0.5, 8)
    assert steps == [(1, 0), (2, 1), (4, 2)]
    pixels = {(0, 0)}
    for row_step, column_step in steps:
        pixels |= {(r + row_step, c + column_step) for r, c in pixels}
    assert sorted(r for r, _ in pixels) == list(range(8))
    assert sorted(pixels)[-1] == (7, 3)


@pytest.mark.parametrize('length', [0, 1, 3, 12])
def test_line_length_must_be_a_power_of_two(length):
    with pytest.raises(ValueError, match='power of two'):
        line_steps(0.0, length)


def test_vertical_opening_removes_what_is_shorter_than_the_line():
    image = torch.zeros(1, 1, 12, 3)
    image[0, 0, 2:10, 0] = 0.5  # eight rows long
    image[0, 0, 3:10, 1] = 0.9  # seven rows long
    opened = open_along(image, 0.0, 8)
    expected = torch.zeros(1, 1, 12, 3)
    expected[0, 0, 2:10, 0] = 0.5
    assert torch.equal(opened, expected)


def test_opening_follows_the_slope():
    image = torch.zeros(1, 1, 8, 10)
    for r, c in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]:
        image[0, 0, r, c] = 1.0
    assert open_along(image, 0.5, 8).sum() == 8
    # Mirrored, the same pixels are no line; borders count as line, so look inside.
    assert open_along(image, -0.5, 8)[0, 0, 2:6, 2:8].sum() == 0


def test_opening_is_idempotent_and_never_adds():
    torch.manual_seed(0)
    image = torch.rand(2, 1, 40, 50)
    for slope in (-0.75, -0.375, 0.0, 0.375, 0.75):
        once = open_along(image, slope, 8)
        assert torch.all(once <= image)
        inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
        twice = open_along(once, slope, 8)
        assert torch.equal(twice[inner], once[inner])


def test_response_marks_a_streak_and_not_an_edge_or_a_dot():
    image = torch.full((1, 3, 64, 64), 0.2)
    image[:, :, :, 40:] = 0.6  # an edge
    image[:, :, 8:56, 20:22] += 0.4  # a streak, two pixels wide
    image[:, :, 30:32, 8:10] += 0.6  # a dot
    response = StreakResponse()(image)
    assert response.shape == (1, 5, 32, 32)
    strongest = response.amax((0, 1))
    assert strongest[6:26, 10].min() == pytest.approx(0.4, abs=1e-5)
    assert strongest[:, 22:].max() == pytest.approx(0.0, abs=1e-6)
    assert strongest[15, 4] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize('lean', [-0.75, -0.6, -0.375, -0.2, 0.0, 0.1, 0.375, 0.5, 0.75])
def test_streaks_of_any_lean_are_found_whole(lean):
    image = torch.zeros(1, 3, 64, 64)
    for r in range(64):
        image[:, :, r, round(32 + lean * (r - 32))] = 1.0
    response = StreakResponse()(image)[0]
    assert response.amax((0, 2))[6:26].min() == pytest.approx(1.0, abs=1e-5)
    fitting = response[:, 8:24].sum((1, 2))
    nearest = min(range(5), key=lambda k: abs(StreakResponse().slopes[k] - lean))
    assert fitting[nearest] == fitting.max()


def test_streaks_far_from_the_vertical_are_left_alone():
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, 30:32, :] = 1.0
    assert StreakResponse()(image).max() == 0


def test_mask_head_follows_the_response_and_passes_gradients():
    torch.manual_seed(0)
    head = RainMaskHead(8)
    torch.nn.init.zeros_(head.head.weight)
    torch.nn.init.ones_(head.prior.weight)
    features = torch.zeros(1, 8, 4, 4)
    response = torch.zeros(1, 5, 8, 8, requires_grad=True)
    with torch.no_grad():
        response[0, 2, 4, 4] = 1.0
    logits = head(features, response)
    assert logits.shape == (1, 16, 4, 4)
    # Soft threshold 0.02, dilated by 3×3: rows and columns 3 to 5 of the response,
    # cells 1 and 2. Cell (2, 2) sees four of them, (1, 1) one, (1, 2) and (2, 1) two.
    raised = (logits - head.head.bias.reshape(1, 16, 1, 1))[0, 0].detach()
    assert raised[1:3, 1:3].flatten().tolist() == pytest.approx([0.98, 1.96, 1.96, 3.92])
    assert raised.sum() == pytest.approx(8.82, rel=1e-5)
    logits.sum().backward()
    assert response.grad[0, 2, 4, 4] > 0
    assert head.threshold.grad < 0
