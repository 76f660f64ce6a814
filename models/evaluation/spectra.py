"""What an image processing does to frequencies: of the noise (NPS), and of an edge (task transfer function)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal.windows import tukey

from models.contract import FloatArray

Floats = NDArray[np.floating[Any]]

BINS_PER_PIXEL = 4
EDGE_REACH_MM = 8.0
TRANSFORM_LENGTH = 1024


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A curve over the spatial frequency: both (K,), frequency in 1/mm from 0 on."""

    frequency: Floats
    value: Floats

    @property
    def mean_frequency(self) -> float:
        """Mean frequency, weighed by the value, 1/mm."""
        return float(np.sum(self.frequency * self.value) / np.sum(self.value))

    @property
    def half(self) -> float:
        """Where the value first falls to half of that at 0, 1/mm; NaN where it never does."""
        level = self.value / self.value[0]
        below = np.flatnonzero(level < 0.5)
        if not len(below) or below[0] == 0:
            return float("nan")
        after = int(below[0])
        share = (level[after - 1] - 0.5) / (level[after - 1] - level[after])
        step = self.frequency[after] - self.frequency[after - 1]
        return float(self.frequency[after - 1] + share * step)


def noise_power_spectrum(images: FloatArray, spacing_mm: float) -> Spectrum:
    """Radial noise power spectrum, HU²·mm², of repeats of one square region (N, S, S), HU, N at least 2.

    What is in all repeats is taken out; the rest is scaled up by N / (N − 1). Up to the Nyquist frequency.
    source   ICRU 87: the square of the discrete Fourier transform times pixel area over the number of pixels
    """
    count, side, _ = images.shape
    noise = images.astype(np.float64) - images.mean(0, dtype=np.float64)
    power = np.mean(np.abs(np.fft.fft2(noise)) ** 2, 0) * count / (count - 1) * spacing_mm**2 / side**2
    axis = np.fft.fftfreq(side, spacing_mm)
    ring = np.rint(np.hypot(axis[:, None], axis) * side * spacing_mm).astype(np.int64)
    kept = ring <= side // 2
    total = np.bincount(ring[kept], weights=power[kept])
    return Spectrum(np.arange(len(total)) / (side * spacing_mm), total / np.bincount(ring[kept]))


def edge_transfer(image: FloatArray, spacing_mm: float, radius_mm: float) -> Spectrum:
    """Transfer function of the edge of a disc in the middle of a square image (S, S): 1 at frequency 0.

    The image must be a mean over enough repeats: noise in it raises the high frequencies.
    source   Richard et al., Med Phys 39(7) 2012: edge spread over the radius, derived, transformed
    """
    side = len(image)
    axis = (np.arange(side) - (side - 1) / 2) * spacing_mm
    reach = min(EDGE_REACH_MM, radius_mm - spacing_mm)
    step = spacing_mm / BINS_PER_PIXEL
    place = np.rint((np.hypot(axis[:, None], axis) - radius_mm) / step).astype(np.int64)
    half = int(reach / step)
    near = np.abs(place) <= half
    count = np.bincount(place[near] + half, minlength=2 * half + 1)
    total = np.bincount(place[near] + half, weights=image[near].astype(np.float64), minlength=2 * half + 1)
    known = np.flatnonzero(count)
    edge = np.interp(np.arange(2 * half + 1), known, total[known] / count[known])
    line = np.diff(edge) * tukey(2 * half, 0.5)  # far from the edge there is nothing but noise
    transfer = np.abs(np.fft.rfft(line, TRANSFORM_LENGTH))
    frequency = np.fft.rfftfreq(TRANSFORM_LENGTH, step)
    kept = frequency <= 0.5 / spacing_mm
    return Spectrum(frequency[kept], transfer[kept] / transfer[0])
