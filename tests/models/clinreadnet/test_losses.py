"""Ranked probability scores by hand, and what a distribution says as one number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.clinreadnet.config import LossConfig
from models.clinreadnet.losses import coarse, decode, grade_of, hrps, level_of, quality_loss, rps

DISTRIBUTIONS = arrays(np.float64, 21, elements=st.floats(0, 1)).filter(lambda p: p.sum() > 1e-3)
QUICK = settings(max_examples=60)


def one_hot(level: int, levels: int = 21) -> torch.Tensor:
    return torch.eye(levels)[[level]]


def at(level: int) -> torch.Tensor:
    return torch.tensor([level])


@pytest.mark.parametrize("levels", [5, 21])
def test_a_certain_opinion_costs_its_distance(levels):
    for told in range(levels):
        for true in range(levels):
            cost = float(rps(one_hot(told, levels), at(true)))
            assert cost == pytest.approx(abs(told - true) / (levels - 1), abs=1e-6)


def test_the_dossiers_values():
    uniform = torch.full((1, 21), 1 / 21)
    assert float(rps(uniform, at(0))) == pytest.approx(0.3254, abs=5e-5)
    assert float(rps(uniform, at(20))) == pytest.approx(0.3254, abs=5e-5)
    assert float(rps(uniform, at(10))) == pytest.approx(0.0873, abs=5e-5)
    assert float(rps(torch.tensor([[0, 0.5, 0.5, 0, 0]]), at(2))) == pytest.approx(0.0625)
    assert float(rps(torch.tensor([[0, 0.25, 0.5, 0.25, 0]]), at(2))) == pytest.approx(0.03125)


def test_levels_of_each_grade():
    levels = torch.arange(21)
    assert grade_of(levels).tolist() == [0] * 3 + [1] * 5 + [2] * 5 + [3] * 5 + [4] * 3
    assert [int(coarse(one_hot(level)).argmax()) for level in range(21)] == grade_of(levels).tolist()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_label_finds_its_level(kind):
    labels = np.round(np.arange(21) * 0.2, 1).astype(kind)
    assert level_of(torch.from_numpy(labels)).tolist() == list(range(21))
    assert level_of(torch.from_numpy(labels).double()).tolist() == list(range(21))


@QUICK
@given(DISTRIBUTIONS, st.integers(0, 20))
def test_never_negative_and_zero_for_the_right_certainty_alone(raw, level):
    p = torch.from_numpy(raw / raw.sum())[None]
    cost = float(hrps(p, at(level)))
    assert cost >= 0
    distance = float((p - one_hot(level)).abs().max())
    if distance > 1e-3:
        assert cost > 0
    assert float(hrps(one_hot(level), at(level))) == 0


@QUICK
@given(DISTRIBUTIONS, DISTRIBUTIONS)
def test_no_other_report_does_better_on_average_than_the_truth(raw, other):
    truth, report = (torch.from_numpy(part / part.sum()) for part in (raw, other))
    targets = torch.arange(21)
    honest = float((truth * hrps(truth.expand(21, -1), targets)).sum())
    assert honest <= float((truth * hrps(report.expand(21, -1), targets)).sum()) + 1e-6


def test_the_coarse_term_does_not_see_moves_within_a_grade():
    spread, moved = torch.zeros(1, 21), torch.zeros(1, 21)
    spread[0, [3, 7, 12]] = torch.tensor([0.2, 0.3, 0.5])
    moved[0, [5, 8]] = torch.tensor([0.5, 0.5])
    assert torch.equal(coarse(spread), coarse(moved))
    assert float(rps(spread, at(5))) != pytest.approx(float(rps(moved, at(5))))


def test_the_gradient_is_right():
    p = torch.softmax(torch.linspace(-1, 2, 42, dtype=torch.float64).reshape(2, 21), -1).requires_grad_()
    targets = torch.tensor([3, 17])
    loss = hrps(p, targets).sum()
    (gradient,) = torch.autograd.grad(loss, p)
    step = torch.zeros_like(p)
    for row, level in ((0, 2), (0, 3), (1, 19)):
        step.zero_()
        step[row, level] = 1e-3
        with torch.no_grad():
            slope = (hrps(p + step, targets).sum() - hrps(p - step, targets).sum()) / 2e-3
        assert float(gradient[row, level]) == pytest.approx(float(slope), abs=2e-3)


def test_a_loss_of_each_kind():
    p = torch.softmax(torch.randn(3, 21, generator=torch.Generator().manual_seed(1)), -1)
    targets = torch.tensor([0, 10, 20])
    entropy = -p[torch.arange(3), targets].log().mean()
    only = LossConfig(fine=0, coarse=0, entropy=1)
    assert float(quality_loss(p, targets, only)) == pytest.approx(float(entropy), rel=1e-5)
    both = float(hrps(p, targets).mean() + 0.1 * entropy)
    assert float(quality_loss(p, targets, LossConfig())) == pytest.approx(both, rel=1e-5)
    fine = float(rps(p, targets).mean() + 0.1 * entropy)
    assert float(quality_loss(p, targets, LossConfig(coarse=0))) == pytest.approx(fine, rel=1e-5)


def test_a_sure_error_still_has_a_gradient():
    p = one_hot(20).requires_grad_()
    quality_loss(p, at(0), LossConfig()).backward()
    assert torch.isfinite(p.grad).all()


def test_decoding_by_expectation():
    p = torch.zeros(3, 21)
    p[0, 20] = 1
    p[1, [5, 15]] = 0.5
    p[2] = 1 / 21
    score, spread = decode(p)
    assert score.tolist() == pytest.approx([4, 2, 2], abs=1e-5)
    assert spread.tolist() == pytest.approx([0, 1, 0.2 * ((21**2 - 1) / 12) ** 0.5], abs=1e-5)
    assert float(score.max()) <= 4
