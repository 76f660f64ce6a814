"""`synthesise`: a series and its truth, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from typer.testing import Result

from node.cli.synthesise import COLUMNS, DOCUMENTS, IMAGES, TRUTH, TRUTH_JSON
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
    said = json.loads((out / TRUTH_JSON).read_text(encoding="utf8"))
    assert said["synthetic"] is True
    assert "Not a patient's" in said["note"]
    assert [{key: str(value) for key, value in one.items()} for one in said["lesions"]] == rows
    documents = {path.name: pydicom.dcmread(path) for path in (out / DOCUMENTS).iterdir()}
    assert {ds.Modality for ds in documents.values()} == {"SEG", "SR"}
    assert {ds.StudyInstanceUID for ds in documents.values()} == {said["study_instance_uid"]}


def test_harvest_reads_the_truth_back_as_rows(run: Run, chest: Path, tmp_path: Path) -> None:
    """By a path of its own: out of the report, through pixels and planes, into the table of a training set."""
    out, made = tmp_path / "out", tmp_path / "set"
    assert run("synthesise", chest, "--out", out, "--lesions", 3, "--seed", 5, "--no-marking").exit_code == 0
    done = run("harvest", "--folder", out, "--out", made, "--json")
    assert done.exit_code == 0, done.output
    truth = json.loads((out / TRUTH_JSON).read_text(encoding="utf8"))["lesions"]
    with (made / "DL_info.csv").open(encoding="utf8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(truth)
    spacing_mm = 2.0
    found = []
    for row in rows:
        long_px, short_px = (float(value) for value in row["Lesion_diameters_Pixel_"].split(","))
        x1, y1, x2, y2 = (float(value) for value in row["Measurement_coordinates"].split(",")[:4])
        found.append((long_px * spacing_mm, short_px * spacing_mm, (x1 + x2) / 2, (y1 + y2) / 2))
    first_pixel = 1  # the table counts from 1
    for one in truth:
        near = min(found, key=lambda row: abs(row[0] - one["recist_long_mm"]) + abs(row[1] - one["recist_short_mm"]))
        assert near[0] == pytest.approx(one["recist_long_mm"], abs=0.05)
        assert near[1] == pytest.approx(one["recist_short_mm"], abs=0.05)
        middle = (near[2] - first_pixel, near[3] - first_pixel)
        assert np.hypot(middle[0] - one["column"], middle[1] - one["row"]) < one["recist_long_mm"] / 2


def test_a_lower_dose_is_noisier_everywhere_and_the_truth_stays(run: Run, chest: Path, tmp_path: Path) -> None:
    for name, options in (("full", ()), ("low", ("--dose", "0.25"))):
        done = run("synthesise", chest, "--out", tmp_path / name, "--lesions", 1, "--no-marking", *options)
        assert done.exit_code == 0, done.output
    full, low = (read_volume(sorted((tmp_path / name / IMAGES).glob("*.dcm"))) for name in ("full", "low"))
    tissue = (slice(None), slice(40, 80), slice(74, 86))
    noise = (low.voxels - full.voxels)[tissue]
    assert noise.std() > 3
    assert all(plane.std() > 2 for plane in noise)
    one, two = ((tmp_path / name / TRUTH).read_text(encoding="utf8") for name in ("full", "low"))
    assert one == two
    said = json.loads((tmp_path / "low" / TRUTH_JSON).read_text(encoding="utf8"))
    assert (said["dose"], said["assumed_of_the_dose"]) == (0.25, [])


def test_a_liver_without_a_mask_is_not_guessed(run: Run, chest: Path, tmp_path: Path) -> None:
    done = run("synthesise", chest, "--out", tmp_path / "out", "--organ", "liver")
    assert (done.exit_code, "--mask with a DICOM segmentation" in words(done)) == (2, True)
    assert not (tmp_path / "out").exists()
    other = run("synthesise", chest, "--out", tmp_path / "out", "--organ", "liver", "--mask", next(chest.iterdir()))
    assert (other.exit_code, "no DICOM segmentation" in words(other)) == (2, True)


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
