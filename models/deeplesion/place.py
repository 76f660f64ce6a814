"""Where in the body a lesion lies, as far as the images themselves show it: by the lungs and by the room around.

The detector names an organ from what surrounds a place on a few slices: to it a fold of cloth is a lung, and what lies
in ascites in the pelvis is in a liver. So an organ is told only where it can be; elsewhere the part of the trunk is.
source: none; the limits are those of anatomy, not fitted to any patient
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_opening, label

from models.contract import BoolArray, Code, FloatArray, Volume
from models.deeplesion.grouping import Region

BODY_HU = -300.0
"""Denser than lung, less dense than fat."""
ROOM_HU = -950.0
"""Median of what reaches the edge of the image: below it is the air of the room, above it a lung cut by the edge."""
LUNG_HU = (-970.0, -500.0)
"""Median of a lung is above the first, gas in bowel is not; its voxels are below the second."""
LEAST_LUNG_ML = 100.0
LEAST_LUNG_CM2 = 10.0
"""On a slice that counts as one with lung: the windpipe alone has less."""
GRID_MM = 3.0
NEAR_MM = 6.0
"""So close to aerated lung a lesion is one of the lung."""
LIVER_REACH_MM = (-250.0, 200.0)
"""Above the lowest slice with lung: to the end of a much enlarged liver, and to a high dome of the diaphragm."""
KIDNEY_REACH_MM = (-np.inf, 150.0)
"""Below there is no limit: kidneys are transplanted into the pelvis."""
DOME_MM = 150.0
"""Above the lowest slice with lung: up to there slices show chest and abdomen both."""

SITES: dict[str, Code] = {
    "lung": ("39607008", "SCT", "Lung"),
    "liver": ("10200004", "SCT", "Liver"),
    "kidney": ("64033007", "SCT", "Kidney"),
    "lymph node": ("59441001", "SCT", "Lymph node"),
    "soft tissue": ("87784001", "SCT", "Soft tissue"),
}
ANYWHERE: Code = ("38266002", "SCT", "Entire body")
"""Where the images show no lung to go by."""
CHEST: Code = ("816094009", "SCT", "Chest")
CHEST_AND_ABDOMEN: Code = ("416550000", "SCT", "Chest and Abdomen")
ABDOMEN_AND_PELVIS: Code = ("818982008", "SCT", "Abdomen and Pelvis")
NECK_AND_CHEST: Code = ("417437006", "SCT", "Neck and Chest")


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Lungs and room of one volume, on every so-manieth voxel.

    strides     of the grid (z, y, x)       lungs, room     bool, on the grid
    heights_mm  of all slices of the volume above the lowest with a whole lung, negative below; None where none is
    top_mm      height of the highest slice with lung
    """

    strides: tuple[int, int, int]
    lungs: BoolArray
    room: BoolArray
    heights_mm: NDArray[np.float64] | None
    top_mm: float

    def is_near_lung(self, region: Region) -> bool:
        """Whether aerated lung is within `NEAR_MM` of the lesion."""
        steps = round(NEAR_MM / GRID_MM)
        place = [indices // step for indices, step in zip(self._voxels(region), self.strides, strict=True)]
        low = [max(int(indices.min()) - steps, 0) for indices in place]
        block = self.lungs[tuple(slice(first, int(at.max()) + steps + 1) for first, at in zip(low, place, strict=True))]
        near: BoolArray = np.zeros(block.shape, np.bool_)
        near[tuple(np.minimum(at - first, n - 1) for at, first, n in zip(place, low, block.shape, strict=True))] = True
        return bool((binary_dilation(near, iterations=steps) & block).any())

    def is_in_room(self, region: Region, image: FloatArray) -> bool:
        """Whether most of a finding is air, or cloth, outside the body."""
        if float(np.median(image[region.box][region.mask])) > BODY_HU:
            return False
        places = tuple(
            np.minimum(at // step, count - 1)
            for at, step, count in zip(self._voxels(region), self.strides, self.room.shape, strict=True)
        )
        return bool(self.room[places].mean() > 0.5)

    def part_of_trunk(self, index: int) -> Code:
        """Part of the body that this slice shows."""
        if self.heights_mm is None:
            return ANYWHERE
        height = self.heights_mm[index]
        if height > self.top_mm:
            return NECK_AND_CHEST
        if height < 0:
            return ABDOMEN_AND_PELVIS
        return CHEST_AND_ABDOMEN if height < DOME_MM else CHEST

    @staticmethod
    def _voxels(region: Region) -> list[NDArray[np.int64]]:
        return [at + part.start for at, part in zip(np.nonzero(region.mask), region.box, strict=True)]


def site_of(category: str, region: Region, index: int, around: Surroundings) -> Code:
    """The organ of this category where it can be, or what has no place of its own; else the part of the trunk.

    index   of the slice on which the lesion is measured
    """
    site = SITES.get(category)
    height = None if around.heights_mm is None else around.heights_mm[index]
    reach = {"liver": LIVER_REACH_MM, "kidney": KIDNEY_REACH_MM}.get(category, (-np.inf, np.inf))
    beyond = height is not None and not reach[0] <= height <= reach[1]
    if site is None or beyond or (category == "lung" and not around.is_near_lung(region)):
        return around.part_of_trunk(index)
    return site


def surroundings_of(volume: Volume, image: FloatArray, positions_mm: NDArray[np.float64]) -> Surroundings:
    """Lungs and room.

    image           the voxels, padding in air      positions_mm    of all slices along the normal, increasing
    """
    strides = _strides(volume.spacing_zyx_mm)
    every = tuple(slice(None, None, step) for step in strides)
    coarse = image[every]
    air = ~binary_opening(coarse > BODY_HU, _IN_PLANE)
    reaching = _reaching_the_edge(air)
    room = _thin(reaching, coarse)
    voxel_ml = float(np.prod(np.multiply(strides, volume.spacing_zyx_mm))) / 1000
    lungs = _lungs((coarse < LUNG_HU[1]) & air & ~room, coarse, voxel_ml)
    pixel_cm2 = strides[1] * strides[2] * volume.spacing_zyx_mm[1] * volume.spacing_zyx_mm[2] / 100
    # What reaches the edge may be a lung that it cuts, or the foam of the couch: nothing to measure heights from.
    slices = np.flatnonzero((lungs & ~reaching).sum((1, 2)) * pixel_cm2 >= LEAST_LUNG_CM2) * strides[0]
    if not len(slices):
        return Surroundings(strides, lungs, room, None, 0.0)
    upward = 1.0 if volume.slice_origins_mm[-1, 2] >= volume.slice_origins_mm[0, 2] else -1.0
    ends = upward * positions_mm[[slices[0], slices[-1]]]
    return Surroundings(strides, lungs, room, upward * positions_mm - ends.min(), float(np.ptp(ends)))


_IN_PLANE = np.zeros((3, 3, 3), np.bool_)
_IN_PLANE[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


def _strides(spacing_zyx_mm: Sequence[float]) -> tuple[int, int, int]:
    z, y, x = (max(1, round(GRID_MM / step)) for step in spacing_zyx_mm)
    return z, y, x


def _reaching_the_edge(air: BoolArray) -> BoolArray:
    """Air that reaches the edge of its slice; what lies beyond the circle of reconstruction is air too."""
    edge = np.ones(air.shape, np.bool_)
    edge[:, 1:-1, 1:-1] = False
    pieces, count = label(air, _IN_PLANE)
    chosen = np.zeros(count + 1, np.bool_)
    chosen[pieces[edge & air]] = True
    reaching: BoolArray = chosen[pieces]
    return reaching


def _thin(reaching: BoolArray, image: FloatArray) -> BoolArray:
    """Pieces of it that are as thin as the air of a room: a lung is not."""
    pieces, count = label(reaching, _IN_PLANE)
    chosen = _mostly(image < ROOM_HU, pieces, count)
    chosen[0] = False
    thin: BoolArray = chosen[pieces]
    return thin


def _lungs(inside: BoolArray, image: FloatArray, voxel_ml: float) -> BoolArray:
    """Large pieces of air in the body that are denser than gas.

    Not `find_lungs` of the simulation, which wants whole lungs to plant in, on a finer grid and without airways, and
    so leaves out what the edge of the image cuts: here that counts, and all limits are others.
    """
    pieces, count = label(inside)
    chosen = np.bincount(pieces.ravel(), minlength=count + 1) * voxel_ml >= LEAST_LUNG_ML
    chosen &= _mostly(image > LUNG_HU[0], pieces, count)
    chosen[0] = False
    lungs: BoolArray = chosen[pieces]
    return lungs


def _mostly(condition: BoolArray, pieces: NDArray[np.integer], count: int) -> BoolArray:
    """Of each piece, whether it holds in more than half: what its median says."""
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    mostly: BoolArray = 2 * np.bincount(pieces[condition], minlength=count + 1) > sizes
    return mostly
