"""The steps of LeFusion's training, each on what the one before left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import Result

from models.lefusion import config
from models.lefusion.data import load_crops
from node.dicom.synthetic import Labels, write_ct_series

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and networks and batches of a size for tests."""
    torch.set_num_threads(1)
    tiny = config.NetworkConfig(width=16, mults=(1, 2), heads=2, head_width=8, through=(1,))
    monkeypatch.setitem(config.NETWORKS["texture"], "cpu", tiny)
    monkeypatch.setitem(
        config.NETWORKS["mask"], "cpu", config.NetworkConfig(**{**vars(tiny), "inputs": 2, "condition": 0})
    )
    for stage in ("texture", "mask"):
        quick = config.TrainConfig(steps=2, batch=2, crop_zyx=(8, 16, 16), warmup_steps=1)
        monkeypatch.setitem(config.TRAINING[stage], "cpu", quick)


def chest(folder: Path, patient: str) -> Path:
    """A schematic CT of a chest, as DICOM."""
    shape, rng = (24, 120, 160), np.random.default_rng(0)
    voxels = np.full(shape, -1000.0)
    voxels[:, 10:-10, 10:-10] = 40
    voxels[:, 25:-25, 20:70] = -850
    voxels[:, 25:-25, 90:140] = -850
    voxels += rng.normal(0, 15, shape)
    write_ct_series(folder / patient, voxels.astype(np.float32), (2.0, 2.0, 2.0), labels=Labels(patient_id=patient))
    return folder / patient


def told(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_from_chests_to_both_networks(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    step = ("train", "lefusion")
    chests = ("--ct", chest(tmp_path, "A"), "--test-ct", chest(tmp_path, "B"), "--lesions", 3)
    assert "A, train: 3 lesions" in told(run(*step, "prepare", *chests, "--out", out))
    assert {crop.key for crop in load_crops(out / "lesions", "train")}.isdisjoint(
        crop.key for crop in load_crops(out / "lesions", "test")
    )
    assert "train: 3 lesions" not in told(run(*step, "prepare", *chests, "--out", out))
    told(run(*step, "texture", "--out", out))
    told(run(*step, "texture", "--out", out, "--name", "global", "--focus", "everywhere", "--joint"))
    told(run(*step, "mask", "--out", out, "--steps", 1))
    facts = {name: json.loads((out / name / "training.json").read_text()) for name in ("texture", "global", "mask")}
    assert (facts["texture"]["focus"], facts["texture"]["classes"], facts["texture"]["lesions"]) == ("lesion", 1, 3)
    assert (facts["global"]["focus"], facts["global"]["classes"]) == ("everywhere", 2)
    assert (facts["mask"]["stage"], facts["mask"]["steps"]) == ("mask", 1)


def test_a_patient_for_training_is_none_for_tests(run: Run, tmp_path: Path) -> None:
    folder = chest(tmp_path, "A")
    step = ("train", "lefusion", "prepare", "--lesions", 2, "--out", tmp_path / "run")
    told(run(*step, "--ct", folder))
    refused = run(*step, "--test-ct", folder)
    assert refused.exit_code == 2
    assert "among those for train already" in " ".join(refused.output.split())


def test_what_cannot_be_prepared_or_trained_is_said_in_words(run: Run, tmp_path: Path) -> None:
    nothing = run("train", "lefusion", "prepare", "--out", tmp_path / "run")
    assert (nothing.exit_code, "nothing to prepare" in nothing.output) == (2, True)
    unprepared = run("train", "lefusion", "texture", "--out", tmp_path / "run")
    assert (unprepared.exit_code, "no prepared lesions" in unprepared.output) == (2, True)
