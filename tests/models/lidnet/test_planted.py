"""Faint lesions in patients: what a method that does nothing, and one that erases them, must score."""

from dataclasses import replace

import numpy as np
import pytest

from models.lidnet.config import LidnetConfig
from models.lidnet.evaluate import EvaluationConfig
from models.lidnet.planted import APART_PX, REGION_PX, places, planted_lesions
from models.lidnet.slices import load_slice, slice_files

HOW = EvaluationConfig(fractions=(0.25,), slices_per_patient=2, views=160)
ALL = LidnetConfig(held_out=("aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"))


def halved(shown):
    """Everything closer to the level of soft tissue by half."""
    return 45 + (shown - 45) / 2


@pytest.fixture(scope="module")
def tables(slices):
    methods = {0.25: {"this model": lambda shown: shown, "half": halved, "again": lambda shown: shown}}
    return planted_lesions(slices, ALL, methods, what=HOW)


def test_lesions_lie_in_even_soft_tissue_apart_from_each_other(slices):
    image = load_slice(slice_files(slices)[2])
    chosen = places(image, seed=0)
    assert len(chosen) >= 2
    for number, (row, column) in enumerate(chosen):
        around = image.hu[row - 2 : row + 3, column - 2 : column + 3]
        assert around.mean() == pytest.approx(45, abs=10)
        assert min(row, column) >= REGION_PX // 2
        assert max(row, column) <= len(image.hu) - REGION_PX // 2
        assert all(np.hypot(row - y, column - x) >= APART_PX for y, x in chosen[:number])
    assert places(image, seed=0) == chosen != places(image, seed=1)


def test_nothing_is_lost_where_nothing_is_done_and_half_where_half_is_taken(tables):
    table, differences = tables
    kept = {(row.condition, row.method): row.values["contrast kept"].mean for row in table.rows}
    for (_, method), value in kept.items():
        assert value == pytest.approx(0.5 if method == "half" else 1.0, abs=1e-3)
    assert {method for _, method in kept} == {"full dose", "this model", "half", "again"}
    same = [row for row in differences.rows if row.method == "this model − again"]
    assert same
    assert all(value.mean == value.low == value.high == 0 for row in same for value in row.values.values())


def test_the_full_dose_is_the_ceiling_and_noise_costs_detectability(tables):
    by_method = {row.method: row.values for row in tables[0].rows if row.condition.startswith("25 % dose, 10 mm")}
    assert by_method["full dose"]["ROI RMSE (HU)"].mean == 0
    assert by_method["full dose"]["d′ over full dose's"].mean == pytest.approx(1)
    assert by_method["this model"]["ROI RMSE (HU)"].mean > 5
    assert 0 < by_method["this model"]["d′ over full dose's"].mean < 1
    # Halving everything halves signal and noise alike.
    assert by_method["half"]["d′"].mean == pytest.approx(by_method["this model"]["d′"].mean, rel=1e-3)


def test_without_even_tissue_there_is_no_lesion(slices):
    image = load_slice(slice_files(slices)[2])
    assert places(replace(image, hu=np.full_like(image.hu, -1000)), seed=0) == []
