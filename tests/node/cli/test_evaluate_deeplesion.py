from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import Result

from models.deeplesion.config import SINGLE, FusionConfig, offsets_of
from models.deeplesion.model import FAST
from models.deeplesion.network import build
from node.cli.evaluate_deeplesion import _arms, network_of
from node.errors import ConfigurationError

Run = Callable[..., Result]
SIDE = 64


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def write_sample(path: Path, patient: str, slices: int = FAST.network.slices) -> None:
    rng = np.random.default_rng(len(patient))
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[20:30, 20:30] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez(
            stream,
            hu=rng.normal(40, 20, (slices, SIDE, SIDE)).astype(np.int16),
            labels=labels,
            boxes=np.array([(15, 15, 35, 35)], np.float32),
            category=np.zeros(1, np.int64),
            annotated=np.ones(1, np.bool_),
            ignore=np.zeros((0, 4), np.float32),
            patient=patient,
            family="squares",
        )


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    for split, patients in (("test", "ab"), ("validation", "cd")):
        for patient in patients:
            write_sample(tmp_path / "samples" / split / f"{patient}.npz", patient)
    return tmp_path / "samples"


def weights(path: Path, categories: tuple[str, ...], seed: int = 0, **shape: object) -> Path:
    torch.manual_seed(seed)
    network = build(dataclasses.replace(FAST.network, categories=categories, **shape))
    path.parent.mkdir()
    save_file({name: value.half().contiguous() for name, value in network.state_dict().items()}, path)
    return path


def test_compares_the_twins_and_writes_tables_curves_and_a_figure(run: Run, samples: Path, tmp_path: Path) -> None:
    several = weights(tmp_path / "several" / "weights.safetensors", FAST.network.categories)
    (several.parent / "training.json").write_text('{"patients": 3}')
    single = weights(tmp_path / "single" / "weights.safetensors", SINGLE)
    out = tmp_path / "out"
    done = run(
        "evaluate", "deeplesion", "--data", samples, "--weights", several, "--arm", f"one={single}",
        "--out", out, "--draws", "10", "--json", "--denoised", "--no-speed",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    content = json.loads((out / "evaluation.json").read_text())
    assert content["training"] == {"patients": 3}
    assert [table["title"] for table in content["tables"]][:4] == [
        "FROC",
        "Accuracy",
        "Paired difference, FROC",
        "Paired difference, accuracy",
    ]
    assert [row["method"] for row in content["tables"][0]["rows"]] == ["several", "one", "on denoised images"]
    assert content["tables"][0]["rows"][0]["values"]["@1"]["patients"] == 2
    assert (out / "evaluation.md").read_text().startswith("### FROC")
    assert list(json.loads((out / "froc.json").read_text())) == ["several", "one", "on denoised images"]
    with Image.open(out / "froc.png") as figure:
        assert figure.size == (840, 624)


def test_a_folder_without_samples_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("evaluate", "deeplesion", "--data", tmp_path / "empty", "--out", tmp_path / "out")
    assert done.exit_code != 0
    assert "no samples in test/" in done.output


def test_pools_trainings_of_one_arm(run: Run, samples: Path, tmp_path: Path) -> None:
    one, other = (weights(tmp_path / f"s{seed}" / "weights.safetensors", SINGLE, seed=seed) for seed in (1, 2))
    out = tmp_path / "out"
    done = run(
        "evaluate", "deeplesion", "--data", samples, "--weights", one, "--arm", f"a={one}", "--arm", f"a={other}",
        "--arm", f"b={other}", "--out", out, "--draws", "10", "--no-speed",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    tables = {table["title"]: table["rows"] for table in json.loads((out / "evaluation.json").read_text())["tables"]}
    assert [row["method"] for row in tables["FROC"]] == ["s1", "a 1", "a 2", "b"]
    assert {row["condition"] for row in tables["Paired difference, FROC"]} == {"minus s1"}
    assert [row["method"] for row in tables["Paired difference between arms"]] == ["a minus b"] * 2
    assert [row["method"] for row in tables["Accuracy over the IoU asked for"]] == ["s1", "a", "b"] * 3


def test_compares_networks_of_other_slices_on_the_same_samples(run: Run, tmp_path: Path) -> None:
    for split, patient in (("test", "a"), ("validation", "b")):
        write_sample(tmp_path / "samples" / split / f"{patient}.npz", patient, slices=9)
    one = weights(tmp_path / "one" / "weights.safetensors", SINGLE, offsets_mm=offsets_of(1))
    fusion = FusionConfig(per_cell=2, width=16)
    nine = weights(tmp_path / "nine" / "weights.safetensors", SINGLE, offsets_mm=offsets_of(9), fusion=fusion)
    done = run(
        "evaluate", "deeplesion", "--data", tmp_path / "samples", "--weights", one, "--arm", f"fused={nine}",
        "--out", tmp_path / "out", "--draws", "10", "--no-speed",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    tables = json.loads((tmp_path / "out" / "evaluation.json").read_text())["tables"]
    assert [row["method"] for row in tables[0]["rows"]] == ["one", "fused"]


def test_arms_need_names_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.touch()
    assert _arms(None, [f"one={file}"]) == ({"shipped": None, "one": file}, {"one": ["one"]})
    for taken in ("shipped", "on denoised images"):
        with pytest.raises(ConfigurationError, match="another arm"):
            _arms(None, [f"{taken}={file}"])


def test_other_files_are_no_weights(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors")
    for path in (other, text):
        with pytest.raises(ConfigurationError, match="not the weights of this detector"):
            network_of(path)


def test_samples_of_another_network_are_refused_in_words(run: Run, tmp_path: Path) -> None:
    for split, patient in (("test", "a"), ("validation", "b")):
        write_sample(tmp_path / "samples" / split / f"{patient}.npz", patient, slices=3)
    file = weights(tmp_path / "run" / "weights.safetensors", FAST.network.categories)
    done = run("evaluate", "deeplesion", "--data", tmp_path / "samples", "--weights", file, "--out", tmp_path / "out")
    assert done.exit_code != 0
    assert "stacks of 3 slices for a network that looks at 5" in " ".join(done.output.split())
