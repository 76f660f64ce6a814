import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contract import ModelError
from models.evaluation.froc import RATES, Bootstrap, Tally, accuracy_measures, froc_measures, pooled
from models.evaluation.matching import NEVER, Outcome, Reading, iou, match, match_centres

from .readings import A, B, reading

NOWHERE = (200.0, 200.0, 209.0, 209.0)
ELSEWHERE = (300.0, 200.0, 309.0, 209.0)


def tally(*readings: Reading) -> Tally:
    return Tally([match(one) for one in readings])


def points(measured: Tally) -> list[tuple[float, float, float]]:
    curve = measured.curve()
    return list(zip(curve.threshold, curve.fp_per_image, curve.sensitivity, strict=True))


def test_a_second_hit_is_neither_found_nor_false() -> None:
    measured = tally(
        reading([A], [(A, 0.9), (A, 0.8), (NOWHERE, 0.7)]),
        reading([B], [(NOWHERE, 0.6), (B, 0.5)]),
    )
    assert points(measured) == [
        (math.inf, 0, 0),
        (0.9, 0, 0.5),
        (0.7, 0.5, 0.5),
        (0.6, 1, 0.5),
        (0.5, 1, 1),
    ]
    # At 1 the upper end of the rise counts; behind it the value is held.
    assert measured.sensitivity().tolist() == [0.5, 1, 1, 1, 1, 1]
    assert measured.average_sensitivity() == 0.875


def test_one_detection_finds_two_lesions() -> None:
    neighbour = (0.0, 1.0, 9.0, 10.0)
    outcome = match(reading([A, neighbour], [((0.0, 0.0, 9.0, 10.0), 0.4)]))
    assert outcome.found_at.tolist() == [0.4, 0.4]
    assert outcome.false.size == 0
    measured = Tally([outcome])
    assert measured.sensitivity([0.0]).tolist() == [1]
    # Precision is one to one: one of two lesions, at precision 1.
    assert measured.average_precision() == 0.5


def test_an_image_without_detections_counts_as_an_image_and_its_lesion_as_missed() -> None:
    measured = tally(
        reading([A], [(NOWHERE, 0.9), (A, 0.8)]), reading([B], []), reading([A], [(A, 0.3)]), reading([A, B], [])
    )
    assert points(measured) == [(math.inf, 0, 0), (0.9, 0.25, 0), (0.8, 0.25, 0.2), (0.3, 0.25, 0.4)]
    # Linear up to the first point: .1 of the way to .25 false positives, but its foot is at 0.
    assert measured.sensitivity([0.1, 0.25]).tolist() == [0, 0.4]


def test_equal_scores_enter_together_and_the_way_between_is_straight() -> None:
    # Three found and four false at one score, over two images: from (0, 0) straight to (2, 3/4).
    tied = [
        reading([A, B], [(A, 0.5), (B, 0.5), (NOWHERE, 0.5), (ELSEWHERE, 0.5)]),
        reading([A, B], [(NOWHERE, 0.5), (A, 0.5), (ELSEWHERE, 0.5)]),
    ]
    measured = tally(*tied)
    assert points(measured) == [(math.inf, 0, 0), (0.5, 2, 0.75)]
    assert measured.sensitivity().tolist() == [0.1875, 0.375, 0.75, 0.75, 0.75, 0.75]


def test_a_range_that_ends_before_16_is_held_not_extended() -> None:
    # Rising to the end: an extrapolation would go on rising.
    found = [(NOWHERE, 0.9), (A, 0.8), (ELSEWHERE, 0.7), (B, 0.6)]
    measured = tally(reading([A, B, (100.0, 100.0, 109.0, 109.0)], found))
    assert measured.sensitivity().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])


def test_nothing_detected_at_all_is_zero_everywhere() -> None:
    measured = tally(reading([A], []), reading([B], []))
    assert measured.sensitivity().tolist() == [0] * len(RATES)
    assert measured.average_precision() == 0
    assert measured.accuracy(1) == 0


def test_no_images_is_an_error_and_no_lesions_is_not_a_number() -> None:
    with pytest.raises(ModelError, match="no images"):
        Tally([])
    free = tally(reading([], [(A, 0.9), (B, 0.2)]), reading([], []))
    assert np.isnan(free.sensitivity()).all()
    assert math.isnan(free.average_precision())
    assert math.isnan(free.accuracy(1))
    assert (free.false_above(0.5), free.false_above(0.2), free.false_above(0.95)) == (0.5, 1, 0)


def test_images_without_lesions_dilute_false_positives_and_add_theirs() -> None:
    with_lesion = reading([A], [(A, 0.5), (NOWHERE, 0.9)])
    free = reading([], [(B, 0.95)])
    assert tally(with_lesion, free).curve().fp_per_image.tolist() == [0, 0.5, 1, 1]


def test_accuracy_looks_at_the_surest_of_each_image() -> None:
    found = [(NOWHERE, 0.9), (A, 0.8), (A, 0.75), (B, 0.7)]
    measured = tally(reading([A, B], found), reading([B], [(B, 0.2)]))
    assert match(reading([A, B], found)).found_rank.tolist() == [2, 4]
    assert match(reading([A], [])).found_rank.tolist() == [NEVER]
    assert [measured.accuracy(top) for top in (1, 2, 3, 4)] == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1])
    assert measured.accuracy_above(0.7) == pytest.approx(2 / 3)
    assert measured.accuracy_above(0.71) == pytest.approx(1 / 3)


def test_the_threshold_is_the_lowest_score_with_few_enough_false_positives() -> None:
    measured = tally(reading([A], [(NOWHERE, 0.9), (A, 0.8), (ELSEWHERE, 0.7), (B, 0.6)]), reading([A], [(A, 0.65)]))
    assert measured.threshold_at(0.5) == 0.8
    assert measured.threshold_at(1.0) == 0.65
    assert measured.threshold_at(0.4) == math.inf
    assert measured.false_above(measured.threshold_at(1.0)) == 1


def test_ranks_among_equal_scores_come_from_the_boxes_alone() -> None:
    lesion_last = reading([B], [(A, 0.5), (B, 0.5)])
    assert match(lesion_last).found_rank.tolist() == [2]
    assert match(reading([B], [(B, 0.5), (A, 0.5)])).found_rank.tolist() == [2]
    assert match(reading([A], [(B, 0.5), (A, 0.5)])).found_rank.tolist() == [1]


def test_average_precision_of_a_hand_computed_case() -> None:
    # Descending: right, wrong (second on A), right, wrong; of 4 lesions.
    # Recall .25 at precision 1, .5 at 2/3: .25·1 + .25·2/3.
    first = reading([A, B, NOWHERE], [(A, 0.9), (A, 0.8), (B, 0.7), ((400.0, 0.0, 409.0, 9.0), 0.6)])
    assert tally(first, reading([A], [])).average_precision() == pytest.approx(0.25 + 0.25 * 2 / 3)


def test_precision_is_made_monotonous() -> None:
    # wrong, right, right of 2: precision 1/2 and 2/3, raised to 2/3 and 2/3.
    measured = tally(reading([A, B], [(NOWHERE, 0.9), (A, 0.8), (B, 0.7)]))
    assert measured.average_precision() == pytest.approx(2 / 3)


def test_a_stratum_keeps_all_false_positives_and_ignores_what_is_on_other_lesions() -> None:
    outcome = match(reading([A, B], [(A, 0.9), (A, 0.85), (NOWHERE, 0.8), (B, 0.7)]))
    small = outcome.only(np.array([False, True]))
    assert small.found_at.tolist() == [0.7]
    assert small.found_rank.tolist() == [4]
    assert small.false.tolist() == [0.8]
    assert small.scores.tolist() == [0.8, 0.7]
    assert small.lesion.tolist() == [-1, 0]
    assert small.right.tolist() == [False, True]
    assert Tally([small]).average_precision() == 0.5
    assert Tally([small]).curve().fp_per_image.tolist() == [0, 1, 1]


def test_a_scan_without_lesions_gives_false_positives_per_scan() -> None:
    free = [
        match_centres("a", np.array([(0.0, 0, 0), (1, 1, 1)]), np.array([0.9, 0.4]), np.zeros((0, 3)), []),
        match_centres("b", np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)), []),
        match_centres("c", np.array([(0.0, 0, 0)]), np.array([0.5]), np.zeros((0, 3)), []),
        match_centres("d", np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)), []),
    ]
    assert Tally(free).false_above(0.5) == 0.5


@st.composite
def outcomes(draw: st.DrawFn) -> list[Outcome]:
    """Few distinct scores, so that ties are the rule."""
    scores = st.integers(0, 4).map(float)
    places = st.sampled_from([A, B, NOWHERE, ELSEWHERE, (0.0, 2.0, 9.0, 11.0)])
    made = []
    for _ in range(draw(st.integers(1, 4))):
        truth = draw(st.lists(st.sampled_from([A, B, (0.0, 1.0, 9.0, 10.0)]), max_size=3, unique=True))
        found = draw(st.lists(st.tuples(places, scores), max_size=6))
        made.append(match(reading(truth, found, draw(st.sampled_from("abc")))))
    return made


@given(made=outcomes(), weights=st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_weights_are_repetitions(made: list[Outcome], weights: list[int]) -> None:
    measured = Tally(made)
    by_patient = dict(zip(measured.patients, weights, strict=False))
    repeated = [outcome for outcome in made for _ in range(by_patient[outcome.patient])]
    if not repeated:
        return
    again = Tally(repeated)
    used = np.array([by_patient[patient] for patient in measured.patients])
    assert np.allclose(measured.sensitivity(RATES, used), again.sensitivity(), equal_nan=True)
    assert np.allclose(measured.average_precision(used), again.average_precision(), equal_nan=True)
    assert np.allclose(measured.accuracy(2, used), again.accuracy(2), equal_nan=True)
    assert measured.false_above(2.0, used) == pytest.approx(again.false_above(2.0))


@given(made=outcomes(), rates=st.lists(st.floats(0, 5), min_size=1, max_size=5))
def test_the_quick_way_is_linear_interpolation_of_the_curve(made: list[Outcome], rates: list[float]) -> None:
    measured = Tally(made)
    curve = measured.curve()
    expected = np.interp(rates, curve.fp_per_image, curve.sensitivity)
    assert np.allclose(measured.sensitivity(rates), expected, equal_nan=True)


@given(made=outcomes())
def test_a_curve_never_falls_and_stays_a_share(made: list[Outcome]) -> None:
    curve = Tally(made).curve()
    assert (np.diff(curve.threshold) < 0).all()
    assert (np.diff(curve.fp_per_image) >= 0).all()
    if not np.isnan(curve.sensitivity).any():
        assert (np.diff(curve.sensitivity) >= 0).all()
        assert 0 <= curve.sensitivity[0] <= curve.sensitivity[-1] <= 1
        assert 0 <= Tally(made).average_precision() <= 1 + 1e-12


@settings(max_examples=50)
@given(seed=st.integers(0, 2**31), ties=st.booleans())
def test_agrees_with_walking_down_the_list(seed: int, ties: bool) -> None:
    """Against the definition read word by word, for scores without ties; and no order of the input changes anything."""
    rng = np.random.default_rng(seed)
    made = []
    for image in range(4):
        boxes = rng.integers(0, 12, (6, 2)).astype(float)
        scores = rng.permutation(100)[:6] + image / 8.0
        if ties:
            scores = np.round(scores, -1)
        truth = rng.integers(0, 12, (2, 2)).astype(float)
        made.append(Reading("p", np.hstack([truth, truth + 9]), np.hstack([boxes, boxes + 9]), scores))
    measured = tally(*made)
    turned = [Reading("p", one.truth, one.boxes[::-1], one.scores[::-1]) for one in made]
    assert (
        tally(*turned).sensitivity(np.arange(0, 8, 0.25)).tolist()
        == measured.sensitivity(np.arange(0, 8, 0.25)).tolist()
    )
    assert tally(*turned).average_precision() == measured.average_precision()
    assert tally(*turned).accuracy(1) == measured.accuracy(1)
    if ties:
        return
    walked = sorted(((score, i, k) for i, one in enumerate(made) for k, score in enumerate(one.scores)), reverse=True)
    seen: set[tuple[int, int]] = set()
    false = 0
    best: dict[int, int] = {0: 0}
    for _, i, k in walked:
        hits = np.flatnonzero(iou(made[i].boxes[k : k + 1], made[i].truth)[0] >= 0.5)
        false += not hits.size
        seen |= {(i, int(hit)) for hit in hits}
        best[false] = len(seen)
    for count, found in best.items():
        assert measured.sensitivity([count / 4])[0] == pytest.approx(found / 8)


def test_the_interval_of_two_patients_is_between_them() -> None:
    # One patient all found, one all missed: every draw is 0, 1/2 or 1, with chances 1/4, 1/2, 1/4.
    measured = tally(reading([A], [(A, 0.9)], "a"), reading([B], [], "b"))
    found = froc_measures(measured).summary(Bootstrap(draws=400, seed=1))["@0.5"]
    assert (found.mean, found.low, found.high, found.patients) == (0.5, 0, 1, 2)
    drawn = Bootstrap(draws=4000, seed=1).values(lambda weights: measured.sensitivity([0.5], weights), 2)[:, 0]
    shares = [np.mean(drawn == value) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_the_patient_is_the_unit_not_the_image() -> None:
    """Ten equal images of one patient are worth one; the interval must not shrink."""
    few = tally(reading([A], [(A, 0.9)], "a"), reading([B], [], "b"), reading([A], [(A, 0.9)], "c"))
    many = tally(
        *[reading([A], [(A, 0.9)], "a")] * 10, *[reading([B], [], "b")] * 10, *[reading([A], [(A, 0.9)], "c")] * 10
    )
    first, second = (froc_measures(one).summary(Bootstrap(draws=300))["@1"] for one in (few, many))
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


def test_a_paired_difference_is_tighter_than_the_two_intervals() -> None:
    """One method finds exactly one lesion of ten more in every patient: the difference is .1 without any spread."""
    rng = np.random.default_rng(3)
    one, other = [], []
    for patient in range(12):
        lesions = [(20.0 * k, 0.0, 20.0 * k + 9, 9.0) for k in range(10)]
        found = int(rng.integers(1, 9))
        other.append(reading(lesions, [(box, 0.9) for box in lesions[:found]], str(patient)))
        one.append(reading(lesions, [(box, 0.9) for box in lesions[: found + 1]], str(patient)))
    bootstrap = Bootstrap(draws=200)
    better, worse = froc_measures(tally(*one)), froc_measures(tally(*other))
    gain = better.minus(worse, bootstrap)["average @.5-4"]
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    alone = better.summary(bootstrap)["average @.5-4"]
    assert alone.high - alone.low > 0.1


def test_a_difference_needs_the_same_lesions_and_measures() -> None:
    first, second = tally(reading([A], [])), tally(reading([A, B], []))
    with pytest.raises(ModelError, match="same images and lesions"):
        froc_measures(first).minus(froc_measures(second))
    with pytest.raises(ModelError, match="same measures"):
        froc_measures(first).minus(accuracy_measures(first, 0.5))


def test_pooled_trainings_are_averaged_within_each_draw() -> None:
    """One training finds the lesion of the one patient, one that of the other: every draw has one half of the two."""
    one = tally(reading([A], [(A, 0.9)], "a"), reading([B], [], "b"))
    other = tally(reading([A], [], "a"), reading([B], [(B, 0.9)], "b"))
    bootstrap = Bootstrap(draws=50)
    alone = froc_measures(one).summary(bootstrap)["@1"]
    assert (alone.low, alone.high) == (0, 1)
    both = pooled([froc_measures(one), froc_measures(other)]).summary(bootstrap)["@1"]
    assert (both.mean, both.low, both.high, both.patients) == (0.5, 0.5, 0.5, 2)


def test_only_trainings_on_the_same_lesions_and_measures_are_pooled() -> None:
    first, second = tally(reading([A], [])), tally(reading([A, B], []))
    with pytest.raises(ModelError, match="same images and lesions"):
        pooled([froc_measures(first), froc_measures(second)])
    with pytest.raises(ModelError, match="same measures"):
        pooled([froc_measures(first), accuracy_measures(first, 0.5)])
    with pytest.raises(ModelError, match="without trainings"):
        pooled([])


def test_measures_drawn_otherwise_are_measured_anew() -> None:
    measured = froc_measures(tally(*[reading([A], [(A, 0.9)] if k % 2 else [], str(k)) for k in range(9)]))
    one, other = (measured.sample(Bootstrap(draws=20, seed=seed))[1:, 1].tolist() for seed in (1, 2))
    assert one != other
    assert one == measured.sample(Bootstrap(draws=20, seed=1))[1:, 1].tolist()


def test_draws_without_a_lesion_of_the_kind_are_left_out() -> None:
    with_lesion, without = match(reading([A], [(A, 0.5)], "a")), match(reading([], [], "b"))
    found = froc_measures(Tally([with_lesion, without])).summary(Bootstrap(draws=100))["@1"]
    assert (found.mean, found.low, found.high) == (1, 1, 1)
    none = froc_measures(Tally([without])).summary(Bootstrap(draws=10))["@1"]
    assert math.isnan(none.mean)
    assert math.isnan(none.low)


def test_accuracy_measures_have_their_names() -> None:
    measured = tally(reading([A, B], [(NOWHERE, 0.9), (A, 0.8), (ELSEWHERE, 0.5), (B, 0.4)]))
    values = accuracy_measures(measured, 0.5).summary(Bootstrap(draws=5))
    assert {name: value.mean for name, value in values.items()} == {
        "top 1": 0,
        "top 3": 0.5,
        "above threshold": 0.5,
        "FP above threshold": 2,
    }


def test_the_band_encloses_the_curve() -> None:
    rng = np.random.default_rng(5)
    made = [
        reading([A], [(A if rng.random() < 0.6 else NOWHERE, float(rng.random())), (B, float(rng.random()))], str(k))
        for k in range(30)
    ]
    measured = tally(*made)
    rates = np.linspace(0.1, 2, 8)
    low, high = Bootstrap(draws=200).band(measured, rates)
    assert (low <= measured.sensitivity(rates)).all()
    assert (measured.sensitivity(rates) <= high).all()
    assert (high > low).all()


def test_as_many_images_as_the_official_test_split_take_seconds() -> None:
    rng = np.random.default_rng(0)
    images, detections = 5000, 50
    readings = []
    for image in range(images):
        corner = rng.uniform(20, 400, (detections + 1, 2))
        boxes = np.hstack([corner, corner + rng.uniform(15, 60, corner.shape)])
        readings.append(Reading(f"{image % 700}", boxes[:1], boxes[1:], rng.random(detections)))
    start = time.perf_counter()
    froc_measures(Tally([match(one) for one in readings])).summary(Bootstrap(draws=200))
    assert time.perf_counter() - start < 60
