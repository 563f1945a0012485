"""Figures of masks, streaks and flicker against values worked out by hand."""

import numpy as np
import pytest
from evaluate_files import clean_picture, rainy_picture

from derain_ros.evaluation.rain_metrics import (
    ImageScore,
    MaskCounts,
    count_mask,
    flicker,
    luma_error,
    streak_energy,
    summarise,
)
from derain_ros.rain_gate import mask_coverage


def _error(*columns, value=100.0, width=1):
    error = np.zeros((48, 64))
    for column in columns:
        error[:, column:column + width] = value
    return error


def test_luma_error_is_on_the_full_scale():
    white, black = np.full((4, 5, 3), 255, np.uint8), np.zeros((4, 5, 3), np.uint8)
    assert luma_error(white, black) == pytest.approx(255 * np.ones((4, 5)))
    assert luma_error(black, white) == pytest.approx(-255 * np.ones((4, 5)))
    error = luma_error(rainy_picture(7), clean_picture())
    assert error == pytest.approx(_error(7))
    with pytest.raises(ValueError, match='differ'):
        luma_error(white, black[:3])


def test_mask_counts_and_what_they_make():
    rain = np.array([[100.0, 100, 100, 0, 0, 0, 8.0, 8.1, -50]])
    mask = np.array([[255, 128, 127, 255, 128, 0, 0, 0, 0]], np.uint8)
    # Truth: columns 0, 1, 2, 7 (8 itself is none, nor is darker). Mask: 0, 1, 3, 4.
    counts = count_mask(mask, rain)
    assert counts == MaskCounts(hits=2, false_alarms=2, misses=2)
    assert (counts.precision, counts.recall, counts.f1) == (0.5, 0.5, 0.5)
    assert counts.iou == pytest.approx(2 / 6)
    assert mask_coverage(mask) == pytest.approx(4 / 9)
    assert counts + MaskCounts(6, 0, 2) == MaskCounts(8, 2, 4)
    with pytest.raises(ValueError, match='mask'):
        count_mask(mask[:, :3], rain)


def test_a_figure_that_is_not_defined_is_none():
    nothing = MaskCounts()
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.iou) == (None,) * 4
    missed = MaskCounts(misses=3)
    assert (missed.precision, missed.recall, missed.f1, missed.iou) == (None, 0, 0, 0)


@pytest.mark.parametrize('width, columns', [(1, 1), (8, 8), (9, 0), (20, 0)])
def test_streak_energy_counts_what_is_narrower_than_the_line(width, columns):
    # The opening by 9 pixels takes all of a band narrower than that, nothing of a wider one.
    energy = streak_energy(_error(20, width=width))
    assert energy == pytest.approx(48 * columns * 100**2)
    assert streak_energy(-_error(20, width=width)) == energy


def test_streak_energy_of_a_brighter_picture_is_none():
    assert streak_energy(np.full((48, 64), 30.0)) == 0
    # On a ground of 30 the streak stands out by 70.
    assert streak_energy(np.maximum(_error(20), 30)) == pytest.approx(48 * 70**2)
    # Half of the streak is a quarter of its energy.
    assert streak_energy(_error(20, value=50)) / streak_energy(_error(20)) == pytest.approx(0.25)


def test_flicker_is_the_change_of_the_error():
    assert flicker(_error(20), _error(20)) == 0
    # Two of 64 columns change by 100.
    assert flicker(_error(20), _error(30)) == pytest.approx(100 * (2 / 64) ** 0.5)
    assert flicker(_error(), np.full((48, 64), 3.0)) == pytest.approx(3)
    with pytest.raises(ValueError, match='differ'):
        flicker(_error(), _error()[:4])


def _score(name, **figures):
    values = {
        'width': 64, 'height': 48, 'input_psnr': 20.0, 'input_ssim': 0.5, 'psnr': 30.0,
        'ssim': 0.9, 'mask': MaskCounts(1, 1, 1), 'input_streak_energy': 100.0,
        'streak_energy': 10.0, 'clean_psnr': 50.0, 'clean_ssim': 0.99,
        'clean_mask_coverage': 0.1}
    return ImageScore(name=name, **(values | figures))


def test_summary():
    found = summarise([
        _score('a'),
        _score('b', input_psnr=24.0, psnr=22.0, ssim=0.95, mask=MaskCounts(5, 0, 0),
               input_streak_energy=900.0, streak_energy=90.0, input_flicker=8.0, flicker=2.0,
               clean_psnr=40.0),
        _score('c', psnr=32.0, ssim=0.85, mask=MaskCounts(0, 0, 2), input_streak_energy=0.0,
               streak_energy=0.0, input_flicker=6.0, flicker=4.0, clean_mask_coverage=0.4),
    ])
    assert found['pairs'] == 3
    assert found['input_psnr'] == pytest.approx(64 / 3)
    assert found['psnr'] == pytest.approx(28)
    assert (found['worst_psnr'], found['worst_psnr_image']) == (22, 'b')
    assert (found['worst_ssim'], found['worst_ssim_image']) == (0.85, 'c')
    assert (found['worst_clean_psnr'], found['worst_clean_psnr_image']) == (40, 'b')
    assert found['made_worse'] == 1
    # Pooled: 6 hits, 1 false alarm, 3 misses.
    assert found['mask_precision'] == pytest.approx(6 / 7)
    assert found['mask_recall'] == pytest.approx(6 / 9)
    assert found['mask_f1'] == pytest.approx(12 / 16)
    assert found['mask_iou'] == pytest.approx(6 / 10)
    assert found['streak_energy_left'] == pytest.approx(0.1)
    assert found['clean_mask_coverage'] == pytest.approx(0.2)
    assert (found['flicker_steps'], found['input_flicker'], found['flicker']) == (2, 7, 3)


def test_summary_without_clip_or_rain():
    found = summarise([_score(
        'a', mask=MaskCounts(), input_streak_energy=0.0, streak_energy=0.0)])
    assert found['streak_energy_left'] is None
    assert found['mask_f1'] is None
    assert (found['flicker_steps'], found['flicker']) == (0, None)
