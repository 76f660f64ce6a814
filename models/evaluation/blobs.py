"""A plain detector of bright blobs, to ask what an image processing adds: no network, nothing learnt.

Laplacian of Gaussians at several sizes; a blob is as sure as its response is high over the responses around it, so that
the same blob counts less among ribs and noise than in an even field.

source: Lindeberg, Int J Comput Vis 30(2), 1998, for the sizes; Finn & Johnson, RCA Review 29, 1968, for the ring
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_laplace, maximum_filter, uniform_filter

from models.contract import FloatArray, ModelError

Array = NDArray[np.float64]

DIAMETERS_MM = (5.0, 8.0, 12.0, 18.0)
RING = (2.0, 6.0)
"""Inner and outer side of the square ring around a pixel where its surroundings are measured, in diameters."""
FLOOR = 1e-3
"""Least response, in picture units, that surroundings count as: in an even field nothing is divided by nothing."""
COARSEST_PX = 7.0
"""A blob is at least so wide on the grid on which it is looked for."""
WEAKEST = 2.0
"""Below this a response is no candidate at all."""


@dataclass(frozen=True)
class Candidate:
    """One bright blob.

    row, column     pixels
    diameter_px     of the size that answers most surely: at times the next one to the blob's own
    score           response over the root mean square of the responses around
    """

    row: float
    column: float
    diameter_px: float
    score: float


def candidates(
    picture: FloatArray, spacing_mm: float, *, diameters_mm: Sequence[float] = DIAMETERS_MM, weakest: float = WEAKEST
) -> list[Candidate]:
    """Bright blobs of one picture (Y, X), the surest first; of two that overlap the surer one.

    Those above a threshold are those that the threshold alone would have left: filter them by their score.
    """
    found: list[Candidate] = []
    for diameter_mm in diameters_mm:
        found += _of_size(picture, diameter_mm / spacing_mm, weakest)
    kept: list[Candidate] = []
    for one in sorted(found, key=lambda candidate: -candidate.score):
        if not any(touching(one, better) for better in kept):
            kept.append(one)
    return kept


def touching(one: Candidate, other: Candidate) -> bool:
    """Whether the centre of one lies within the larger of both."""
    apart = math.hypot(one.row - other.row, one.column - other.column)
    return apart <= max(one.diameter_px, other.diameter_px) / 2


def threshold_for(pictures: Sequence[Sequence[Candidate]], per_picture: float) -> float:
    """The least threshold that leaves at most so many candidates a picture on average.

    pictures    candidates of each of the pictures on which the detector is set
    raises      ModelError      no pictures
    """
    if not pictures:
        raise ModelError("the detector is set on pictures, and there are none")
    scores = sorted((one.score for found in pictures for one in found), reverse=True)
    allowed = math.floor(per_picture * len(pictures))
    return float(np.nextafter(scores[allowed], np.inf)) if allowed < len(scores) else WEAKEST


def _of_size(picture: FloatArray, diameter_px: float, weakest: float) -> list[Candidate]:
    """Local maxima of the response at one size, away from the edge; large ones on a coarser grid."""
    coarse = max(1, int(diameter_px / COARSEST_PX))
    size = diameter_px / coarse
    sigma, margin = size / (2 * math.sqrt(2)), math.ceil(size / 2)
    small = _binned(picture, coarse)
    if min(small.shape) <= 2 * margin:
        return []
    response = -(sigma**2) * gaussian_laplace(small, sigma, mode="nearest", truncate=5)
    score = response / np.maximum(_around(response, size), FLOOR)
    peak = (response == maximum_filter(response, 2 * margin + 1)) & (score >= weakest)
    inside = np.zeros_like(peak)
    inside[margin:-margin, margin:-margin] = True
    centre = (coarse - 1) / 2
    return [
        Candidate(float(row) * coarse + centre, float(column) * coarse + centre, diameter_px, float(score[row, column]))
        for row, column in np.argwhere(peak & inside)
    ]


def _around(response: Array, size: float) -> Array:
    """Root mean square of the responses in the ring around each pixel."""
    inner, outer = (2 * math.ceil(ring * size / 2) + 1 for ring in RING)
    square = response**2
    total = outer**2 * uniform_filter(square, outer, mode="reflect")
    within = inner**2 * uniform_filter(square, inner, mode="reflect")
    mean: Array = np.maximum(total - within, 0) / (outer**2 - inner**2)
    return np.sqrt(mean)


def _binned(picture: FloatArray, factor: int) -> Array:
    """Mean over squares; rows and columns that fill none are left out."""
    rows, columns = (side // factor for side in picture.shape)
    whole = picture[: rows * factor, : columns * factor].astype(np.float64)
    mean: Array = whole.reshape(rows, factor, columns, factor).mean((1, 3))
    return mean
