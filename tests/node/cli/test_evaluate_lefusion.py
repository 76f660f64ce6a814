"""`evaluate lefusion` on a run of networks for tests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import Result

from models.lefusion.config import NetworkConfig, TrainConfig
from models.lefusion.data import CropStore, ShapeStore, histograms_of
from models.lefusion.synthesis import write_histograms
from models.lefusion.train import train
from seeded.lesion_crops import region

Run = Callable[..., Result]
TINY = NetworkConfig(width=16, mults=(1, 2), heads=2, head_width=8, through=(1,))
QUICK = TrainConfig(steps=1, batch=1, crop_zyx=(4, 8, 8), warmup_steps=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    regions = [dataclasses.replace(region(seed=seed), key=f"chest{seed % 2}") for seed in range(4)]
    for split in ("train", "test"):
        (tmp_path / "run" / "lesions" / split).mkdir(parents=True)
        for number, one in enumerate(regions):
            content = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
            np.savez(tmp_path / "run" / "lesions" / split / f"{one.key}-{number}.npz", **content)
    for name in ("texture", "other"):
        out = tmp_path / "run" / name
        train(TINY, "texture", CropStore(regions, classes=1, seed=1), out, training=QUICK, seed=1, facts={"classes": 1})
        write_histograms(histograms_of(regions, classes=1), out)
    shapes = dataclasses.replace(TINY, inputs=2, condition=0)
    train(shapes, "mask", ShapeStore(seed=1), tmp_path / "run" / "mask", training=QUICK, seed=1)
    return tmp_path / "run"


def test_all_tables_are_written_with_the_weights_they_are_of(run: Run, folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "outlines.npz", agree=np.pad(np.full((2, 9, 12), 3, np.uint8), ((0, 0), (4, 4), (4, 4))))
    done = run(
        "evaluate", "lefusion", "--data", folder, "--out", tmp_path / "out", "--arm", "other", "--lesions", 4,
        "--shapes", 2, "--repeats", 2, "--evaluations", 2, "--outlines", tmp_path / "outlines.npz", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf8"))
    assert len(told["weights_sha256"]) == 64
    assert told["training"]["stage"] == "texture"
    methods = [row["method"] for row in told["tables"][0]["rows"]]
    assert methods == ["simulated lesion", "LeFusion", "other", "copy and paste", "one grey and Gaussian noise"]
    for row in told["tables"][0]["rows"][1:]:
        assert row["values"]["background, HU"]["mean"] == 0
    assert (tmp_path / "out" / "lesions.png").stat().st_size > 1000
    assert "| condition |" in (tmp_path / "out" / "evaluation.md").read_text(encoding="utf8")


def test_what_is_missing_is_said_in_words(run: Run, folder: Path, tmp_path: Path) -> None:
    base = ("evaluate", "lefusion", "--data", folder, "--out", tmp_path / "out")
    unknown = run(*base, "--arm", "global")
    assert (unknown.exit_code, "no trained texture network" in " ".join(unknown.output.split())) == (2, True)
    twice = run(*base, "--arm", "other", "--arm", "other")
    assert (twice.exit_code, "a name of its own" in twice.output) == (2, True)
    (tmp_path / "none.npz").write_bytes(b"no")
    outlines = run(*base, "--outlines", tmp_path / "none.npz", "--lesions", 2, "--shapes", 2, "--evaluations", 2)
    assert (outlines.exit_code, "no outlines of readers" in " ".join(outlines.output.split())) == (2, True)
