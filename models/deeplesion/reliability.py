"""Whether a score means what it says: of findings with such scores, so many were lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.deeplesion.calibrate import OVERLAP, Judged
from models.evaluation.froc import Bootstrap
from models.evaluation.table import Row, Table

Judgements = Sequence[tuple[str, Judged]]
"""Patient and scan, as compared with the whole truth."""

LEAST_SCORE = 0.02
ENDS = (LEAST_SCORE, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
NOTES = (
    "said: mean score of the findings; right: share of them that are lesions, which is what a score promises.",
    f"A finding is right as it was when the score was calibrated: where it shares {OVERLAP:.0%} of the smaller's voxels"
    " with a lesion.",
)


def reliability(judged: Mapping[str, Judgements], draws: Bootstrap) -> Table:
    """Scores of findings against how often these were lesions, of every arm.

    judged      of each arm all scans; a row of scores that no finding has is left out
    """
    rows = []
    for low, high in (*pairwise(ENDS), (LEAST_SCORE, ENDS[-1])):
        for arm, scans in judged.items():
            sums = _sums(scans, low, high)  # (P, 3)
            if not sums[:, 0].any():
                continue

            def measure(weights: NDArray[np.int64], sums: NDArray[np.float64] = sums) -> NDArray[np.float64]:
                findings, said, right = weights @ sums
                return np.array([said, right]) / findings if findings else np.full(2, np.nan)

            values = dict(zip(("said", "right"), draws.interval(measure, len(sums)), strict=True))
            rows.append(Row(f"score {low:g} to {high:g}, {sums[:, 0].sum():.0f} findings", arm, values))
    return Table("Reliability of the score", tuple(rows), NOTES)


def _sums(scans: Judgements, low: float, high: float) -> NDArray[np.float64]:
    """Of every patient findings with such scores, the sum of these, and how many were lesions."""
    patients = sorted({patient for patient, _ in scans})
    sums = np.zeros((len(patients), 3))
    for patient, one in scans:
        scores, hits = np.array(one.scores), np.array(one.hits, np.bool_)
        within = (scores >= low) & ((scores < high) | (high == ENDS[-1]))
        sums[patients.index(patient)] += within.sum(), scores[within].sum(), hits[within].sum()
    return sums
