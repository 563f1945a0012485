"""The streak response and the mask head, against values worked out by hand."""

import math

import pytest
import torch

from derain_ros.network.rain_mask import (
    DryFill,
    RainMaskHead,
    StreakResponse,
    dilate,
    erode,
    line_steps,
    open_along,
    white_top_hat,
)

HALF = math.degrees(math.atan(0.5))


def test_top_hat_keeps_the_thin_peak_and_drops_the_wide_one():
    # A peak of one pixel on a ramp, and a plateau of three, on five rows.
    line = torch.tensor([1, 1, 9, 2, 2, 7, 7, 7, 2]) / 10
    image = line.expand(1, 1, 5, 9)
    # Opening by 3×3 pixels: each pixel gets the best minimum of a triple around it.
    opened = torch.tensor([1, 1, 2, 2, 2, 7, 7, 7, 2]) / 10
    for turned in (False, True):
        hat = white_top_hat(image.mT if turned else image, 3)
        assert torch.equal((hat.mT if turned else hat)[0, 0], (line - opened).expand(5, 9))


@pytest.mark.parametrize('width', [3, 5, 7, 9])
def test_top_hat_opens_by_a_square(width):
    image = torch.rand(2, 1, 30, 41, generator=torch.Generator().manual_seed(1))
    square = (width, width)
    assert torch.equal(white_top_hat(image, width), image - dilate(erode(image, square), square))


def test_line_steps_draw_a_line_without_gaps():
    steps = line_steps(HALF, 8)
    assert steps == [(1, 0), (2, 1), (4, 2)]
    assert line_steps(-HALF, 8) == [(1, 0), (2, -1), (4, -2)]
    # Beyond 45 degrees rows and columns change places.
    assert line_steps(90 - HALF, 8) == [(0, 1), (1, 2), (2, 4)]
    assert line_steps(HALF - 90, 8) == [(0, -1), (1, -2), (2, -4)]
    assert line_steps(90.0, 4) == [(0, 1), (0, 2)]
    pixels = {(0, 0)}
    for row_step, column_step in steps:
        pixels |= {(r + row_step, c + column_step) for r, c in pixels}
    assert sorted(r for r, _ in pixels) == list(range(8))
    assert sorted(pixels)[-1] == (7, 3)


def test_vertical_opening_removes_what_is_shorter_than_the_line():
    image = torch.zeros(1, 1, 12, 3)
    image[0, 0, 2:10, 0] = 0.5  # eight rows long
    image[0, 0, 3:10, 1] = 0.9  # seven rows long
    opened = open_along(image, 0.0, 8)
    expected = torch.zeros(1, 1, 12, 3)
    expected[0, 0, 2:10, 0] = 0.5
    assert torch.equal(opened, expected)


@pytest.mark.parametrize('turned', [False, True])
def test_opening_follows_the_angle(turned):
    image = torch.zeros(1, 1, 8, 10)
    for r, c in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]:
        image[0, 0, r, c] = 1.0
    angle = 90 - HALF if turned else HALF
    image = image.mT if turned else image
    assert open_along(image, angle, 8).sum() == 8
    # Mirrored, the same pixels are no line; borders count as line, so look inside.
    mirrored = open_along(image, -angle, 8)
    assert (mirrored.mT if turned else mirrored)[0, 0, 2:6, 2:8].sum() == 0


@pytest.mark.parametrize('turned', [False, True])
def test_response_marks_a_streak_and_not_an_edge_or_a_dot(turned):
    image = torch.full((1, 3, 64, 64), 0.2)
    image[:, :, :, 40:] = 0.6  # an edge
    image[:, :, 8:56, 20:22] += 0.4  # a streak, two pixels wide
    image[:, :, 30:32, 8:10] += 0.4  # a dot
    response = StreakResponse()(image.mT if turned else image)
    assert response.shape == (1, 9, 32, 32)
    thin, strongest = response[0, 0], response[0, 1:].amax(0)
    if turned:
        thin, strongest = thin.T, strongest.T
    assert strongest[6:26, 10].min() == pytest.approx(0.4, abs=1e-5)
    assert strongest[:, 22:].max() == pytest.approx(0.0, abs=1e-6)
    # A dot is thin, but no line.
    assert strongest[15, 4] == pytest.approx(0.0, abs=1e-6)
    assert thin[15, 4] == pytest.approx(0.4, abs=1e-5)


@pytest.mark.parametrize('lean', [-90, -80, -67, -50, -45, -31, -20, 0, 5, 20, 26, 45, 60, 70])
def test_streaks_of_any_lean_are_found_whole(lean):
    image = torch.zeros(1, 3, 64, 64)
    for k in range(-45, 46):
        r, c = (round(32 + k * f(math.radians(lean))) for f in (math.cos, math.sin))
        if 0 <= r < 64 and 0 <= c < 64:
            image[:, :, r, c] = 1.0
    response = StreakResponse()(image)[0]
    along = (0, 2) if abs(lean) <= 45 else (0, 1)
    assert response[1:].amax(along)[6:26].min() == pytest.approx(1.0, abs=1e-5)
    fitting = response[1:, 8:24, 8:24].sum((1, 2))
    angles = StreakResponse().angles
    nearest = min(range(8), key=lambda k: abs((angles[k] - lean + 90) % 180 - 90))
    assert fitting[nearest] == fitting.max()


def test_rows_and_columns_are_treated_alike():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    upright, turned = StreakResponse()(image)[0], StreakResponse()(image.mT)[0].mT
    angles = StreakResponse().angles
    for k, angle in enumerate(angles):
        # An angle of 90 degrees and one of −90 are the same.
        other = next(j for j, a in enumerate(angles) if (a + angle) % 180 == 90)
        assert torch.allclose(upright[1 + k], turned[1 + other], atol=1e-6)


def test_fill_takes_the_dry_cells_about_a_streak():
    image = torch.full((1, 3, 64, 64), 0.25)
    image[:, :, :, 32:36] = 0.75  # rain over a column of cells
    thin = torch.zeros(1, 1, 16, 16)
    thin[..., 8] = 0.5
    fill = DryFill()(image, thin)
    # A wide window sees 3 rows of 9 cells, one of them wet, a tall one 9 rows of 3. Wet cells
    # count 0.02: (24 + 3·0.02·3) / (24 + 3·0.02) and so on, each of 27 cells.
    dry, wet = 24 + 18, (3 + 9) * 0.02
    expected = 0.25 * (dry + 3 * wet) / (dry + wet) - 0.75
    assert fill[0, :, 8, 8].tolist() == pytest.approx([expected] * 3, abs=1e-5)
    assert fill[0, :, 8, 2].abs().max() < 1e-5


def test_mask_head_follows_the_response_and_passes_gradients():
    torch.manual_seed(0)
    head = RainMaskHead(8)
    torch.nn.init.zeros_(head.head.weight)
    torch.nn.init.ones_(head.prior.weight)
    features = torch.zeros(1, 8, 4, 4)
    response = torch.zeros(1, 9, 8, 8, requires_grad=True)
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
