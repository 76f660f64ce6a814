from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

from models.deeplesion.model import FAST
from models.deeplesion.network import build
from models.deeplesion.samples import load_sample, own_categories
from models.weights import save_weights

Run = Callable[..., Result]


def write_sample(path: Path, patient: str, hu: float, *, slices: int = 3, annotated: bool = True) -> None:
    rng = np.random.default_rng(len(path.stem))
    image = rng.normal(0, 20, (slices, 48, 48))
    image[:, 18:30, 18:30] += hu
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez(
            stream,
            hu=image.astype(np.int16),
            labels=np.zeros((48, 48), np.uint8),
            boxes=np.array([(13, 13, 35, 35)], np.float32),
            category=np.array([4]),
            annotated=np.full(1, annotated),
            ignore=np.zeros((0, 4), np.float32),
            patient=patient,
            family="squares",
        )


def samples(folder: Path, slices: int = 3) -> Path:
    for number in range(12):
        path = folder / "train" / f"{'t' * (number + 1)}.npz"
        write_sample(path, f"t{number}", 300 if number % 2 else -300, slices=slices)
    for split in ("validation", "test"):
        write_sample(folder / split / "a.npz", split, 300, slices=slices)
    return folder


def test_dark_and_bright_lesions_become_categories(run: Run, tmp_path: Path) -> None:
    data, out = samples(tmp_path / "samples"), tmp_path / "out"
    said = (
        "train", "categories", "--data", data, "--out", out,
        "--clusters", "2", "--first-clusters", "3", "--rounds", "1", "--side", "32",
    )  # fmt: skip
    done = run(*said)
    assert done.exit_code == 0, done.output
    assert "round 1: 2 clusters" in done.output
    found = {path.stem: load_sample(path).category.tolist() for path in (out / "samples" / "train").glob("*.npz")}
    bright = {tuple(found["t" * (number + 1)]) for number in range(1, 12, 2)}
    dark = {tuple(found["t" * (number + 1)]) for number in range(0, 12, 2)}
    assert len(bright) == len(dark) == 1
    assert bright | dark == {(0,), (1,)}
    for split in ("validation", "test"):
        assert tuple(load_sample(out / "samples" / split / "a.npz").category.tolist()) in bright
    assert len(json.loads((out / "mining" / "mining.json").read_text())["rounds"]) == 2
    assert own_categories(out / "samples") == 2
    # The control keeps the sizes of the categories.
    control = run(*said[:5], tmp_path / "control", *said[6:], "--by-chance")
    assert control.exit_code == 0, control.output
    dealt = [int(load_sample(path).category[0]) for path in (tmp_path / "control" / "samples" / "train").glob("*.npz")]
    assert sorted(dealt) == [0] * 6 + [1] * 6


@pytest.mark.parametrize("given", [False, True], ids=["from nothing", "from a detector"])
def test_features_change_from_round_to_round_on_samples_as_the_training_makes_them(
    run: Run, tmp_path: Path, given: bool
) -> None:
    """Five slices, a detector as it runs in the node, and a validation without lesions."""
    data, out = samples(tmp_path / "samples", slices=FAST.network.slices), tmp_path / "out"
    write_sample(data / "validation" / "a.npz", "v", 300, slices=FAST.network.slices, annotated=False)
    torch.manual_seed(0)
    weights, backbone = tmp_path / "weights.safetensors", build(FAST.network)
    save_weights(backbone, weights)
    done = run(
        "train", "categories", "--data", data, "--out", out, *(("--weights", weights) if given else ()),
        "--clusters", "2", "--first-clusters", "3", "--rounds", "1", "--side", "32",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert load_sample(out / "samples" / "validation" / "a.npz").category.tolist() == [0]
    if given:
        learnt = load_file(out / "mining" / "mining.safetensors")
        for name, before in backbone.backbone.state_dict().items():
            assert not torch.allclose(learnt[f"extractor.backbone.{name}"], before, atol=1e-5), name


def test_a_folder_without_training_samples_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("train", "categories", "--data", tmp_path / "empty", "--out", tmp_path / "out")
    assert done.exit_code != 0
    assert "no samples in train/" in done.output
