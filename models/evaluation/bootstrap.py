"""Confidence intervals with the patient as the unit: slices of one patient are not independent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_DECIMALS = 12
"""What is smaller is what is left of equal numbers that were subtracted: 0, without a sign."""


@dataclass(frozen=True)
class Interval:
    """A mean over patients with its 95 % interval."""

    mean: float
    low: float
    high: float
    patients: int

    def __str__(self) -> str:
        mean, low, high = (round(end, _DECIMALS) + 0.0 for end in (self.mean, self.low, self.high))
        return f"{mean:.3g} [{low:.3g}, {high:.3g}]"


def over_patients(values: Mapping[str, Sequence[float]], *, seed: int = 0) -> Interval:
    """Mean of the patients' means; percentile bootstrap over patients. Values that are NaN are left out.

    values   patient → one number per slice
    """
    means = [np.nanmean(numbers) for numbers in values.values() if not np.all(np.isnan(numbers))]
    if not means:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    array = np.array(means)
    rng = np.random.default_rng(seed)
    drawn = array[rng.integers(len(array), size=(RESAMPLES, len(array)))].mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(float(array.mean()), float(low), float(high), len(array))
