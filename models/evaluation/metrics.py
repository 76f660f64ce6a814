"""How far two images are apart, in HU and on a stated window: nothing is scaled by the image itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.contract import BoolArray, FloatArray


@dataclass(frozen=True)
class Window:
    """A range of HU to which both images are clipped; its width is the data range of PSNR and SSIM."""

    name: str
    low: float
    high: float

    @property
    def data_range(self) -> float:
        """Width, HU."""
        return self.high - self.low

    def clip(self, image: FloatArray) -> NDArray[np.float64]:
        """The image in this window."""
        return np.clip(image.astype(np.float64), self.low, self.high)


SOFT_TISSUE = Window("soft tissue", -160.0, 240.0)
LUNG = Window("lung", -1350.0, 150.0)

SSIM_SIGMA_PX, SSIM_REACH_PX = 1.5, 5
"""Gaussian of 11 × 11 pixels; constants K1 = 0.01 and K2 = 0.03 (Wang et al. 2004)."""


def rmse(image: FloatArray, reference: FloatArray, *, window: Window | None = None, where: BoolArray) -> float:
    """Root mean square difference, HU, over the pixels of `where`."""
    first, second = (image, reference) if window is None else (window.clip(image), window.clip(reference))
    difference = (first.astype(np.float64) - second)[where]
    return float(np.sqrt(np.mean(difference * difference)))


def psnr(image: FloatArray, reference: FloatArray, *, window: Window, where: BoolArray) -> float:
    """Peak signal to noise ratio, dB, with the window's width as the peak; infinite for equal images."""
    error = rmse(image, reference, window=window, where=where)
    return float("inf") if error == 0 else float(20 * np.log10(window.data_range / error))


def ssim(image: FloatArray, reference: FloatArray, *, window: Window, where: BoolArray) -> float:
    """Structural similarity, mean over the pixels of `where`.

    source   Wang, Bovik, Sheikh, Simoncelli, IEEE Trans Image Process 13(4), 2004
    """
    x, y = window.clip(image), window.clip(reference)
    c1, c2 = (0.01 * window.data_range) ** 2, (0.03 * window.data_range) ** 2

    def blur(array: NDArray[np.float64]) -> NDArray[np.float64]:
        blurred: NDArray[np.float64] = gaussian_filter(array, SSIM_SIGMA_PX, radius=SSIM_REACH_PX, mode="nearest")
        return blurred

    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return float(similarity[where].mean())
