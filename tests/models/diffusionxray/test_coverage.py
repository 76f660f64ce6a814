"""Intervals hold what they promise on patients they were not calibrated on, and say so where they cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.contract import FloatArray, ModelError
from models.diffusionxray.config import GuardConfig
from models.diffusionxray.coverage import (
    BY_NOISE,
    HELD,
    INSIDE,
    NEEDED,
    SHIPPED,
    SHIPS,
    WIDTH,
    Known,
    calibrate,
    coverage,
    held,
)
from models.diffusionxray.evaluate import EvaluationConfig

SMALL = EvaluationConfig(crop_px=64, most=60)
GUARD = GuardConfig()


@dataclass(frozen=True, eq=False)
class Made:
    key: str
    unit: FloatArray
    spacing_mm: float = 0.2


@dataclass(frozen=True, eq=False)
class Told:
    pixels: FloatArray
    noise_sd: FloatArray
    spread: FloatArray | None


def pictures(count: int, first: int) -> list[Made]:
    made = []
    for number in range(first, first + count):
        field = gaussian_filter(np.random.default_rng(number).standard_normal((64, 64)), 6)
        made.append(Made(f"p{number}", (0.5 * field / np.abs(field).max()).astype(np.float32)))
    return made


def noisy(unit: FloatArray, _spacing_mm: float, rng: np.random.Generator) -> FloatArray:
    """Each picture has a noise of its own."""
    return (unit + rng.uniform(0.02, 0.1) * rng.standard_normal(unit.shape)).astype(np.float32)


def much_noisier(unit: FloatArray, _spacing_mm: float, rng: np.random.Generator) -> FloatArray:
    return (unit + 0.5 * rng.standard_normal(unit.shape) * (rng.random(unit.shape) < 0.3)).astype(np.float32)


def sampler(picture: FloatArray, _spacing_mm: float) -> Told:
    """Returns the input; the noise is known to a third of what it is."""
    sd = np.full_like(picture, (picture - gaussian_filter(picture, 1)).std() / 3)
    return Told(picture, sd, 0.5 * sd)


def test_intervals_hold_on_patients_they_were_not_calibrated_on() -> None:
    found = coverage(
        sampler, {"noise": noisy}, {"spikes": much_noisier}, pictures(40, 0), pictures(60, 100), GUARD, what=SMALL
    )
    rows = {(row.condition, row.method): row.values for row in found.tables[0].rows}
    own = rows["noise", SHIPS]
    # Beta(37, 4) over the calibration set and 60 tested: less than 0.78 would be one time in a thousand
    assert own[HELD].mean >= 0.78
    assert 0.93 < own[INSIDE].mean < 0.98
    assert rows["spikes (not calibrated on)", SHIPS][HELD].mean < own[HELD].mean
    assert found.widening == found.widenings[SHIPS] == pytest.approx(2 * found.widenings[BY_NOISE], rel=1e-5)


def test_scales_that_are_alike_but_for_a_factor_give_the_same_intervals() -> None:
    found = coverage(sampler, {"noise": noisy}, {}, pictures(20, 0), pictures(10, 100), GUARD, what=SMALL)
    rows = {row.method: row.values for row in found.tables[0].rows}
    assert list(rows) == [SHIPPED, SHIPS, BY_NOISE]
    assert rows[SHIPS][WIDTH].mean == pytest.approx(rows[BY_NOISE][WIDTH].mean, rel=1e-4)


def test_what_ships_is_measured_with_the_widening_that_ships() -> None:
    """Not with the one that this calibration would choose."""
    narrow = replace(GUARD, widening=0.25, spread_floor=0.7)
    found = coverage(sampler, {"noise": noisy}, {}, pictures(20, 0), pictures(10, 100), narrow, what=SMALL)
    rows = {row.method: row.values for row in found.tables[0].rows}
    assert rows[SHIPPED][WIDTH].mean == pytest.approx(rows[SHIPS][WIDTH].mean * 0.25 / found.widening, rel=1e-4)
    assert rows[SHIPPED][HELD].mean < rows[SHIPS][HELD].mean
    assert rows[SHIPPED][NEEDED] == rows[SHIPS][NEEDED]
    notes = " ".join(found.tables[0].notes)
    assert "configuration, 0.25," in notes
    assert "and 0.7 of the local noise's" in notes


def test_the_degradations_are_taken_in_turn() -> None:
    seen: list[str] = []

    def first(unit: FloatArray, _spacing_mm: float, _rng: np.random.Generator) -> FloatArray:
        seen.append("first")
        return unit + np.float32(0.1)

    def second(unit: FloatArray, _spacing_mm: float, _rng: np.random.Generator) -> FloatArray:
        seen.append("second")
        return unit - np.float32(0.1)

    def even(picture: FloatArray, _spacing_mm: float) -> Told:
        return Told(picture, np.full_like(picture, 0.1), np.full_like(picture, 0.05))

    found = coverage(even, {"first": first, "second": second}, {}, pictures(10, 0), pictures(2, 100), GUARD, what=SMALL)
    assert seen[:10] == ["first", "second"] * 5
    assert found.widening == pytest.approx(2, rel=1e-4)


def known(patient: str, error: float, *, scale: float = 1.0) -> Known:
    flat = np.zeros((64, 64), np.float32)
    one = np.full_like(flat, scale)
    return Known(patient, "any", flat + np.float32(error), flat, {SHIPS: one, BY_NOISE: one})


def test_a_patient_counts_once_by_the_worst_picture() -> None:
    few = [known(f"p{number}", 1.0) for number in range(9)]
    assert calibrate(few, GUARD)[SHIPS] == pytest.approx(1)
    assert calibrate([*few, known("p0", 5.0)], GUARD)[SHIPS] == pytest.approx(5)
    with pytest.raises(ModelError, match="too few"):
        calibrate([known("p0", 1.0) for _ in range(20)], GUARD)


def test_where_no_interval_can_hold_it_says_infinite() -> None:
    blind = [known(f"p{number}", 0.5, scale=0.0) for number in range(9)]
    assert calibrate(blind, GUARD)[SHIPS] == math.inf
    told = held(blind, SHIPS, math.inf, GUARD)
    assert told[INSIDE].mean == 0
    assert told[WIDTH].mean == 0
    assert told[NEEDED].mean == math.inf


def test_one_sample_is_no_spread() -> None:
    def single(picture: FloatArray, _spacing_mm: float) -> Told:
        return Told(picture, np.ones_like(picture), None)

    with pytest.raises(ModelError, match="several samples"):
        coverage(single, {"noise": noisy}, {}, pictures(10, 0), pictures(2, 100), GUARD, what=SMALL)


def test_refuses_patients_of_both_sides() -> None:
    with pytest.raises(ModelError, match="both the test and the validation"):
        coverage(sampler, {"noise": noisy}, {}, pictures(10, 0), pictures(2, 9), GUARD, what=SMALL)
