"""What the detector is worth, in numbers: arms of one comparison on patients that none of them has seen.

An arm is one way to train (several categories or one, pseudo-labels or labels by chance, ignoring or not what is sure
but unannotated): all see the same images, and differences are paired by patient. The truth is the complete one, also
where training withheld a part of it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from models.contract import BoolArray, FloatArray, ModelError
from models.deeplesion.arms import Arms, accuracy_table, difference_table
from models.deeplesion.calibrate import Judged
from models.deeplesion.config import CURVE_LEAST_SCORE, SPACING_MM, DeepLesionConfig
from models.deeplesion.data import middle
from models.deeplesion.network import Detector
from models.deeplesion.reliability import reliability
from models.deeplesion.run import Found, detect_in, find
from models.deeplesion.samples import LabelledVolume, Sample, draw_labelled, draw_seed, load_sample, scanned
from models.deeplesion.validate import as_volume, compare
from models.evaluation.bootstrap import Interval
from models.evaluation.froc import Bootstrap, Tally, accuracy_measures, froc_measures
from models.evaluation.matching import IOU, Floats, Outcome, Reading, match, match_centres
from models.evaluation.table import Row, Table
from models.simulation.cases import Family

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, images done, images in all."""

SIZES_MM = (*pairwise((0.0, 6.0, 10.0, 15.0, 20.0, 30.0, np.inf)), (6.0, np.inf))
CONTRASTS_HU = tuple(pairwise((0.0, 30.0, 60.0, 120.0, np.inf)))
IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)
THRESHOLD_AT_FP = 1.0
"""False positives per validation image that fix an arm's threshold."""
CURVE_RATES = np.geomspace(0.05, 16, 60)
RING_PX = (2, 6)
"""Around a lesion: from the first to the second distance lies what its contrast is measured against."""
LEAST_REACH_MM = 5.0

NOTES = (
    "Key slices only; intervals are 95 % bootstrap intervals over patients.",
    "The truth is complete where lesions were simulated; marks from a PACS leave lesions out, and what hits those is"
    " counted as false.",
    "A lesion is found from an IoU of .5 on, box areas with +1 pixel; @n: sensitivity at n false positives per image.",
    f"Detections from a score of {CURVE_LEAST_SCORE:g} on; where an arm has fewer than n false positives per image, @n"
    " is what it finds with all of them.",
    "A second detection on a lesion is neither found nor false; one detection may find two lesions.",
    "AP: average precision at IoU .5, one detection for one lesion.",
    "What touches a lesion that the slice only grazes is neither right nor wrong.",
)
ACCURACY_NOTES = (
    "Share of lesions that a detection meets with an IoU above .5 (strictly), whatever the category.",
    "Top 1 and top 3: among the surest of the image. How many arXiv 1710.01766 allowed is not known.",
    f"The threshold of each arm gives {THRESHOLD_AT_FP:g} false positive per image on the validation patients.",
)
SCAN_NOTES = (
    "Detections grouped through the slices; right where the centres lie within the lesion's radius, at least 5 mm.",
    "Each arm's own operating point, set on validation.",
)


@dataclass(frozen=True, eq=False)
class Detected:
    """What an arm says of one image: boxes (D, 4), edges, pixel i covering i to i + 1; scores and categories (D,)."""

    boxes: NDArray[np.floating[Any]]
    scores: NDArray[np.floating[Any]]
    categories: NDArray[np.int64]


Detect = Callable[[FloatArray], Detected]
"""A stack of slices float32 (M, Y, X), HU, key slice in the middle, to what is found on the key slice."""


@dataclass(frozen=True, eq=False)
class TestImage:
    """One key slice and all that is on it.

    boxes           (L, 4), edges      grazed  (G, 4), lesions that count for nothing
    diameter_mm     (L,) of the circle with the section's area
    contrast_hu     (L,) median inside minus median around
    """

    __test__ = False

    hu: FloatArray
    patient: str
    boxes: FloatArray
    grazed: FloatArray
    diameter_mm: Floats
    contrast_hu: Floats


@dataclass(frozen=True, eq=False)
class FrocCurve:
    """Sensitivity over false positives per image, with the ends of its 95 % interval."""

    rates: Floats
    sensitivity: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Tables, and curves for a figure."""

    tables: tuple[Table, ...]
    curves: Mapping[str, FrocCurve]

    def curves_json(self) -> str:
        """The curves for programs."""
        curves = {
            arm: {name: [round(float(value), 4) for value in values] for name, values in vars(curve).items()}
            for arm, curve in self.curves.items()
        }
        return json.dumps(curves, indent=1) + "\n"


def detector_of(network: Detector) -> Detect:
    """The network as an arm, with every detection that a curve needs; on whatever device it is.

    Of stacks with more slices than it looks at it sees the middle ones.
    """

    def detect(hu: FloatArray) -> Detected:
        seen = torch.from_numpy(middle(hu, network.config.slices))[None]
        boxes, scores, categories, _ = detect_in(network, seen, least_score=CURVE_LEAST_SCORE)[0]
        return Detected(boxes, scores, categories.argmax(1) if len(boxes) else np.zeros(0, np.int64))

    return detect


def image_of(sample: Sample) -> TestImage:
    """A prepared sample with the complete truth."""
    key = sample.hu[len(sample.hu) // 2]
    numbers = range(1, len(sample.boxes) + 1)
    area = np.array([np.sum(sample.labels == number) for number in numbers], np.float64)
    return TestImage(
        hu=sample.hu,
        patient=sample.patient,
        boxes=sample.boxes,
        grazed=sample.ignore,
        diameter_mm=2 * np.sqrt(area / np.pi) * SPACING_MM,
        contrast_hu=np.array([_contrast(key, sample.labels, number) for number in numbers], np.float64),
    )


def evaluate(
    arms: Mapping[str, Detect],
    test: Sequence[Path],
    validation: Sequence[Path],
    *,
    trainings: Arms | None = None,
    bootstrap: Bootstrap | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """All arms on the same prepared samples; the first is the reference of the differences.

    trainings       those of `arms` that differ in their seed alone, by the name of what they are trainings of: pooled,
                    and compared two by two
    raises   ModelError     no arms, no samples, no lesion, a test patient among the validation's, or an arm returns
                            something else than boxes and scores
    """
    if not arms:
        raise ModelError("no detector to evaluate")
    draws = bootstrap or Bootstrap()
    chosen = _read(arms, validation, "validation", on_progress)
    tested = _read(arms, test, "test", on_progress)
    if both := {image.patient for image in chosen.images} & {image.patient for image in tested.images}:
        raise ModelError(f"{len(both)} patients are in both test and validation")
    if not any(len(image.boxes) for image in tested.images):
        raise ModelError("no lesion in the test images")
    tallies = {arm: tested.tally(arm) for arm in arms}
    thresholds = {arm: chosen.tally(arm, strict=True).threshold_at(THRESHOLD_AT_FP) for arm in arms}
    frocs = {arm: froc_measures(tally) for arm, tally in tallies.items()}
    accuracies_over = {
        iou: {arm: accuracy_measures(tested.tally(arm, overlap=iou, strict=True), thresholds[arm]) for arm in arms}
        for iou in IOUS
    }
    accuracies = accuracies_over[IOU]
    said = f"{len(tested.images)} images, {int(next(iter(tallies.values())).lesions.sum())} lesions"
    first, *others = arms
    tables = [
        Table("FROC", tuple(Row(said, arm, one.summary(draws)) for arm, one in frocs.items()), NOTES),
        Table("Accuracy", tuple(Row(said, arm, one.summary(draws)) for arm, one in accuracies.items()), ACCURACY_NOTES),
    ]
    if others:
        rows = [Row(f"minus {first}", arm, frocs[arm].minus(frocs[first], draws)) for arm in others]
        tables.append(Table("Paired difference, FROC", tuple(rows), ("The same patients drawn for both.",)))
        rows = [Row(f"minus {first}", arm, accuracies[arm].minus(accuracies[first], draws)) for arm in others]
        tables.append(Table("Paired difference, accuracy", tuple(rows), ()))
    if trainings and len(trainings) > 1:
        tables.append(difference_table(frocs, accuracies_over, trainings, draws))
    tables.append(_by_overlap(tested, arms, draws))
    tables.append(accuracy_table(accuracies_over, _with_others(arms, trainings or {}), draws))
    tables.append(_by_stratum("Sensitivity by size", "mm", SIZES_MM, lambda image: image.diameter_mm, tested, draws))
    tables.append(
        _by_stratum(
            "Sensitivity by contrast", "HU", CONTRASTS_HU, lambda image: np.abs(image.contrast_hu), tested, draws
        )
    )
    if free := _lesion_free(tested, thresholds, draws):
        tables.append(free)
    curves = {}
    for arm, tally in tallies.items():
        low, high = draws.band(tally, CURVE_RATES)
        curves[arm] = FrocCurve(CURVE_RATES, tally.sensitivity(CURVE_RATES), low, high)
    return Evaluation(tuple(tables), curves)


def evaluate_scans(
    networks: Mapping[str, Detector],
    scans: Sequence[LabelledVolume],
    *,
    bootstrap: Bootstrap | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Table, Table]:
    """Whole scans, with lesions and without: what is found, how often a healthy patient is called, what scores mean.

    raises   ModelError     no scans
    """
    if not scans:
        raise ModelError("no scans to evaluate")
    draws = bootstrap or Bootstrap()
    rows = []
    judged: dict[str, list[tuple[str, Judged]]] = {arm: [] for arm in networks}
    for arm, network in networks.items():
        outcomes = []
        for done, scan in enumerate(scans):
            found = find(network, as_volume(scan))
            outcomes.append(scan_outcome(found, scan))
            judged[arm].append((scan.patient, compare(found, scan).judged))
            if on_progress is not None:
                on_progress(f"scans, {arm}", done + 1, len(scans))
        point = float(network.operating_point)
        for condition, of in _kinds_of_scan(outcomes):
            rows.append(Row(condition, arm, _scan_values(Tally(of), point, draws)))
    return Table("Whole scans", tuple(rows), SCAN_NOTES), reliability(judged, draws)


def drawn_scans(config: DeepLesionConfig, *, count: int, seed: int) -> Iterator[LabelledVolume]:
    """Of each test family so many patients with lesions and so many without, at a random dose each."""
    for family in config.test_families:
        for number in range(2 * count):
            name = f"{family}.scan{number:03d}"
            lesions = config.data.lesions_per_case if number < count else 0
            data = replace(config.data, lesions_per_case=lesions)
            drawn = draw_labelled(cast("Family", family), name, data, draw_seed(name, seed))
            yield scanned(drawn, data, draw_seed(f"{name}/dose", seed))


def scan_outcome(found: Sequence[Found], scan: LabelledVolume) -> Outcome:
    """Findings of one scan against its planted lesions, centre by centre."""
    spacing = np.array(scan.spacing_zyx_mm)
    centres = [
        (np.argwhere(one.region.mask).mean(0) + [part.start for part in one.region.box]) * spacing for one in found
    ]
    return match_centres(
        scan.patient,
        np.array(centres).reshape(-1, 3),
        np.array([one.score for one in found]),
        np.array([lesion.centre_mm for lesion in scan.lesions]).reshape(-1, 3),
        [max(lesion.diameter_mm / 2, LEAST_REACH_MM) for lesion in scan.lesions],
    )


@dataclass(frozen=True, eq=False)
class _Readings:
    """Test images without their pixels, and what every arm found on them."""

    images: list[TestImage]
    found: Mapping[str, list[Reading]]
    _matched: dict[tuple[str, float, bool], list[Outcome]] = field(default_factory=dict, init=False, repr=False)

    def outcomes(self, arm: str, *, overlap: float = IOU, strict: bool = False) -> list[Outcome]:
        """Grazed lesions are matched too, and then taken out with all that is on them. Matched once."""
        if (arm, overlap, strict) not in self._matched:
            self._matched[arm, overlap, strict] = [
                match(reading, overlap=overlap, strict=strict).only(np.arange(len(reading.truth)) < len(image.boxes))
                for image, reading in zip(self.images, self.found[arm], strict=True)
            ]
        return self._matched[arm, overlap, strict]

    def tally(self, arm: str, *, overlap: float = IOU, strict: bool = False) -> Tally:
        return Tally(self.outcomes(arm, overlap=overlap, strict=strict))


_NO_PIXELS = np.zeros((0, 0, 0), np.float32)


def _read(arms: Mapping[str, Detect], files: Sequence[Path], what: str, on_progress: OnProgress | None) -> _Readings:
    if not files:
        raise ModelError(f"no prepared samples for {what}")
    images: list[TestImage] = []
    found: dict[str, list[Reading]] = defaultdict(list)
    for done, path in enumerate(files):
        image = image_of(load_sample(path))
        for arm, detect in arms.items():
            found[arm].append(_reading(image, detect(image.hu)))
        images.append(
            TestImage(_NO_PIXELS, image.patient, image.boxes, image.grazed, image.diameter_mm, image.contrast_hu)
        )
        if on_progress is not None:
            on_progress(what, done + 1, len(files))
    return _Readings(images, found)


def _reading(image: TestImage, detected: Detected) -> Reading:
    """With the last pixel inside instead of edges, as FROC's +1 areas want it."""
    truth = np.concatenate([image.boxes, image.grazed]).astype(np.float64)
    boxes = np.asarray(detected.boxes, np.float64).reshape(-1, 4)
    inside = np.array([0.0, 0.0, 1.0, 1.0])
    return Reading(image.patient, truth - inside, boxes - inside, np.asarray(detected.scores, np.float64))


def _contrast(key: FloatArray, labels: NDArray[np.uint8], number: int) -> float:
    """NaN where the section has no pixel, or nothing but other lesions around it."""
    inside: BoolArray = labels == number
    near, far = (binary_dilation(inside, iterations=steps) for steps in RING_PX)
    around = far & ~near & (labels == 0)
    if not inside.any() or not around.any():
        return float("nan")
    return float(np.median(key[inside]) - np.median(key[around]))


def _with_others(arms: Mapping[str, Detect], trainings: Arms) -> dict[str, Sequence[str]]:
    """Every arm in the order given, those with several trainings once."""
    arm_of = {name: arm for arm, names in trainings.items() for name in names}
    return {arm_of.get(name, name): trainings.get(arm_of.get(name, name), [name]) for name in arms}


def _by_overlap(tested: _Readings, arms: Mapping[str, Detect], draws: Bootstrap) -> Table:
    rows = []
    for arm in arms:
        values = {}
        for overlap in IOUS:
            tally = tested.tally(arm, overlap=overlap)
            (values[f"IoU {overlap:g}"],) = draws.interval(tally.average_sensitivity, len(tally.patients))
        rows.append(Row("average @.5-4", arm, values))
    return Table("Sensitivity over the IoU asked for", tuple(rows), ("Mean of the sensitivities at .5, 1, 2, 4 FP.",))


def _by_stratum(
    title: str,
    unit: str,
    strata: Sequence[tuple[float, float]],
    value_of: Callable[[TestImage], Floats],
    tested: _Readings,
    draws: Bootstrap,
) -> Table:
    rows = []
    for low, high in strata:
        chosen = [(value_of(image) >= low) & (value_of(image) < high) for image in tested.images]
        count = sum(int(lesions.sum()) for lesions in chosen)
        if not count:
            continue
        name = f"{low:g} to {high:g} {unit}" if np.isfinite(high) else f"from {low:g} {unit}"
        for arm in tested.found:
            outcomes = [one.only(lesions) for one, lesions in zip(tested.outcomes(arm), chosen, strict=True)]
            values = froc_measures(Tally(outcomes)).summary(draws)
            rows.append(Row(f"{name}, {count} lesions", arm, values))
    return Table(title, tuple(rows), ("False positives are those of all images, whatever is on them.",))


def _lesion_free(tested: _Readings, thresholds: Mapping[str, float], draws: Bootstrap) -> Table | None:
    """False positives on slices that no lesion touches; None without such."""
    free = [not len(image.boxes) and not len(image.grazed) for image in tested.images]
    if not any(free):
        return None
    rows = []
    for arm, threshold in thresholds.items():
        tally = Tally([one for one, is_free in zip(tested.outcomes(arm), free, strict=True) if is_free])
        values = {}
        for name, score in (("FP at threshold", threshold), ("FP in all", -np.inf)):
            (values[name],) = draws.interval(partial(tally.false_above, score), len(tally.patients))
        rows.append(Row(f"{sum(free)} images", arm, values))
    return Table("False positives per lesion-free image", tuple(rows), ())


def _kinds_of_scan(outcomes: Sequence[Outcome]) -> list[tuple[str, list[Outcome]]]:
    with_lesions = [one for one in outcomes if len(one.found_at)]
    free = [one for one in outcomes if not len(one.found_at)]
    kinds = ((f"{len(with_lesions)} scans with lesions", with_lesions), (f"{len(free)} scans without", free))
    return [(name, of) for name, of in kinds if of]


def _scan_values(tally: Tally, point: float, draws: Bootstrap) -> dict[str, Interval]:
    values = draws.interval(
        lambda weights: np.array([tally.accuracy_above(point, weights), tally.false_above(point, weights)]),
        len(tally.patients),
    )
    return dict(zip(("sensitivity", "FP per scan"), values, strict=True))
