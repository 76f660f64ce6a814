"""Restorations are measured on pictures of known truth, side by side, and filters are tuned elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.contract import FloatArray, ModelError
from models.diffusionxray.evaluate import (
    BETWEEN_SEEDS,
    INPUT,
    MARGIN_PX,
    PSNR,
    EvaluationConfig,
    Values,
    arms_table,
    at_steps,
    compare,
    crops,
    evaluate,
    most_changed,
    speed_table,
    tuned,
)

SMALL = EvaluationConfig(crop_px=80, most=6, tuning=2, tuning_px=64, filters=("Gaussian", "unsharp mask"))


@dataclass(frozen=True, eq=False)
class Made:
    """Smooth hills."""

    key: str
    unit: FloatArray
    spacing_mm: float = 0.2


def pictures(count: int, first: int = 0) -> list[Made]:
    found = []
    for number in range(first, first + count):
        field = gaussian_filter(np.random.default_rng(number).standard_normal((112, 128)), 6)
        found.append(Made(f"p{number}", (0.5 * field / np.abs(field).max()).astype(np.float32)))
    return found


def noisy(unit: FloatArray, _spacing_mm: float, rng: np.random.Generator) -> FloatArray:
    return (unit + 0.1 * rng.standard_normal(unit.shape)).astype(np.float32)


def blurred(unit: FloatArray, _spacing_mm: float, _rng: np.random.Generator) -> FloatArray:
    return gaussian_filter(unit, 2).astype(np.float32)


def smooth(unit: FloatArray, _spacing_mm: float) -> FloatArray:
    return gaussian_filter(unit, 2).astype(np.float32)


def test_every_method_is_measured_under_every_degradation() -> None:
    found = evaluate({"smooth": smooth}, {"noise": noisy, "blur": blurred}, pictures(4), pictures(2, 50), what=SMALL)
    rows = {(row.condition, row.method): row.values for row in found.tables[0].rows}
    assert set(rows) == {(c, m) for c in ("noise", "blur") for m in (INPUT, "smooth", "Gaussian", "unsharp mask")}
    # 20 log10(2 / 0.1) = 26.0 dB for noise of 0.1 and a data range of 2
    assert rows["noise", INPUT]["PSNR (dB)"].mean == pytest.approx(26.0, abs=0.2)
    assert rows["noise", INPUT]["RMSE"].mean == pytest.approx(0.1, rel=0.02)
    assert rows["noise", "smooth"]["RMSE"].mean < 0.3 * rows["noise", INPUT]["RMSE"].mean
    assert rows["noise", INPUT]["RMSE"].patients == 4


def test_differences_are_taken_picture_by_picture() -> None:
    found = evaluate({"smooth": smooth}, {"noise": noisy}, pictures(6), pictures(2, 50), what=SMALL)
    plain, apart = ({row.method: row.values for row in found.tables[index].rows} for index in (0, 1))
    assert "smooth" not in apart
    for metric in ("PSNR (dB)", "SSIM", "RMSE"):
        expected = plain["smooth"][metric].mean - plain[INPUT][metric].mean
        assert apart[INPUT][metric].mean == pytest.approx(expected, abs=1e-9)
    own = apart[INPUT]["PSNR (dB)"]
    assert own.low <= own.mean <= own.high
    assert own.low > 0


def test_the_cross_table_has_arms_down_and_degradations_across() -> None:
    found = evaluate(
        {"smooth": smooth, "nothing": lambda unit, _: unit},
        {"noise": noisy, "blur": blurred},
        pictures(3),
        pictures(2, 50),
        what=SMALL,
    )
    cross = found.tables[2]
    assert [row.method for row in cross.rows] == [INPUT, "smooth", "nothing"]
    assert list(cross.rows[0].values) == ["noise", "blur"]
    assert cross.rows[2].values == cross.rows[0].values


def test_filters_are_as_strong_as_the_degradation_asks() -> None:
    cut = crops(pictures(2), 96, lambda one: one.key, seed=0)
    against_noise = tuned(cut, "noise", noisy, ["Gaussian", "unsharp mask"], seed=0)
    against_blur = tuned(cut, "blur", blurred, ["Gaussian", "unsharp mask"], seed=0)
    assert against_noise["Gaussian"] > against_blur["Gaussian"]
    assert against_noise["unsharp mask"] < against_blur["unsharp mask"]


def test_a_filter_at_the_end_of_its_strengths_is_said_to_be_there() -> None:
    found = evaluate({"smooth": smooth}, {"noise": noisy}, pictures(2), pictures(2, 50), what=SMALL)
    assert found.strengths["noise"]["unsharp mask"] == 0.1
    assert any("unsharp mask 0.1 (end of those tried)" in note for note in found.tables[0].notes)


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others() -> None:
    first, again, other = (
        evaluate({"smooth": smooth}, {"noise": noisy}, pictures(2), pictures(2, 50), what=SMALL, seed=seed).values
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_refuses_a_patient_in_both_validation_and_test() -> None:
    with pytest.raises(ModelError, match="in both the test and the validation pictures: p1"):
        evaluate({"smooth": smooth}, {"noise": noisy}, pictures(2), pictures(2, 1), what=SMALL)
    with pytest.raises(ModelError, match="are wanted"):
        evaluate({}, {"noise": noisy}, pictures(1), pictures(1, 5), what=SMALL)


def test_pictures_of_one_patient_count_as_one() -> None:
    found = evaluate(
        {"smooth": smooth},
        {"noise": noisy},
        pictures(4),
        pictures(1, 50),
        what=SMALL,
        patient_of=lambda one: "even" if one.key in ("p0", "p2") else one.key,
    )
    assert found.tables[0].rows[0].values["RMSE"].patients == 3


def test_the_margin_of_a_crop_is_not_measured() -> None:
    truth = pictures(1)[0].unit
    result = truth.copy()
    result[:MARGIN_PX] += 1
    result[:, -MARGIN_PX:] -= 1
    assert compare(result, truth)["RMSE"] == 0
    result[MARGIN_PX, MARGIN_PX] += 1
    assert compare(result, truth)["RMSE"] > 0
    with pytest.raises(ModelError, match="too small"):
        compare(truth[:20, :20], truth[:20, :20])


def test_steps_name_the_conservative_restoration_and_the_bounded_results() -> None:
    @dataclass
    class Told:
        pixels: FloatArray
        safe: FloatArray

    asked = []

    def restore(unit: FloatArray, spacing_mm: float, steps: int) -> Told:
        asked.append((spacing_mm, steps))
        return Told(unit + steps, unit)

    methods = at_steps(restore, (0, 1, 4))
    unit = pictures(1)[0].unit
    assert list(methods) == ["restorer, regressor alone", "restorer, 1 step", "restorer, 4 steps"]
    assert [float((apply(unit, 0.3) - unit).mean()) for apply in methods.values()] == pytest.approx([0, 1, 4], abs=1e-5)
    assert asked == [(0.3, 0), (0.3, 1), (0.3, 4)]


def test_the_figure_shows_the_picture_that_changed_most() -> None:
    even, rough = pictures(1)[0], Made("rough", np.random.default_rng(3).uniform(-1, 1, (96, 96)).astype(np.float32))
    shown = most_changed(smooth, {"blur": blurred}, [even, rough], what=SMALL)
    assert len(shown) == 1
    assert shown[0].truth.std() == pytest.approx(rough.unit.std(), rel=0.05)
    np.testing.assert_array_equal(shown[0].restored, smooth(shown[0].degraded, 0.2))


def test_speed_is_told_of_every_method() -> None:
    table = speed_table({"smooth": smooth, "nothing": lambda unit, _: unit}, side_px=64, rounds=2)
    assert [row.method for row in table.rows] == ["smooth", "nothing"]
    assert table.rows[0].values["seconds a slice"].mean > table.rows[1].values["seconds a slice"].mean


def measured(**methods: dict[str, list[float]]) -> Values:
    return {("noise", name): {PSNR: patients} for name, patients in methods.items()}


def test_arms_are_compared_picture_by_picture_and_their_trainings_pooled() -> None:
    """What a picture is like falls out, so the interval is narrow; what a seed is like is averaged."""
    level = {"p0": [20.0, 30.0], "p1": [50.0]}
    values = measured(
        a1={patient: [one + 1 for one in level[patient]] for patient in level},
        a2={patient: [one + 3 for one in level[patient]] for patient in level},
        b={"p0": [20.0, 30.0], "p1": [51.0]},
    )
    table = arms_table(values, {"a": ["a1", "a2"], "b": ["b"]})
    (row,) = table.rows
    assert (row.condition, row.method) == ("noise", "a minus b")
    told = row.values[PSNR]
    assert (told.mean, told.low, told.high, told.patients) == (1.5, 1.0, 2.0, 2)
    seeds = row.values[BETWEEN_SEEDS]
    assert (seeds.mean, seeds.low, seeds.high) == (1.5, 0.5, 2.5)
    assert "a: 2; b: 1." in table.notes[0]


def test_every_two_arms_are_compared_under_every_degradation() -> None:
    what = dict.fromkeys(("a", "b", "c"), smooth)
    found = evaluate(what, {"noise": noisy, "blur": blurred}, pictures(3), pictures(2, 50), what=SMALL)
    table = arms_table(found.values, {name: [name] for name in what})
    assert [(row.condition, row.method) for row in table.rows] == [
        (condition, pair) for condition in ("noise", "blur") for pair in ("a minus b", "a minus c", "b minus c")
    ]
    assert all(interval.mean == 0 for row in table.rows for interval in row.values.values())
