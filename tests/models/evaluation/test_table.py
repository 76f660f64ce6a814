"""Tables say the same to readers and to programs."""

import json
import math

import pytest

from models.evaluation.bootstrap import Interval
from models.evaluation.table import Measured, Row, Table

TABLE = Table(
    "Errors",
    (
        Row("half dose", "input", {"RMSE": Interval(1.23456, 1.0, 1.5, 7)}),
        Row("half dose", "blind", {"RMSE": Interval(math.inf, math.nan, math.nan, 2)}),
    ),
    ("Made.",),
)


def test_readers_see_every_row_with_its_interval():
    lines = TABLE.markdown().splitlines()
    assert "| condition | method | RMSE |" in lines
    assert "| half dose | input | 1.23 [1, 1.5] |" in lines
    assert "- Made." in lines


def test_what_could_not_be_measured_is_null_in_json():
    content = json.loads(
        Measured("abc", {"seed": 1}, (TABLE,)).json(), parse_constant=lambda name: f"{name} is no JSON"
    )
    known, unknown = (row["values"]["RMSE"] for row in content["tables"][0]["rows"])
    assert known == {"mean": 1.2346, "low": 1.0, "high": 1.5, "patients": 7}
    assert unknown == {"mean": None, "low": None, "high": None, "patients": 2}
    assert content["weights_sha256"] == "abc"


@pytest.mark.parametrize("left", [5.55e-17, -5.55e-17])
def test_what_equal_numbers_leave_when_subtracted_is_told_as_nothing(left: float) -> None:
    assert str(Interval(left, -0.012, 1e-9, 24)) == "0 [-0.012, 1e-09]"
