"""Shapes that DiffMask draws: what its control sphere controls, and how far they are from other shapes.

source: dossier 11; elongation and compactness by moments and gradient, as none is given there
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import wasserstein_distance

from models.contract import BoolArray
from models.diffusionxray.samplers import Noise
from models.diffusionxray.schedule import cosine
from models.evaluation.bootstrap import Interval, over_patients
from models.evaluation.table import Row, Table
from models.lefusion.config import SCHEDULE
from models.lefusion.data import SHAPES, draw_shape
from models.lefusion.masks import control_sphere, draw_mask, equivalent_diameter
from models.lefusion.network import LesionUNet
from models.lefusion.synthesis import RADIUS_PER_DIAMETER, Sampling

OnProgress = Callable[[str, int, int], None]

CROP_ZYX = (32, 32, 32)
MIDDLE = (16, 16, 16)
RADII = (3, 4, 6, 8, 10, 12)
"""Of the control spheres, voxels."""
MOST_DIAMETER = 20.0
LEAST_PIXELS = 20
READERS = 2
"""Who must agree on a pixel of an outline."""
RESAMPLES = 500
READERS_NAME = "readers' outlines"


def mask_tables(
    network: LesionUNet,
    *,
    per_radius: int,
    sampling: Sampling,
    outlines: Sequence[BoolArray],
    on_progress: OnProgress,
) -> list[Table]:
    """What a control sphere controls; and shapes beside the two generators and, where there are any, readers' outlines.

    per_radius      shapes per radius of `RADII`            outlines    bool (Y, X) each
    """
    drawn: dict[int, list[BoolArray]] = {radius: [] for radius in RADII}
    whole = np.ones(CROP_ZYX, bool)
    for number, radius in enumerate(RADII):
        sphere = control_sphere(CROP_ZYX, MIDDLE, radius)
        for seed in range(per_radius):
            fields = Noise(1000 * radius + seed)
            mask = draw_mask(
                network, sphere, whole, fields, path=sampling.path, schedule=cosine(SCHEDULE), eta=sampling.eta
            )
            drawn[radius].append(mask)
        on_progress("shapes", number + 1, len(RADII))
    rng = np.random.default_rng(0)
    sizes = [min(radius / RADIUS_PER_DIAMETER, MOST_DIAMETER) for radius in RADII for _ in range(per_radius)]
    kinds = {"DiffMask": [middle_slice(mask) for masks in drawn.values() for mask in masks if mask.any()]}
    for split, name in SHAPES.items():
        shapes = [draw_shape(CROP_ZYX, rng, split, diameter_mm=size) for size in sizes]
        kinds[f"{name} ({'trained on' if split == 'train' else 'for tests'})"] = [middle_slice(one) for one in shapes]
    if outlines:
        kinds[READERS_NAME] = list(outlines)
    return [_response(drawn), _outline_table(kinds)]


def shape_of(outline: BoolArray) -> tuple[float, float, float]:
    """Equivalent diameter (pixels), elongation (longest over shortest axis by moments), compactness of a 2-D outline.

    Compactness is 4πA/P², P by the outline's gradient: about 1 for a disc, less for what is ragged.
    """
    area = float(np.count_nonzero(outline))
    moments = np.eye(2) / 12 + (np.cov(np.argwhere(outline).T, bias=True) if area > 1 else 0)
    low, high = np.linalg.eigvalsh(moments)
    smooth = ndimage.gaussian_filter(np.pad(outline, 4).astype(np.float64), 1.0)
    perimeter = float(np.hypot(*np.gradient(smooth)).sum())
    return 2 * math.sqrt(area / math.pi), math.sqrt(high / low), 4 * math.pi * area / perimeter**2


def reader_outlines(agree: NDArray[np.uint8], *, most: int = 400) -> list[BoolArray]:
    """Outlines that at least `READERS` readers share, evenly over all; those of a few pixels are left out.

    agree    (N, Y, X): how many readers marked the pixel
    """
    shared = [plane >= READERS for plane in agree]
    large = [plane for plane in shared if np.count_nonzero(plane) >= LEAST_PIXELS]
    return large[:: max(1, -(-len(large) // most))]


def middle_slice(mask: BoolArray) -> BoolArray:
    """The slice with most of it."""
    return np.asarray(mask[int(mask.sum((1, 2)).argmax())])


def _response(drawn: Mapping[int, Sequence[BoolArray]]) -> Table:
    rows = []
    for radius, masks in drawn.items():
        sphere = control_sphere(CROP_ZYX, MIDDLE, radius)
        there = [mask for mask in masks if mask.any()]
        values = {
            "drawn": _over_shapes([float(mask.any()) for mask in masks]),
            "diameter, voxels": _over_shapes([equivalent_diameter(mask) for mask in there]),
            "centre off, voxels": _over_shapes([_off(mask) for mask in there]),
            "share in the sphere": _over_shapes([float((mask & sphere).sum() / mask.sum()) for mask in there]),
        }
        rows.append(Row(f"radius {radius}", "DiffMask", values))
    pairs = np.array([(radius, equivalent_diameter(mask)) for radius, masks in drawn.items() for mask in masks])
    rng = np.random.default_rng(0)
    resampled = [_correlation(pairs[rng.integers(len(pairs), size=len(pairs))]) for _ in range(RESAMPLES)]
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Table(
        "What the control sphere controls",
        tuple(rows),
        (
            f"Correlation of radius and diameter {_correlation(pairs):.3f} [{low:.3f}, {high:.3f}]. Intervals are over"
            " shapes.",
            f"The spheres of the shapes trained on have {RADIUS_PER_DIAMETER} of their diameter as radius.",
        ),
    )


def _outline_table(kinds: Mapping[str, Sequence[BoolArray]]) -> Table:
    """The middle slices of every kind; how far from readers' outlines, where there are any."""
    shapes = {name: np.array([shape_of(one) for one in outlines]) for name, outlines in kinds.items() if outlines}
    reference = shapes.get(READERS_NAME)
    rows = []
    for name, numbers in shapes.items():
        values = {}
        for place, what in enumerate(("diameter, pixels", "elongation", "compactness")):
            values[what] = _over_shapes(numbers[:, place])
            if reference is not None and place:
                apart = wasserstein_distance(numbers[:, place], reference[:, place])
                spread = float(reference[:, place].std())
                share = apart / spread if spread else math.nan
                values[f"{what}, apart"] = Interval(float(share), math.nan, math.nan, len(numbers))
        rows.append(Row("middle slices", name, values))
    notes = (
        "Diameters are as drawn and as outlined; a pixel of the outlines is not 1 mm, so they are not compared.",
        "Apart: Wasserstein distance from the readers' outlines over their standard deviation.",
    )
    return Table("Shapes", tuple(rows), notes if reference is not None else ())


def _over_shapes(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    return over_patients({str(number): [float(value)] for number, value in enumerate(values)})


def _correlation(pairs: NDArray[np.float64]) -> float:
    """NaN-free: 0 where one of both does not vary."""
    if min(np.ptp(pairs[:, 0]), np.ptp(pairs[:, 1])) == 0:
        return 0.0
    x, y = (column - column.mean() for column in pairs.T)
    return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


def _off(mask: BoolArray) -> float:
    return float(np.linalg.norm(np.argwhere(mask).mean(0) - MIDDLE))
