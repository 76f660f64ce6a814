"""Free-response ROC of lesion detection, the accuracy of A17, and their intervals with the patient as the unit.

Source: as of `matching`. The order among equal scores cannot matter, and all detections of one score enter the curve
together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.contract import BoolArray, ModelError
from models.evaluation.bootstrap import Interval
from models.evaluation.matching import Floats, Ints, Outcome

RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""False positives per image at which the literature reads the curve."""
AVERAGED = 4
"""The average sensitivity is that at the first so many rates."""
DRAWS = 1000


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
