from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import Result

from models.clinreadnet.config import NetworkConfig
from models.clinreadnet.degrade import Ingredients
from models.clinreadnet.labels import Physics
from models.clinreadnet.network import build
from models.clinreadnet.samples import Facts, save_sample
from models.weights import save_weights
from node.cli.evaluate_clinreadnet import network_of
from node.errors import ConfigurationError

Run = Callable[..., Result]
SMALL = NetworkConfig(width=16, depths=(1,), heads=(1,), temperatures=(1.0,), sobel=False)


def write_sample(path: Path, patient: str) -> None:
    rng = np.random.default_rng(ord(patient))
    base = np.full((48, 48), 40, np.float32)
    noise = rng.normal(0, 10, (2, 48, 48)).astype(np.float32)
    parts = Ingredients(base, 0 * noise, noise, 0 * noise, 0.0, (1, 4))
    physics = Physics((10, 20), (0, 0), (0, 0), ((1e4, 0, 0), (4e4, 0, 0)), 400.0, 0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_sample(path, parts, Facts(patient, "real CT", "hann", 0.7, (1, 4), physics))


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    for split, patients in (("test", "ab"), ("train", "c")):
        for patient in patients:
            write_sample(tmp_path / "samples" / split / f"{patient}-0.npy", patient)
    return tmp_path / "samples"


def weights(folder: Path, config: NetworkConfig) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    save_weights(build(config), folder / "weights.safetensors")
    (folder / "training.json").write_text(json.dumps({"network": asdict(config)}))
    return folder / "weights.safetensors"


def test_arms_and_baselines_in_one_table(run: Run, samples: Path, tmp_path: Path) -> None:
    first, other = weights(tmp_path / "first", SMALL), weights(tmp_path / "other", SMALL)
    done = run(
        "evaluate", "clinreadnet", "--data", samples, "--weights", first, "--arm", f"first={other}",
        "--arm", f"other={other}",
        "--out", tmp_path / "out", "--draws", "10", "--slices", "2", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["training"]["network"]["width"] == 16
    methods = [row["method"] for row in content["tables"][0]["rows"] if row["condition"] == "all"]
    assert methods == ["first (1)", "first (2)", "other", "noise SD", "BRISQUE-like", "true quality"]
    arms = [row["method"] for row in content["tables"][1]["rows"] if row["condition"] == "all"]
    assert arms == ["first", "other"]
    assert content["tables"][-1]["title"] == "Speed"
    assert "Monotone" in (tmp_path / "out" / "evaluation.md").read_text()


def test_weights_have_the_size_that_their_facts_tell(tmp_path: Path) -> None:
    path = weights(tmp_path / "first", SMALL)
    assert network_of(path).config == SMALL
    path.with_name("training.json").write_text('{"network": {"colour": 1}}')
    with pytest.raises(ConfigurationError, match="not the facts"):
        network_of(path)


def test_other_files_are_no_weights(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(ConfigurationError, match="not the weights of this network"):
        network_of(other)


def test_a_folder_without_samples_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(
        "evaluate", "clinreadnet", "--data", tmp_path / "empty", "--weights", weights(tmp_path / "w", SMALL),
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "no samples in test" in done.output
