"""The greys of a lesion as a histogram: what texture is asked for, and what was got.

source: dossier 4 and 5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.contract import BoolArray, FloatArray, ModelError

Histogram = NDArray[np.float32]
"""Shares of a lesion's voxels, float32 (bins,), sum 1."""
Texture = Literal["ground-glass", "part-solid", "solid"]


@dataclass(frozen=True)
class Scale:
    """HU as networks see them, and the bins of the histogram: both span the same window.

    low, high   HU that become −1 and 1; what is beyond becomes the nearer one
    """

    low: float
    high: float
    bins: int

    def unit(self, hu: FloatArray) -> FloatArray:
        """HU to −1 … 1, same shape."""
        scaled = (hu.astype(np.float32) - self.low) * (2 / (self.high - self.low)) - 1
        unit: FloatArray = scaled.clip(-1, 1).astype(np.float32)
        return unit

    def hu(self, unit: FloatArray) -> FloatArray:
        """−1 … 1 to HU, same shape."""
        hu: FloatArray = ((unit.astype(np.float32) + 1) * ((self.high - self.low) / 2) + self.low).astype(np.float32)
        return hu

    @property
    def bin_hu(self) -> float:
        """Width of a bin."""
        return (self.high - self.low) / self.bins

    @property
    def centres_hu(self) -> FloatArray:
        """Middles of the bins, (bins,)."""
        centres: FloatArray = (self.low + self.bin_hu * (np.arange(self.bins) + 0.5)).astype(np.float32)
        return centres


LUNG = Scale(-1000.0, 400.0, 16)
LIVER = Scale(-100.0, 250.0, 32)
"""In the lung's bins of 87.5 HU a lesion 40 HU darker than the liver would be in the same bin as the liver."""

PRESETS: Mapping[Texture, Histogram] = {
    "ground-glass": np.array(
        [0, 0, 0.01415, 0.06604, 0.14151, 0.18396, 0.04717, 0.11792, 0.09906, 0.08491, 0.11792, 0.08019, 0.04717, 0, 0,
         0],
        np.float32,
    ),
    "part-solid": np.array(
        [0, 0, 0, 0.00029, 0.00664, 0.03811, 0.06640, 0.08112, 0.09209, 0.12067, 0.18072, 0.32073, 0.07794, 0.01039,
         0.00404, 0.00087],
        np.float32,
    ),
    "solid": np.array(
        [0, 0, 0, 0, 0.00011, 0, 0.00056, 0.00067, 0.00225, 0.00550, 0.02269, 0.23986, 0.69666, 0.03022, 0.00124,
         0.00022],
        np.float32,
    ),
}  # fmt: skip
"""The three cluster centres that come with the released LIDC model, on `LUNG`; of the names nothing is published, they
say what mean and spread look like (dossier 5)."""


def histogram(hu: FloatArray, mask: BoolArray, scale: Scale = LUNG) -> Histogram:
    """Shares of the masked voxels per bin, those beyond the window in the outermost bins.

    hu, mask    same shape
    raises      ModelError      an empty mask
    """
    values = hu[mask]
    if not values.size:
        raise ModelError("a lesion without a voxel has no histogram")
    place = np.floor((values.astype(np.float64) - scale.low) / scale.bin_hu)
    counts = np.bincount(place.clip(0, scale.bins - 1).astype(np.int64), minlength=scale.bins)
    shares: Histogram = (counts / values.size).astype(np.float32)
    return shares


def preset(texture: Texture) -> Histogram:
    """One of the published centres, sum 1 to the last bit that float32 has."""
    centre = PRESETS[texture]
    return np.asarray(centre / centre.sum(), np.float32)


def jittered(wanted: Histogram, rng: np.random.Generator, *, by: float = 0.1) -> Histogram:
    """Each bin changed by a random part of itself, at most `by`, and brought back to sum 1.

    The released code leaves the sum as it comes: a network that only saw sums of 1 is then told what it never saw.
    """
    changed = wanted * (1 + rng.uniform(-by, by, wanted.shape))
    return np.asarray(changed / changed.sum(), np.float32)


def wasserstein_hu(first: Histogram, second: Histogram, scale: Scale = LUNG) -> float:
    """How far greys must be moved to turn one histogram into the other, HU, on average over the lesion."""
    difference = np.cumsum(first.astype(np.float64) - second)
    return float(np.abs(difference[:-1]).sum() * scale.bin_hu)
