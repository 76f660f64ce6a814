"""One command measures a restorer and its arms, and writes tables, numbers and a figure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from typer.testing import Result

from models.contract import FloatArray, ModelError
from models.diffusionxray.arms import bundled, network_of
from models.diffusionxray.audit import Case, Nodule
from models.diffusionxray.config import NetworkConfig
from models.diffusionxray.data import Picture, Split, save_picture
from models.diffusionxray.known import FIRST_AUDIT_SEED, FIRST_RAYS_SEED, write_case, write_rays
from models.diffusionxray.network import build
from models.diffusionxray.train import digest
from models.evaluation.table import Table
from models.simulation.exposures import VIEW, WAYS, Rays
from models.weights import save_weights
from node.cli.evaluate_diffusionxray import in_parts

Run = Callable[..., Result]
REGRESSOR = NetworkConfig(fold=2, stem=16, width=16, mults=(1, 2), time=False, residual=True)
REFINER = NetworkConfig(fold=2, stem=16, width=16, mults=(1, 2), time_scale=2000.0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def hills(seed: int) -> FloatArray:
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((80, 80)), 5)
    unit: FloatArray = (0.3 * field / field.std()).astype(np.float32)
    return unit


@pytest.fixture
def data(tmp_path: Path) -> Path:
    splits: tuple[tuple[Split, int], ...] = (("validation", 9), ("test", 2))
    for split, count in splits:
        for number in range(count):
            picture = Picture(f"{split}{number}", "made", hills(number), 0.3, "hq", split)
            save_picture(picture, tmp_path / "run" / "pictures")
    y, x = np.mgrid[:80, :80]
    for number in range(6):
        nodule = 0.2 * np.exp(-((y - 40) ** 2 + (x - 36) ** 2) / (2 * 5**2))
        absent = hills(100 + number)
        case = Case(f"case{number}", (absent + nodule).astype(np.float32), absent, (Nodule(40, 36, 14),), 0.3)
        write_case(case, tmp_path / "run" / "cases" / f"case-{FIRST_AUDIT_SEED + number}.npz")
    for number in range(2):
        soft = (14 + 6 * hills(200 + number)).clip(1, 30)
        both = np.stack([soft, soft + (np.hypot(y - 40, x - 36) < 7)]).astype(np.float32)
        rays = Rays(both, np.zeros_like(both), np.array([[40.0, 36.0, 14.0]]), VIEW)
        write_rays(rays, tmp_path / "run" / "rays" / f"rays-{FIRST_RAYS_SEED + number}.npz")
    return tmp_path / "run"


def trained(folder: Path, stage: str, config: NetworkConfig, **facts: object) -> Path:
    torch.manual_seed(1)
    folder.mkdir(parents=True)
    save_weights(build(config), folder / "weights.safetensors")
    (folder / "training.json").write_text(json.dumps({"stage": stage, "network": asdict(config), **facts}))
    return folder / "weights.safetensors"


@pytest.fixture
def weights(data: Path) -> Path:
    regressor = trained(data / "regressor", "regressor", REGRESSOR)
    refiner = trained(data / "refiner", "refiner", REFINER, regressor=digest(network_of(regressor, "regressor")))
    both, facts = bundled(regressor, refiner)
    (data / "restorer").mkdir()
    save_weights(both, data / "restorer" / "weights.safetensors")
    (data / "restorer" / "training.json").write_text(json.dumps(facts))
    return data / "restorer" / "weights.safetensors"


def test_everything_is_measured_written_and_drawn(run: Run, data: Path, weights: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(weights.parent, data / "twin") / weights.name
    done = run(
        "evaluate", "diffusionxray", "--data", data, "--weights", weights, "--out", tmp_path / "out",
        "--arm", f"plain={data / 'regressor' / 'weights.safetensors'}", "--arm", f"pair={weights}",
        "--arm", f"pair={twin}", "--steps", "1", "--pictures", "9",
        "--crop", "64", "--cases", "2", "--chests", "2", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert json.loads(done.stdout) == content
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.md", "evaluation.json", "pictures.png"}
    titles = [table["title"] for table in content["tables"]]
    assert titles[0].startswith("Restoration of degraded pictures")
    assert titles[1] == "Paired difference: restorer, regressor alone minus the method"
    assert {"Nodules kept", "Detectability of nodules", "Invented candidates", "Speed"} < set(titles)
    assert "Calibrated intervals around the restored picture" in titles
    rows = content["tables"][0]["rows"]
    assert {row["condition"] for row in rows} == {"physics", "bicubic", "identity", "unseen"}
    methods = [row["method"] for row in rows if row["condition"] == "physics"]
    assert methods[:5] == ["input", "restorer, regressor alone", "restorer, 4 steps", "restorer, 1 step", "plain"]
    assert methods[5:7] == ["pair 1, regressor alone", "pair 2, regressor alone"]
    arms = next(table for table in content["tables"] if table["title"] == "Paired difference between arms")
    assert {row["method"] for row in arms["rows"]} == {"plain minus pair, regressor alone"}
    assert "plain: 1; pair, regressor alone: 2." in arms["notes"][0]
    assert rows[0]["values"]["PSNR (dB)"]["patients"] == 2
    physics = {
        table["title"]: table["rows"] for table in content["tables"] if "other physics" in table["title"].lower()
    }
    ways = {row["condition"] for row in physics["Other physics than in training"]}
    assert ways == set(WAYS) == {row["condition"] for row in physics["Calibrated intervals under other physics"]}
    on_chests = next(table for table in content["tables"] if table["title"].endswith("between arms, drawn chests"))
    assert [row["method"] for row in on_chests["rows"]] == ["plain minus pair, regressor alone"]
    assert on_chests["rows"][0]["values"]["PSNR (dB)"]["patients"] == 2
    assert content["training"]["regressor"]["stage"] == "regressor"
    assert "Invented candidates" in (tmp_path / "out" / "evaluation.md").read_text()
    with Image.open(tmp_path / "out" / "pictures.png") as figure:
        assert min(figure.size) > 500


def test_too_few_patients_give_no_intervals_and_a_figure_without_a_place_takes_no_numbers_along(
    run: Run, data: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "pictures.png").mkdir(parents=True)
    done = run(
        "evaluate", "diffusionxray", "--data", data, "--weights", weights, "--out", tmp_path / "out",
        "--steps", "4", "--pictures", "2", "--crop", "64", "--cases", "0", "--chests", "0",
    )  # fmt: skip
    assert isinstance(done.exception, IsADirectoryError)
    assert "9 are wanted" in done.output
    assert "### Restoration of degraded pictures" in done.stdout
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert "Calibrated" not in text
    assert "Nodules" not in text


def test_other_weights_and_a_folder_without_pictures_are_errors_in_words(
    run: Run, data: Path, weights: Path, tmp_path: Path
) -> None:
    for folder, file, words in (
        (tmp_path, weights, "no prepared pictures"),
        (data, data / "regressor" / "weights.safetensors", "a restorer is wanted"),
    ):
        done = run("evaluate", "diffusionxray", "--data", folder, "--weights", file, "--out", tmp_path / "out")
        assert done.exit_code == 2
        assert words in " ".join(done.output.split())


def test_an_evaluation_that_ends_early_leaves_the_tables_it_had(tmp_path: Path) -> None:
    weights, so_far = tmp_path / "weights.safetensors", tmp_path / "so_far.md"
    weights.write_bytes(b"weights")
    first, second = Table("First", ()), Table("Second", ())

    def ends() -> tuple[Table, ...]:
        raise ModelError("no case")

    with pytest.raises(ModelError, match="no case"):
        in_parts((lambda: (first,), ends), weights, so_far)
    assert "### First" in so_far.read_text()
    assert in_parts((lambda: (first,), lambda: (second,)), weights, so_far).tables == (first, second)
    assert not so_far.exists()
    nowhere = weights / "so_far.md"
    assert in_parts((lambda: (first,), lambda: (second,)), weights, nowhere).tables == (first, second)
