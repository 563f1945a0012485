"""Image fidelity as the deraining literature measures it.

PSNR and SSIM are taken on the luma of MATLAB's ``rgb2ycbcr`` (16–235, not rounded),
with a data range of 255. SSIM follows Wang et al., *Image quality assessment: from
error visibility to structural similarity*, IEEE TIP 13(4), 2004.
"""

import cv2
import numpy as np

DATA_RANGE = 255.0

PERFECT_DB = 60.0
"""Upper limit of a PSNR that enters a mean, dB; an unchanged picture counts as this."""

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_C1 = (0.01 * DATA_RANGE) ** 2
_SSIM_C2 = (0.03 * DATA_RANGE) ** 2
_LUMA_BGR = np.array([24.966, 128.553, 65.481]) / 255.0


def to_y(bgr: np.ndarray) -> np.ndarray:
    """Return the luma of a uint8 H×W×3 BGR image: float64, H×W, 16 (black) to 235 (white).

    Raises ValueError if the array has another type or shape.
    """
    if bgr.dtype != np.uint8 or bgr.ndim != 3 or bgr.shape[2] != 3:
        raise ValueError(f'expected uint8 of shape (H, W, 3), got {bgr.dtype} of {bgr.shape}')
    return bgr @ _LUMA_BGR + 16.0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all samples, in dB; infinite for equal arrays.

    The arrays have the same shape, and values in 0–255. Raises ValueError if the shapes differ
    or the arrays are empty.
    """
    _check_pair(a, b)
    difference = a.astype(np.float64) - b.astype(np.float64)
    mean_square = float(np.mean(difference * difference))
    if mean_square == 0.0:
        return float('inf')
    return float(10.0 * np.log10(DATA_RANGE**2 / mean_square))


def psnr_y(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB on the luma of two uint8 H×W×3 BGR images; see :func:`psnr`."""
    _check_pair(a, b)
    return psnr(to_y(a), to_y(b))


def counted_psnr_y(a: np.ndarray, b: np.ndarray) -> float:
    """Return :func:`psnr_y`, limited to :data:`PERFECT_DB` so that it can enter a mean."""
    return min(PERFECT_DB, psnr_y(a, b))


def ssim_y(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity on the luma, −1 to 1, 1 for equal images.

    Only windows that lie wholly inside the images count. The images are uint8, H×W×3, BGR, of
    the same size, at least 11×11; raises ValueError if they are not.
    """
    _check_pair(a, b)
    if min(a.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(
            f'images are {a.shape[1]}x{a.shape[0]} pixels; '
            f'SSIM needs at least {_SSIM_WINDOW} on each side')
    x, y = to_y(a), to_y(b)
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    variance_x = _local_mean(x * x) - mean_x * mean_x
    variance_y = _local_mean(y * y) - mean_y * mean_y
    covariance = _local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _SSIM_C1) / (mean_x**2 + mean_y**2 + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variance_x + variance_y + _SSIM_C2)
    return float(np.mean(luminance * structure))


def _local_mean(plane: np.ndarray) -> np.ndarray:
    kernel = cv2.getGaussianKernel(_SSIM_WINDOW, _SSIM_SIGMA, cv2.CV_64F)
    margin = _SSIM_WINDOW // 2
    filtered = cv2.sepFilter2D(plane, cv2.CV_64F, kernel, kernel)
    return filtered[margin:-margin, margin:-margin]


def _check_pair(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ValueError(f'images differ in shape: {a.shape} and {b.shape}')
    if a.size == 0:
        raise ValueError('images are empty')
