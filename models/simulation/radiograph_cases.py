"""Radiographs of known truth: the same chest with and without nodules that were in the CT before projection; DRRs.

A picture is float32 (rows, columns) in about -1…1, bright = dense; both of a pair are scaled alike.
source: simulation dossier 6; DiffusionXRay dossier 1, 2 and 11
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from models.contract import BoolArray, FloatArray
from models.simulation.anatomy import Anatomy
from models.simulation.drr import View, areal_densities, transmitted
from models.simulation.nodules import Nodule, draw_nodule, paint_nodule
from models.simulation.phantom import POINT_SPREAD_MM, draw_chest
from models.simulation.radiograph import Exposure, arriving, density_of, seen, spacing_at_patient_mm
from models.simulation.shapes import Grid

CHEST_VIEW = Exposure(detector_px=(768, 768), pixel_mm=0.35)
VOXEL_ZYX_MM = (0.7, 1.4, 0.7)
"""Of the drawn chest: two pixels in the patient across the rays, coarser along them, where all is added up."""
BODY_DEPTH_MM = 270.0
LEAST_GAP_MM = 8.0
"""Between the shadows of two nodules."""
TRIES = 400
PERCENTILES = (0.5, 99.5)
"""Of the densities of the picture without nodules: they become -1 and 1."""

CT_SPACING_ZYX_MM = (1.5, 0.7, 0.7)
CT_NOISE_HU, CT_NOISE_MM = 30.0, (0.5, 1.1)
"""Standard deviation, and the two Gaussians whose difference shapes it: no noise at low frequencies, as after FBP."""
BODY_FROM_HU = -500.0


@dataclass(frozen=True)
class ProjectedNodule:
    """The truth of one nodule.

    row, column     of its centre on the detector, px, fractional
    diameter_px     of its shadow
    contrast        of the picture with it over the picture without, at its middle (mean over a third of its diameter)
    areal_g_cm2     what it adds along the rays there
    nodule          in the chest
    """

    row: float
    column: float
    diameter_px: float
    contrast: float
    areal_g_cm2: float
    nodule: Nodule


@dataclass(frozen=True, eq=False)
class RadiographCase:
    """One patient's pictures, aligned, without noise.

    picture, without    with and without nodules
    spacing_mm          in the patient's middle plane
    density_span        natural logarithms of the attenuation that are -1 and 1
    """

    picture: FloatArray
    without: FloatArray
    spacing_mm: float
    density_span: tuple[float, float]
    nodules: tuple[ProjectedNodule, ...]


@dataclass(frozen=True, eq=False)
class DrrCase:
    """A DRR, and where the truth is known the radiograph of the same patient in the same place.

    low     what the CT gives: its voxels, its noise, no scatter
    high    of the finer patient, with scatter, grid, focal spot and detector; None for a real CT
    """

    low: FloatArray
    high: FloatArray | None
    spacing_mm: float
    nodules: tuple[ProjectedNodule, ...] = ()


def nodule_case(
    seed: int,
    *,
    nodules: int = 2,
    view: Exposure = CHEST_VIEW,
    diameter_mm: tuple[float, float] = (5.0, 25.0),
    voxel_zyx_mm: tuple[float, float, float] = VOXEL_ZYX_MM,
) -> RadiographCase:
    """A random chest; fewer nodules where the field has no room for more."""
    patient = Patient(seed, view, voxel_zyx_mm)
    planted = patient.plant(nodules, diameter_mm)
    return _case(patient, planted, view)


def phantom_drr_case(
    seed: int,
    *,
    nodules: int = 2,
    view: Exposure = CHEST_VIEW,
    diameter_mm: tuple[float, float] = (5.0, 25.0),
    voxel_zyx_mm: tuple[float, float, float] = VOXEL_ZYX_MM,
    ct_spacing_zyx_mm: tuple[float, float, float] = CT_SPACING_ZYX_MM,
) -> DrrCase:
    """A random chest as a radiograph, and as the DRR of a CT of it."""
    patient = Patient(seed, view, voxel_zyx_mm)
    planted = patient.plant(nodules, diameter_mm)
    case = _case(patient, planted, view)
    scan = scanned(patient.voxels, patient.grid.spacing_zyx_mm, ct_spacing_zyx_mm, np.random.default_rng((seed, 1)))
    low = drr_case(scan, ct_spacing_zyx_mm, view=view, masked=False).low
    return DrrCase(low, case.picture, case.spacing_mm, case.nodules)


def drr_case(
    voxels: FloatArray, spacing_zyx_mm: tuple[float, float, float], *, view: View | None = None, masked: bool = True
) -> DrrCase:
    """The DRR of a CT, real or drawn.

    voxels      float32 (Z, Y, X), HU, feet to head, anterior first, the patient's right first
    view        None: as much as all of whose rays pass the first and the last slice inside
    masked      without the table and whatever else is not the body
    """
    if view is None:
        view = fitted(CHEST_VIEW, (voxels.shape[0], voxels.shape[1], voxels.shape[2]), spacing_zyx_mm)
    volume = np.where(body(voxels), voxels, np.float32(-1000)) if masked else voxels
    density = density_of(transmitted(*areal_densities(volume, spacing_zyx_mm, view)))
    return DrrCase(scaled(density, span_of(density)), None, spacing_at_patient_mm(view))


def fitted(view: View, shape_zyx: tuple[int, int, int], spacing_zyx_mm: tuple[float, float, float]) -> View:
    """The same view with a detector that the volume just covers, at the front too, where it is magnified least."""
    height, depth, width = ((n - 1) * step for n, step in zip(shape_zyx, spacing_zyx_mm, strict=True))
    pixel_mm = view.pixel_mm * (1 - (view.gap_mm - depth / 2) / view.source_mm)  # at the front
    return replace(view, detector_px=(int(height / pixel_mm), int(width / pixel_mm)))


def scanned(
    voxels: FloatArray,
    spacing_zyx_mm: tuple[float, float, float],
    to_zyx_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> FloatArray:
    """What a CT makes of a finer patient: its slices, its point spread, its noise; the middle stays where it is.

    voxels, returns     float32 (Z, Y, X), HU
    """
    shape = [max(1, round(n * a / b)) for n, a, b in zip(voxels.shape, spacing_zyx_mm, to_zyx_mm, strict=True)]
    axes = [
        torch.from_numpy((np.arange(m) - (m - 1) / 2) * (2 * b / (n * a))).float()
        for n, m, a, b in zip(voxels.shape, shape, spacing_zyx_mm, to_zyx_mm, strict=True)
    ]
    blur = [
        np.hypot(POINT_SPREAD_MM if axis else 0.0, max(b**2 - a**2, 0.0) ** 0.5 / 12**0.5) / a
        for axis, (a, b) in enumerate(zip(spacing_zyx_mm, to_zyx_mm, strict=True))
    ]
    soft = torch.from_numpy(ndimage.gaussian_filter(voxels, blur, mode="nearest", truncate=3.0))[None, None]
    slices = []
    for level in axes[0]:
        y, x = torch.meshgrid(axes[1], axes[2], indexing="ij")
        grid = torch.stack([x, y, level.expand_as(x)], -1)[None, None]  # (1, 1, Y, X, 3)
        plane = functional.grid_sample(soft, grid, align_corners=False, padding_mode="border")[0, 0, 0].numpy()
        slices.append(plane + CT_NOISE_HU * _scanner_noise(plane.shape, to_zyx_mm[2], rng))
    return np.stack(slices).astype(np.float32)


def body(voxels: FloatArray) -> BoolArray:
    """The largest connected thing, slice by slice without holes."""
    every = 4
    coarse = voxels[:, ::every, ::every] > BODY_FROM_HU
    labels, count = ndimage.label(ndimage.binary_opening(coarse, np.ones((1, 3, 3), bool)))
    if count == 0:
        return np.ones(voxels.shape, bool)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in largest])
    grown = ndimage.binary_dilation(filled, np.ones((1, 3, 3), bool))
    return np.asarray(grown.repeat(every, 1).repeat(every, 2)[:, : voxels.shape[1], : voxels.shape[2]])


class Patient:
    """A chest drawn for a view, and its projection without nodules.

    voxels          float32 (Z, Y, X), HU, on `grid`; nodules go into it
    soft, bone      g/cm² along each ray, (rows, columns)
    """

    def __init__(self, seed: int, view: View, voxel_zyx_mm: tuple[float, float, float]) -> None:
        self._rng = np.random.default_rng(seed)
        self._view = view
        self.grid = _grid_of(view, voxel_zyx_mm)
        chest = draw_chest(self.grid, self._rng)
        self.voxels, self._anatomy = chest.voxels, chest.anatomy
        self.soft, self.bone = areal_densities(self.voxels, voxel_zyx_mm, view)

    def plant(self, count: int, diameter_mm: tuple[float, float]) -> list[tuple[Nodule, FloatArray, FloatArray]]:
        """Each nodule with what it adds along the rays, soft tissue and bone, g/cm²."""
        placed: list[tuple[Nodule, FloatArray, FloatArray]] = []
        for _ in range(TRIES * count):
            if len(placed) == count:
                break
            nodule = self._draw(diameter_mm)
            if nodule is not None and not any(_shadows_meet(nodule, other, self._view) for other, _, _ in placed):
                placed.append((nodule, *self._insert(nodule)))
        return placed

    def _draw(self, diameter_mm: tuple[float, float]) -> Nodule | None:
        half = self.grid.half_extent_mm
        centre: NDArray[np.float64] = self._rng.uniform(-half, half)
        nodule = draw_nodule(centre, self._rng)
        if not diameter_mm[0] <= nodule.diameter_mm <= diameter_mm[1]:
            return None
        if not _in_lung(self._anatomy, centre) or not _in_field(nodule, self._view):
            return None
        return nodule

    def _insert(self, nodule: Nodule) -> tuple[FloatArray, FloatArray]:
        """Into the voxels; only the coronal planes that it reaches are projected again."""
        row_mm = self.grid.spacing_zyx_mm[1]
        reach = 1.8 * nodule.diameter_mm / 2 + 3 + row_mm
        middle = (self.grid.shape_zyx[1] - 1) / 2
        first = max(0, int((nodule.centre_mm[1] - reach) / row_mm + middle))
        last = min(self.grid.shape_zyx[1], int((nodule.centre_mm[1] + reach) / row_mm + middle) + 2)
        slab = self.voxels[:, first:last].copy()
        paint_nodule(self.voxels, self.grid, nodule, self._rng)
        shift = ((first + last - 1) / 2 - middle) * row_mm
        view = replace(self._view, gap_mm=self._view.gap_mm + shift)
        before = areal_densities(slab, self.grid.spacing_zyx_mm, view)
        after = areal_densities(self.voxels[:, first:last], self.grid.spacing_zyx_mm, view)
        soft, bone = (np.asarray(b - a) for a, b in zip(before, after, strict=True))
        return soft, bone


def _case(patient: Patient, planted: list[tuple[Nodule, FloatArray, FloatArray]], view: Exposure) -> RadiographCase:
    soft, bone = patient.soft, patient.bone
    bare = clean_density(soft, bone, view)
    for _, more_soft, more_bone in planted:
        soft, bone = soft + torch.from_numpy(more_soft), bone + torch.from_numpy(more_bone)
    full = clean_density(soft, bone, view)
    span = span_of(bare)
    picture, without = scaled(full, span), scaled(bare, span)
    truths = tuple(_projected(nodule, added, picture - without, view) for nodule, added, _ in planted)
    return RadiographCase(picture, without, spacing_at_patient_mm(view), span, truths)


def clean_density(soft: Tensor, bone: Tensor, how: Exposure) -> FloatArray:
    """What the detector would read without noise, as the natural logarithm of the attenuation, (rows, columns).

    soft, bone      g/cm² along each ray
    """
    return density_of(seen(arriving(transmitted(soft, bone, how.beam), how), how))


def _projected(nodule: Nodule, added: FloatArray, difference: FloatArray, view: View) -> ProjectedNodule:
    row, column, larger = view.shadow(nodule.centre_mm)
    diameter_px = nodule.diameter_mm * larger / view.pixel_mm
    rows, columns = np.ogrid[: added.shape[0], : added.shape[1]]
    core = np.hypot(rows - row, columns - column) <= max(diameter_px / 6, 0.75)
    return ProjectedNodule(row, column, diameter_px, float(difference[core].mean()), float(added[core].mean()), nodule)


def _grid_of(view: View, voxel_zyx_mm: tuple[float, float, float]) -> Grid:
    """Enough to fill the field up to the front of the body, which is magnified least."""
    at_front = 1 - (view.gap_mm - BODY_DEPTH_MM / 2) / view.source_mm
    rows, columns = (n * view.pixel_mm * at_front for n in view.detector_px)
    extents = (rows, BODY_DEPTH_MM, columns)
    shape = [int(np.ceil(extent / step)) for extent, step in zip(extents, voxel_zyx_mm, strict=True)]
    return Grid((shape[0], shape[1], shape[2]), voxel_zyx_mm)


def _in_lung(anatomy: Anatomy, centre: NDArray[np.float64]) -> bool:
    return anatomy.in_lung(centre, -1) or anatomy.in_lung(centre, 1)


def _in_field(nodule: Nodule, view: View) -> bool:
    """With twice its radius around it."""
    row, column, larger = view.shadow(nodule.centre_mm)
    margin = nodule.diameter_mm * larger / view.pixel_mm
    rows, columns = view.detector_px
    return margin < row < rows - margin and margin < column < columns - margin


def _shadows_meet(one: Nodule, other: Nodule, view: View) -> bool:
    (row, column, larger), (row2, column2, _) = view.shadow(one.centre_mm), view.shadow(other.centre_mm)
    apart = np.hypot(row - row2, column - column2) * view.pixel_mm / larger
    return bool(apart < one.diameter_mm + other.diameter_mm + LEAST_GAP_MM)


def span_of(density: FloatArray) -> tuple[float, float]:
    """Densities that become -1 and 1."""
    low, high = np.percentile(density, PERCENTILES)
    return float(low), float(high)


def scaled(density: FloatArray, span: tuple[float, float]) -> FloatArray:
    """The picture of these densities, about -1…1."""
    return np.asarray((density - span[0]) * (2 / max(span[1] - span[0], 1e-6)) - 1, np.float32)


def _scanner_noise(shape: tuple[int, ...], spacing_mm: float, rng: np.random.Generator) -> FloatArray:
    """Standard deviation 1."""
    field = rng.standard_normal(shape, dtype=np.float32)
    narrow, wide = (ndimage.gaussian_filter(field, width / spacing_mm, mode="wrap") for width in CT_NOISE_MM)
    shaped = narrow - wide
    return np.asarray(shaped / shaped.std())
