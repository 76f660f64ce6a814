"""Parts of one evaluation: what is not asked for is left out, and what cannot be measured is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.contract import FloatArray
from models.diffusionxray.comparison import Comparison
from models.diffusionxray.config import DiffusionXRayConfig
from models.diffusionxray.data import Picture, Split
from models.diffusionxray.evaluate import EvaluationConfig
from models.diffusionxray.model import Restorer


def pictures(split: Split, count: int) -> list[Picture]:
    fields = [gaussian_filter(np.random.default_rng(n).standard_normal((96, 96)), 5) for n in range(count)]
    return [
        Picture(f"{split}{n}", "made", (0.3 * field / field.std()).astype(np.float32), 0.3, "hq", split)
        for n, field in enumerate(fields)
    ]


def as_it_is(unit: FloatArray, _spacing_mm: float) -> FloatArray:
    return unit


def noisy(unit: FloatArray, _spacing_mm: float, rng: np.random.Generator) -> FloatArray:
    return (unit + 0.1 * rng.standard_normal(unit.shape)).astype(np.float32)


@pytest.fixture
def compared() -> Comparison:
    said: list[str] = []
    return Comparison(
        Restorer(DiffusionXRayConfig()), {"ours": as_it_is, "a 1": as_it_is, "b": as_it_is}, {}, {"physics": noisy},
        pictures("test", 2), pictures("validation", 3), EvaluationConfig(crop_px=64, tuning=1, filters=()), 0,
        lambda _what, _done, _total: None, said.append,
    )  # fmt: skip


def test_what_is_not_asked_for_is_left_out(compared: Comparison, tmp_path: Path) -> None:
    assert compared.nodules(tmp_path / "cases", 0) == ()
    assert compared.on_chests(tmp_path / "rays", 0) == ()
    assert not list(tmp_path.iterdir())


def test_arms_are_compared_where_there_are_two_of_them(compared: Comparison) -> None:
    alone, two = replace(compared, trainings={"a": ["a 1"]}), replace(compared, trainings={"a": ["a 1"], "b": ["b"]})
    titles = [table.title for table in alone.restoration()]
    assert [table.title for table in two.restoration()] == [*titles, "Paired difference between arms"]


def test_the_degradation_never_trained_on_is_measured_and_shown_too(compared: Comparison) -> None:
    conditions = {row.condition for row in compared.restoration()[0].rows}
    assert conditions == {shown.condition for shown in compared.most_changed()} == {"physics", "unseen"}


def test_too_few_patients_for_intervals_are_said(compared: Comparison) -> None:
    said: list[str] = []
    assert replace(compared, say=said.append).intervals() == ()
    assert said == ["no intervals: 3 validation patients, 3 used, 9 are wanted"]


def test_the_speed_is_that_of_every_method(compared: Comparison) -> None:
    (table,) = compared.speed()
    assert [row.method for row in table.rows] == ["ours", "a 1", "b"]
