"""Intervals around the restored picture: widened on known truth until they hold, then held to other known truth.

The standard deviation of a few samples says how much the sampler varies, not how wrong it is, and is zero wherever the
flow changes nothing. So the restorer takes a share of the local noise as its floor (`GuardConfig.spread_floor`), and a
number λ, by split conformal prediction with one score per patient, makes of both an interval: pixels ± λ spread. What
the samples are worth is seen beside intervals that know the noise alone.

source: DiffusionXRay dossier 10.5 and 13.9
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.contract import FloatArray, ModelError
from models.diffusionxray.config import GuardConfig
from models.diffusionxray.evaluate import Crop, Degrader, EvaluationConfig, Held, Report, crops, inner, spread
from models.diffusionxray.guard import conformal_quantile, widening_needed
from models.evaluation.bootstrap import Interval, over_patients
from models.evaluation.table import Row, Table

SHIPPED = "as shipped"
SHIPS = "spread of samples, floor of noise"
BY_NOISE = "noise alone"
HELD, INSIDE, WIDTH, NEEDED = "share of pictures held", "pixels inside", "half width", "widening needed"


class Sampled(Protocol):
    """What a restorer of several samples makes of one picture, in picture units."""

    @property
    def pixels(self) -> FloatArray: ...
    @property
    def noise_sd(self) -> FloatArray: ...
    @property
    def spread(self) -> FloatArray | None:
        """Standard deviation of the samples, not below its share of the noise."""


Sampler = Callable[[FloatArray, float], Sampled]
"""Degraded picture (Y, X) and its spacing in mm to several samples of the restored one."""


@dataclass(frozen=True, eq=False)
class Known:
    """One restored picture whose truth is known: all of the same shape."""

    patient: str
    condition: str
    truth: FloatArray
    pixels: FloatArray
    scales: Mapping[str, FloatArray]

    def within(self, name: str) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Truth, pixels, and one of the scales, as rows of the pixels that are measured."""
        where = inner(self.truth)
        return self.truth[where], self.pixels[where], self.scales[name][where]


@dataclass(frozen=True)
class Coverage:
    """Tables, and the number that `GuardConfig.widening` would have to be for these weights.

    widenings   of every kind of interval; infinite where no finite one would hold
    """

    tables: tuple[Table, ...]
    widenings: Mapping[str, float]

    @property
    def widening(self) -> float:
        return self.widenings[SHIPS]


def coverage(
    sampler: Sampler,
    known: Mapping[str, Degrader],
    other: Mapping[str, Degrader],
    validation: Sequence[Held],
    test: Sequence[Held],
    guard: GuardConfig,
    *,
    what: EvaluationConfig | None = None,
    seed: int = 0,
    patient_of: Callable[[Held], str] = lambda picture: picture.key,
    on_progress: Report | None = None,
) -> Coverage:
    """Calibrated on validation pictures under the known degradations in turn; tested under each, and under others.

    raises   ModelError     patients of both, fewer than ⌈1/α⌉ − 1 patients to calibrate on, or a single sample
    """
    if shared := {patient_of(one) for one in validation} & {patient_of(one) for one in test}:
        raise ModelError(f"patients in both the test and the validation pictures: {', '.join(sorted(shared))}")
    how = what or EvaluationConfig()
    report: Report = on_progress or (lambda _what, _done, _total: None)
    cut = crops(spread(validation, how.most), how.crop_px, patient_of, seed=seed)
    names = list(known)
    widenings = calibrate(
        [
            restored(sampler, crop, (names[turn % len(names)], known[names[turn % len(names)]]), seed)
            for turn, crop in _counted(cut, "calibrating intervals", report)
        ],
        guard,
    )
    tested = crops(spread(test, how.most), how.crop_px, patient_of, seed=seed)
    rows: list[Row] = []
    for condition, degrader in {**known, **other}.items():
        told = condition if condition in known else f"{condition} (not calibrated on)"
        measured = [
            restored(sampler, crop, (condition, degrader), seed)
            for _, crop in _counted(tested, f"intervals, {condition}", report)
        ]
        rows.append(Row(told, SHIPPED, held(measured, SHIPS, guard.widening, guard)))
        rows += [Row(told, name, held(measured, name, widening, guard)) for name, widening in widenings.items()]
    return Coverage((_table(rows, widenings, guard, cut),), widenings)


def restored(sampler: Sampler, crop: Crop, under: tuple[str, Degrader], seed: int) -> Known:
    """One crop degraded and restored. under: name of the degradation, and itself. raises ModelError: one sample"""
    condition, degrader = under
    told = sampler(crop.degraded(degrader, condition, seed), crop.spacing_mm)
    if told.spread is None:
        raise ModelError("intervals are of several samples, and one was drawn")
    scales = {SHIPS: told.spread, BY_NOISE: told.noise_sd}
    return Known(crop.patient, condition, crop.unit, told.pixels, scales)


def calibrate(pictures: Sequence[Known], guard: GuardConfig) -> dict[str, float]:
    """The widening of every kind of interval.

    Theorem (`conformal_quantile`), for a new patient like these, under degradations drawn like these: with probability
    1 − α at most `outside_share` of the pixels are outside. A patient counts once, by the worst of the pictures.

    raises   ModelError     too few patients
    """
    found = {}
    for name in (SHIPS, BY_NOISE):
        worst: dict[str, float] = {}
        for picture in pictures:
            needed = widening_needed(*picture.within(name), guard.outside_share)
            worst[picture.patient] = max(needed, worst.get(picture.patient, 0.0))
        found[name] = conformal_quantile(list(worst.values()), guard.alpha)
    return found


def held(pictures: Sequence[Known], name: str, widening: float, guard: GuardConfig) -> dict[str, Interval]:
    """How these pictures fare with intervals of one kind."""
    told: dict[str, dict[str, list[float]]] = {metric: {} for metric in (HELD, INSIDE, WIDTH, NEEDED)}
    for picture in pictures:
        truth, pixels, scale = picture.within(name)
        half = _half(widening, scale)
        needed = widening_needed(truth, pixels, scale, guard.outside_share)
        values = {
            HELD: float(needed <= widening),
            INSIDE: float((np.abs(truth.astype(np.float64) - pixels) <= half).mean()),
            WIDTH: float(half.mean()),
            NEEDED: needed,
        }
        for metric, value in values.items():
            told[metric].setdefault(picture.patient, []).append(value)
    return {metric: _finite(patients) for metric, patients in told.items()}


def _half(widening: float, scale: FloatArray) -> NDArray[np.float64]:
    """λ spread; where there is no spread, an infinite λ still gives nothing."""
    wide = np.zeros_like(scale, np.float64)
    np.multiply(scale, widening, out=wide, where=scale > 0)
    return wide


def _finite(patients: Mapping[str, Sequence[float]]) -> Interval:
    """As `over_patients`; an infinite number among them makes the mean infinite, and the interval unknown."""
    if any(math.isinf(value) for numbers in patients.values() for value in numbers):
        return Interval(math.inf, math.nan, math.nan, len(patients))
    return over_patients(patients)


def _counted(cut: Sequence[Crop], doing: str, report: Report) -> Iterator[tuple[int, Crop]]:
    for place, crop in enumerate(cut):
        yield place, crop
        report(doing, place + 1, len(cut))


def _table(rows: Sequence[Row], widenings: Mapping[str, float], guard: GuardConfig, cut: Sequence[Crop]) -> Table:
    notes = (
        "Intervals: pixels ± λ scale. λ, by split conformal prediction over"
        f" {len({crop.patient for crop in cut})} patients of the validation pictures: "
        + ", ".join(f"{name} {widening:.4g}" for name, widening in widenings.items())
        + ".",
        f"A picture is held where at most {100 * guard.outside_share:g} % of its pixels are outside; promised for"
        f" {100 * (1 - guard.alpha):g} % of patients like those, under degradations like those taken in turn, not under"
        " each of them alone.",
        f"{SHIPPED}: {SHIPS}, with the λ of the restorer's configuration, {guard.widening:.4g}, whatever this"
        " calibration says.",
        f"{SHIPS}: standard deviation of the samples and {guard.spread_floor:g} of the local noise's, as root of the"
        " sum of squares, since the samples agree wherever the flow changes nothing. Half width in picture units, of a"
        " range of 2.",
        "Mean over patients and 95 % bootstrap interval over patients.",
    )
    return Table("Calibrated intervals around the restored picture", tuple(rows), notes)
