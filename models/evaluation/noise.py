"""Noise and HU level where the image is homogeneous."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes, label, uniform_filter

from models.contract import BoolArray, FloatArray

SOFT_TISSUE_HU = (-30.0, 130.0)
FAT_HU = (-130.0, -70.0)
LUNG_HU = (-950.0, -700.0)

WINDOW_PX = 11
QUIET_PERCENTILE = 30.0
LEAST_PIXELS = 500
"""Fewer homogeneous pixels than this say nothing."""


def body_mask(image: FloatArray) -> BoolArray:
    """The patient with its air, without the table: the largest piece denser than −500 HU, filled, bool (Y, X)."""
    pieces, count = label(image > -500)
    if count == 0:
        return np.zeros(image.shape, np.bool_)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    body: BoolArray = binary_fill_holes(pieces == largest)
    return body


def local_statistics(image: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation in a square window around every pixel, each (Y, X), HU."""
    wide = image.astype(np.float64)
    mean = uniform_filter(wide, WINDOW_PX, mode="nearest")
    square = uniform_filter(wide * wide, WINDOW_PX, mode="nearest")
    spread = np.sqrt(np.maximum(square - mean * mean, 0.0))
    return mean.astype(np.float32), spread.astype(np.float32)


def homogeneous(image: FloatArray, hu_range: tuple[float, float], padding: BoolArray | None = None) -> BoolArray:
    """Pixels whose neighbourhood lies in the range and is among the quieter ones of the image, bool (Y, X)."""
    mean, spread = local_statistics(image)
    inside: BoolArray = (mean > hu_range[0]) & (mean < hu_range[1])
    if padding is not None:
        inside &= ~padding
    if np.count_nonzero(inside) < LEAST_PIXELS:
        return np.zeros_like(inside)
    quiet: BoolArray = inside & (spread <= np.percentile(spread[inside], 2 * QUIET_PERCENTILE))
    return quiet


def noise_sd(
    image: FloatArray, padding: BoolArray | None = None, *, hu_range: tuple[float, float] = SOFT_TISSUE_HU
) -> float:
    """Noise in homogeneous tissue, HU; NaN where the slice has too little of it.

    image  float32 (Y, X), HU     The 30th percentile of local standard deviations: edges and vessels raise the rest.
    """
    mean, spread = local_statistics(image)
    inside = (mean > hu_range[0]) & (mean < hu_range[1])
    if padding is not None:
        inside &= ~padding
    if np.count_nonzero(inside) < LEAST_PIXELS:
        return float("nan")
    return float(np.percentile(spread[inside], QUIET_PERCENTILE))
