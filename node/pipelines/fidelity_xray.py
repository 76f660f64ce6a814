"""What a restored radiograph must pass before it may leave: noise and blur may go, anatomy may not.

Limits were set on 17 public radiographs at 0.3 to 0.35 mm, slightly blurred, with noise of 1 % of their robust range
added. All passed when the noise alone was taken away; none passed with a blur of 2 pixels, a shift of 1 % of the range,
contrast raised by 15 %, or unsharp masking of strength 1. The robust range lies between percentiles 0.5 and 99.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

from models.contract import BoolArray, FloatArray, Radiograph
from models.diffusionxray.domain import block_mean, robust_range
from models.diffusionxray.guard import local_noise_sd, redegradation
from node.pipelines.models import Restored

Wide = NDArray[np.float64]

ROUNDING = 1.0
"""Steps of the stored values: the restoration and what it is held to are rounded, by half a step each."""
COARSE_MM = 5.0
MOST_SHIFT = 0.01
"""Of the robust range, anywhere, once blurred by `COARSE_MM`."""
BLOBS_MM = (4.0, 8.0, 15.0, 30.0)
"""Diameters between which contrast is looked at, band by band; a disc answers most to a Gaussian of d / 2.83."""
CONTRAST_KEPT = (0.9, 1.1)
MOST_BLOB_CHANGE, OF_LOCAL_CONTRAST, BLOB_NOISES = 0.005, 0.1, 6.0
"""Anywhere in a band: of the robust range, beyond a tenth of the contrast around the place (edges may become sharper),
or six times what the noise itself makes in the band, where that is more. A nodule that came or went would show here
and in no mean. Of 17 pictures all were withheld with a Gaussian one of 6 mm (full width) and 4 % of the range added, or
one of 10 mm and 3 % erased; with 6 mm and 2 % three were; with nothing but the noise taken away none."""
BLOCK_PX = 32
MOST_POWER = 2.0
"""What was taken away, over the noise of the same block: more than twice its power is more than noise."""
MOST_BLOCKS = 0.05
EDGE_NOISES = 4.0
"""Fine detail this many times stronger than the noise is anatomy."""
LEAST_EDGE_PIXELS = 500
MOST_TAKEN, MOST_ADDED = 0.1, 0.5
"""Of the fine detail at edges. Taken is blur. Added is sharpness, for which a restorer is there, within limits."""
_COARSE_PIXEL_MM = 0.7


@dataclass(frozen=True)
class FidelityXray:
    """A restored radiograph against the received one.

    noise_in, noise_out     median of the local noise, stored values
    mean_change, largest_change     of |restored − received|, stored values
    changed_share           of the pixels, changed by more than the noise of the place
    checks                  name → words, for the report
    complaint               why it must not leave, in words; empty where it may
    """

    noise_in: float
    noise_out: float
    mean_change: float
    largest_change: float
    changed_share: float
    checks: dict[str, str]
    complaint: str


class _Verdict:
    """Checks in the order in which they were made, and what they complain of."""

    def __init__(self) -> None:
        self.checks: dict[str, str] = {}
        self.complaints: list[str] = []

    def add(self, name: str, words: str, complaint: str) -> None:
        self.checks[name] = words
        if complaint:
            self.complaints.append(complaint)


def check(radiograph: Radiograph, restored: Restored, result: FloatArray, kept: BoolArray) -> FidelityXray:
    """Compare the image that would leave with the one that came.

    restored    what the network says of its own bounds
    result      float32 (Y, X): the image that would leave, as received where `kept`
    kept        bool (Y, X), not all True
    """
    received = radiograph.pixels
    low, high = robust_range(received, kept)
    step = radiograph.value_step
    noise = np.maximum(restored.noise_sd, np.float32(step / np.sqrt(12)))  # never below what rounding makes
    verdict = _Verdict()
    _bound(verdict, restored, step)
    difference = (result - received).astype(np.float64)
    difference[kept] = 0
    coarse = _Coarse.of(radiograph, difference, kept, high - low)
    _shift(verdict, coarse)
    for least, most in pairwise(BLOBS_MM):
        _blobs(verdict, coarse, least, most)
    _residual(verdict, received, result, noise)
    _edges(verdict, result, difference, noise, kept)
    inside = np.abs(difference[~kept])
    return FidelityXray(
        noise_in=float(np.median(restored.noise_sd[~kept])),
        noise_out=float(np.median(local_noise_sd(result)[~kept])),
        mean_change=float(inside.mean()),
        largest_change=float(inside.max()),
        changed_share=float((inside > noise[~kept]).mean()),
        checks=verdict.checks,
        complaint=" and ".join(verdict.complaints),
    )


def _bound(verdict: _Verdict, restored: Restored, step: float) -> None:
    """The theorem of the guard, verified: the generator stays within its bound of the conservative restoration."""
    apart = np.abs(restored.pixels.astype(np.float64) - restored.safe)
    beyond = float((apart - restored.allowed).max())
    kept = beyond <= ROUNDING * step
    words = "everywhere" if kept else f"exceeded by {beyond:.3g} stored values"
    complaint = "" if kept else f"it leaves the bound around the conservative restoration by {beyond:.3g} stored values"
    verdict.add("within its bound", words, complaint)


@dataclass(frozen=True, eq=False)
class _Coarse:
    """The received picture and what changed, float64 (Y, X) on pixels of about 0.7 mm.

    mm          width of a pixel                away_mm     distance from what was kept
    span        robust range                    noise_mm    noise of a pixel as received, times its width
    """

    before: Wide
    change: Wide
    away_mm: Wide
    mm: float
    span: float
    noise_mm: float

    @classmethod
    def of(cls, radiograph: Radiograph, difference: Wide, kept: BoolArray, span: float) -> _Coarse:
        spacing = min(radiograph.spacing_yx_mm or (1.0, 1.0))
        (before, mm), (change, _), (covered, _) = (
            block_mean(image.astype(np.float32), spacing, _COARSE_PIXEL_MM)
            for image in (radiograph.pixels, difference, kept)
        )
        away_mm = distance_transform_edt(covered == 0) * mm if (covered > 0).any() else np.full(before.shape, np.inf)
        noise_mm = float(np.percentile(local_noise_sd(radiograph.pixels), 90)) * spacing
        return cls(before, change, away_mm, mm, span, noise_mm)


def _shift(verdict: _Verdict, coarse: _Coarse) -> None:
    """How far coarse structure moved up or down."""
    shift = float(np.abs(gaussian_filter(coarse.change, COARSE_MM / coarse.mm)).max()) / coarse.span
    words = f"{100 * shift:.2f} % of the range (limit {100 * MOST_SHIFT:g})"
    complaint = f"it shifts coarse structure by {words}" if shift > MOST_SHIFT else ""
    verdict.add("shift of coarse structure", words, complaint)


def _blobs(verdict: _Verdict, coarse: _Coarse, least: float, most: float) -> None:
    """Contrast of blobs between two diameters in mm, over the whole image and at the worst place."""
    name = f"blobs of {least:g} to {most:g} mm"
    was, became = (_band(image, least / coarse.mm, most / coarse.mm) for image in (coarse.before, coarse.change))
    inside = coarse.away_mm > most / 2
    power = float((was[inside] ** 2).sum())
    if power == 0:
        verdict.add(name, "not measurable, none in this image", "")
        return
    slope = 1 + float((was[inside] * became[inside]).sum()) / power
    around = np.sqrt(gaussian_filter(was**2, most / np.sqrt(8) / coarse.mm))
    largest = max(float((np.abs(became) - OF_LOCAL_CONTRAST * around)[inside].max()) / coarse.span, 0.0)
    limit = max(MOST_BLOB_CHANGE, BLOB_NOISES * coarse.noise_mm * _noise_of_band(least, most) / coarse.span)
    low, high = CONTRAST_KEPT
    words = (
        f"{100 * slope:.1f} % of their contrast (limits {100 * low:g} and {100 * high:g}) with changes of up to "
        f"{100 * largest:.2f} % of the range (limit {100 * limit:.2g})"
    )
    bad = not low <= slope <= high or largest > limit
    verdict.add(name, words, f"it leaves {name} {words}" if bad else "")


def _band(image: Wide, least_px: float, most_px: float) -> Wide:
    """Difference of two Gaussians, to which discs of diameters between the two answer most."""
    wide: Wide = gaussian_filter(image, least_px / np.sqrt(8)) - gaussian_filter(image, most_px / np.sqrt(8))
    return wide


def _noise_of_band(least_mm: float, most_mm: float) -> float:
    """Standard deviation, per mm, that white noise of 1 per pixel of 1 mm has in the band: the kernel's norm."""
    one, other = least_mm**2 / 8, most_mm**2 / 8
    return float(np.sqrt((1 / one + 1 / other - 4 / (one + other)) / (4 * np.pi)))


def _residual(verdict: _Verdict, received: FloatArray, result: FloatArray, noise: FloatArray) -> None:
    """What was taken away must not be stronger than the noise: χ² of blocks, upper side only.

    Less than the noise is a restorer that was careful, and no fault.
    """
    if np.array_equal(result, received):
        verdict.add("what was taken away", "nothing", "")
        return
    block_z = (MOST_POWER - 1) * BLOCK_PX / np.sqrt(2)  # a variance of n pixels varies by √(2/n)
    blocks = redegradation(result, received, noise, block_px=BLOCK_PX, block_z=block_z).blocks
    share = float((blocks > block_z).mean())
    words = f"stronger than noise in {100 * share:.1f} % of blocks (limit {100 * MOST_BLOCKS:g})"
    verdict.add("what was taken away", words, f"what it takes away is {words}" if share > MOST_BLOCKS else "")


def _edges(verdict: _Verdict, result: FloatArray, difference: Wide, noise: FloatArray, kept: BoolArray) -> None:
    """How much of the fine detail of anatomy went, or came: what changed, regressed on the detail that is left."""
    detail = (result - gaussian_filter(result, 1.0)).astype(np.float64)
    where = (np.abs(detail) >= EDGE_NOISES * noise) & ~binary_dilation(kept, iterations=4)
    fine = detail[where]
    if len(fine) < LEAST_EDGE_PIXELS:
        verdict.add("detail at edges", "not measurable, too few edges that stand out from the noise", "")
        return
    added = float(difference[where] @ fine) / float(fine @ fine)
    verb, limit = ("added", MOST_ADDED) if added > 0 else ("taken away", MOST_TAKEN)
    words = f"{100 * abs(added):.0f} % {verb} (limit {100 * limit:g})"
    complaint = f"of the fine detail at edges it has {words}" if abs(added) > limit else ""
    verdict.add("detail at edges", words, complaint)
