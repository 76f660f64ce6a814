"""What was drawn, put into the volume: exact outside of a collar, as sharp as the scanner, as a difference.

source: dossier 5 (why the released sampler's background is off by 8.8 HU) and 9.5 to 9.6
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.contract import BoolArray, FloatArray, ModelError

COLLAR_VOXELS = 2
"""Beyond so many voxels from the mask nothing changes."""
EDGE_SIGMA_MM = 0.36
"""Of a point spread 0.85 mm wide at half maximum (dossier 9.5): what a network drew has its own edge already."""
FINEST_STEP_MM = 1.0
"""Slices are cut into steps not thicker than this, then averaged: partial volume."""

Vector = tuple[float, float, float]


def soft_edge(mask: BoolArray, sigma_voxels: float) -> FloatArray:
    """The mask blurred by the scanner's point spread, float32 (Z, Y, X), exactly 0 beyond the collar.

    sigma_voxels    0 for a hard edge
    """
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), sigma_voxels, radius=COLLAR_VOXELS)
    reach = ndimage.distance_transform_edt(~mask) <= COLLAR_VOXELS
    soft: FloatArray = np.where(reach, blurred, 0).astype(np.float32)
    return soft


def difference(
    drawn: Sequence[FloatArray], masks: Sequence[BoolArray], healthy: FloatArray, *, sigma_voxels: float
) -> FloatArray:
    """What is to be added to the healthy crop, float32 (Z, Y, X), HU, exactly 0 beyond the collar of all lesions.

    Each lesion is carried over its edge before it is faded: what was drawn outside of its mask was never trained.

    drawn, masks    one of each per class, (Z, Y, X), HU; masks of different classes have no voxel in common
    raises          ModelError      masks overlap
    """
    if len(masks) > 1 and (np.sum(masks, 0) > 1).any():
        raise ModelError("masks of different classes overlap")
    total = np.zeros_like(healthy, np.float32)
    for lesion, mask in zip(drawn, masks, strict=True):
        if mask.any():
            nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
            carried = lesion[tuple(nearest)]
            total += soft_edge(mask, sigma_voxels) * (carried - healthy)
    return total


def composite(healthy: FloatArray, change: FloatArray) -> FloatArray:
    """The healthy crop with the difference, bit for bit the same where that is 0."""
    return np.where(change == 0, healthy, healthy + change).astype(np.float32)


def settled(
    region: FloatArray, change: FloatArray, soft: FloatArray, interpolated: FloatArray, *, most_hu: float
) -> FloatArray:
    """Part of a volume with a difference added, bit for bit the same where that is 0.

    A difference from the interpolated crop leaves in the lesion what interpolation took from the volume: its finest
    noise, which is wanted, but of a vessel or wall that the lesion replaces half an edge too, which is not.

    region          float32 of the volume, HU; the others of the same shape, by `on_volume`: the difference, the soft
                    mask, and the healthy crop
    most_hu         more than this is no noise
    """
    fine = region - interpolated
    structure = fine - fine.clip(-most_hu, most_hu)
    return composite(region, np.where(change == 0, 0, change - soft * structure).astype(np.float32))


def crop_at(
    volume: FloatArray, spacing_zyx_mm: Vector, centre_mm: Vector, shape_zyx: tuple[int, int, int]
) -> FloatArray:
    """A crop with voxels of 1 mm round a place, float32, linear; beyond the volume its edge goes on.

    volume      (Z, Y, X)       centre_mm   (z, y, x) from its first voxel centre, of the crop's middle (see `first_mm`)
    """
    places = [
        (first + np.arange(count)) / step
        for first, count, step in zip(first_mm(centre_mm, shape_zyx), shape_zyx, spacing_zyx_mm, strict=True)
    ]
    region, shifted = _region(volume, places)
    grid = np.meshgrid(*shifted, indexing="ij")
    return np.asarray(ndimage.map_coordinates(region, grid, order=1, mode="nearest", output=np.float32))


def mask_at(mask: BoolArray, spacing_zyx_mm: Vector, centre_mm: Vector, shape_zyx: tuple[int, int, int]) -> BoolArray:
    """The same of a mask, nearest, False beyond the volume."""
    crop = np.ones(shape_zyx, bool)
    firsts, nearest = first_mm(centre_mm, shape_zyx), []
    for axis, (first, count, step) in enumerate(zip(firsts, shape_zyx, spacing_zyx_mm, strict=True)):
        place = np.rint((first + np.arange(count)) / step).astype(np.int64)
        within = (place >= 0) & (place < mask.shape[axis])
        crop &= within.reshape([-1 if other == axis else 1 for other in range(3)])
        nearest.append(place.clip(0, mask.shape[axis] - 1))
    crop &= mask[np.ix_(*nearest)]
    return crop


def first_mm(centre_mm: Vector, shape_zyx: tuple[int, int, int]) -> NDArray[np.float64]:
    """(z, y, x) of the crop's first voxel centre: the voxel `shape // 2` is at the centre."""
    first: NDArray[np.float64] = np.asarray(centre_mm, np.float64) - np.array(shape_zyx) // 2
    return first


def on_volume(
    change: FloatArray, volume_shape: tuple[int, ...], spacing_zyx_mm: Vector, centre_mm: Vector
) -> tuple[tuple[slice, slice, slice], FloatArray]:
    """What is on the crop's grid, on that of the volume: a box, and the values there.

    Thick slices get the mean over their thickness; in the plane, and beyond the crop, it is interpolated and 0.

    change      (D, H, W), voxels of 1 mm, as of a crop with its middle at centre_mm
    raises      ModelError      they do not meet
    """
    box, places = [], []
    firsts = first_mm(centre_mm, (change.shape[0], change.shape[1], change.shape[2]))
    for axis, (start, count, step) in enumerate(zip(firsts, change.shape, spacing_zyx_mm, strict=True)):
        pieces = max(1, _ceil(step / FINEST_STEP_MM)) if axis == 0 else 1
        inner = ((np.arange(pieces) + 0.5) / pieces - 0.5) * step
        low = max(0, _ceil((start - 1 - step / 2) / step))
        high = min(volume_shape[axis], int((start + count + step / 2) / step) + 1)
        if low >= high:
            raise ModelError("a crop that does not meet its volume")
        box.append(slice(low, high))
        places.append(((np.arange(low, high) * step)[:, None] + inner).ravel() - start)
    grid = np.meshgrid(*places, indexing="ij")
    fine = ndimage.map_coordinates(change, grid, order=1, mode="constant", cval=0.0, output=np.float32)
    sides = [part.stop - part.start for part in box]
    values: FloatArray = fine.reshape(sides[0], -1, *sides[1:]).mean(1)
    return (box[0], box[1], box[2]), values


def _ceil(value: float) -> int:
    return int(np.ceil(value))


def _region(volume: FloatArray, places: Sequence[NDArray[np.float64]]) -> tuple[FloatArray, list[NDArray[np.float64]]]:
    """The part of a volume that interpolation at these places needs, and the places in it."""
    parts, shifted = [], []
    for place, count in zip(places, volume.shape, strict=True):
        low = int(np.clip(np.floor(place[0]), 0, count - 1))
        high = int(np.clip(np.ceil(place[-1]), low, count - 1)) + 1
        parts.append(slice(low, high))
        shifted.append(place - low)
    return volume[tuple(parts)], shifted
