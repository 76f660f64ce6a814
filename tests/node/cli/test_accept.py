"""`accept`: the shipped networks on a drawn chest, and every way in which it must not say that all is well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import Result

from node.dicom.synthetic import Labels, write_ct_series

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def chest(folder: Path, pixel_mm: float) -> Path:
    shape, rng = (20, 170, 220), np.random.default_rng(0)
    voxels = np.full(shape, -1000.0)
    voxels[:, 15:-15, 15:-15] = 40
    voxels[:, 35:-35, 35:100] = -850
    voxels[:, 35:-35, 120:185] = -850
    voxels += rng.normal(0, 12, shape)
    write_ct_series(folder, voxels.astype(np.float32), (2.5, pixel_mm, pixel_mm), labels=Labels(patient_id="A"))
    return folder


def words(done: Result) -> str:
    return " ".join(done.output.split())


def test_what_was_put_in_is_looked_for_and_what_is_lost_since_is_a_fault(run: Run, tmp_path: Path) -> None:
    scan, told = chest(tmp_path / "chest", 1.1), tmp_path / "one.json"
    first = run("accept", scan, "--lesions", 4, "--seed", 3, "--out", told)
    assert first.exit_code == 0, first.output
    assert "Lesion detection: done" in words(first)
    assert "Image quality scoring: done" in words(first)
    said = json.loads(told.read_text(encoding="utf8"))
    assert len(said["lesions"]) == 4
    assert said["found"] == sum(one["state"] == "found" for one in said["lesions"])
    missed = [one["number"] for one in said["lesions"] if one["state"] == "missed"]
    for one in said["lesions"]:
        one["state"] = "found"
    told.write_text(json.dumps(said), encoding="utf8")
    again = run("accept", scan, "--lesions", 4, "--seed", 3, "--against", told, "--json")
    now = json.loads(again.stdout)
    assert now["found"] == said["found"]
    assert again.exit_code == (1 if missed else 0)
    assert [f"lost {', '.join(map(str, missed))}" in fault for fault in now["faults"]] == [True] * bool(missed)


def test_a_series_that_is_not_searched_is_not_accepted(run: Run, tmp_path: Path) -> None:
    done = run("accept", chest(tmp_path / "chest", 1.8), "--lesions", 2)
    assert done.exit_code == 1
    assert "lesions were not searched for" in words(done)
    assert "coarser" in words(done)


def test_what_does_not_go_together_is_said_before_anything_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text("[]", encoding="utf8")
    for options, said in (
        (["--organ", "liver"], "--mask"),
        (["--dose", "1.5"], "above 0 and below 1"),
        (["--segment", "2"], "--organ liver"),
        (["--against", tmp_path / "other.json"], "a document that `accept` wrote"),
    ):
        done = run("accept", tmp_path / "empty", *options)
        assert (done.exit_code, said in words(done)) == (2, True), done.output
