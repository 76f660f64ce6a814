"""What a denoised series must pass before it may leave: the network may take noise away, not change tissue.

Limits: lidnet dossier and the CT issue ("HU bias under 2 in soft tissue and 5 in lung").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.contract import BoolArray, FloatArray, Volume
from models.evaluation.noise import LUNG_HU, SOFT_TISSUE_HU, homogeneous, noise_sd

SOFT_TISSUE_LIMIT_HU = 2.0
LUNG_LIMIT_HU = 5.0
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


def check(volume: Volume, derived: FloatArray) -> Fidelity:
    """Compare a derived volume with its source, both (Z, Y, X) HU."""
    chosen = np.unique(np.linspace(0, len(volume.voxels) - 1, min(MOST_SLICES, len(volume.voxels))).round().astype(int))
    noise_in, noise_out = [], []
    soft, lung = _Bias(SOFT_TISSUE_HU), _Bias(LUNG_HU)
    for index in chosen:
        before, after = volume.voxels[index], derived[index]
        padding = volume.padding[index] if volume.padding is not None else None
        noise_in.append(noise_sd(before, padding))
        noise_out.append(noise_sd(after, padding))
        soft.add(before, after, padding)
        lung.add(before, after, padding)
    checks, complaints = {}, []
    for name, bias, limit in (("soft tissue", soft, SOFT_TISSUE_LIMIT_HU), ("lung", lung, LUNG_LIMIT_HU)):
        value = bias.mean_hu
        if np.isnan(value):
            checks[f"HU shift in {name}"] = "not measurable, too little of it in these images"
            continue
        checks[f"HU shift in {name}"] = f"{value:+.2f} HU (limit {limit:g})"
        if abs(value) > limit:
            complaints.append(f"it shifts {name} by {value:+.1f} HU (limit {limit:g})")
    return Fidelity(_median(noise_in), _median(noise_out), checks, " and ".join(complaints))


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


def _median(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.median(known)) if known else float("nan")
