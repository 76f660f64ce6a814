"""The tables: methods known to be right, wrong and dumb, on slices whose physics is given."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.clinreadnet.config import DataConfig, NetworkConfig
from models.clinreadnet.degrade import Ingredients
from models.clinreadnet.evaluate import (
    agreement_table,
    arm_tables,
    difference_table,
    drawn_measures,
    evaluate,
    flip_table,
    graded_images,
    monotone_table,
    names_of_seeds,
    scores_of,
    slice_table,
    spread,
)
from models.clinreadnet.labels import Physics
from models.clinreadnet.network import build
from models.clinreadnet.run import prepare, score_slices, stored_slice
from models.clinreadnet.samples import REAL, Facts, save_sample
from models.contract import ModelError
from models.evaluation.froc import Bootstrap

DATA = DataConfig(grid_fractions=(1.0, 0.3, 0.1))
THINNING = (1, 2, 8)
DRAWS = Bootstrap(20)
SINGLE = NetworkConfig(width=16, depths=(1,), heads=(1,), temperatures=(1.0,))


def write(path: Path, patient: str, family: str) -> Path:
    rng = np.random.default_rng(len(path.stem) + ord(patient))
    base = np.full((64, 64), -1000, np.float32)
    base[8:56, 8:56] = 40
    noise = np.float32([5, 7, 14])[:, None, None] * rng.standard_normal((3, 64, 64)).astype(np.float32)
    streaks = np.float32([0, 1, 60])[:, None, None] * np.sin(np.arange(64, dtype=np.float32))
    parts = Ingredients(base, np.broadcast_to(streaks, noise.shape), noise, 0 * noise, 0.0, THINNING)
    physics = Physics(
        (5, 7, 14), (0, 0, 0), (0, 1, 60), ((1e4, 0, 0), (2e4, 0, 10), (8e4, 0, 1e5)), 400.0, 0.0
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    save_sample(path, parts, Facts(patient, family, "hann", 0.7, THINNING, physics))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("test")
    return [
        write(folder / f"{patient}-0.npy", patient, family)
        for patient, family in zip("abc", (REAL, REAL, "mird"), strict=True)
    ]


@pytest.fixture(scope="module")
def images(files):
    return graded_images(files, DATA, seed=1)


@pytest.fixture(scope="module")
def scores(images) -> dict[str, np.ndarray]:
    truth = np.array([image.quality for image in images])
    return {"right": truth, "wrong": 4 - truth, "dumb": np.full(len(images), 2.0)}


def test_every_slice_at_every_point_of_the_grid(images, files):
    assert len(images) == 3 * 3 * 3
    assert len({(image.sample.name, image.view, image.fraction) for image in images}) == 27
    assert all(0 <= image.score <= 4 and abs(5 * image.score - round(5 * image.score)) < 1e-9 for image in images)
    again = graded_images(files[1:2], DATA, seed=1)
    assert [image.score for image in again] == [image.score for image in images[9:18]]
    assert np.corrcoef([image.score for image in images], [image.quality for image in images])[0, 1] > 0.9


def test_agreement_is_told_by_condition_with_signs(scores, images):
    table = agreement_table(drawn_measures(scores, images, DRAWS))
    rows = {(row.condition, row.method): row.values for row in table.rows}
    assert {condition for condition, _ in rows} == {
        "all", "held-out patients, real CT", "families never trained on", "streaks dominate",
    }  # fmt: skip
    right, wrong = rows["all", "right"], rows["all", "wrong"]
    assert right["SROCC"].mean > 0.9
    assert wrong["SROCC"].mean == pytest.approx(-right["SROCC"].mean)
    assert wrong["sum of sizes"].mean == pytest.approx(right["sum of sizes"].mean)
    assert right["SROCC of d'"].mean > 0.9
    assert right["grade error"].mean < 0.4 < wrong["grade error"].mean
    assert right["PLCC"].patients == 3
    assert rows["held-out patients, real CT", "right"]["PLCC"].patients == 2
    assert np.isnan(rows["all", "dumb"]["KROCC"].mean)
    assert "not comparable" in table.markdown().lower()


def test_differences_are_paired(scores, images):
    drawn = drawn_measures({**scores, "same": scores["right"].copy()}, images, DRAWS)
    table = difference_table(drawn, reference="right")
    rows = {row.method: row.values for row in table.rows if row.condition == "all"}
    assert set(rows) == {"wrong", "dumb", "same"}
    assert all(value.mean == value.low == value.high == 0 for value in rows["same"].values())
    assert rows["wrong"]["KROCC"].low > 1


def test_arms_are_the_means_of_their_seeds_and_differences_are_pooled(scores, images):
    noisy = scores["right"] + np.random.default_rng(1).normal(0, 1, len(images))
    seeds = names_of_seeds({"whole": 2, "part": 1})
    assert seeds == {"whole": ["whole (1)", "whole (2)"], "part": ["part"]}
    told = {"whole (1)": scores["right"], "whole (2)": noisy, "part": scores["wrong"], "dumb": scores["dumb"]}
    drawn = drawn_measures(told, images, DRAWS)
    means, differences = arm_tables(drawn, seeds)
    of_seeds = {row.method: row.values for row in agreement_table(drawn).rows if row.condition == "all"}
    of_arms = {row.method: row.values for row in means.rows if row.condition == "all"}
    mean = (of_seeds["whole (1)"]["SROCC"].mean + of_seeds["whole (2)"]["SROCC"].mean) / 2
    assert set(of_arms) == {"whole", "part"}
    assert of_arms["whole"]["SROCC"].mean == pytest.approx(mean)
    (row,) = (row for row in differences.rows if row.condition == "all")
    assert row.method == "part"
    assert row.values["SROCC"].mean == pytest.approx(mean - of_seeds["part"]["SROCC"].mean)
    assert row.values["SROCC"].low > 0
    assert arm_tables(drawn_measures(scores, images, DRAWS), {name: [name] for name in scores}) == []


def test_monotone_is_minus_one_for_the_right_and_plus_one_for_the_wrong(scores, images):
    rows = {(row.condition, row.method): row.values for row in monotone_table(scores, images).rows}
    for what in ("dose", "views"):
        assert rows["all", "right"][f"{what}, worst"].mean == pytest.approx(-1)
        assert rows["all", "right"][f"{what}, share"].mean == 1
        assert rows["all", "wrong"][f"{what}, worst"].mean == pytest.approx(1)
        assert rows["all", "dumb"][f"{what}, worst"].mean == 0
        assert rows["all", "dumb"][f"{what}, share"].mean == 0


def test_one_step_the_wrong_way_is_seen_in_its_slice_alone(scores, images):
    told = scores["right"].copy()
    told[[0, 1]] = told[[1, 0]]  # full current and a third of it, all views, of the first slice
    table = slice_table("net", told, images)
    assert [row.condition for row in table.rows] == [f"a-0 ({REAL})", f"b-0 ({REAL})", "c-0 (mird)"]
    assert table.rows[0].values["dose, worst"].mean == pytest.approx(-0.5)
    assert table.rows[1].values["dose, worst"].mean == pytest.approx(-1)


def test_mirroring_is_measured_in_grades(images):
    class OnTheLeft(torch.nn.Module):
        """Says 4 of a slice that is brighter on its left, 0 of others."""

        def __init__(self) -> None:
            super().__init__()
            self.soqn = torch.nn.Module()
            self.soqn.embed = torch.nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left = x[..., : x.shape[-1] // 2].sum((1, 2, 3)) > x[..., x.shape[-1] // 2 :].sum((1, 2, 3))
            return torch.nn.functional.one_hot(20 * left.long(), 21).float()

    (row,) = flip_table({"left": OnTheLeft()}, images[:4]).rows
    assert row.values["left and right"].mean == 4
    assert row.values["up and down"].mean == 0


def test_an_even_part_of_the_images(images):
    assert spread(images, 3) == [images[0], images[13], images[26]]
    assert spread(images, 99) == images


def test_an_image_is_scored_as_the_node_scores_it(images):
    torch.manual_seed(1)
    one, other = (prepare(build(SINGLE), torch.device("cpu")) for _ in range(2))
    found = scores_of({"one": one, "other": other}, images[:5])
    for name, network in (("one", one), ("other", other)):
        wanted = [
            score_slices(network, np.concatenate([stored_slice(image.hu()) for image in part]))[0]
            for part in (images[:4], images[4:5])
        ]
        assert np.array_equal(found[name], np.concatenate(wanted))
    assert not np.array_equal(found["one"], found["other"])


def test_networks_and_baselines_side_by_side(files):
    torch.manual_seed(1)
    network, another = (prepare(build(SINGLE), torch.device("cpu")) for _ in range(2))
    said: set[str] = set()
    found = evaluate(
        {"net": [network, another]}, files[:1], files[1:], DATA, seed=1, bootstrap=DRAWS,
        on_progress=lambda what, _done, _total: said.add(what),
    )  # fmt: skip
    assert list(found.scores) == ["net (1)", "net (2)", "noise SD", "BRISQUE-like", "true quality"]
    assert all(scores.shape == (9,) for scores in found.scores.values())
    assert said == {"scores", "baselines", "intervals"}
    assert [table.title for table in found.tables] == [
        "Agreement with simulated labels",
        "Arms, means over their seeds",
        "Paired difference: net minus the method",
        "Paired difference: net minus the method",
        "Monotone in dose and in views",
        "Monotone, slice by slice",
        "Change of the score by mirroring, in grades",
    ]
    rows = {row.method: row.values for row in found.tables[0].rows if row.condition == "all"}
    assert rows["noise SD"]["SROCC"].mean > 0.6
    assert rows["true quality"]["SROCC"].mean >= max(values["SROCC"].mean for values in rows.values())
    for nothing in ({}, {"net": []}):
        with pytest.raises(ModelError):
            evaluate(nothing, files, files, DATA)


def test_workers_measure_the_same_baselines(files):
    network = {"net": [prepare(build(SINGLE), torch.device("cpu"))]}
    alone, shared = (evaluate(network, files[:1], files[1:], DATA, bootstrap=DRAWS, workers=n) for n in (0, 1))
    for name in ("noise SD", "BRISQUE-like"):
        assert np.array_equal(alone.scores[name], shared.scores[name])
