"""What may be restored at all: frontal chest radiographs of adults, of a grid and a noise as in the training.

Elsewhere a restoration would look as sure as it does here. numpy and scipy only: nothing here knows a network.

source: DiffusionXRay dossier 10.8
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.contract import BoolArray, FloatArray, ModelError, Radiograph
from models.diffusionxray.guard import local_noise_sd

FRONTAL = ("PA", "AP", "FRONTAL", "")
"""Views. What names no view was taken as frontal by its description before it came here."""
LEAST_AGE_YEARS = 18.0
SPACING_MM = (0.1, 0.45)
MOST_ANISOTROPY = 0.01
SIDES_PX = (256, 4500)
ROBUST_PERCENT = (0.5, 99.5)
"""Percentiles between which the robust range lies: what a few pixels of marker or metal hold does not count."""
LEAST_LEVELS = 64
"""Different values within the robust range: 8-bit pictures have 87 to 250 (127 public ones)."""
NOISE_RANGE = (0.0035, 0.06)
"""Local noise (median over the picture) of the robust range. 127 public pictures have 0 (8 bits, smoothed) to 0.041.

Below the first, restoring harms: of five drawn chests of known truth with hardly any noise (0.0023 to 0.0029 measured)
the error grew by half (−5 dB), at 0.0032 to 0.0036 it fell by 0.5 to 1.6 dB, at 0.005 by 4 and at 0.03 by 7.
"""

MIDDLE_ROWS, MIDDLE, BETWEEN = (0.25, 0.8), (0.36, 0.64), (0.1, 0.9)
"""Of the sides: rows through the lungs, columns of spine and heart, and columns within which both lungs lie."""
DARK_MIDDLE = 0.1
"""Of the robust range, by which the middle is darker than its sides. None of 127 public chest radiographs is so, nor
more than 4 of 508 with a tenth cut off at two sides; of their negatives 97 are, of those turned by 90° 48.
"""

DENSE = 0.9
"""Of the way from the darkest percent to the brightest pixel: what is above is metal, or the densest of the body."""
DENSE_JUMP = 0.15
"""By this part of that way metal stands out from what lies 3 to 7 mm beside it; abdomen and spine fade instead."""
DENSE_RING_MM = (3.0, 7.0)
THIN_MM = 2.0
"""Wires, clips and letters are thinner than twice this, and are left alone."""
LEAST_METAL_CM2 = 1.0
MARGIN = 0.1
"""Of each side: there lie markers and the edges of the collimator, not implants."""


def unfit(radiograph: Radiograph) -> str:
    """Why this radiograph is not restored, in sentences for the reader; "" where it may be."""
    reason = unfit_by_header(radiograph) or _by_grid(radiograph) or _by_values(radiograph)
    if reason:
        return reason
    area = metal_cm2(radiograph)
    if area >= LEAST_METAL_CM2:
        return f"The image shows {area:.0f} cm² of very dense material with sharp edges, such as an implant."
    return ""


def unfit_by_header(radiograph: Radiograph) -> str:
    """The same by what the header says of view, age and values: no picture to learn from either."""
    view, age = radiograph.view.upper(), radiograph.acquisition.patient_age_years
    if view not in FRONTAL:
        return f"It was made for frontal views (PA or AP), and this one is {view}."
    if age is not None and age < LEAST_AGE_YEARS:
        return f"It was made for adults, and the patient is younger than {LEAST_AGE_YEARS:g} years."
    if not radiograph.for_presentation and radiograph.intensity not in ("LOG", "DISP"):
        linear = radiograph.intensity == "LIN"
        how = "are linear in exposure" if linear else "have no stated relation to exposure"
        return f"It was made for values that follow tissue, and those of this image for processing {how}."
    return ""


def untouchable(radiograph: Radiograph) -> BoolArray:
    """Pixels that must stay as they were received, bool (Y, X).

    Padding; both ends of the stored values, where a measured value was cut; and flat areas that touch the edge of the
    picture: the shutter of the collimator.
    """
    pixels = radiograph.pixels
    low, high = radiograph.value_range
    kept = (pixels <= low) | (pixels >= high)
    if radiograph.padding is not None:
        kept |= radiograph.padding
    flat = ndimage.maximum_filter(pixels, 3) == ndimage.minimum_filter(pixels, 3)
    labels, _ = ndimage.label(flat)
    at_edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    shutter = np.isin(labels, at_edge[at_edge > 0])
    untouched: BoolArray = kept | ndimage.binary_dilation(shutter, np.ones((3, 3)))
    return untouched


def robust_range(pixels: FloatArray, kept: BoolArray) -> tuple[float, float]:
    """(low, high) of the pixels that may change; of all where none may."""
    low, high = np.percentile(pixels if kept.all() else pixels[~kept], ROBUST_PERCENT)
    return float(low), float(high)


def relative_noise(pixels: FloatArray, kept: BoolArray) -> float:
    """Median local noise of the pixels that may change, of their robust range; 0 where they have no range."""
    low, high = robust_range(pixels, kept)
    if not high > low:
        return 0.0
    return float(np.median(local_noise_sd(pixels)[~kept])) / (high - low)


def middle_over_sides(pixels: FloatArray, kept: BoolArray) -> float:
    """By how much spine and heart are brighter than what lies beside them, of the robust range; 0 without a range."""
    low, high = robust_range(pixels, kept)
    if not high > low:
        return 0.0
    rows, columns = pixels.shape
    first, last = (round(share * rows) for share in MIDDLE_ROWS)
    profile = np.median(pixels[first:last], axis=0)
    place = (np.arange(columns) + 0.5) / columns
    middle = (place > MIDDLE[0]) & (place < MIDDLE[1])
    beside = ~middle & (place > BETWEEN[0]) & (place < BETWEEN[1])
    return float(profile[middle].mean() - profile[beside].mean()) / (high - low)


def block_mean(pixels: FloatArray, spacing_mm: float, to_mm: float) -> tuple[NDArray[np.float64], float]:
    """Means of square blocks of whole pixels, at most `to_mm` wide, and their width in mm. Rests at the ends go."""
    side = max(1, int(to_mm / spacing_mm))
    rows, columns = (length // side for length in pixels.shape)
    blocks = pixels[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return blocks.mean((1, 3), dtype=np.float64), spacing_mm * side


def metal_cm2(radiograph: Radiograph) -> float:
    """Area of large, very dense patches with sharp edges, away from the margin.

    Measured on 127 public chest radiographs: it fires on spinal rods, a pacemaker and little else.
    """
    spacing = radiograph.spacing_yx_mm or (1.0, 1.0)
    picture, mm = block_mean(radiograph.pixels, min(spacing), 1.0)
    low, high = float(np.percentile(picture, 1)), float(picture.max())
    if not high > low:
        return 0.0
    reach = max(1, round(THIN_MM / mm))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    dense = ndimage.binary_opening(picture >= low + DENSE * (high - low), x * x + y * y <= reach * reach)
    labels, _ = ndimage.label(dense)
    area = 0.0
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        patch = float((labels[box] == number).sum()) * mm * mm / 100
        if patch < LEAST_METAL_CM2 or not _inside(box, picture.shape):
            continue
        if _jump(picture, labels, number, box, mm) >= DENSE_JUMP * (high - low):
            area += patch
    return area


def _inside(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Whether the middle of the box lies within the margins and the box does not touch the edge."""
    for part, side in zip(box, shape, strict=True):
        middle = (part.start + part.stop) / 2
        if part.start == 0 or part.stop == side or not MARGIN * side <= middle <= (1 - MARGIN) * side:
            return False
    return True


def _jump(
    picture: NDArray[np.float64], labels: NDArray[np.int32], number: int, box: tuple[slice, ...], mm: float
) -> float:
    """Mean inside less the median of the ring around it."""
    reach = int(DENSE_RING_MM[1] / mm) + 1
    wide = tuple(slice(max(part.start - reach, 0), part.stop + reach) for part in box)
    patch = labels[wide] == number
    away = ndimage.distance_transform_edt(~patch) * mm
    ring = (away > DENSE_RING_MM[0]) & (away <= DENSE_RING_MM[1])
    around = picture[wide]
    return float(around[patch].mean() - np.median(around[ring])) if ring.any() else 0.0


def _by_grid(radiograph: Radiograph) -> str:
    least, most = SIDES_PX
    rows, columns = radiograph.pixels.shape
    if min(rows, columns) < least or max(rows, columns) > most:
        return f"It was made for sides of {least} to {most} pixels, and this image has {columns} x {rows}."
    if radiograph.spacing_yx_mm is None:
        return "The header does not say how large a pixel is, so nothing bounds what may be changed."
    down, across = radiograph.spacing_yx_mm
    if abs(down - across) > MOST_ANISOTROPY * across:
        return f"It was made for square pixels, and these are {across:.3f} x {down:.3f} mm."
    low, high = SPACING_MM
    if not low <= across <= high:
        return f"It was made for pixels of {low:g} to {high:g} mm, and these have {across:.2f} mm."
    return ""


def _by_values(radiograph: Radiograph) -> str:
    pixels, kept = radiograph.pixels, untouchable(radiograph)
    if not np.isfinite(pixels).all():
        raise ModelError("a radiograph holds values that are not finite")
    low, high = robust_range(pixels, kept)
    levels = len(np.unique(pixels[(pixels >= low) & (pixels <= high)]))
    levels = min(levels, int((high - low) / radiograph.value_step) + 1)  # results are whole stored values
    if kept.all() or levels < LEAST_LEVELS:
        return f"It holds only {levels} different values, too few to tell tissue from noise."
    least, most = NOISE_RANGE
    noise = relative_noise(pixels, kept)
    if noise < least:
        return (
            f"Hardly any noise is measured in it ({100 * noise:.2f} % of its range, {100 * least:g} % is the least that"
            " was worth removing): restoring would take more than it gives."
        )
    if noise > most:
        return f"Its noise is stronger than in the training ({100 * noise:.1f} % of its range, limit {100 * most:g})."
    if middle_over_sides(pixels, kept) < -DARK_MIDDLE:
        return (
            "Its middle is darker than both sides, as in a negative or a picture turned on its side: it was made for "
            "upright chests in which dense tissue is bright."
        )
    return ""
