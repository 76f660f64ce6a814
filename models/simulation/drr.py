"""Rays from a point through a CT volume to a flat detector: the primary radiation of a radiograph.

source: simulation dossier 6.1; attenuation from the NIST tables of water and cortical bone
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.contract import FloatArray

CM2_PER_G = {
    40: (0.2683, 0.6655),
    50: (0.2269, 0.4242),
    60: (0.2059, 0.3148),
    80: (0.1837, 0.2229),
    100: (0.1707, 0.1855),
}
"""keV → water, cortical bone."""

BONE_FROM_HU, PURE_BONE_HU = 150.0, 1500.0
"""Between these a voxel is a mixture of soft tissue and cortical bone."""
BONE_DENSITY_PER_HU = 0.6e-3


@dataclass(frozen=True)
class Beam:
    """A spectrum as a few of its energies. lines: keV of `CM2_PER_G`, and their detected shares, which add up to 1"""

    lines: tuple[tuple[int, float], ...]


BEAM_120_KV = Beam(((50, 0.30), (60, 0.45), (80, 0.25)))
"""Filtered, coarsely."""
BEAM_80_KV = Beam(((40, 0.35), (50, 0.40), (60, 0.25)))
BEAM_140_KV = Beam(((50, 0.20), (60, 0.35), (80, 0.30), (100, 0.15)))


@dataclass(frozen=True)
class View:
    """Where source, patient and detector are; postero-anterior: the beam enters at the back.

    detector_px         (rows, columns)
    pixel_mm            at the detector
    source_mm           source to detector; the volume's middle lies `gap_mm` before the detector
    """

    detector_px: tuple[int, int] = (1024, 1024)
    pixel_mm: float = 0.35
    source_mm: float = 1800.0
    gap_mm: float = 180.0

    @property
    def magnification(self) -> float:
        """Of the volume's middle."""
        return self.source_mm / (self.source_mm - self.gap_mm)

    def shadow(self, point_zyx_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Row and column (px) of a point's shadow, and how much larger it is; the point from the volume's middle."""
        z, y, x = point_zyx_mm
        larger = self.source_mm / (self.source_mm - self.gap_mm - y)
        rows, columns = self.detector_px
        return (rows - 1) / 2 - z * larger / self.pixel_mm, (columns - 1) / 2 + x * larger / self.pixel_mm, larger


def areal_densities(
    voxels: FloatArray, spacing_zyx_mm: tuple[float, float, float], view: View
) -> tuple[Tensor, Tensor]:
    """Soft tissue and bone along each ray, (rows, columns) each, g/cm².

    Every coronal plane is magnified by its distance from the source and added up: exact for rays from a point.

    voxels      float32 (Z, Y, X), HU, feet to head, anterior first, the patient's right first
    """
    step, row, column = spacing_zyx_mm
    rows, columns = view.detector_px
    v = ((rows - 1) / 2 - torch.arange(rows)) * view.pixel_mm  # up
    u = (torch.arange(columns) - (columns - 1) / 2) * view.pixel_mm
    height, depth, width = voxels.shape
    total = torch.zeros(2, rows, columns)
    for index in range(depth):
        planes = _soft_and_bone(torch.from_numpy(np.ascontiguousarray(voxels[:, index])))  # (2, Z, X)
        kinds = 2 if planes[1].any() else 1
        # The front lies nearer to the detector.
        before_detector = view.gap_mm + (index - (depth - 1) / 2) * row
        demagnified = 1 - before_detector / view.source_mm
        grid_v = v * demagnified * 2 / (height * step)
        grid_u = u * demagnified * 2 / (width * column)
        grid = torch.stack(torch.meshgrid(grid_v, grid_u, indexing="ij")[::-1], -1)[None]
        total[:kinds] += functional.grid_sample(planes[None, :kinds], grid, align_corners=False)[0]
    # Rays away from the middle cross each plane at a slant.
    slant = torch.sqrt(1 + (v[:, None] ** 2 + u[None] ** 2) / view.source_mm**2) * (row / 10)
    return total[0] * slant, total[1] * slant


def transmitted(soft: Tensor, bone: Tensor, beam: Beam = BEAM_120_KV) -> FloatArray:
    """Share of the detected energy that comes through, float32 (rows, columns); 1 in air.

    soft, bone      g/cm² along each ray
    """
    shares = [
        share * torch.exp(-(CM2_PER_G[energy][0] * soft + CM2_PER_G[energy][1] * bone)) for energy, share in beam.lines
    ]
    return np.asarray(torch.stack(shares).sum(0), np.float32)


def _soft_and_bone(hu: Tensor) -> Tensor:
    """Densities of both in a plane, (2, Z, X), g/cm³."""
    share = ((hu - BONE_FROM_HU) / (PURE_BONE_HU - BONE_FROM_HU)).clamp(0, 1)
    density = torch.where(hu > BONE_FROM_HU, 1 + BONE_DENSITY_PER_HU * hu, 1 + hu / 1000).clamp_min(0)
    return torch.stack([density * (1 - share), density * share])
