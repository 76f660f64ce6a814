"""What the restoration is worth, in numbers: on pictures never trained on, under every degradation, beside filters.

Cross-arm by construction: every method is measured under every degradation, those it was trained on and those it was
not. The truth is the clean picture, which has noise of its own where it is a real radiograph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from typing import Protocol

import numpy as np
import torch

from models.contract import BoolArray, FloatArray, ModelError
from models.diffusionxray.guard import local_noise_sd
from models.evaluation import baselines
from models.evaluation.bootstrap import Interval, over_patients
from models.evaluation.metrics import Window, psnr, rmse, ssim
from models.evaluation.speed import interleaved
from models.evaluation.table import Row, Table
from models.lidnet.pairs import draw_seed

Degrader = Callable[[FloatArray, float, np.random.Generator], FloatArray]
"""Clean picture (Y, X), its spacing in mm and draws to the degraded picture, on the same grid."""
Method = Callable[[FloatArray, float], FloatArray]
"""Degraded picture (Y, X) and its spacing in mm to the restored one; called again, it gives the same again."""
Report = Callable[[str, int, int], None]
"""Called with what is being done, pictures done, pictures in all."""
Values = dict[tuple[str, str], dict[str, dict[str, list[float]]]]
"""(degradation, method) → metric → patient → one number per picture."""
Numbers = Mapping[str, Mapping[str, Sequence[float]]]
"""Metric → patient → one number per picture."""

UNIT = Window("picture", -1.0, 1.0)
INPUT = "input"
PSNR = "PSNR (dB)"
BETWEEN_SEEDS = "PSNR (dB), least and most of two trainings"
MARGIN_PX = 16
"""Of a crop, not measured: the edge of a crop is no edge of a radiograph."""
UNSHARP_SIGMA_PX = 1.5
BILATERAL_SIGMA_PX = 1.5
LEAST_NOISE = 1e-4
"""What the filters take for noise where a picture has none."""
STRENGTHS: dict[str, tuple[float, ...]] = {
    "Gaussian": (0.3, 0.5, 0.8, 1.2, 1.8, 2.6),
    "bilateral": (1.0, 2.0, 4.0, 8.0, 16.0),
    "non-local means": (0.5, 1.0, 2.0, 4.0, 8.0),
    "unsharp mask": (0.1, 0.25, 0.5, 1.0, 2.0),
    "BM3D": (0.5, 1.0, 2.0, 4.0),
}
"""Gaussian: sigma in pixels. Unsharp mask: amount. The others: strength over the picture's own noise."""

NOTES = (
    "Degradations are made: nothing here says what is gained on radiographs of patients as they come. Not comparable"
    " with the published 27.5 dB, which are other images under other degradations.",
    "Picture units: -1 … 1, a data range of 2 for PSNR and SSIM. Mean over patients and 95 % bootstrap interval over"
    f" patients; {MARGIN_PX} pixels along the edges of a crop are left out.",
)


class Held(Protocol):
    """One clean picture that no network was trained on."""

    @property
    def key(self) -> str: ...
    @property
    def unit(self) -> FloatArray:
        """float32 (Y, X) in [−1, 1], bright = dense."""

    @property
    def spacing_mm(self) -> float: ...


class Estimate(Protocol):
    """What a restorer makes of one picture, in picture units."""

    @property
    def pixels(self) -> FloatArray: ...
    @property
    def safe(self) -> FloatArray: ...


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is evaluated.

    crop_px         side of the square that is cut out of every picture, smaller pictures whole
    most            pictures at most, evenly
    tuning          pictures at most to choose the filters' strengths on       tuning_px   and the side of their crops
    filters         None: all whose package is there
    """

    crop_px: int = 512
    most: int = 48
    tuning: int = 8
    tuning_px: int = 256
    filters: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of a clean picture, and how it is degraded.

    patient     key that stands for the patient     unit    float32 (Y, X)
    """

    name: str
    patient: str
    unit: FloatArray
    spacing_mm: float

    def degraded(self, by: Degrader, condition: str, seed: int) -> FloatArray:
        """The same again for the same degradation and seed, whatever the order of the work."""
        draws = np.random.default_rng(draw_seed(f"{self.name}/{condition}", seed))
        return np.array(by(self.unit, self.spacing_mm, draws), np.float32)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Tables, and every single number; strengths: of the filters, by degradation."""

    tables: tuple[Table, ...]
    values: Values
    strengths: Mapping[str, Mapping[str, float]]


def evaluate(
    methods: Mapping[str, Method],
    degraders: Mapping[str, Degrader],
    test: Sequence[Held],
    validation: Sequence[Held],
    *,
    what: EvaluationConfig | None = None,
    seed: int = 0,
    patient_of: Callable[[Held], str] = lambda picture: picture.key,
    on_progress: Report | None = None,
) -> Evaluation:
    """PSNR, SSIM and RMSE of every method and filter under every degradation, and differences to the first method.

    methods     the first is the one in question            degraders   by name
    test        to measure on       validation  to choose the filters' strengths on, per degradation
    raises   ModelError     nothing to measure, or test pictures of patients in `validation`
    """
    if not methods or not degraders or not test or not validation:
        raise ModelError("methods, degradations, test and validation pictures are wanted")
    if shared := {patient_of(one) for one in test} & {patient_of(one) for one in validation}:
        raise ModelError(f"patients in both the test and the validation pictures: {', '.join(sorted(shared))}")
    how = what or EvaluationConfig()
    report: Report = on_progress or (lambda _what, _done, _total: None)
    tested = crops(spread(test, how.most), how.crop_px, patient_of, seed=seed)
    tuning = crops(spread(validation, how.tuning), how.tuning_px, patient_of, seed=seed)
    values: Values = {}
    strengths: dict[str, dict[str, float]] = {}
    for condition, degrader in degraders.items():
        strengths[condition] = tuned(tuning, condition, degrader, _filters(how), seed=seed)
        report(f"{condition}: filters tuned", 0, len(tested))
        known = {name: _filter(name, strength) for name, strength in strengths[condition].items()}
        every = {INPUT: unchanged, **methods, **known}
        for done, crop in enumerate(tested):
            degraded = crop.degraded(degrader, condition, seed)
            for method, apply in every.items():
                _enter(values, (condition, method), crop, compare(apply(degraded, crop.spacing_mm), crop.unit))
            report(condition, done + 1, len(tested))
    first = next(iter(methods))
    tables = (
        restoration_table(values, strengths),
        difference_table(values, first),
        cross_table(values, PSNR, (INPUT, *methods)),
        cross_table(values, "SSIM", (INPUT, *methods)),
    )
    return Evaluation(tables, values, strengths)


def at_steps(
    restore: Callable[[FloatArray, float, int], Estimate], steps: Sequence[int], *, name: str = "restorer"
) -> dict[str, Method]:
    """One restorer as methods: the conservative restoration for no steps, else the bounded result of so many.

    restore     picture, spacing in mm, steps of the refiner
    """

    def method(unit: FloatArray, spacing_mm: float, *, count: int) -> FloatArray:
        told = restore(unit, spacing_mm, count)
        return told.pixels if count else told.safe

    told = {count: f"{count} step{'s' if count > 1 else ''}" if count else "regressor alone" for count in steps}
    return {f"{name}, {told[count]}": partial(method, count=count) for count in steps}


def compare(result: FloatArray, truth: FloatArray) -> dict[str, float]:
    """All metrics of one picture against its truth (Y, X)."""
    where = inner(truth)
    return {
        PSNR: psnr(result, truth, window=UNIT, where=where),
        "SSIM": ssim(result, truth, window=UNIT, where=where),
        "RMSE": rmse(result, truth, where=where),
    }


def inner(picture: FloatArray) -> BoolArray:
    """All but the margin, bool (Y, X). raises ModelError where nothing is left"""
    where = np.zeros(picture.shape, np.bool_)
    where[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
    if not where.any():
        raise ModelError(f"a picture of {picture.shape} is too small to be measured")
    return where


def crops(pictures: Sequence[Held], side_px: int, patient_of: Callable[[Held], str], *, seed: int) -> list[Crop]:
    """One square of each, at a place that follows from its key and not from what it shows."""
    cut = []
    for picture in pictures:
        draws = np.random.default_rng(draw_seed(f"{picture.key}/crop", seed))
        sides = [min(side_px, side) for side in picture.unit.shape]
        top, left = (
            int(draws.integers(whole - side + 1)) for whole, side in zip(picture.unit.shape, sides, strict=True)
        )
        part = picture.unit[top : top + sides[0], left : left + sides[1]].astype(np.float32)
        cut.append(Crop(picture.key, patient_of(picture), part, picture.spacing_mm))
    return cut


def spread(pictures: Sequence[Held], most: int) -> list[Held]:
    """So many of them at most, evenly."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(most, len(pictures))).round().astype(int))
    return [pictures[index] for index in chosen]


def tuned(
    tuning: Sequence[Crop], condition: str, degrader: Degrader, names: Sequence[str], *, seed: int
) -> dict[str, float]:
    """For every filter the strength with the least error on these pictures, RMSE."""
    degraded = [crop.degraded(degrader, condition, seed) for crop in tuning]
    chosen = {}
    for name in names:
        errors = [
            np.mean(
                [
                    rmse(_filter(name, strength)(picture, crop.spacing_mm), crop.unit, where=inner(crop.unit))
                    for picture, crop in zip(degraded, tuning, strict=True)
                ]
            )
            for strength in STRENGTHS[name]
        ]
        chosen[name] = STRENGTHS[name][int(np.argmin(errors))]
    return chosen


def restoration_table(
    values: Values, strengths: Mapping[str, Mapping[str, float]], *, of: str = "pictures never trained on"
) -> Table:
    """Every method under every degradation, and which strengths the filters had. of: what was degraded"""
    rows = [Row(condition, method, _intervals(metrics)) for (condition, method), metrics in values.items()]
    told = [
        f"Strengths chosen on validation, {condition}: "
        + ", ".join(f"{name} {strength:g}{_at_end(name, strength)}" for name, strength in found.items())
        + "."
        for condition, found in strengths.items()
        if found
    ]
    return Table(f"Restoration of degraded {of}", tuple(rows), (*NOTES, *told))


def difference_table(values: Values, reference: str) -> Table:
    """The reference minus each other method, picture by picture, so that what a picture is like falls out."""
    rows = []
    for (condition, method), metrics in values.items():
        if method == reference:
            continue
        own = values[condition, reference]
        apart = {
            name: {
                patient: [one - other for one, other in zip(own[name][patient], numbers, strict=True)]
                for patient, numbers in patients.items()
            }
            for name, patients in metrics.items()
        }
        rows.append(Row(condition, method, _intervals(apart)))
    return Table(f"Paired difference: {reference} minus the method", tuple(rows), NOTES[1:])


def cross_table(values: Values, metric: str, methods: Sequence[str]) -> Table:
    """One metric, methods down, degradations across: what an arm is worth under the degradation of another."""
    conditions = list(dict.fromkeys(condition for condition, _ in values))
    rows = tuple(
        Row(metric, method, {condition: over_patients(values[condition, method][metric]) for condition in conditions})
        for method in methods
    )
    return Table(f"Every arm under every degradation: {metric}", rows, NOTES[1:])


def arms_table(values: Values, arms: Mapping[str, Sequence[str]], *, on: str = "") -> Table:
    """Every two arms, the first minus the second, picture by picture; an arm is the mean of its trainings.

    values      as `evaluate` gives them        on      which pictures, for the title
    arms        name of the arm → methods that are its trainings, each from another seed
    """
    conditions = list(dict.fromkeys(condition for condition, _ in values))
    rows = []
    for condition in conditions:
        for one, other in combinations(arms, 2):
            first, second = ([values[condition, method] for method in arms[name]] for name in (one, other))
            told = {metric: over_patients(_apart(first, second, metric)) for metric in first[0]}
            told[BETWEEN_SEEDS] = _between_seeds(first, second)
            rows.append(Row(condition, f"{one} minus {other}", told))
    trainings = "; ".join(f"{name}: {len(methods)}" for name, methods in arms.items())
    notes = (
        f"Trainings that differ in their seed alone are pooled, each picture's numbers averaged over them: {trainings}."
        " The interval is over patients and says nothing of other seeds; the last column has the least and the most"
        " that one training of the first arm is above one of the second.",
        NOTES[1],
    )
    return Table(f"Paired difference between arms{on and f', {on}'}", tuple(rows), notes)


def _apart(first: Sequence[Numbers], second: Sequence[Numbers], metric: str) -> dict[str, list[float]]:
    """Patient → difference of the arms' means, picture by picture."""
    return {
        patient: [
            float(apart)
            for apart in np.mean([one[metric][patient] for one in first], 0)
            - np.mean([one[metric][patient] for one in second], 0)
        ]
        for patient in first[0][metric]
    }


def _between_seeds(first: Sequence[Numbers], second: Sequence[Numbers]) -> Interval:
    """Mean, least and most over all pairs of one training each."""
    pairs = [over_patients(_apart([one], [other], PSNR)) for one in first for other in second]
    means = [pair.mean for pair in pairs]
    return Interval(float(np.mean(means)), min(means), max(means), pairs[0].patients)


def speed_table(methods: Mapping[str, Method], *, side_px: int = 512, rounds: int = 3) -> Table:
    """Seconds for a picture of this side, as the methods run on this machine."""
    picture = np.random.default_rng(0).uniform(-1, 1, (side_px, side_px)).astype(np.float32)
    calls = {name: partial(method, picture, 0.2) for name, method in methods.items()}
    note = f"One picture of {side_px} × {side_px}; {torch.get_num_threads()} threads, torch {torch.__version__}."
    return interleaved("Speed", calls, slices=1, rounds=rounds, notes=(note,))


@dataclass(frozen=True, eq=False)
class Shown:
    """One crop (Y, X), for the eye: before, after, and the truth."""

    condition: str
    degraded: FloatArray
    restored: FloatArray
    truth: FloatArray


def most_changed(
    method: Method,
    degraders: Mapping[str, Degrader],
    test: Sequence[Held],
    *,
    what: EvaluationConfig,
    seed: int = 0,
    patient_of: Callable[[Held], str] = lambda picture: picture.key,
) -> list[Shown]:
    """Under each degradation the crop that the method changes most: no hand has chosen it."""
    return [
        max(_shown(method, condition, by, crops(spread(test, what.most), what.crop_px, patient_of, seed=seed), seed),
            key=lambda one: rmse(one.restored, one.degraded, where=inner(one.truth)))
        for condition, by in degraders.items()
    ]  # fmt: skip


def _shown(method: Method, condition: str, by: Degrader, tested: Sequence[Crop], seed: int) -> Iterator[Shown]:
    for crop in tested:
        degraded = crop.degraded(by, condition, seed)
        yield Shown(condition, degraded, method(degraded, crop.spacing_mm), crop.unit)


def _enter(values: Values, row: tuple[str, str], crop: Crop, told: Mapping[str, float]) -> None:
    for metric, value in told.items():
        values.setdefault(row, {}).setdefault(metric, {}).setdefault(crop.patient, []).append(value)


def _intervals(metrics: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Interval]:
    return {name: over_patients(patients) for name, patients in metrics.items()}


def unchanged(unit: FloatArray, _spacing_mm: float) -> FloatArray:
    """The method that does nothing: the input's own row."""
    return unit


def _filters(how: EvaluationConfig) -> Sequence[str]:
    if how.filters is not None:
        return how.filters
    return [name for name in STRENGTHS if name != "BM3D" or find_spec("bm3d") is not None]


def _filter(name: str, strength: float) -> Method:
    def apply(unit: FloatArray, _spacing_mm: float) -> FloatArray:
        if name == "Gaussian":
            return baselines.gaussian(unit, sigma_px=strength)
        if name == "unsharp mask":
            return baselines.unsharp_mask(unit, sigma_px=UNSHARP_SIGMA_PX, amount=strength)
        noise = strength * max(float(np.median(local_noise_sd(unit))), LEAST_NOISE)
        if name == "BM3D":
            return baselines.bm3d(unit, sigma_hu=noise)
        if name == "bilateral":
            return baselines.bilateral(unit, sigma_px=BILATERAL_SIGMA_PX, sigma_hu=noise)
        return baselines.non_local_means(unit, strength_hu=noise)

    return apply


def _at_end(name: str, strength: float) -> str:
    """Whether a stronger or weaker one might have done better."""
    return " (end of those tried)" if strength in (STRENGTHS[name][0], STRENGTHS[name][-1]) else ""
