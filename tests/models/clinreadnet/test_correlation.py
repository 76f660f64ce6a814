"""Hand cases, ties and signs."""

import numpy as np
import pytest

from models.clinreadnet.correlation import MEASURES, agreement, rank_correlation


def test_a_perfect_and_a_reversed_predictor_differ_in_sign_alone():
    truth = np.array([0.0, 1, 2, 4])
    right, wrong = agreement(truth, truth), agreement(4 - truth, truth)
    assert [right[name] for name in MEASURES[:3]] == pytest.approx([1, 1, 1])
    assert [wrong[name] for name in MEASURES[:3]] == pytest.approx([-1, -1, -1])
    assert right["sum of sizes"] == wrong["sum of sizes"] == pytest.approx(3)
    assert right["grade error"] == 0
    assert wrong["grade error"] == pytest.approx(np.mean([4, 2, 0, 4]))


def test_ties_by_hand():
    """Pairs of (1, 2, 2, 3) and (1, 3, 2, 2): 3 agree, 1 disagrees, 2 are tied. tau-b = 2 / √(5 · 5)."""
    found = agreement(np.array([1.0, 2, 2, 3]), np.array([1.0, 3, 2, 2]))
    assert found["KROCC"] == pytest.approx(2 / 5)
    ranks = np.corrcoef([1, 2.5, 2.5, 4], [1, 4, 2.5, 2.5])[0, 1]
    assert found["SROCC"] == pytest.approx(ranks)
    assert found["PLCC"] == pytest.approx(np.corrcoef([1, 2, 2, 3], [1, 3, 2, 2])[0, 1])
    assert found["grade error"] == pytest.approx(0.5)


def test_a_curve_costs_pearson_alone():
    truth = np.linspace(0, 4, 9)
    found = agreement(truth**3 / 16, truth)
    assert found["PLCC"] < 0.95
    assert found["SROCC"] == found["KROCC"] == pytest.approx(1)


def test_what_does_not_vary_has_no_correlation():
    found = agreement(np.full(4, 2.0), np.array([0.0, 1, 2, 3]))
    assert np.isnan([found[name] for name in MEASURES[:4]]).all()
    assert found["grade error"] == 1
    assert rank_correlation(np.full(4, 2.0), np.arange(4.0)) == 0
    assert rank_correlation(np.array([1.0, 5, 9]), np.array([3.0, 2, 1])) == pytest.approx(-1)
