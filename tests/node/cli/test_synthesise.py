"""`synthesise`: a series and its truth, and what is refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from typer.testing import Result

from node.cli.synthesise import COLUMNS, IMAGES, TRUTH
from node.dicom.read.volume import read_volume
from node.dicom.synthetic import Labels, write_ct_series

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    shape, rng = (30, 120, 160), np.random.default_rng(0)
    voxels = np.full(shape, -1000.0)
    voxels[:, 10:-10, 10:-10] = 40
    voxels[:, 25:-25, 20:70] = -850
    voxels[:, 25:-25, 90:140] = -850
    voxels += rng.normal(0, 15, shape)
    write_ct_series(tmp_path / "chest", voxels.astype(np.float32), (2.0, 2.0, 2.0), labels=Labels(patient_id="A"))
    return tmp_path / "chest"


def words(done: Result) -> str:
    return " ".join(done.output.split())


def test_lesions_are_where_the_truth_says(run: Run, chest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("synthesise", chest, "--out", out, "--lesions", 3, "--seed", 5, "--no-marking")
    assert done.exit_code == 0, done.output
    assert "3 lesions by formula" in words(done)
    before, after = (read_volume(sorted(folder.glob("*.dcm"))) for folder in (chest, out / IMAGES))
    change = np.abs(after.voxels - before.voxels)
    with (out / TRUTH).open(encoding="utf8") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 3
    left = change > 0
    for row in rows:
        at = [float(row[key]) for key in ("x_mm", "y_mm", "z_mm")]
        place = np.linalg.inv(after.affine) @ [*at, 1.0]
        z, y, x = (round(float(index)) for index in place[:3])
        assert (z + 1, y, x) == (int(row["slice"]), round(float(row["row"])), round(float(row["column"])))
        assert change[z, y, x] > 50
        reach = int(float(row["long_axis_mm"]) / 2) + 3
        left[max(z - reach, 0) : z + reach, y - reach : y + reach, x - reach : x + reach] = False
    assert not left.any()


def test_the_same_command_makes_the_same_bytes(run: Run, chest: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run("synthesise", chest, "--out", tmp_path / name, "--lesions", 1).exit_code == 0
    one, two = (sorted((tmp_path / name).rglob("*.*")) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert pydicom.dcmread(one[0]).BurnedInAnnotation == "YES"


def test_what_cannot_be_done_is_said_in_words(run: Run, chest: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = run("synthesise", tmp_path / "empty", "--out", tmp_path / "a")
    assert (nothing.exit_code, "no CT series" in words(nothing)) == (1, True)
    assert run("synthesise", chest, "--out", tmp_path / "b", "--lesions", 1).exit_code == 0
    again = run("synthesise", chest, "--out", tmp_path / "b")
    assert (again.exit_code, "something already" in words(again)) == (2, True)
    untrained = run("synthesise", chest, "--out", tmp_path / "c", "--by", tmp_path / "empty")
    assert (untrained.exit_code, "no trained texture network" in words(untrained)) == (2, True)
    assert "train lefusion" in words(untrained)
    write_ct_series(chest / "other", np.zeros((20, 64, 64), np.float32), (2.0, 2.0, 2.0), labels=Labels(patient_id="B"))
    two = run("synthesise", chest, "--out", tmp_path / "d")
    assert (two.exit_code, "CT of 2 patients" in words(two)) == (2, True)
