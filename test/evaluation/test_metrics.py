"""PSNR and SSIM against values worked out by hand, and against scikit-image.

What is not asserted: agreement with MATLAB on its own platform; the published scores of the
rainy inputs stand in for it in test_pair_evaluation, where the benchmark images are at hand.
"""

import math

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from derain_ros.evaluation.metrics import PERFECT_DB, counted_psnr_y, psnr, psnr_y, ssim_y, to_y


def _grey(value, side=16):
    return np.full((side, side, 3), value, np.uint8)


@pytest.mark.parametrize('bgr, luma', [
    ((0, 0, 0), 16.0),
    ((255, 255, 255), 235.0),
    ((255, 0, 0), 40.966),
    ((0, 255, 0), 144.553),
    ((0, 0, 255), 81.481),
    ((51, 102, 153), 16 + (24.966 * 51 + 128.553 * 102 + 65.481 * 153) / 255),
])
def test_luma(bgr, luma):
    image = np.array(bgr, np.uint8).reshape(1, 1, 3)
    assert to_y(image)[0, 0] == pytest.approx(luma, abs=1e-9)
    assert to_y(image).dtype == np.float64


@pytest.mark.parametrize('shape', [(11, 11), (40, 57), (12, 200)])
@pytest.mark.parametrize('noise', [1, 20, 255])
def test_scikit_image_comes_to_the_same(shape, noise):
    rng = np.random.default_rng(noise)
    one = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    one = cv2.GaussianBlur(one, (5, 5), 2)
    other = np.clip(one + rng.integers(-noise, noise + 1, one.shape), 0, 255).astype(np.uint8)
    x, y = to_y(one), to_y(other)
    assert psnr_y(one, other) == pytest.approx(
        peak_signal_noise_ratio(x, y, data_range=255), abs=1e-9)
    assert ssim_y(one, other) == pytest.approx(structural_similarity(
        x, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
        abs=1e-9)


def test_equal_images():
    image = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert psnr(image, image) == psnr_y(image, image) == math.inf
    assert ssim_y(image, image) == pytest.approx(1.0, abs=1e-12)


def test_an_unchanged_picture_counts_60_db():
    image = _grey(50, 64)
    assert counted_psnr_y(image, image) == PERFECT_DB == 60
    assert counted_psnr_y(_grey(0), _grey(255)) == psnr_y(_grey(0), _grey(255))
    # One of 64·64 pixels off by one level: 85 dB and more, which would swamp a mean.
    changed = image.copy()
    changed[0, 0] += 1
    assert psnr_y(image, changed) > 80
    assert counted_psnr_y(image, changed) == PERFECT_DB


def test_ssim_needs_a_whole_window():
    with pytest.raises(ValueError, match='11'):
        ssim_y(_grey(0, 10), _grey(0, 10))
