"""What a network must beat: a curve through the noise's standard deviation, and natural-scene statistics.

source: BRISQUE, Mittal, Moorthy, Bovik, IEEE Trans Image Process 21(12), 2012: its 36 features. They are fitted by
ridge regression here instead of a support vector machine, hence "BRISQUE-like".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import gamma

from models.clinreadnet.config import HIGHEST, STORED_HU
from models.contract import FloatArray, ModelError
from models.evaluation.noise import body_mask, local_statistics, noise_sd

Floats = NDArray[np.float64]
SIGMA_PX, REACH_PX = 7 / 6, 3
CONTRAST_FLOOR = 1 / 255
"""Added to the local contrast by which detail is divided: one grey level, as in the original."""
SHAPES = np.arange(0.2, 10, 0.001)
RIDGE = 1.0
QUIET_PERCENTILE = 30.0
LEAST_NOISE_HU = 0.1


@dataclass(frozen=True, eq=False)
class Regressor:
    """Features of an image to a score, by a plane through standardised features."""

    features: Callable[[FloatArray], Floats]
    centre: Floats
    scale: Floats
    weight: Floats
    offset: float

    def of_features(self, features: Floats) -> Floats:
        """Scores 0 … 4 of rows of features (N, F)."""
        scores: Floats = np.clip((features - self.centre) / self.scale @ self.weight + self.offset, 0, HIGHEST)
        return scores


def fitted(features: Callable[[FloatArray], Floats], rows: Sequence[Floats], scores: Sequence[float]) -> Regressor:
    """Least squares with a little ridge.

    rows     features of the images to learn from      raises   ModelError    none
    """
    if not len(rows):
        raise ModelError("no images to fit a baseline to")
    x, y = np.stack(rows), np.asarray(scores, np.float64)
    centre, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
    standard = (x - centre) / scale
    weight = np.linalg.solve(standard.T @ standard + RIDGE * np.eye(x.shape[1]), standard.T @ (y - y.mean()))
    return Regressor(features, centre, scale, weight, float(y.mean()))


def noise_features(hu: FloatArray) -> Floats:
    """Logarithm of the noise in soft tissue, or in the body where there is little, and its square, (2,)."""
    noise = noise_sd(hu)
    if not np.isfinite(noise):
        _, spread = local_statistics(hu)
        body = body_mask(hu)
        noise = float(np.percentile(spread[body] if body.any() else spread, QUIET_PERCENTILE))
    logarithm = float(np.log(max(noise, LEAST_NOISE_HU)))
    return np.array([logarithm, logarithm**2])


def scene_features(hu: FloatArray) -> Floats:
    """The 36 features of BRISQUE, of the image in the network's window and at half its size."""
    low, high = STORED_HU
    image = np.clip((hu.astype(np.float64) - low) / (high - low), 0, 1)
    parts = []
    for _ in range(2):
        parts.append(_at_one_scale(normalised(image)))
        height, width = (side // 2 * 2 for side in image.shape)
        image = image[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    return np.concatenate(parts)


def normalised(image: Floats) -> Floats:
    """Detail over local contrast (mean-subtracted, contrast-normalised coefficients)."""
    mean = gaussian_filter(image, SIGMA_PX, radius=REACH_PX, mode="nearest")
    square = gaussian_filter(image * image, SIGMA_PX, radius=REACH_PX, mode="nearest")
    coefficients: Floats = (image - mean) / (np.sqrt(np.maximum(square - mean * mean, 0)) + CONTRAST_FLOOR)
    return coefficients


def _at_one_scale(detail: Floats) -> Floats:
    shape, spread = generalised_gaussian(detail)
    found = [shape, spread**2]
    for pair in (
        detail[:, 1:] * detail[:, :-1],
        detail[1:] * detail[:-1],
        detail[1:, 1:] * detail[:-1, :-1],
        detail[1:, :-1] * detail[:-1, 1:],
    ):
        shape, mean, left, right = asymmetric_gaussian(pair)
        found += [shape, mean, left**2, right**2]
    return np.array(found)


_SYMMETRIC_RATIO = gamma(1 / SHAPES) * gamma(3 / SHAPES) / gamma(2 / SHAPES) ** 2
_ASYMMETRIC_RATIO = 1 / _SYMMETRIC_RATIO


def generalised_gaussian(values: Floats) -> tuple[float, float]:
    """Shape and standard deviation, by moments: a normal distribution has shape 2."""
    square = float(np.mean(values * values))
    magnitude = float(np.mean(np.abs(values)))
    if magnitude == 0:
        return 2.0, 0.0
    ratio = square / magnitude**2
    return float(SHAPES[np.argmin(np.abs(_SYMMETRIC_RATIO - ratio))]), float(np.sqrt(square))


def asymmetric_gaussian(values: Floats) -> tuple[float, float, float, float]:
    """Shape, mean, and the standard deviations to the left and the right of 0, by moments."""
    below, above = values[values < 0], values[values > 0]
    left = float(np.sqrt(np.mean(below * below))) if below.size else 0.0
    right = float(np.sqrt(np.mean(above * above))) if above.size else 0.0
    if left == 0 or right == 0:
        return 2.0, 0.0, left, right
    side = left / right
    ratio = float(np.mean(np.abs(values)) ** 2 / np.mean(values * values))
    ratio *= (side**3 + 1) * (side + 1) / (side**2 + 1) ** 2
    shape = float(SHAPES[np.argmin(np.abs(_ASYMMETRIC_RATIO - ratio))])
    mean = (right - left) * gamma(2 / shape) / np.sqrt(gamma(1 / shape) * gamma(3 / shape))
    return shape, float(mean), left, right
