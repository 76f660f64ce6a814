"""Scores that mean something: Platt's logistic curve and the operating point, both from validation cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-6
STEPS = 50
OVERLAP = 0.3
"""Of the smaller of finding and lesion: from there on the lesion counts as found."""


@dataclass(frozen=True)
class Judged:
    """One case after comparison with its truth.

    scores, hits    one per finding     sizes, best     per lesion: diameter in mm, score of its best finding (or NaN)
    """

    scores: tuple[float, ...]
    hits: tuple[bool, ...]
    diameters_mm: tuple[float, ...]
    best: tuple[float, ...]


@dataclass(frozen=True)
class OperatingPoint:
    """A score, and what it gave on validation: share of lesions found, findings per case that were none."""

    score: float
    sensitivity: float
    false_per_case: float


def calibrated(score: float, slope: float, intercept: float) -> float:
    """Platt's curve: a probability from a score's logit. Strictly increasing where the slope is positive."""
    return 1 / (1 + math.exp(-max(min(slope * _logit(score) + intercept, 700.0), -700.0)))


def platt(scores: Sequence[float], hits: Sequence[bool]) -> tuple[float, float]:
    """Slope and intercept by maximum likelihood, with Platt's targets against overfitting; (1, 0) without both kinds.

    source: Platt 1999, "Probabilistic outputs for support vector machines", and the note of Lin, Lin and Weng 2007
    """
    positive = sum(hits)
    negative = len(hits) - positive
    if not positive or not negative:
        return 1.0, 0.0
    x = np.array([_logit(score) for score in scores])
    wanted = np.where(np.array(hits), (positive + 1) / (positive + 2), 1 / (negative + 2))
    design = np.stack([x, np.ones_like(x)], 1)
    parameters = np.array([0.0, math.log((positive + 1) / (negative + 1))])
    loss = _loss(design, wanted, parameters)
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(design @ parameters)))
        gradient = design.T @ (p - wanted)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-8 and _loss(design, wanted, parameters - size * step) > loss:
            size /= 2
        parameters = parameters - size * step
        loss = _loss(design, wanted, parameters)
        if np.abs(gradient).max() < 1e-8:
            break
    return float(parameters[0]), float(parameters[1])


def operating_point(cases: Sequence[Judged], *, most_false_per_case: float) -> OperatingPoint:
    """The lowest score at which at most so many findings per case are no lesion; 1 where none is low enough."""
    scores = sorted({score for case in cases for score in case.scores}, reverse=True)
    chosen = OperatingPoint(1.0, 0.0, 0.0)
    for score in scores:
        point = at(cases, score)
        if point.false_per_case > most_false_per_case:
            break
        chosen = point
    return chosen


def at(cases: Sequence[Judged], score: float) -> OperatingPoint:
    """What findings from this score on would give."""
    found = [best >= score for case in cases for best in case.best]
    false = sum(s >= score and not hit for case in cases for s, hit in zip(case.scores, case.hits, strict=True))
    return OperatingPoint(score, sum(found) / max(len(found), 1), false / max(len(cases), 1))


def _loss(design: NDArray[np.float64], wanted: NDArray[np.float64], parameters: NDArray[np.float64]) -> float:
    z = design @ parameters
    return float(np.sum(np.logaddexp(0, z) - wanted * z))


def _logit(score: float) -> float:
    clipped = min(max(score, SMALLEST), 1 - SMALLEST)
    return math.log(clipped / (1 - clipped))
