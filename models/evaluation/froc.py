"""Free-response ROC of lesion detection, the accuracy of A17, and their intervals with the patient as the unit.

Source: the evaluation of 3DCE and MULAN (arXiv 1806.09648, 1908.04373), which the literature on DeepLesion shares.

A detection that touches no lesion is a false positive. A lesion is found as soon as one detection touches it: a second
one there counts for nothing, and one detection may find two lesions. So the order among equal scores cannot matter, and
all detections of one score enter the curve together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.contract import BoolArray, ModelError
from models.evaluation.bootstrap import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""False positives per image at which the literature reads the curve."""
AVERAGED = 4
"""The average sensitivity is that at the first so many rates."""
IOU = 0.5
DRAWS = 1000
NEVER = np.iinfo(np.int64).max
"""Rank of a lesion that no detection touches."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One image: what is there, and what was detected.

    patient     key that stands for the patient
    truth       (L, 4), boxes: (D, 4): x1, y1, x2, y2 in pixels, both corners inside the box
    scores      (D,), higher is surer
    raises      ModelError      shapes do not fit, or a number is not finite
    """

    patient: str
    truth: Floats
    boxes: Floats
    scores: Floats

    def __post_init__(self) -> None:
        for name, width in (("truth", (4,)), ("boxes", (4,)), ("scores", ())):
            array = np.asarray(getattr(self, name), np.float64)
            array = array.reshape(0, *width) if array.size == 0 else array
            if array.shape[1:] != width or array.ndim != 1 + len(width) or not np.isfinite(array).all():
                raise ModelError(f"{name} of a reading: shape {array.shape}, or numbers that are not finite")
            object.__setattr__(self, name, array)
        if len(self.boxes) != len(self.scores):
            raise ModelError(f"a reading has {len(self.boxes)} boxes and {len(self.scores)} scores")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One image or scan after matching; all that the measures need of it.

    found_at    (L,) highest score of a detection that touches the lesion, −inf where none does
    found_rank  (L,) place of the first such detection among the image's, from 1; NEVER where none does
    false       (F,) scores of detections that touch nothing
    scores      (D,) all, descending
    lesion      (D,) which lesion the detection is judged on, −1 where it touches none
    right       (D,) whether it is the first there (for average precision, where one detection finds one lesion)
    """

    patient: str
    found_at: Floats
    found_rank: Ints
    false: Floats
    scores: Floats
    lesion: Ints
    right: BoolArray

    def only(self, lesions: BoolArray) -> Outcome:
        """With a part of the lesions (L,), all false positives, and nothing that is on one of the others."""
        counts = np.append(lesions, True)[self.lesion]
        number = np.append(np.cumsum(lesions) - 1, -1)[self.lesion]
        return Outcome(
            patient=self.patient,
            found_at=self.found_at[lesions],
            found_rank=self.found_rank[lesions],
            false=self.false,
            scores=self.scores[counts],
            lesion=number[counts],
            right=self.right[counts],
        )


def iou(boxes: Floats, others: Floats) -> Floats:
    """Intersection over union (D, L), corners inside the boxes: a side is x2 − x1 + 1."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(-1)
    areas = [(box[:, 2:] - box[:, :2] + 1).prod(-1) for box in (boxes, others)]
    overlap: Floats = shared / (areas[0][:, None] + areas[1][None, :] - shared)
    return overlap


def match(reading: Reading, *, overlap: float = IOU, strict: bool = False) -> Outcome:
    """Detections touch a lesion from this IoU on (strict: above it).

    Among equal scores, boxes go by x1, y1, x2, y2: a rank that knows nothing of the truth.
    """
    order = np.lexsort((*reading.boxes.T[::-1], -reading.scores))
    closeness = iou(reading.boxes[order], reading.truth)
    return _outcome(reading.patient, reading.scores[order], closeness, overlap, strict)


def match_centres(
    patient: str, centres_mm: Floats, scores: Floats, truth_mm: Floats, reach_mm: Floats | Sequence[float]
) -> Outcome:
    """One scan: a detection touches a lesion where its centre lies no further than `reach_mm` from the lesion's.

    centres_mm  (D, 3)      scores  (D,)
    truth_mm    (L, 3), none for a scan without lesions      reach_mm  (L,), its radius, say
    raises      ModelError      shapes do not fit, a number is not finite, or a reach is not positive
    """
    centres, truth = (np.asarray(points, np.float64).reshape(-1, 3) for points in (centres_mm, truth_mm))
    values, reach = (np.asarray(numbers, np.float64).reshape(-1) for numbers in (scores, reach_mm))
    if len(centres) != len(values) or len(truth) != len(reach):
        raise ModelError(f"{len(centres)} centres, {len(values)} scores; {len(truth)} lesions, {len(reach)} reaches")
    if not all(np.isfinite(array).all() for array in (centres, truth, values, reach)) or np.any(reach <= 0):
        raise ModelError("a centre, score or reach of a scan is not finite, or a reach not positive")
    order = np.lexsort((*centres.T[::-1], -values))
    distance = np.linalg.norm(centres[order, None] - truth[None], axis=-1)
    return _outcome(patient, values[order], 1 - distance / reach, 0.0, False)


def _outcome(patient: str, scores: Floats, closeness: Floats, limit: float, strict: bool) -> Outcome:
    """scores (D,) descending, closeness (D, L)."""
    touches = closeness > limit if strict else closeness >= limit
    found = touches.any(0)
    first = touches.argmax(0) if len(scores) else np.zeros(closeness.shape[1], np.int64)
    padded = np.append(scores, -np.inf)
    lesion, right = _one_to_one(touches, closeness)
    return Outcome(
        patient=patient,
        found_at=padded[np.where(found, first, len(scores))],
        found_rank=np.where(found, first + 1, NEVER).astype(np.int64),
        false=scores[~touches.any(1)],
        scores=scores,
        lesion=lesion,
        right=right,
    )


def _one_to_one(touches: BoolArray, closeness: Floats) -> tuple[Ints, BoolArray]:
    """The lesion of every detection, best first: the closest that no better one has taken, else the closest."""
    lesion = np.full(len(touches), -1, np.int64)
    right = np.zeros(len(touches), bool)
    free = np.ones(touches.shape[1], bool)
    for index in np.flatnonzero(touches.any(1)):
        right[index] = (touches[index] & free).any()
        candidates = np.flatnonzero(touches[index] & free if right[index] else touches[index])
        lesion[index] = candidates[closeness[index, candidates].argmax()]
        free[lesion[index]] = False
    return lesion, right


@dataclass(frozen=True, eq=False)
class Curve:
    """Sensitivity over false positives per image; the first point is (0, 0), before any detection.

    threshold   score from which on detections count at each point; +inf at the first
    """

    threshold: Floats
    fp_per_image: Floats
    sensitivity: Floats


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores in descending order, with their patients."""

    score: Floats
    patient: Ints

    def weight(self, weights: Ints) -> Ints:
        """What the first k weigh, for k = 0 … all."""
        total = np.zeros(len(self.score) + 1, np.int64)
        np.cumsum(weights[self.patient], out=total[1:])
        return total

    def above(self, score: Floats) -> Ints:
        """How many are higher."""
        return np.searchsorted(-self.score, -score, side="left")

    def at_least(self, score: Floats) -> Ints:
        """How many are as high or higher."""
        return np.searchsorted(-self.score, -score, side="right")


def _descending(score: Floats, patient: Ints) -> _Scores:
    order = np.argsort(-score, kind="stable")
    return _Scores(score[order], patient[order])


class Tally:
    """Outcomes of many images, ready to be measured again and again with patients weighted.

    Every measure of lesions is NaN where there are none; false positives are counted all the same.

    raises   ModelError     no images
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            raise ModelError("no images to evaluate")
        self.patients = tuple(sorted({outcome.patient for outcome in outcomes}))
        number = {patient: index for index, patient in enumerate(self.patients)}
        owner = np.array([number[outcome.patient] for outcome in outcomes])
        self.images = np.bincount(owner, minlength=len(self.patients))
        self.lesion_owner = np.repeat(owner, [len(outcome.found_at) for outcome in outcomes])
        self.lesions = np.bincount(self.lesion_owner, minlength=len(self.patients))
        self.found_at = np.concatenate([outcome.found_at for outcome in outcomes])
        self.found_rank = np.concatenate([outcome.found_rank for outcome in outcomes])
        found = np.isfinite(self.found_at)
        self._found = _descending(self.found_at[found], self.lesion_owner[found])
        self._false = _descending(
            np.concatenate([outcome.false for outcome in outcomes]),
            np.repeat(owner, [len(outcome.false) for outcome in outcomes]),
        )
        right = np.concatenate([outcome.right for outcome in outcomes])
        scores = np.concatenate([outcome.scores for outcome in outcomes])
        judged = np.repeat(owner, [len(outcome.scores) for outcome in outcomes])
        self._right = _descending(scores[right], judged[right])
        self._wrong = _descending(scores[~right], judged[~right])
        # What does not depend on the weights, once: a bootstrap asks a thousand times.
        self._found_above_false = self._found.above(self._false.score)
        self._found_from_false = self._found.at_least(self._false.score)
        self._false_above_false = self._false.above(self._false.score)
        self._false_from_false = self._false.at_least(self._false.score)
        self._right_from_right = self._right.at_least(self._right.score)
        self._wrong_from_right = self._wrong.at_least(self._right.score)

    @property
    def once(self) -> Ints:
        """Every patient with weight 1."""
        return np.ones(len(self.patients), np.int64)

    def curve(self) -> Curve:
        """All points, one per distinct score."""
        threshold = np.unique(np.concatenate([self._found.score, self._false.score]))[::-1]
        hits = np.append(0, self._found.at_least(threshold))
        false = np.append(0, self._false.at_least(threshold))
        lesions = int(self.lesions.sum())
        sensitivity = hits / lesions if lesions else np.full(len(hits), np.nan)
        return Curve(np.append(np.inf, threshold), false / self.images.sum(), sensitivity)

    def sensitivity(self, rates: Sequence[float] | Floats = RATES, weights: Ints | None = None) -> Floats:
        """At these numbers of false positives per image: between two points linear, behind the last one as there.

        Where the curve rises at exactly that number, its upper end counts: no further false positive is needed for it.
        """
        weights = self.once if weights is None else weights
        found, false = self._found.weight(weights), self._false.weight(weights)
        lesions = int(weights @ self.lesions)
        if not lesions:
            return np.full(len(rates), np.nan)
        allowed = np.asarray(rates, np.float64) * int(weights @ self.images)
        hits = np.full(len(allowed), float(found[-1]))
        # The false positive that is one too many, and with it all of its score.
        excess = np.searchsorted(false[1:], allowed, side="right")
        within = excess < len(self._false.score)
        at = excess[within]
        low, high = false[self._false_above_false[at]], false[self._false_from_false[at]]
        below, beyond = found[self._found_above_false[at]], found[self._found_from_false[at]]
        hits[within] = below + (allowed[within] - low) / (high - low) * (beyond - below)
        return hits / lesions

    def average_sensitivity(self, weights: Ints | None = None) -> float:
        """Mean of the sensitivities at .5, 1, 2 and 4 false positives per image."""
        return float(self.sensitivity(RATES[:AVERAGED], weights).mean())

    def average_precision(self, weights: Ints | None = None) -> float:
        """Area under precision over recall, precision made monotonous; a second detection on a lesion is wrong here."""
        weights = self.once if weights is None else weights
        lesions = int(weights @ self.lesions)
        if not lesions:
            return float("nan")
        hits = self._right.weight(weights)[self._right_from_right]
        wrong = self._wrong.weight(weights)[self._wrong_from_right]
        precision = hits / np.maximum(hits + wrong, 1)
        best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
        return float(np.sum(np.diff(hits, prepend=0) * best_from_here) / lesions)

    def accuracy(self, top: int, weights: Ints | None = None) -> float:
        """Share of lesions that one of the image's `top` surest detections touches."""
        return self._share(self.found_rank <= top, weights)

    def accuracy_above(self, threshold: float, weights: Ints | None = None) -> float:
        """Share of lesions that a detection of at least this score touches."""
        return self._share(self.found_at >= threshold, weights)

    def false_above(self, threshold: float, weights: Ints | None = None) -> float:
        """False positives per image among detections of at least this score."""
        weights = self.once if weights is None else weights
        count = self._false.at_least(np.array([threshold]))
        return float(self._false.weight(weights)[count[0]] / (weights @ self.images))

    def threshold_at(self, fp_per_image: float) -> float:
        """The lowest score that allows at most so many false positives per image; to be chosen on other patients."""
        curve = self.curve()
        return float(curve.threshold[np.flatnonzero(curve.fp_per_image <= fp_per_image)[-1]])

    def _share(self, found: BoolArray, weights: Ints | None) -> float:
        weights = self.once if weights is None else weights
        lesions = weights @ self.lesions
        return float((weights[self.lesion_owner] @ found) / lesions) if lesions else float("nan")


Measure = Callable[[Ints], float | Floats]
"""Patients' weights (P,) to one number or several."""


@dataclass(frozen=True)
class Bootstrap:
    """Patients drawn with replacement; the same seed draws the same patients for every method."""

    draws: int = DRAWS
    seed: int = 0
    _drawn: dict[int, Ints] = field(default_factory=dict, repr=False, compare=False)

    def weights(self, patients: int) -> Ints:
        """How often each patient is drawn, (draws, patients)."""
        if patients not in self._drawn:
            rng = np.random.default_rng(self.seed)
            self._drawn[patients] = rng.multinomial(patients, np.full(patients, 1 / patients), size=self.draws)
        return self._drawn[patients]

    def values(self, measure: Measure, patients: int) -> Floats:
        """The measure of every draw, (draws,) or (draws, values)."""
        return np.array([measure(weights) for weights in self.weights(patients)], np.float64)

    def interval(self, measure: Measure, patients: int) -> list[Interval]:
        """Every number of the measure on all patients as they are, with its 95 % percentile interval.

        Draws in which it means nothing (no lesion of that kind) are left out.
        """
        return _intervals(self.sample(measure, patients), patients)

    def sample(self, measure: Measure, patients: int) -> Floats:
        """The measure on all patients as they are, and below it on every draw, (1 + draws, values)."""
        measured = np.atleast_1d(measure(np.ones(patients, np.int64)))
        drawn = self.values(measure, patients).reshape(self.draws, len(measured))
        return np.concatenate([measured[None], drawn])

    def band(self, tally: Tally, rates: Floats) -> tuple[Floats, Floats]:
        """Lower and upper end of the 95 % interval of the sensitivity at each rate, for a figure."""
        drawn = self.values(lambda weights: tally.sensitivity(rates, weights), len(tally.patients))
        low, high = np.nanpercentile(drawn, (2.5, 97.5), axis=0)
        return low, high


def _intervals(sample: Floats, patients: int) -> list[Interval]:
    return [_interval(column[0], column[1:], patients) for column in sample.T]


def _interval(value: float, drawn: Floats, patients: int) -> Interval:
    known = drawn[np.isfinite(drawn)]
    low, high = np.percentile(known, (2.5, 97.5)) if known.size else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high), patients)


@dataclass(frozen=True, eq=False)
class Measures:
    """Several measures of one method, by name."""

    tally: Tally
    names: tuple[str, ...]
    of: Measure
    _samples: dict[Bootstrap, Floats] = field(default_factory=dict, init=False, repr=False)

    def sample(self, bootstrap: Bootstrap) -> Floats:
        """On all patients and on every draw, (1 + draws, measures); the same array again for the same draws."""
        if bootstrap not in self._samples:
            self._samples[bootstrap] = bootstrap.sample(self.of, len(self.tally.patients))
        return self._samples[bootstrap]

    def summary(self, bootstrap: Bootstrap | None = None) -> dict[str, Interval]:
        """Each with its interval."""
        return self._told(self.sample(bootstrap or Bootstrap()))

    def minus(self, other: Measures, bootstrap: Bootstrap | None = None) -> dict[str, Interval]:
        """Difference to another method, measure by measure, the same patients drawn for both.

        raises   ModelError     other measures, or not of the same images and lesions
        """
        self.check_comparable(other)
        draws = bootstrap or Bootstrap()
        return self._told(self.sample(draws) - other.sample(draws))

    def check_comparable(self, other: Measures) -> None:
        """raises ModelError: other measures, or not of the same images and lesions"""
        mine, its = self.tally, other.tally
        pairs = ((mine.lesions, its.lesions), (mine.images, its.images))
        if mine.patients != its.patients or not all(np.array_equal(*pair) for pair in pairs):
            raise ModelError("the two methods were not measured on the same images and lesions")
        if self.names != other.names:
            raise ModelError("the two methods were not measured by the same measures")

    def _told(self, sample: Floats) -> dict[str, Interval]:
        return dict(zip(self.names, _intervals(sample, len(self.tally.patients)), strict=True))


def pooled(trainings: Sequence[Measures]) -> Measures:
    """Trainings of one arm as one method: every measure is the mean of theirs, the same patients drawn for all.

    raises   ModelError     none, other measures, or not of the same images and lesions
    """
    if not trainings:
        raise ModelError("an arm without trainings")
    first, *others = trainings
    for other in others:
        first.check_comparable(other)
    return Measures(first.tally, first.names, lambda weights: np.array([one.of(weights) for one in trainings]).mean(0))


def froc_measures(tally: Tally) -> Measures:
    """Sensitivity at .5, 1, 2, 4, 8, 16 false positives per image, mean of the first four, average precision."""

    def measure(weights: Ints) -> Floats:
        at_rates = tally.sensitivity(RATES, weights)
        return np.array([*at_rates, at_rates[:AVERAGED].mean(), tally.average_precision(weights)])

    return Measures(tally, (*(f"@{rate:g}" for rate in RATES), "average @.5-4", "AP"), measure)


def accuracy_measures(tally: Tally, threshold: float) -> Measures:
    """Accuracy of A17 in the three ways it can be meant; the tally is of strict matches.

    threshold   of this method, chosen on other patients (`Tally.threshold_at`)
    """

    def measure(weights: Ints) -> Floats:
        return np.array(
            [
                tally.accuracy(1, weights),
                tally.accuracy(3, weights),
                tally.accuracy_above(threshold, weights),
                tally.false_above(threshold, weights),
            ]
        )

    return Measures(tally, ("top 1", "top 3", "above threshold", "FP above threshold"), measure)
