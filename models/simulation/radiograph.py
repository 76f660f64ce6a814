"""A chest radiograph computed from a CT volume: scatter, focal spot, counts, the detector's spread, grey levels.

source: simulation dossier 6.1 and 6.2, steps 1 to 3 and 5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import poisson

from models.contract import FloatArray
from models.simulation.drr import BEAM_120_KV, Beam, View, areal_densities, transmitted
from models.simulation.phantom import ChestPhantom

WATER_LIKE_CM2_PER_G = 0.2
"""How a ray's thickness is read off its attenuation, for scatter only."""
FWHM_PER_SD = 2.355
SCATTER_STEP = 8
"""Scatter is smooth: it is computed on pixels that many times as wide."""


@dataclass(frozen=True)
class Exposure(View):
    """How the radiograph is taken.

    beam                tube voltage and filter
    scatter_per_g_cm2   scattered over primary radiation that a column of tissue sends out, per thickness, no grid
    scatter_fwhm_mm     how far scatter spreads
    grid_factor         by which the antiscatter grid lowers scatter over primary; 1: no grid
    focal_spot_mm       full width at half maximum
    mtf_half_lp_mm      where the detector's modulation transfer is one half
    photons             primary, per pixel in air, behind the grid
    electronic          standard deviation of the detector's own noise, photons
    """

    beam: Beam = BEAM_120_KV
    scatter_per_g_cm2: float = 0.06
    scatter_fwhm_mm: float = 60.0
    grid_factor: float = 4.0
    focal_spot_mm: float = 1.0
    mtf_half_lp_mm: float = 2.0
    photons: float = 9000.0
    electronic: float = 4.0

    @property
    def focal_blur_mm(self) -> float:
        """Of the patient's middle, at the detector, standard deviation."""
        return self.focal_spot_mm * (self.magnification - 1) / FWHM_PER_SD

    @property
    def detector_blur_mm(self) -> float:
        """Standard deviation of the Gaussian with this modulation transfer."""
        return math.sqrt(math.log(2) / 2) / (math.pi * self.mtf_half_lp_mm)


@dataclass(frozen=True)
class Display:
    """From counts to stored values.

    curve           of the logarithm of the exposure: as it is, or through a sigmoid; or linear in the exposure
    densest         natural logarithm of the attenuation that gets the greatest value
    inverted        MONOCHROME1: dense is dark
    """

    curve: Literal["log", "sigmoid", "linear"] = "log"
    densest: float = 7.3
    bits: int = 12
    inverted: bool = False


def chest_radiograph(
    phantom: ChestPhantom, *, seed: int, exposure: Exposure | None = None, display: Display | None = None
) -> FloatArray:
    """Postero-anterior view, float32 (rows, columns), 0…4095, bright = dense; the patient's right is on the left."""
    how = exposure or Exposure()
    primary = transmitted(*areal_densities(phantom.voxels, phantom.spacing_zyx_mm, how), how.beam)
    return develop(primary, how, seed=seed, display=display)


def develop(primary: FloatArray, exposure: Exposure, *, seed: int, display: Display | None = None) -> FloatArray:
    """What the detector stores, float32 (rows, columns), whole values."""
    read = counted(arriving(primary, exposure), exposure, np.random.default_rng(seed))
    return stored(read, display or Display())


def arriving(primary: FloatArray, exposure: Exposure) -> FloatArray:
    """Primary and scattered radiation on the detector, over the primary in air; without noise."""
    sharp = gaussian_filter(primary, exposure.focal_blur_mm / exposure.pixel_mm, mode="nearest")
    return np.asarray(sharp + scattered(primary, exposure), np.float32)


def scattered(primary: FloatArray, exposure: Exposure) -> FloatArray:
    """Scatter behind the grid, over the primary in air: thick parts send out more of what they let through."""
    rows, columns = primary.shape
    small = (max(1, columns // SCATTER_STEP), max(1, rows // SCATTER_STEP))
    coarse = np.asarray(Image.fromarray(np.asarray(primary, np.float32)).resize(small, Image.Resampling.BOX))
    thickness = -np.log(np.maximum(coarse, 1e-6)) / WATER_LIKE_CM2_PER_G
    sent_out = coarse * thickness * (exposure.scatter_per_g_cm2 / exposure.grid_factor)
    spread_px = exposure.scatter_fwhm_mm / FWHM_PER_SD / exposure.pixel_mm
    reach = (spread_px * small[1] / rows, spread_px * small[0] / columns)
    smooth = gaussian_filter(sent_out, reach, mode="nearest")
    return np.asarray(Image.fromarray(smooth).resize((columns, rows), Image.Resampling.BICUBIC))


def counted(signal: FloatArray, exposure: Exposure, rng: np.random.Generator) -> FloatArray:
    """One reading of the detector, over the primary in air: its spread softens signal and quantum noise alike."""
    return read_out(rng.poisson(signal * exposure.photons), exposure, rng)


def counted_alike(signals: Sequence[FloatArray], exposure: Exposure, seed: int) -> list[FloatArray]:
    """One reading of each, with the same noise as far as their counts allow: each pixel's counts have one rank."""
    rank = np.random.default_rng((seed, 0)).random(signals[0].shape)
    return [
        read_out(poisson.ppf(rank, signal * exposure.photons), exposure, np.random.default_rng((seed, 1)))
        for signal in signals
    ]


def read_out(quanta: NDArray[np.number], exposure: Exposure, rng: np.random.Generator) -> FloatArray:
    """What the detector makes of the photons that it stopped, over the primary in air."""
    read = seen(quanta.astype(np.float32), exposure)
    read += rng.standard_normal(read.shape, dtype=np.float32) * np.float32(exposure.electronic)
    return np.asarray(read / np.float32(exposure.photons))


def seen(signal: FloatArray, exposure: Exposure) -> FloatArray:
    """After the detector's spread, without its noise."""
    return np.asarray(gaussian_filter(signal, exposure.detector_blur_mm / exposure.pixel_mm, mode="nearest"))


def density_of(signal: FloatArray) -> FloatArray:
    """Natural logarithm of the attenuation; bright = dense."""
    return np.asarray(-np.log(np.maximum(signal, 1e-4)), np.float32)


def stored(signal: FloatArray, display: Display) -> FloatArray:
    """Whole grey values, float32 (rows, columns), 0…2^bits − 1."""
    share = density_of(signal) / display.densest
    if display.curve == "sigmoid":
        share = 1 / (1 + np.exp(-8 * (share - 0.35)))
    elif display.curve == "linear":
        share = 1 - signal
    most = 2**display.bits - 1
    values = np.rint(np.clip(share, 0, 1) * most)
    return np.asarray(most - values if display.inverted else values, np.float32)


def spacing_at_patient_mm(exposure: View) -> float:
    """Pixel spacing in the patient's middle plane."""
    return exposure.pixel_mm / exposure.magnification
