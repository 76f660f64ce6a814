"""Neighbouring slices at fixed distances, interpolated along the normal, and slices on the network's pixels.

source: dossier 2, "slice resampling". The official loader computes the two weights once, for the nearest neighbour, and
reuses them: at 5 mm its slices at 2, 4, 6, 8, 10 mm lie at 2, 2, 7, 7, 10 mm. `legacy` does the same, to compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.contract import FloatArray

Positions = NDArray[np.float64]


class Mix(NamedTuple):
    """A slice between two: (1 − weight)·slice[lower] + weight·slice[upper]."""

    lower: int
    upper: int
    weight: float


def positions_of(count: int, interval_mm: float) -> Positions:
    """Of evenly spaced slices along the normal; all equal where the interval is unknown (NaN) or not positive."""
    return np.arange(count, dtype=np.float64) * (interval_mm if interval_mm > 0 else 0.0)


def mixes(index: int, positions_mm: Positions, offsets_mm: Sequence[float], *, legacy: bool = False) -> list[Mix]:
    """How to make the slices at these distances from the key slice `index`.

    Beyond the first and last slice these stand in; without usable positions the key slice does.
    """
    if legacy:
        return [_legacy(index, positions_mm, offset, _nearest(offsets_mm)) for offset in offsets_mm]
    return [_mix(index, positions_mm, offset) for offset in offsets_mm]


def slab(
    voxels: NDArray[np.float32] | NDArray[np.int16],
    index: int,
    positions_mm: Positions,
    offsets_mm: Sequence[float],
    *,
    legacy: bool = False,
) -> FloatArray:
    """The key slice and its neighbours at these distances, float32 (M, Y, X)."""
    planes = [
        (1 - mix.weight) * voxels[mix.lower].astype(np.float32) + mix.weight * voxels[mix.upper].astype(np.float32)
        for mix in mixes(index, positions_mm, offsets_mm, legacy=legacy)
    ]
    return np.stack(planes).astype(np.float32)


def _mix(index: int, positions_mm: Positions, offset_mm: float) -> Mix:
    if positions_mm[-1] <= positions_mm[0]:
        return Mix(index, index, 0.0)
    target = min(max(positions_mm[index] + offset_mm, positions_mm[0]), positions_mm[-1])
    upper = min(max(int(np.searchsorted(positions_mm, target)), 1), len(positions_mm) - 1)
    below, above = positions_mm[upper - 1], positions_mm[upper]
    weight = float((target - below) / (above - below)) if above > below else 0.0
    return Mix(upper - 1, upper, weight)


def _nearest(offsets_mm: Sequence[float]) -> float:
    return min((abs(offset) for offset in offsets_mm if offset), default=0.0)


def _legacy(index: int, positions_mm: Positions, offset_mm: float, nearest_mm: float) -> Mix:
    interval = float(np.median(np.diff(positions_mm))) if len(positions_mm) > 1 else 0.0
    if interval <= 0:
        return Mix(index, index, 0.0)
    reused = nearest_mm / interval - math.floor(nearest_mm / interval)
    steps, side = abs(offset_mm) / interval, math.copysign(1, offset_mm)
    last = len(positions_mm) - 1
    near, far = (min(max(index + int(side) * count, 0), last) for count in (math.floor(steps), math.ceil(steps)))
    return Mix(near, far, reused)


def resized_shape(shape_yx: tuple[int, int], spacing_yx_mm: tuple[float, float], to_mm: float) -> tuple[int, int]:
    """Rows and columns that cover the same field with pixels of about `to_mm`."""
    height, width = (max(1, round(count * step / to_mm)) for count, step in zip(shape_yx, spacing_yx_mm, strict=True))
    return height, width


def resize(planes: FloatArray, shape_yx: tuple[int, int]) -> FloatArray:
    """Slices (M, Y, X) over the same field with other pixels: linear, without aliasing."""
    if planes.shape[-2:] == shape_yx:
        return planes
    image = torch.from_numpy(planes)[None]
    small = functional.interpolate(image, size=shape_yx, mode="bilinear", align_corners=False, antialias=True)
    resized: FloatArray = small[0].numpy()
    return resized
