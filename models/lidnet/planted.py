"""What is left of faint lesions in patients: planted into full-dose slices of those held out, then the dose falls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from models.contract import FloatArray
from models.evaluation.bootstrap import Interval
from models.evaluation.froc import Bootstrap, Measure
from models.evaluation.noise import SOFT_TISSUE_HU, body_mask, homogeneous
from models.evaluation.observer import template_responses
from models.evaluation.table import Row, Table
from models.lidnet.config import LidnetConfig
from models.lidnet.detectability import POINT_SPREAD_MM, REGION_PX, Disc
from models.lidnet.evaluate import (
    OURS,
    EvaluationConfig,
    Methods,
    OnProgress,
    low_dose,
    noise_of,
    spread,
)
from models.lidnet.pairs import draw_seed
from models.lidnet.slices import Slice, load_slice, slice_files, split

LESIONS = (Disc(5.0, -70.0), Disc(10.0, -35.0), Disc(15.0, -30.0))
"""What readers just find in the liver at regular dose (simulation dossier 5.2)."""
MOST_SITES = 12
APART_PX = 40
"""Between two lesions: the observer's region on one must not reach another."""
MEASURES = ("d′", "contrast kept", "ROI RMSE (HU)")


@dataclass(frozen=True, eq=False)
class Site:
    """A lesion as one method shows it.

    present, absent     float (R, R), HU: with the lesion and without it, the same noise on both; less the full dose
                        without it, so that anatomy, which would outweigh any noise, is known to the observer
    square              mean squared difference from the full dose over the lesion, HU²
    """

    patient: str
    present: FloatArray
    absent: FloatArray
    signal: FloatArray
    square: float


Seen = defaultdict[tuple[float, str, Disc], list[Site]]
"""(part of the dose, method, lesion) → all sites, in the same order for every method."""


def planted_lesions(
    data: Path,
    config: LidnetConfig,
    methods: Methods,
    *,
    what: EvaluationConfig,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[Table, Table]:
    """d′, contrast and error of faint lesions by every method, and this model less each other method.

    raises   ModelError     a patient to hold out is not among the slices
    """
    files = spread(split(slice_files(data), config.held_out)[1], what.slices_per_patient)
    seen: Seen = defaultdict(list)
    for done, path in enumerate(files):
        _look_at(load_slice(path), methods, seen, views=what.views, seed=seed)
        if on_progress is not None:
            on_progress(done + 1, len(files))
    return _tables(seen, methods)


def _look_at(image: Slice, methods: Methods, seen: Seen, *, views: int, seed: int) -> None:
    first = draw_seed(f"{image.name}/first", seed)
    sites = [(place, LESIONS[(first + number) % len(LESIONS)]) for number, place in enumerate(places(image, seed))]
    if not sites:
        return
    signals = [_drawn(image, place, disc) for place, disc in sites]
    planted = replace(image, hu=image.hu + np.sum(signals, 0, dtype=np.float32))
    noise = noise_of(image, views=views, seed=seed)
    for fraction, apply_all in methods.items():
        for method, apply in apply_all.items():
            present, absent = (apply(low_dose(one, noise, fraction)) for one in (planted, image))
            for (place, disc), signal in zip(sites, signals, strict=True):
                lesion = np.abs(signal) > np.abs(signal).max() / 2
                square = float(np.square((present - planted.hu)[lesion], dtype=np.float64).mean())
                region = _around(place)
                known = image.hu[region]
                site = Site(image.patient, present[region] - known, absent[region] - known, signal[region], square)
                seen[fraction, method, disc].append(site)


def places(image: Slice, seed: int) -> list[tuple[int, int]]:
    """Rows and columns in even soft tissue, apart from each other and from the image's edge."""
    even = homogeneous(image.hu, SOFT_TISSUE_HU, ~body_mask(image.hu) | image.padding)
    margin = REGION_PX // 2
    inner = np.zeros_like(even)
    inner[margin:-margin, margin:-margin] = even[margin:-margin, margin:-margin]
    candidates = np.argwhere(inner)
    np.random.default_rng(draw_seed(f"{image.name}/planted", seed)).shuffle(candidates)
    chosen: list[tuple[int, int]] = []
    while len(candidates) and len(chosen) < MOST_SITES:
        chosen.append((int(candidates[0, 0]), int(candidates[0, 1])))
        candidates = candidates[np.hypot(*(candidates - candidates[0]).T) >= APART_PX]
    return chosen


def _drawn(image: Slice, place: tuple[int, int], disc: Disc) -> FloatArray:
    rows, columns = np.indices(image.hu.shape)
    distance = np.hypot(rows - place[0], columns - place[1]) * image.spacing_mm
    cover = 0.5 * erfc((distance - disc.diameter_mm / 2) / (2**0.5 * POINT_SPREAD_MM))
    return np.asarray(disc.contrast_hu * cover, np.float32)


def _around(place: tuple[int, int]) -> tuple[slice, slice]:
    half = REGION_PX // 2
    return slice(place[0] - half, place[0] + half), slice(place[1] - half, place[1] + half)


@dataclass(frozen=True, eq=False)
class _Read:
    """Per site: the observer's responses, the part of the contrast that is left, the squared error, the patient."""

    present: NDArray[np.float64]
    absent: NDArray[np.float64]
    kept: NDArray[np.float64]
    square: NDArray[np.float64]
    patient: NDArray[np.int64]

    def d_prime(self, weights: NDArray[np.int64]) -> float:
        """d′ with each patient's sites weighted; NaN where fewer than two sites are left."""
        weight = weights[self.patient]
        if np.count_nonzero(weight) < 2:
            return float("nan")
        means = [np.average(responses, weights=weight) for responses in (self.present, self.absent)]
        variances = [
            np.average((responses - mean) ** 2, weights=weight)
            for responses, mean in zip((self.present, self.absent), means, strict=True)
        ]
        return float((means[0] - means[1]) / np.sqrt(np.mean(variances)))

    def measure(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """`MEASURES`; NaN where the drawn patients have no such lesion."""
        weight = weights[self.patient]
        if not weight.any():
            return np.full(len(MEASURES), np.nan)
        error = np.sqrt(np.average(self.square, weights=weight))
        return np.array([self.d_prime(weights), np.average(self.kept, weights=weight), error])


def _read(sites: Sequence[Site], patients: Sequence[str]) -> _Read:
    responses = np.array(
        [template_responses(np.stack([site.present, site.absent]), site.signal) for site in sites]
    )  # (N, 2)
    full = np.array([float(template_responses(site.signal[None], site.signal)[0]) for site in sites])
    return _Read(
        present=responses[:, 0],
        absent=responses[:, 1],
        kept=(responses[:, 0] - responses[:, 1]) / full,
        square=np.array([site.square for site in sites]),
        patient=np.array([patients.index(site.patient) for site in sites]),
    )


def _tables(seen: Seen, methods: Methods) -> tuple[Table, Table]:
    bootstrap = Bootstrap()
    patients = sorted({site.patient for sites in seen.values() for site in sites})
    rows, differences = [], []

    def told(measure: Measure) -> dict[str, Interval]:
        return dict(zip(MEASURES, bootstrap.interval(measure, len(patients)), strict=True))

    for fraction, names in methods.items():
        for disc in (disc for disc in LESIONS if seen[fraction, OURS, disc]):
            condition = f"{100 * fraction:.0f} % dose, {disc.diameter_mm:.0f} mm, {disc.contrast_hu:.0f} HU"
            read = {name: _read(seen[fraction, name, disc], patients) for name in names}
            rows += [Row(condition, name, told(one.measure)) for name, one in read.items()]
            differences += [
                Row(condition, f"{OURS} − {name}", told(partial(_gain, read[OURS], other)))
                for name, other in read.items()
                if name != OURS
            ]
    count = sum(len(seen[min(methods), OURS, disc]) for disc in LESIONS)
    notes = (
        f"{count} faint discs planted into even soft tissue of full-dose slices of {len(patients)} patients held out;"
        " low dose is simulated.",
        "d′: the observer (non-prewhitening) knows place, shape and the full-dose image without the disc, its own noise"
        " with it; what hinders it is the noise of the lower dose and what a method changes of the rest.",
        "Contrast kept: with less without the disc, the same noise on both, projected on the disc, over the true one.",
        "ROI RMSE: over the disc, against the full dose. 95 % bootstrap over patients, drawn alike for all methods.",
    )
    return (
        Table("Faint lesions in patients held out", tuple(rows), notes),
        Table("Faint lesions: differences", tuple(differences), notes),
    )


def _gain(ours: _Read, other: _Read, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    gained: NDArray[np.float64] = ours.measure(weights) - other.measure(weights)
    return gained
