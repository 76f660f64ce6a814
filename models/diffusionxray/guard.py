"""Bounds on what the generator may add, and numbers that say how far a restoration can be trusted (dossier 10).

Each docstring says which it is: a *theorem* holds for any images and any network; a *measured number* says something of
these images only. numpy and scipy: nothing here knows a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.contract import FloatArray, ModelError

Array = NDArray[np.float64]
MAD = 0.6744897501960817
"""Median of |z| for standard normal z."""
MOST_CAP = 3.0
"""Of what a generator may add to a conservative restoration (dossier 10.1)."""
MOST_SAFE_CAP = 6.0
"""Of what a conservative restoration may take from what was received: noise itself reaches so far."""
DETAIL_PX, AROUND_PX = 1.0, 1.5
DETAIL_OF_NOISE = math.sqrt(1 - 1 / math.pi + 1 / (4 * math.pi))
"""Standard deviation of what a Gaussian of 1 pixel takes from white noise of 1."""
NOISE_BLOCK_PX = 16
NOISE_SPANS_PX = (1, 2, 3)


def cap_residual(
    safe: FloatArray, generated: FloatArray, noise_sd: FloatArray, cap: float, *, most: float = MOST_CAP
) -> FloatArray:
    """m + clip(x − m, −k s, k s), rounded towards m.

    Theorem: |result − m| ≤ k s at every pixel, as real numbers and not only up to rounding, whatever was generated.

    safe, generated    float32 (Y, X)       noise_sd   s, same shape and unit       cap    k, at most `most`
    raises   ModelError     a cap or a noise that bounds nothing, or values that are not finite
    """
    if not 0 <= cap <= most:
        raise ModelError(f"the cap must be between 0 and {most:g} standard deviations")
    if not (np.isfinite(noise_sd).all() and (noise_sd >= 0).all()):
        raise ModelError("the noise must be finite and not negative")
    if not (np.isfinite(safe).all() and np.isfinite(generated).all()):
        raise ModelError("a restoration is not finite")
    centre = safe.astype(np.float64)
    bound = np.nextafter(cap * noise_sd.astype(np.float64), 0)
    low, high = (_float32_towards(centre, centre + sign * bound) for sign in (-1, 1))
    capped: FloatArray = np.clip(generated.astype(np.float32), low, high)
    return capped


def share_open(received: FloatArray, noise_sd: FloatArray, kept_from: tuple[float, float]) -> FloatArray:
    """Of a change, the share that may be made at each pixel, float32 (Y, X), 0 to 1: none where detail stands out.

    Fine detail (what a Gaussian of 1 pixel takes away), root mean square around the pixel, over what white noise of the
    local standard deviation has of it: up to the first number all is open, from the second on nothing is.

    Theorem: received + share · change is never farther from what was received than received + change, and equal to it
    where the share is 0. It follows from what was received alone, not from what a network makes of it.
    """
    begin, end = kept_from
    detail = received.astype(np.float64) - ndimage.gaussian_filter(received.astype(np.float64), DETAIL_PX)
    around = np.sqrt(ndimage.gaussian_filter(detail**2, AROUND_PX))
    noise = DETAIL_OF_NOISE * np.maximum(noise_sd, np.finfo(np.float32).tiny)
    share: FloatArray = np.clip((end - around / noise) / (end - begin), 0, 1).astype(np.float32)
    return share


def frequency_split(
    safe: FloatArray, generated: FloatArray, *, split_mm: float, spacing_yx_mm: tuple[float, float]
) -> FloatArray:
    """L m + (I − L) x: coarse structure from the conservative restoration, fine structure from the generator.

    Theorem (L is linear): what the generator adds to m passes through I − L, so an offset, and any part constant over
    the kernel, is removed altogether; of a disc, the share `share_decided` remains at its centre.

    split_mm    standard deviation of the Gaussian L, in mm of the image
    """
    sigma = tuple(split_mm / spacing for spacing in spacing_yx_mm)
    added = generated.astype(np.float64) - safe
    fine: FloatArray = (safe + added - ndimage.gaussian_filter(added, sigma, mode="mirror")).astype(np.float32)
    return fine


def share_decided(diameter_mm: float, split_mm: float) -> float:
    """Of the contrast of a disc that the generator alone adds, the share that `frequency_split` leaves at its centre.

    Theorem: 1 − (L disc)(0) = exp(−d² / 8σ²); up to the grid and to the kernel being cut at 4 σ.
    """
    return math.exp(-(diameter_mm**2) / (8 * split_mm**2))


def range_null(
    generated: FloatArray,
    measured: FloatArray,
    degrade: Callable[[FloatArray], FloatArray],
    pseudo_inverse: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """A⁺ y + (I − A⁺ A) x: the generator decides only what the degradation destroyed.

    Theorem for linear A with A A⁺ A = A and y without noise: A result = y, up to rounding. With noisy y the noise is
    copied into the result.

    source   DDNM, arXiv 2212.00490 eq. 7
    """
    return pseudo_inverse(measured - degrade(generated)) + generated


@dataclass(frozen=True)
class Consistency:
    """What is left of a measurement after the degraded restoration, in units of its noise.

    outliers            share of blocks whose χ² is more than `block_z` standard deviations from its expectation
    worst               the largest such deviation
    correlation_yx      with the neighbour below and to the right; 0 for white noise, ± 1/√pixels
    blocks              deviation per block, float64 (By, Bx)
    """

    outliers: float
    worst: float
    correlation_yx: tuple[float, float]
    blocks: Array


def redegradation(
    degraded: FloatArray, measured: FloatArray, noise_sd: FloatArray, *, block_px: int, block_z: float
) -> Consistency:
    """Does the restoration, degraded again, explain the measurement? z = (A(x) − y) / σ should be unit noise.

    Measured numbers: structure in z means that something was added or removed where A would show it; unit noise does
    not prove the restoration, since what A destroys is not seen. Rows and columns that fill no block are left out.

    degraded    A(x), float32 (Y, X)        noise_sd    σ of the measurement
    raises   ModelError     not one whole block, or noise that is not positive
    """
    if not (noise_sd > 0).all():
        raise ModelError("the noise must be positive")
    z = (degraded.astype(np.float64) - measured) / noise_sd
    rows, columns = (side // block_px for side in z.shape)
    if not rows * columns:
        raise ModelError(f"an image of at least {block_px} pixels a side is needed")
    whole = z[: rows * block_px, : columns * block_px] ** 2
    square = whole.reshape(rows, block_px, columns, block_px).sum((1, 3))
    pixels = block_px**2
    blocks = (square - pixels) / math.sqrt(2 * pixels)
    below, right = (float((one * other).sum() / (z**2).sum()) for one, other in _neighbours(z))
    return Consistency(float((np.abs(blocks) > block_z).mean()), float(np.abs(blocks).max()), (below, right), blocks)


def mean_and_spread(samples: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation per pixel of several restorations with different noise, float32 (Y, X) each.

    Measured numbers. The deviation is how much the sampler varies, not how wrong it is: it is usually too small, and
    never to be shown before it was widened by calibration.

    raises   ModelError     fewer than two samples
    """
    if len(samples) < 2:
        raise ModelError("the spread of one sample is not known")
    stack = np.stack(samples).astype(np.float64)
    return stack.mean(0).astype(np.float32), stack.std(0, ddof=1).astype(np.float32)


def local_noise_sd(image: FloatArray) -> FloatArray:
    """Noise around each pixel, float32 (Y, X): median of |mixed difference| over blocks of 16 pixels, interpolated.

    Differences over 1, 2 and 3 pixels are taken, and the largest answer: neighbours alone tell the soft noise of a
    blurred or enlarged image a fifth of what it is. Measured number: right for white noise on a smooth image; on
    radiographs with noise of known size, white or soft up to a Gaussian of 1 pixel, 1.1 to 1.3 of it, and half of it
    where the image was enlarged threefold. Fine texture counts as noise.

    raises   ModelError     an image smaller than one block and the largest difference
    """
    spans = [_noise_blocks(image, span) for span in NOISE_SPANS_PX]
    rows, columns = (min(one.shape[axis] for one in spans) for axis in (0, 1))
    blocks = np.max([one[:rows, :columns] for one in spans], axis=0)
    down, across = (
        np.clip((np.arange(side) + 0.5) / NOISE_BLOCK_PX - 0.5, 0, count - 1)
        for side, count in zip(image.shape, (rows, columns), strict=True)
    )
    at = np.meshgrid(down, across, indexing="ij")
    smooth: FloatArray = ndimage.map_coordinates(blocks, at, order=1, mode="nearest").astype(np.float32)
    return smooth


def _noise_blocks(image: FloatArray, span: int) -> Array:
    """Standard deviation per block from mixed differences over so many pixels."""
    rows, columns = ((side - span) // NOISE_BLOCK_PX for side in image.shape)
    if rows < 1 or columns < 1:
        raise ModelError(f"an image of more than {NOISE_BLOCK_PX} pixels a side, and {span} more, is needed")
    wide = image.astype(np.float64)
    mixed = np.abs(wide[span:, span:] - wide[span:, :-span] - wide[:-span, span:] + wide[:-span, :-span]) / 2
    whole = mixed[: rows * NOISE_BLOCK_PX, : columns * NOISE_BLOCK_PX]
    per_block: Array = np.median(whole.reshape(rows, NOISE_BLOCK_PX, columns, NOISE_BLOCK_PX), (1, 3)) / MAD
    return per_block


def conformal_quantile(scores: Sequence[float] | Array, alpha: float) -> float:
    """The k-th smallest of n scores of known truth, k = ⌈(n + 1)(1 − α)⌉.

    Theorem (split conformal): if the n scores and the next one are exchangeable, the next is at most this number with
    probability at least 1 − α, and at most 1 − α + 1/(n + 1) where scores are never equal. The probability is over the
    calibration set too: given one set it is itself random, Beta(k, n + 1 − k). One score per *image*: pixels of one
    image are not exchangeable with those of another, and images of one patient count as one.

    raises   ModelError     fewer than ⌈1/α⌉ − 1 scores: no finite number would do
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    # rounded first: (n + 1)(1 − 0.1) is 90.00000000000001 for n = 99
    rank = math.ceil(round((len(ordered) + 1) * (1 - alpha), 9))
    if not 1 <= rank <= len(ordered):
        raise ModelError(f"{len(ordered)} images of known truth are too few for a miscoverage of {alpha:g}")
    return float(ordered[rank - 1])


def widening_needed(truth: FloatArray, centre: FloatArray, spread: FloatArray, outside_share: float) -> float:
    """The score of one image: the least λ for which at most so large a share of pixels is outside centre ± λ spread.

    Infinite where more pixels than that have no spread and are wrong. Its `conformal_quantile` over images is the λ
    with which a new image has, with probability 1 − α, at most that share of its pixels outside.
    """
    error = np.abs(truth.astype(np.float64) - centre).ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(error == 0, 0.0, error / spread.astype(np.float64).ravel())
    allowed = math.floor(round(outside_share * len(needed), 9))
    return float(np.sort(needed)[len(needed) - 1 - allowed]) if allowed < len(needed) else 0.0


def risk_controlling_widening(risks: Array, widenings: Array, *, alpha: float, delta: float) -> float:
    """The least λ from which on mean risk + √(ln(1/δ) / 2n) stays at most α.

    Theorem (Hoeffding; risks of independent, identically distributed images, within 0 and 1, falling with λ): with
    probability at least 1 − δ over the calibration set, the expected risk of a new image is at most α.

    risks       float64 (n, Λ): of each image, e.g. its share of pixels outside, at each widening
    widenings   (Λ,), rising
    raises   ModelError     no widening offered does it; with n ≤ ln(1/δ) / 2α² images none can
    source   risk-controlling prediction sets, arXiv 2101.02703
    """
    bound = risks.mean(0) + math.sqrt(math.log(1 / delta) / (2 * len(risks)))
    fails = np.flatnonzero(bound > alpha)
    first = int(fails[-1]) + 1 if len(fails) else 0
    if first == len(widenings):
        raise ModelError("no widening holds the risk: more images of known truth are needed, or wider intervals")
    return float(widenings[first])


def _neighbours(z: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    return (z[1:], z[:-1]), (z[:, 1:], z[:, :-1])


def _float32_towards(centre: Array, bound: Array) -> FloatArray:
    """The bound in float32, never farther from the centre (itself a float32) than it really is."""
    inner = np.where(bound == centre, centre, np.nextafter(bound, centre))
    single = inner.astype(np.float32)
    beyond = np.where(inner >= centre, single > inner, single < inner)
    rounded: FloatArray = np.where(beyond, np.nextafter(single, centre.astype(np.float32)), single)
    return rounded
