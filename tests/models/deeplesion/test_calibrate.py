"""Calibration: probabilities that hold, an operating point that keeps its promise, truth compared by hand."""

import math

import numpy as np
import pytest

from models.deeplesion.calibrate import Judged, at, calibrated, operating_point, platt
from models.deeplesion.grouping import Region
from models.deeplesion.validate import shared_voxels
from models.simulation.cases import PlantedLesion


def test_platt_recovers_the_curve_that_made_the_hits():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.02, 0.98, 20_000)
    probability = 1 / (1 + np.exp(-(1.7 * np.log(scores / (1 - scores)) - 0.8)))
    slope, intercept = platt(scores.tolist(), (rng.random(20_000) < probability).tolist())
    assert slope == pytest.approx(1.7, abs=0.08)
    assert intercept == pytest.approx(-0.8, abs=0.08)


def test_platt_without_both_kinds_leaves_the_score():
    assert platt([0.2, 0.7], [True, True]) == (1.0, 0.0)
    assert platt([], []) == (1.0, 0.0)
    assert calibrated(0.3, 1.0, 0.0) == pytest.approx(0.3)


def test_separable_scores_do_not_run_away():
    slope, intercept = platt([0.1] * 10 + [0.9] * 10, [False] * 10 + [True] * 10)
    assert math.isfinite(slope)
    assert calibrated(0.9, slope, intercept) == pytest.approx(11 / 12, abs=1e-3)
    assert calibrated(0.1, slope, intercept) == pytest.approx(1 / 12, abs=1e-3)


def test_extreme_scores_stay_probabilities():
    assert 0 <= calibrated(0.0, 100.0, 0.0) < calibrated(1.0, 100.0, 0.0) <= 1


CASES = [
    Judged((0.9, 0.8, 0.3), (True, False, True), (8.0, 12.0, 5.0), (0.9, 0.3, float("nan"))),
    Judged((0.7, 0.2), (False, False), (), ()),
]


def test_the_operating_point_by_hand():
    assert at(CASES, 0.3).sensitivity == pytest.approx(2 / 3)
    assert at(CASES, 0.3).false_per_case == 1.0
    point = operating_point(CASES, most_false_per_case=1.0)
    assert (point.score, point.sensitivity, point.false_per_case) == (0.3, pytest.approx(2 / 3), 1.0)
    strict = operating_point(CASES, most_false_per_case=0.4)
    assert (strict.score, strict.false_per_case) == (0.9, 0.0)
    assert operating_point([Judged((0.9,), (False,), (), ())], most_false_per_case=0.5).score == 1.0


def test_shared_voxels_are_counted_where_boxes_meet():
    lesion = PlantedLesion(
        "lung", (0.0, 0.0, 0.0), 5.0, 1.0, (slice(2, 6), slice(2, 6), slice(2, 6)), np.ones((4, 4, 4), bool)
    )
    mask = np.ones((3, 3, 3), bool)
    mask[0, 0, 0] = False
    region = Region((slice(4, 7), slice(4, 7), slice(4, 7)), mask, mask.astype(np.float32), 0.5)
    assert shared_voxels(region, lesion) == 7
    apart = Region((slice(6, 9), slice(4, 7), slice(4, 7)), mask, mask.astype(np.float32), 0.5)
    assert shared_voxels(apart, lesion) == 0
