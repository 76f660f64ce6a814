"""The contiguous stacks of a CT series: slices that follow each other closely. Each is searched for lesions by itself.

Between two of them, such as chest and abdomen, or around missing slices, nothing is known: nothing is interpolated
there, and no lesion goes on from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.contract import BoolArray, Lesion, ModelIdentity, Volume
from node.pipelines.models import Candidate, Progress

LARGEST_GAP_MM = 6.0
"""From slice to slice: a little more than the detector was trained on."""
_ROUNDING_MM = 0.01
LEAST_SLICES, LEAST_EXTENT_MM = 3, 4.0
"""Of a stack that is searched, from its first slice to its last. The detector looks as far to either side of a slice,
and where none is it sees the last one again: of 50 slices of 1 mm of a chest it marked no place in all together, 1 in
fives, 2 in threes, and 2 in 17 slices each by itself."""
LEAST_SHARE = 0.5
"""Of all slices, in stacks that are searched: else "nothing found" would be of a series that was hardly looked at."""
_MOST_TOLD = 4
"""Gaps that are told one by one."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Some slices of a series that follow each other; `volume` is of them alone, without a copy of their voxels.

    first       its first slice in the series
    """

    first: int
    volume: Volume

    @property
    def slices(self) -> slice:
        return slice(self.first, self.first + len(self.volume.voxels))

    @property
    def is_long_enough(self) -> bool:
        return len(self.volume.voxels) >= LEAST_SLICES and self.extent_mm >= LEAST_EXTENT_MM

    @property
    def extent_mm(self) -> float:
        """From the first slice to the last."""
        origins = self.volume.slice_origins_mm
        return float(np.linalg.norm(origins[-1] - origins[0]))

    def of_series(self, box: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        """A box of the stack's voxels as one of the series'."""
        z, y, x = box
        return slice(z.start + self.first, z.stop + self.first), y, x

    def lesion(self, candidate: Candidate, series: Volume, identity: ModelIdentity) -> Lesion:
        """As the node reports it, on the grid of the series."""
        found = candidate.lesion(self.volume, identity)
        if len(self.volume.voxels) == len(series.voxels):
            return found
        mask: BoolArray = np.zeros(series.voxels.shape, np.bool_)
        box = candidate.region.box
        mask[self.of_series(box)] = found.mask[box]
        return replace(found, mask=mask, slice_index=found.slice_index + self.first)


def stacks_of(series: Volume) -> list[Stack]:
    """In order; one where no two neighbours are farther apart than `LARGEST_GAP_MM`, along the normal or sideways."""
    places = places_mm(series)
    way = np.linalg.norm(np.diff(places, axis=0), axis=1)
    ends = [0, *(np.flatnonzero(way > LARGEST_GAP_MM + _ROUNDING_MM) + 1).tolist(), len(places)]
    return [Stack(first, _part(series, places, first, stop)) for first, stop in pairwise(ends)]


def places_mm(series: Volume) -> NDArray[np.float64]:
    """Of each slice's first voxel, (Z, 3): on the even grid where steps are even, since headers may round positions."""
    if not series.even_steps:
        return series.slice_origins_mm
    step, origin = series.affine[:3, 0], series.affine[:3, 3]
    return np.asarray(origin + np.arange(len(series.voxels))[:, None] * step, np.float64)


def _part(series: Volume, places: NDArray[np.float64], first: int, stop: int) -> Volume:
    """The volume of some slices, with an affine and a step of their own."""
    chosen = slice(first, stop)
    own = places[chosen]
    affine = series.affine.copy()
    affine[:3, 3] = own[0]
    step_mm = series.spacing_zyx_mm[0]
    if len(own) > 1:
        affine[:3, 0] = (own[-1] - own[0]) / (len(own) - 1)
        step_mm = float(np.median(np.abs(np.diff(own, axis=0) @ normal_of(series))))
    return replace(
        series,
        voxels=series.voxels[chosen],
        padding=None if series.padding is None else series.padding[chosen],
        affine=affine,
        spacing_zyx_mm=(step_mm, *series.spacing_zyx_mm[1:]),
        slice_origins_mm=own,
        sources=series.sources[chosen],
    )


def normal_of(volume: Volume) -> NDArray[np.float64]:
    """Unit vector (3,) at right angles to the slices."""
    normal = np.cross(volume.affine[:3, 2], volume.affine[:3, 1])
    return np.asarray(normal / np.linalg.norm(normal), np.float64)


def search(
    find: Callable[[Volume, Progress], Sequence[Candidate]], stacks: Sequence[Stack], on_progress: Progress
) -> list[tuple[Stack, Candidate]]:
    """All candidates of all stacks, surest first, each with its stack."""
    found: list[tuple[Stack, Candidate]] = []
    slices, before = sum(len(stack.volume.voxels) for stack in stacks), 0
    for stack in stacks:
        own = len(stack.volume.voxels)
        found += [(stack, candidate) for candidate in find(stack.volume, _share(on_progress, before, own, slices))]
        before += own
    return sorted(found, key=lambda one: -one[1].score)


def _share(on_progress: Progress, before: int, own: int, total: int) -> Progress:
    """Progress of one stack as that of all slices."""
    return lambda done, of: on_progress(before + round(own * done / of), total)


def searchable(stacks: Sequence[Stack]) -> list[Stack]:
    """Those that are long enough; none where they are the lesser part of the series."""
    chosen = [stack for stack in stacks if stack.is_long_enough]
    of_them, of_all = (sum(len(stack.volume.voxels) for stack in some) for some in (chosen, stacks))
    return chosen if of_them >= LEAST_SHARE * of_all else []


def gaps_in_words(stacks: Sequence[Stack]) -> str:
    """Where the series is not continuous, and what follows for the search; "" where it is."""
    gaps = [_gap(before.volume, after.volume) for before, after in pairwise(stacks)]
    if not gaps:
        return ""
    return (
        f"The series is not continuous: {_listed(gaps)}. Each part was searched by itself: nothing was interpolated "
        "over a gap, and no lesion was followed across one."
    )


def left_out_in_words(stacks: Sequence[Stack]) -> str:
    """Which slices were not searched because they stand alone; "" where there are none."""
    short = [stack.volume for stack in stacks if not stack.is_long_enough]
    if not short:
        return ""
    images = sum(len(volume.voxels) for volume in short)
    where = [f"z = {' to '.join(dict.fromkeys((_z(volume, 0), _z(volume, -1))))} mm" for volume in short]
    apart = "1 image of the series stands" if images == 1 else f"{images} images of the series stand"
    return (
        f"Searched are stacks of {LEAST_SLICES} images or more that reach over {LEAST_EXTENT_MM:g} mm; {apart} apart "
        f"from the others ({_listed(where)})."
    )


def _gap(before: Volume, after: Volume) -> str:
    """Patient z, as viewers show it, increases towards the head."""
    way = after.slice_origins_mm[0] - before.slice_origins_mm[-1]
    along = abs(float(way @ normal_of(before)))
    if along <= LARGEST_GAP_MM + _ROUNDING_MM and not before.gantry_tilt_deg:
        aside = float(np.sqrt(max(way @ way - along**2, 0)))
        return f"at z = {_z(after, 0)} mm the images are shifted sideways by {aside:.1f} mm"
    return f"there is no image between z = {_z(before, -1)} and {_z(after, 0)} mm"


def _z(volume: Volume, index: int) -> str:
    return f"{volume.slice_origins_mm[index][2] + 0.0:.1f}"


def _listed(phrases: Sequence[str]) -> str:
    more = len(phrases) - _MOST_TOLD
    told = "; ".join(phrases[:_MOST_TOLD])
    return f"{told}; and {more} more" if more > 0 else told
