from __future__ import annotations

import pytest

from models.deeplesion.calibrate import Judged
from models.deeplesion.reliability import reliability
from models.evaluation.froc import Bootstrap

FEW = Bootstrap(20, 0)


def judged(*findings: tuple[float, bool]) -> Judged:
    return Judged(tuple(score for score, _ in findings), tuple(hit for _, hit in findings), (), ())


def test_scores_are_held_against_how_often_findings_were_lesions() -> None:
    scans = [
        ("p", judged((0.95, True), (0.35, False), (0.01, False))),
        ("q", judged((1.0, False), (0.45, True), (0.4, False))),
        ("q", judged()),
    ]
    done = reliability({"arm": scans}, FEW)
    found = {row.condition: {name: value.mean for name, value in row.values.items()} for row in done.rows}
    assert found == {
        "score 0.3 to 0.5, 3 findings": {"said": pytest.approx(0.4), "right": pytest.approx(1 / 3)},
        "score 0.9 to 1, 2 findings": {"said": pytest.approx(0.975), "right": 0.5},
        "score 0.02 to 1, 5 findings": {"said": pytest.approx(0.63), "right": pytest.approx(0.4)},
    }
    assert {value.patients for row in done.rows for value in row.values.values()} == {2}


def test_the_interval_is_over_patients() -> None:
    """Both patients' findings count whole: the share runs from one patient's to the other's."""
    scans = [("p", judged((0.6, True), (0.6, True))), ("q", judged((0.6, False)))]
    right = reliability({"arm": scans}, FEW).rows[0].values["right"]
    assert (right.low, right.mean, right.high) == (0, pytest.approx(2 / 3), 1)


def test_a_score_at_the_limit_belongs_to_the_higher_row() -> None:
    (row, _) = reliability({"arm": [("p", judged((0.3, True)))]}, FEW).rows
    assert row.condition == "score 0.3 to 0.5, 1 findings"
