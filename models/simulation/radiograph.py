"""A chest radiograph computed from a CT volume: a schematic digitally reconstructed radiograph with noise and scatter.

source: simulation dossier 6.1 and 6.2, steps 1 to 3 and 5; attenuation from the NIST tables of water and cortical bone
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from models.contract import FloatArray
from models.simulation.phantom import ChestPhantom

SPECTRUM_WEIGHT = (0.30, 0.45, 0.25)
"""Detected share of 50, 60 and 80 keV: a filtered 120 kV beam, coarsely."""
WATER_CM2_PER_G = (0.2269, 0.2059, 0.1837)
BONE_CM2_PER_G = (0.4242, 0.3148, 0.2229)

BONE_FROM_HU, PURE_BONE_HU = 150.0, 1500.0
"""Between these a voxel is a mixture of soft tissue and cortical bone."""
BONE_DENSITY_PER_HU = 0.6e-3

BITS = 12


@dataclass(frozen=True)
class Exposure:
    """How the radiograph is taken.

    detector_px         (rows, columns)
    pixel_mm            at the detector
    source_mm           source to detector; the patient's middle lies `gap_mm` before the detector
    scatter_fraction    scattered part of what reaches the detector, behind the grid
    scatter_fwhm_mm     how far scatter spreads
    photons             per pixel in air
    blur_mm             focal spot and detector together, standard deviation
    """

    detector_px: tuple[int, int] = (1024, 1024)
    pixel_mm: float = 0.35
    source_mm: float = 1800.0
    gap_mm: float = 180.0
    scatter_fraction: float = 0.25
    scatter_fwhm_mm: float = 60.0
    photons: float = 9000.0
    blur_mm: float = 0.18
    gain: float = 560.0


def chest_radiograph(phantom: ChestPhantom, *, seed: int, exposure: Exposure | None = None) -> FloatArray:
    """Postero-anterior view, float32 (rows, columns), 0…4095, bright = dense; the patient's right is on the left."""
    how = exposure or Exposure()
    soft, bone = areal_densities(phantom, how)
    primary = sum(
        weight * torch.exp(-(water * soft + cortex * bone))
        for weight, water, cortex in zip(SPECTRUM_WEIGHT, WATER_CM2_PER_G, BONE_CM2_PER_G, strict=True)
    )
    return develop(np.asarray(primary), how, seed=seed)


def areal_densities(phantom: ChestPhantom, exposure: Exposure) -> tuple[Tensor, Tensor]:
    """Soft tissue and bone along each ray, (rows, columns) each, g/cm².

    Every coronal plane is magnified by its distance from the source and added up: exact for rays from a point.
    """
    step, row, column = phantom.spacing_zyx_mm
    hu = torch.from_numpy(phantom.voxels)
    share = ((hu - BONE_FROM_HU) / (PURE_BONE_HU - BONE_FROM_HU)).clamp(0, 1)
    density = torch.where(hu > BONE_FROM_HU, 1 + BONE_DENSITY_PER_HU * hu, 1 + hu / 1000).clamp_min(0)
    depth_cm = row / 10
    planes = torch.stack([density * (1 - share), density * share], 1) * depth_cm  # (Z, 2, Y, X)
    rows, columns = exposure.detector_px
    v = ((rows - 1) / 2 - torch.arange(rows)) * exposure.pixel_mm  # up
    u = (torch.arange(columns) - (columns - 1) / 2) * exposure.pixel_mm
    depth, height, width = phantom.voxels.shape[1], phantom.voxels.shape[0], phantom.voxels.shape[2]
    total = torch.zeros(2, rows, columns)
    for index in range(depth):
        # The beam enters at the back: the front lies nearer to the detector.
        before_detector = exposure.gap_mm + (index - (depth - 1) / 2) * row
        demagnified = 1 - before_detector / exposure.source_mm
        grid_v = v * demagnified * 2 / (height * step)
        grid_u = u * demagnified * 2 / (width * column)
        grid = torch.stack(torch.meshgrid(grid_v, grid_u, indexing="ij")[::-1], -1)[None]
        total += functional.grid_sample(planes[:, :, index].transpose(0, 1)[None], grid, align_corners=False)[0]
    # Rays away from the middle cross each plane at a slant.
    slant = torch.sqrt(1 + (v[:, None] ** 2 + u[None] ** 2) / exposure.source_mm**2)
    return total[0] * slant, total[1] * slant


def develop(primary: FloatArray, exposure: Exposure, *, seed: int) -> FloatArray:
    """Scatter, blur, photon noise, logarithm and 12 bits."""
    rng = np.random.default_rng(seed)
    sigma_px = exposure.scatter_fwhm_mm / 2.355 / exposure.pixel_mm
    ratio = exposure.scatter_fraction / (1 - exposure.scatter_fraction)
    reaching = gaussian_filter(primary, exposure.blur_mm / exposure.pixel_mm, mode="nearest")
    reaching = reaching + ratio * gaussian_filter(primary, sigma_px, mode="nearest")
    counted = rng.poisson(reaching * exposure.photons / (1 + ratio))
    density = -np.log(np.maximum(counted, 1) / exposure.photons)
    most = 2**BITS - 1
    stored: FloatArray = np.rint(np.clip(density * exposure.gain, 0, most)).astype(np.float32)
    return stored


def spacing_at_patient_mm(exposure: Exposure) -> float:
    """Pixel spacing in the patient's middle plane."""
    return exposure.pixel_mm * (1 - exposure.gap_mm / exposure.source_mm)
