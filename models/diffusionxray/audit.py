"""Nodules of known truth through the restoration: are they kept, are they where they were, are any invented?

Every case is one patient twice, with nodules and without. Both are degraded alike, with the same noise, so that the
difference of what is made of them is what is made of the nodules, and of nothing else.

source: DiffusionXRay dossier 10.7 and 13.1
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from models.contract import FloatArray, ModelError
from models.diffusionxray.evaluate import INPUT, Degrader, Method, Report, unchanged
from models.evaluation.blobs import Candidate, candidates, threshold_for, touching
from models.evaluation.bootstrap import Interval, over_patients
from models.evaluation.observer import (
    CHANNEL_CYCLES_PER_PX,
    CHANNEL_ORIENTATIONS,
    Statistics,
    detectability,
    gabor_channels,
    hotelling_responses,
)
from models.evaluation.table import Row, Table
from models.lidnet.pairs import draw_seed

CLEAN = "clean"
REACH_PX = 6
"""So far from its place a nodule is looked for."""
LEAST_KEPT = 0.2
"""Of its contrast; of what is left of a nodule below this, a place says nothing."""
SMALL_MM = 10.0
RESAMPLES = 1000
LEAST_CROPS = 20
"""Pairs to train an observer of four channels on, and to test it on."""
KEPT, MOVED, KEPT_SMALL = "contrast kept", "displacement (px)", f"contrast kept, below {SMALL_MM:g} mm"
D_PRIME, D_PRIME_GAIN = "d′", "d′ minus input's"
COUNT, FOUND, NOT_CLEAN, INVENTED, NOT_WEAKLY = (
    "candidates per 100 pictures",
    "share of nodules found",
    "not in clean, per 100",
    "neither in clean nor in input, per 100",
    "not even weakly, per 100",
)

Numbers = dict[str, dict[str, list[float]]]
"""Metric → case → one number per nodule or picture."""


@dataclass(frozen=True)
class Nodule:
    """One nodule of known truth: place and diameter in pixels."""

    row: float
    column: float
    diameter_px: float


@dataclass(frozen=True, eq=False)
class Case:
    """One patient twice: clean pictures float32 (Y, X), aligned."""

    key: str
    present: FloatArray
    absent: FloatArray
    nodules: tuple[Nodule, ...]
    spacing_mm: float


@dataclass(frozen=True)
class AuditConfig:
    """How the audit is done.

    draws           degradations of every case
    observer_px     side of the squares that the model observer sees; nodules of up to half of that
    per_picture     candidates on clean pictures without nodules, on average, that the detector is set to: as many as a
                    reader is used to from detectors; set to fewer, it finds no nodules that could be invented either
    weak            part of its threshold from which on a candidate is one, if a weak one
    """

    draws: int = 1
    observer_px: int = 96
    per_picture: float = 2.0
    weak: float = 0.6


@dataclass(eq=False)
class Tally:
    """What one method made of the nodules under one degradation.

    crops       case → squares around the nodules, with and without
    """

    numbers: Numbers = field(default_factory=dict)
    crops: dict[str, list[tuple[FloatArray, FloatArray]]] = field(default_factory=dict)

    def enter(self, metric: str, case: str, value: float) -> None:
        self.numbers.setdefault(metric, {}).setdefault(case, []).append(value)

    def interval(self, metric: str) -> Interval:
        return over_patients(self.numbers.get(metric, {}))


Tallies = dict[tuple[str, str], Tally]
"""(degradation, method) → what came of it."""


def audit(
    methods: Mapping[str, Method],
    degraders: Mapping[str, Degrader],
    cases: Sequence[Case],
    setting: Sequence[tuple[FloatArray, float]],
    *,
    what: AuditConfig | None = None,
    seed: int = 0,
    on_progress: Report | None = None,
) -> tuple[Table, ...]:
    """Tables of nodules kept, of their detectability, and of candidates invented, for the input and every method.

    methods     as `evaluate` takes them
    setting     clean pictures without nodules and their spacings, of other patients: the detector is set on them
    raises   ModelError     no cases, or a method whose result is of another shape
    """
    if not cases:
        raise ModelError("there are no cases to audit")
    how = what or AuditConfig()
    threshold = threshold_for([candidates(picture, spacing) for picture, spacing in setting], how.per_picture)
    tallies: Tallies = {}
    total = len(degraders) * len(cases) * how.draws
    for done, (condition, case, draw) in enumerate(_works(degraders, cases, how.draws)):
        pair = degraded_pair(case, degraders[condition], draw_seed(f"{case.key}/{condition}/{draw}", seed))
        before = _seen(case, pair[1])
        for name, method in {INPUT: unchanged, **methods}.items():
            restored = tuple(_restored(method, picture, case.spacing_mm) for picture in pair)
            tally = tallies.setdefault((condition, name), Tally())
            _nodules(tally, case, (restored[0], restored[1]), how)
            _candidates(tally, case, (restored[0], restored[1]), before, (threshold, how.weak))
        if on_progress is not None:
            on_progress("nodules", done + 1, total)
    return (
        nodule_table(tallies),
        observer_table(tallies, how),
        invented_table(tallies, cases, (threshold, how), setting),
    )


def degraded_pair(case: Case, by: Degrader, seed: int) -> tuple[FloatArray, FloatArray]:
    """With and without the nodules, worse in the same way and with the same noise."""
    present, absent = (
        np.array(by(picture, case.spacing_mm, np.random.default_rng(seed)), np.float32)
        for picture in (case.present, case.absent)
    )
    return present, absent


def contrast_kept(left: FloatArray, truth: FloatArray, nodule: Nodule) -> float:
    """Of the nodule's contrast, the part that is left: what the matched filter says of the difference over the truth.

    The filter has mean zero: that the whole picture became brighter or darker with the nodule is not seen.

    left, truth     difference with and without the nodule, after and before (Y, X)
    """
    told, known = (_window(picture, nodule, 0).astype(np.float64) for picture in (left, truth))
    seeker = known - known.mean()
    return float((told * seeker).sum() / (known * seeker).sum())


def displacement_px(left: FloatArray, truth: FloatArray, nodule: Nodule) -> float:
    """How far what is left of the nodule is from its place: the peak of the correlation with the truth, in between
    pixels by a parabola. NaN where too little is left; `REACH_PX` or more where it is not near.
    """
    if contrast_kept(left, truth, nodule) < LEAST_KEPT:
        return math.nan
    told = _window(left, nodule, REACH_PX).astype(np.float64)
    known = _window(truth, nodule, 0).astype(np.float64)
    matched = fftconvolve(told, (known - known.mean())[::-1, ::-1], mode="valid")  # (2 REACH_PX + 1)²
    row, column = (int(place) for place in np.unravel_index(int(matched.argmax()), matched.shape))
    if not (0 < row < 2 * REACH_PX and 0 < column < 2 * REACH_PX):
        return math.hypot(row - REACH_PX, column - REACH_PX)
    down, across = _vertex(matched[row - 1 : row + 2, column]), _vertex(matched[row, column - 1 : column + 2])
    return math.hypot(row + down - REACH_PX, column + across - REACH_PX)


def nodule_table(tallies: Tallies) -> Table:
    """What is left of the nodules, and where."""
    rows = tuple(
        Row(condition, method, {metric: tally.interval(metric) for metric in (KEPT, KEPT_SMALL, MOVED)})
        for (condition, method), tally in tallies.items()
    )
    notes = (
        "Drawn patients with nodules inserted before projection; made with and without them, same degradation, same"
        " noise. Intervals: 95 % bootstrap over patients.",
        "Contrast kept: matched filter of the difference with and without, over that of the truth; 1 is all of it.",
        f"Displacement: of the nodules of which at least {LEAST_KEPT:g} is left.",
    )
    return Table("Nodules kept", rows, notes)


def observer_table(tallies: Tallies, how: AuditConfig) -> Table:
    """d′ of the channelised Hotelling observer on patients that it was not trained on; and the gain over the input."""
    rows = []
    shown = {row: _responses(tally, how.observer_px) for row, tally in tallies.items()}
    for (condition, method), responses in shown.items():
        before = shown[condition, INPUT]
        rows.append(Row(condition, method, {D_PRIME: _d_prime(responses), D_PRIME_GAIN: _d_prime(responses, before)}))
    counts = {len(pairs) for responses in shown.values() for pairs in [np.concatenate(responses or [np.zeros((0, 2))])]}
    notes = (
        f"Nodules of up to {how.observer_px // 2} pixels in the middle of {how.observer_px}² squares; four round Gabor"
        " channels; trained on every other patient, tested on those between.",
        f"Pairs tested on: {', '.join(map(str, sorted(counts)))}; with fewer than {LEAST_CROPS} to train or test on,"
        " nothing is told. Intervals: 95 % bootstrap over patients, the same patients for both of a difference.",
    )
    return Table("Detectability of nodules", tuple(rows), notes)


def invented_table(
    tallies: Tallies, cases: Sequence[Case], used: tuple[float, AuditConfig], setting: Sequence[object]
) -> Table:
    """Candidates of a plain blob detector where there are no nodules; and the nodules that it finds.

    used    threshold, and how the audit is done
    """
    threshold, how = used
    metrics = (COUNT, NOT_CLEAN, INVENTED, NOT_WEAKLY, FOUND)
    clean = Tally()
    for case in cases:
        _candidates(clean, case, (case.present, case.absent), _seen(case, case.absent), (threshold, how.weak))
    rows = [Row("none", CLEAN, {metric: clean.interval(metric) for metric in metrics})]
    rows += [
        Row(condition, method, {metric: tally.interval(metric) for metric in metrics})
        for (condition, method), tally in tallies.items()
    ]
    notes = (
        f"Detector: Laplacian of Gaussians at several sizes; a candidate from {threshold:.3g} times the responses"
        f" around it on, which leaves at most {how.per_picture:g} a picture on {len(setting)} clean pictures of other"
        " patients.",
        "On pictures without nodules; candidates are the same where the centre of one lies within the other.",
        f"Not even weakly: not in clean, nor in the input, at {how.weak:g} of the threshold.",
        "Found: nodules with a candidate on them, of all.",
    )
    return Table("Invented candidates", tuple(rows), notes)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Candidates on the clean and on the degraded picture without nodules, however weak."""

    clean: list[Candidate]
    degraded: list[Candidate]


def _seen(case: Case, degraded: FloatArray) -> _Seen:
    return _Seen(candidates(case.absent, case.spacing_mm), candidates(degraded, case.spacing_mm))


def _works(degraders: Mapping[str, Degrader], cases: Sequence[Case], draws: int) -> Iterator[tuple[str, Case, int]]:
    return ((condition, case, draw) for condition in degraders for case in cases for draw in range(draws))


def _restored(method: Method, picture: FloatArray, spacing_mm: float) -> FloatArray:
    restored = method(picture, spacing_mm)
    if restored.shape != picture.shape:
        raise ModelError(f"of a picture of {picture.shape} a method made one of {restored.shape}")
    return restored


def _nodules(tally: Tally, case: Case, restored: tuple[FloatArray, FloatArray], how: AuditConfig) -> None:
    """Contrast, place, and the squares for the observer."""
    left, truth = restored[0] - restored[1], case.present - case.absent
    for nodule in case.nodules:
        kept = contrast_kept(left, truth, nodule)
        tally.enter(KEPT, case.key, kept)
        if nodule.diameter_px * case.spacing_mm < SMALL_MM:
            tally.enter(KEPT_SMALL, case.key, kept)
        tally.enter(MOVED, case.key, displacement_px(left, truth, nodule))
        square = square_around(nodule, how.observer_px, case.present.shape)
        if square is not None and nodule.diameter_px <= how.observer_px / 2:
            tally.crops.setdefault(case.key, []).append((restored[0][square], restored[1][square]))


def _candidates(
    tally: Tally, case: Case, restored: tuple[FloatArray, FloatArray], before: _Seen, limits: tuple[float, float]
) -> None:
    """limits   threshold, and the part of it from which on a candidate is a weak one"""
    threshold, weak = limits
    present, absent = (
        [one for one in candidates(picture, case.spacing_mm) if one.score >= threshold] for picture in restored
    )
    strong, weakly = (
        [[one for one in seen if one.score >= least] for seen in (before.clean, before.degraded)]
        for least in (threshold, weak * threshold)
    )
    fresh = _fresh(absent, strong[0])
    told = {
        COUNT: len(absent),
        NOT_CLEAN: len(fresh),
        INVENTED: len(_fresh(fresh, strong[1])),
        NOT_WEAKLY: len(_fresh(absent, [*weakly[0], *weakly[1]])),
    }
    for metric, count in told.items():
        tally.enter(metric, case.key, 100.0 * count)
    for nodule in case.nodules:
        place = Candidate(nodule.row, nodule.column, nodule.diameter_px, 0.0)
        tally.enter(FOUND, case.key, float(any(touching(place, one) for one in present)))


def _fresh(found: Sequence[Candidate], others: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in found if not any(touching(one, other) for other in others)]


def _responses(tally: Tally, side: int) -> list[NDArray[np.float64]]:
    """Of every patient tested the observer's responses with and without, (N, 2); none where there are too few."""
    keys = sorted(tally.crops)
    training = [pair for key in keys[::2] for pair in tally.crops[key]]
    tested = [tally.crops[key] for key in keys[1::2]]
    if len(training) < LEAST_CROPS or sum(map(len, tested)) < LEAST_CROPS:
        return []
    present, absent = (np.stack([pair[which] for pair in training]) for which in (0, 1))
    channels = _round_channels(side)
    return [
        np.stack(
            [
                hotelling_responses((present, absent), np.stack([pair[which] for pair in pairs]), channels)
                for which in (0, 1)
            ],
            1,
        )
        for pairs in tested
    ]


def _round_channels(side: int) -> Statistics:
    """One Gabor channel per octave, the mean of its orientations in even phase, (4, side, side).

    Nodules are round and in the middle: no orientation and no odd phase has anything of their mean, and four channels
    need few patients.
    """
    channels = gabor_channels(side)
    by_octave = channels.reshape(len(CHANNEL_CYCLES_PER_PX), CHANNEL_ORIENTATIONS, 2, side, side)
    even: Statistics = by_octave[:, :, 0].mean(1)
    centred: Statistics = even - even.mean((1, 2), keepdims=True)
    return centred


def _d_prime(responses: list[NDArray[np.float64]], minus: list[NDArray[np.float64]] | None = None) -> Interval:
    """d′, or its difference to another, with an interval over the patients."""
    if not responses or minus == []:
        return Interval(math.nan, math.nan, math.nan, 0)

    def value(drawn: Sequence[int]) -> float:
        found = [np.concatenate([each[index] for index in drawn]) for each in (responses, minus or []) if each]
        d_primes = [detectability(pairs[:, 0], pairs[:, 1]) for pairs in found]
        return d_primes[0] - d_primes[1] if minus is not None else d_primes[0]

    rng = np.random.default_rng(0)
    count = len(responses)
    drawn = [value(rng.integers(count, size=count).tolist()) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(value(range(count)), float(low), float(high), count)


def _window(picture: FloatArray, nodule: Nodule, margin: int) -> FloatArray:
    """A square around the nodule, twice its diameter wide at least, and the margin; zeros beyond the edge."""
    reach = math.ceil(max(nodule.diameter_px, 8.0)) + margin
    row, column = round(nodule.row) + reach, round(nodule.column) + reach
    wide: FloatArray = np.pad(picture, reach)
    return wide[row - reach : row + reach + 1, column - reach : column + reach + 1]


def square_around(nodule: Nodule, side: int, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Around the nodule; None where it does not lie within the picture."""
    top, left = round(nodule.row) - side // 2, round(nodule.column) - side // 2
    inside = top >= 0 and left >= 0 and top + side <= shape[0] and left + side <= shape[1]
    return (slice(top, top + side), slice(left, left + side)) if inside else None


def _vertex(three: NDArray[np.float64]) -> float:
    """Where the parabola through three values, the middle one the largest, is highest: from −0.5 to 0.5."""
    bend = three[0] - 2 * three[1] + three[2]
    return 0.0 if bend == 0 else float((three[0] - three[2]) / (2 * bend))
