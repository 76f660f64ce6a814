"""What a denoised series must pass before it may leave: the network may take noise away, not change tissue.

Limits: lidnet dossier and the CT issue ("HU bias under 2 in soft tissue and 5 in lung"). Of fine detail at edges,
on three real CT series, the denoiser that ships took 2 to 4 %, a blur of 0.4 pixels 12 %, one of 0.5 pixels 33 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from models.contract import BoolArray, FloatArray, Lesion, Volume
from models.evaluation.noise import LUNG_HU, SOFT_TISSUE_HU, homogeneous, noise_sd
from node.pipelines.stacks import normal_of, places_mm

SOFT_TISSUE_LIMIT_HU = 2.0
LUNG_LIMIT_HU = 5.0
LEAST_KEPT = 0.8
"""Of a found lesion's contrast: a reader who sees less of it may miss it."""
LEAST_CONTRAST_HU = 20.0
MOST_TAKEN_FROM_EDGES = 0.1
EDGE_NOISES = 3.0
"""Fine detail this many times stronger than the noise is anatomy."""
LEAST_EDGE_PIXELS = 500
AIR_HU = np.float32(-1000.0)
RING_MM = (2.0, 4.0)
MOST_SLICES = 24
"""Slices looked at, evenly spread: the numbers are means over a series, and thick series need no more."""


@dataclass(frozen=True)
class Fidelity:
    """Noise and bias of a derived volume against its source.

    noise_in_hu, noise_out_hu   median over slices, homogeneous soft tissue; NaN where there is none
    checks                      name → words, for the report
    complaint                   why it must not leave, in words; empty where it may
    """

    noise_in_hu: float
    noise_out_hu: float
    checks: dict[str, str]
    complaint: str


def check(volume: Volume, derived: FloatArray, lesions: Sequence[Lesion] = ()) -> Fidelity:
    """Compare a derived volume with its source, both (Z, Y, X) HU.

    lesions     found in the source: they must keep their contrast
    """
    chosen = np.unique(np.linspace(0, len(volume.voxels) - 1, min(MOST_SLICES, len(volume.voxels))).round().astype(int))
    noise_in, noise_out = [], []
    soft, lung, edges = _Bias(SOFT_TISSUE_HU), _Bias(LUNG_HU), _Edges()
    for index in chosen:
        before, after = volume.voxels[index], derived[index]
        padding = volume.padding[index] if volume.padding is not None else None
        noise_in.append(noise_sd(before, padding))
        noise_out.append(noise_sd(after, padding))
        soft.add(before, after, padding)
        lung.add(before, after, padding)
        edges.add(before, after, padding, noise_in[-1])
    checks, complaints = {}, []
    for name, bias, limit in (("soft tissue", soft, SOFT_TISSUE_LIMIT_HU), ("lung", lung, LUNG_LIMIT_HU)):
        value = bias.mean_hu
        if np.isnan(value):
            checks[f"HU shift in {name}"] = "not measurable, too little of it in these images"
            continue
        checks[f"HU shift in {name}"] = f"{value:+.2f} HU (limit {limit:g})"
        if abs(value) > limit:
            complaints.append(f"it shifts {name} by {value:+.1f} HU (limit {limit:g})")
    taken, most = edges.taken, 100 * MOST_TAKEN_FROM_EDGES
    if np.isnan(taken):
        checks["detail at edges"] = "not measurable, too few edges that stand out from the noise"
    else:
        checks["detail at edges"] = f"{max(100 * taken, 0):.0f} % taken away (limit {most:.0f})"
        if taken > MOST_TAKEN_FROM_EDGES:
            complaints.append(f"it takes away {100 * taken:.0f} % of the fine detail at edges (limit {most:.0f})")
    kept = contrast_kept(volume, derived, lesions)
    if kept:
        least = min(kept)
        checks["contrast of lesions"] = (
            f"{100 * least:.0f} % kept at least, of {len(kept)} (limit {100 * LEAST_KEPT:.0f})"
        )
        if least < LEAST_KEPT:
            complaints.append(
                f"of a lesion's contrast it keeps only {100 * least:.0f} % (limit {100 * LEAST_KEPT:.0f})"
            )
    return Fidelity(_median(noise_in), _median(noise_out), checks, " and ".join(complaints))


def contrast_kept(volume: Volume, derived: FloatArray, lesions: Sequence[Lesion]) -> list[float]:
    """Contrast after over contrast before, of each lesion that stands out from what surrounds it.

    Contrast is the mean inside less the mean in a ring of 2 to 4 mm around. Lesions whose contrast is below
    `LEAST_CONTRAST_HU` say nothing: noise alone would move their ratio.
    """
    kept = []
    for lesion in lesions:
        box, inside, ring = _neighbourhood(lesion, volume)
        if not ring.any():
            continue
        before, after = (
            float(image[box][inside].mean(dtype=np.float64) - image[box][ring].mean(dtype=np.float64))
            for image in (volume.voxels, derived)
        )
        if abs(before) >= LEAST_CONTRAST_HU:
            kept.append(after / before)
    return kept


def _neighbourhood(lesion: Lesion, volume: Volume) -> tuple[tuple[slice, ...], BoolArray, BoolArray]:
    """A box around the lesion, and in it the lesion and its ring, which reaches over no gap."""
    reach = [int(np.ceil(RING_MM[1] / step)) + 1 for step in volume.spacing_zyx_mm]
    places = [np.flatnonzero(lesion.mask.any(axis)) for axis in ((1, 2), (0, 2), (0, 1))]
    box = tuple(
        slice(max(int(place[0]) - more, 0), int(place[-1]) + 1 + more)
        for place, more in zip(places, reach, strict=True)
    )
    inside = lesion.mask[box]
    distance = distance_transform_edt(~inside, sampling=volume.spacing_zyx_mm)
    along = places_mm(volume) @ normal_of(volume)
    away = np.abs(along[box[0], None] - along[places[0]]).min(axis=1)  # of each slice from the lesion's nearest
    near = (away <= RING_MM[1])[:, None, None]
    return box, inside, near & (distance >= RING_MM[0]) & (distance <= RING_MM[1])


class _Bias:
    """Mean of (after − before) over homogeneous tissue of all slices looked at."""

    def __init__(self, hu_range: tuple[float, float]) -> None:
        self._hu_range = hu_range
        self._sum, self._pixels = 0.0, 0

    def add(self, before: FloatArray, after: FloatArray, padding: BoolArray | None) -> None:
        where = homogeneous(before, self._hu_range, padding)
        self._sum += float((after - before)[where].sum(dtype=np.float64))
        self._pixels += int(np.count_nonzero(where))

    @property
    def mean_hu(self) -> float:
        return self._sum / self._pixels if self._pixels else float("nan")


class _Edges:
    """How much of the fine detail of anatomy went away with the noise.

    What was taken away is regressed on the fine detail that is left, where that is anatomy: noise alone gives nearly 0,
    since it is not tied to the edges; a blur takes part of each edge, and that part is the slope.
    """

    def __init__(self) -> None:
        self._together, self._detail, self._pixels = 0.0, 0.0, 0

    def add(self, before: FloatArray, after: FloatArray, padding: BoolArray | None, noise_hu: float) -> None:
        if np.isnan(noise_hu):
            return
        if padding is not None:
            before, after = (np.where(padding, AIR_HU, image) for image in (before, after))
        detail = after - gaussian_filter(after, 1.0)
        where = np.abs(detail) >= EDGE_NOISES * noise_hu
        fine = detail[where].astype(np.float64)
        self._together += float((before - after)[where] @ fine)
        self._detail += float(fine @ fine)
        self._pixels += len(fine)

    @property
    def taken(self) -> float:
        """0 nothing, 1 as much as is left; NaN where there is too little to measure it on."""
        return self._together / self._detail if self._pixels >= LEAST_EDGE_PIXELS else float("nan")


def _median(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.median(known)) if known else float("nan")
