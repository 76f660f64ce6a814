"""The restoration under physics that it was not trained on: other voltages, no grid, a softer detector, fewer photons.

Drawn chests, each exposed in several ways: restored is what the detector reads, the truth is what it would have read
without noise. What is blurred stays so in the truth: a restoration that sharpens is the farther from it.

source: DiffusionXRay dossier 12
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.contract import FloatArray, ModelError
from models.diffusionxray.audit import (
    KEPT,
    MOVED,
    AuditConfig,
    Nodule,
    Tallies,
    Tally,
    contrast_kept,
    displacement_px,
    observer_table,
    square_around,
)
from models.diffusionxray.config import GuardConfig
from models.diffusionxray.coverage import SHIPPED, SHIPS, Known, Sampler, held
from models.diffusionxray.evaluate import INPUT, PSNR, Method, Numbers, Report, Values, compare, unchanged
from models.diffusionxray.known import read_rays
from models.evaluation.bootstrap import over_patients
from models.evaluation.table import Row, Table
from models.lidnet.pairs import draw_seed
from models.simulation.exposures import WAYS, Exposed, Rays, exposed

GAIN = "PSNR minus input's (dB)"
METRICS = (PSNR, GAIN, "SSIM", KEPT, MOVED)
OBSERVER = AuditConfig(observer_px=64)
"""Its squares lie within the field; nodules of up to 11 mm."""


def shifted(
    methods: Mapping[str, Method],
    chests: Sequence[Path],
    *,
    ways: Mapping[str, Mapping[str, Any]] = WAYS,
    seed: int = 0,
    on_progress: Report | None = None,
) -> Table:
    """PSNR and SSIM, the gain over the input, what is left of the nodules and where, and their detectability.

    methods     as `evaluate` takes them        chests      files of rays, as `rays_in` makes them
    raises   ModelError     no chests, or a file that is none
    """
    if not chests:
        raise ModelError("there are no chests to expose")
    values: Values = {}
    tallies: Tallies = {}
    for done, path in enumerate(chests):
        rays = read_rays(path)
        for way, change in ways.items():
            pictures = exposed(rays, change, seed=draw_seed(f"{path.stem}/{way}", seed))
            before = compare(pictures.read[0], pictures.truth[0])[PSNR]
            for name, method in {INPUT: unchanged, **methods}.items():
                made = [method(picture, rays.spacing_mm) for picture in pictures.read]
                for metric, numbers in _measured(made, rays, pictures, before).items():
                    told = values.setdefault((way, name), {}).setdefault(metric, {})
                    told.setdefault(path.stem, []).extend(numbers)
                tally = tallies.setdefault((way, name), Tally())
                if squares := _squares(made, rays):
                    tally.crops[path.stem] = squares
        if on_progress is not None:
            on_progress("other physics", done + 1, len(chests))
    return shifted_table(values, observer_table(tallies, OBSERVER), len(chests))


def shifted_table(values: Values, observed: Table, chests: int) -> Table:
    """Means over the chests, and what the observer says. observed: of the same ways and methods"""
    seen = {(row.condition, row.method): row.values for row in observed.rows}
    rows = tuple(Row(way, method, {**_row(metrics), **seen[way, method]}) for (way, method), metrics in values.items())
    notes = (
        f"Simulated: {chests} drawn chests that no training saw, 12 cm of their middle, each projected once and exposed"
        " in every way; two nodules in the chest before projection. Intervals: 95 % bootstrap over chests.",
        "Truth: the same exposure without noise, as blurred as it is. Of nodules: made with and without them, each"
        " pixel's counts of the same rank.",
        *observed.notes,
    )
    return Table("Other physics than in training", rows, notes)


def shifted_intervals(
    sampler: Sampler,
    chests: Sequence[Path],
    guard: GuardConfig,
    *,
    ways: Mapping[str, Mapping[str, Any]] = WAYS,
    seed: int = 0,
    on_progress: Report | None = None,
) -> Table:
    """Whether the intervals that ship hold on drawn chests, in each way.

    raises   ModelError     one sample, or a file that is no chest
    """
    known: dict[str, list[Known]] = {way: [] for way in ways}
    for done, path in enumerate(chests):
        rays = read_rays(path)
        for way, change in ways.items():
            pictures = exposed(rays, change, seed=draw_seed(f"{path.stem}/{way}", seed))
            told = sampler(pictures.read[1], rays.spacing_mm)
            if told.spread is None:
                raise ModelError("intervals are of several samples, and one was drawn")
            known[way].append(Known(path.stem, way, pictures.truth[1], told.pixels, {SHIPS: told.spread}))
        if on_progress is not None:
            on_progress("intervals under other physics", done + 1, len(chests))
    rows = tuple(Row(way, SHIPPED, held(several, SHIPS, guard.widening, guard)) for way, several in known.items())
    notes = (
        f"Simulated: {len(chests)} drawn chests that no training and no calibration saw, with nodules.",
        f"A picture is held where at most {100 * guard.outside_share:g} % of its pixels are outside pixels ± λ spread,"
        f" λ {guard.widening:.4g}; {100 * (1 - guard.alpha):g} % of the pictures are aimed at.",
    )
    return Table("Calibrated intervals under other physics", rows, notes)


def _measured(made: Sequence[FloatArray], rays: Rays, pictures: Exposed, before: float) -> dict[str, list[float]]:
    """made: without nodules and with them"""
    bare, full = made
    told = {metric: [number] for metric, number in compare(bare, pictures.truth[0]).items()}
    told[GAIN] = [told[PSNR][0] - before]
    left, truth = full - bare, pictures.truth[1] - pictures.truth[0]
    nodules = _nodules(rays)
    told[KEPT] = [contrast_kept(left, truth, nodule) for nodule in nodules]
    told[MOVED] = [displacement_px(left, truth, nodule) for nodule in nodules]
    return told


def _squares(made: Sequence[FloatArray], rays: Rays) -> list[tuple[FloatArray, FloatArray]]:
    """Around the nodules that the observer can see whole: with them and without."""
    bare, full = made
    places = (
        square_around(nodule, OBSERVER.observer_px, bare.shape)
        for nodule in _nodules(rays)
        if nodule.diameter_px <= OBSERVER.observer_px / 2
    )
    return [(full[place], bare[place]) for place in places if place is not None]


def _nodules(rays: Rays) -> list[Nodule]:
    return [Nodule(*(float(number) for number in row)) for row in rays.nodules]


def _row(metrics: Numbers) -> dict[str, Any]:
    return {metric: over_patients({key: many for key, many in metrics[metric].items() if many}) for metric in METRICS}
