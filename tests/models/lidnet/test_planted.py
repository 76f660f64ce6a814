"""Faint lesions in patients: what a method that does nothing, and one that erases them, must score."""

from dataclasses import replace

import numpy as np
import pytest

from models.lidnet.config import LidnetConfig
from models.lidnet.evaluate import EvaluationConfig
from models.lidnet.planted import APART_PX, REGION_PX, places, planted_lesions
from models.lidnet.slices import load_slice, slice_files

HOW = EvaluationConfig(fractions=(0.25, 0.1), slices_per_patient=2, views=160)
ALL = LidnetConfig(held_out=("aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"))


def halved(shown):
    """Everything closer to the level of soft tissue by half."""
    return 45 + (shown - 45) / 2


@pytest.fixture(scope="module")
def tables(slices):
    some = {"this model": lambda shown: shown, "half": halved, "again": lambda shown: shown}
    methods = {0.25: some, 0.1: some}
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
    assert {method for _, method in kept} == {"this model", "half", "again"}
    same = [row for row in differences.rows if row.method == "this model − again"]
    assert same
    assert all(value.mean == value.low == value.high == 0 for row in same for value in row.values.values())


def test_noise_costs_detectability_and_anatomy_does_not(tables):
    """d′ of the disc in the noise that was added: signal over its spread, however much texture the patients have."""
    told = {(row.condition, row.method): row.values for row in tables[0].rows}
    for lesion in ("5 mm, -70 HU", "10 mm, -35 HU"):
        quarter, tenth = (told[f"{dose} % dose, {lesion}", "this model"] for dose in (25, 10))
        assert quarter["d′"].mean > 1.3 * tenth["d′"].mean > 1
        assert quarter["ROI RMSE (HU)"].mean < tenth["ROI RMSE (HU)"].mean
        assert told[f"25 % dose, {lesion}", "half"]["d′"].mean < quarter["d′"].mean


def test_without_even_tissue_there_is_no_lesion(slices):
    image = load_slice(slice_files(slices)[2])
    assert places(replace(image, hu=np.full_like(image.hu, -1000)), seed=0) == []
