"""Boxes on one image, and a reading of it with few words."""

from __future__ import annotations

import numpy as np

from models.evaluation.matching import Reading

A = (0.0, 0.0, 9.0, 9.0)
B = (50.0, 50.0, 59.0, 59.0)


def reading(
    truth: list[tuple[float, ...]], found: list[tuple[tuple[float, ...], float]], patient: str = "p"
) -> Reading:
    return Reading(
        patient,
        np.array(truth, float).reshape(-1, 4),
        np.array([box for box, _ in found], float).reshape(-1, 4),
        np.array([score for _, score in found], float),
    )
