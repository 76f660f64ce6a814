"""How scores agree with labels, as the challenge counts it, and with the signs that its sum hides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.floating]
MEASURES = ("PLCC", "SROCC", "KROCC", "sum of sizes", "grade error")


def agreement(told: Floats, truth: Floats) -> dict[str, float]:
    """Pearson, Spearman and Kendall (tau-b) with their signs, the sum of their sizes, mean absolute error in grades.

    told, truth  (N,)       NaN for a correlation of what does not vary
    """
    told, truth = np.asarray(told, np.float64), np.asarray(truth, np.float64)
    error = float(np.abs(told - truth).mean()) if len(told) else float("nan")
    if len(told) < 2 or np.ptp(told) == 0 or np.ptp(truth) == 0:
        return dict(zip(MEASURES, (float("nan"),) * 4 + (error,), strict=True))
    found = [
        float(stats.pearsonr(told, truth).statistic),
        float(stats.spearmanr(told, truth).statistic),
        float(stats.kendalltau(told, truth).statistic),
    ]
    return dict(zip(MEASURES, (*found, float(np.abs(found).sum()), error), strict=True))


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's; 0 where one of them does not vary: what does not move does not follow."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(stats.spearmanr(first, second).statistic)
