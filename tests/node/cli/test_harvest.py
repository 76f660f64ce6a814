from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from images import marks, phantom
from models.deeplesion.table import LesionType, image_path, read_image, read_table
from node.cli.harvest import harvest_all
from node.cli.harvested import TrainingSet
from node.dicom.marks.deidentify import Mapping
from node.dicom.marks.shelf import shelves
from node.errors import AnalysisFailed, NoCommonContext, PeerBusy

IDENTITIES = (b"PHANTOM", b"P-1", b"Reader", b"Smith", b"General", b"1.2.826", b"1.2.3", b"20260102")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A series of 29 slices 2.5 mm apart with a report on one slice and a presentation state on another."""
    folder = tmp_path / "export"
    scanned = marks.scan(folder / "ct", slices=29)
    report = marks.report(scanned.headers, marks.bidirectional(scanned.headers[13], marks.centred()))
    state = marks.gsps(scanned.key, [*marks.axes(marks.centred()), marks.polyline([(3, 3), (9, 9)])])
    phantom.save(report, folder / "sr.dcm")
    phantom.save(state, folder / "pr.dcm")
    return folder


def test_a_folder_becomes_rows_and_images(run: Any, export: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    result = run("harvest", "--folder", export, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["rows"], said["studies"], said["documents"]) == (2, 1, 2)
    assert said["refused"] == {"a single line: no second axis crosses it at a right angle": 1}
    assert said["origins"] == {"SR TID 1501": 1, "GSPS": 1}
    by_report, by_state = read_table(out / "DL_info.csv")
    assert [value + 1 for value in by_report.box_px] == pytest.approx(marks.TABLE_BOX, abs=1e-3)  # six digits are kept
    assert (by_report.key_slice, by_report.slice_range) == (16, (4, 28))  # 29 slices, head first; ±12 of 2.5 mm
    assert (by_state.key_slice, by_state.slice_range) == (28, (16, 29))
    assert by_report.spacing_mm == (0.8, 0.7, 2.5)
    assert (by_report.image_size, by_report.window_hu) == ((260, 130), (-175, 275))
    assert (by_report.sex, by_report.age, by_report.lesion_type) == ("F", 61, LesionType.LUNG)
    assert (by_report.origin, by_report.institution) == ("SR TID 1501", "site 1")
    with (out / "lesions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["File_name"] for line in lines] == [by_report.file_name, by_state.file_name]
    assert [line["Site"] for line in lines] == ["39607008 SCT", ""]
    assert (lines[0]["Finding"], lines[0]["Observer"], len(lines[0]["Lesion"])) == ("4147007 SCT", "person", 16)
    image = read_image(out / "Images_png" / image_path(by_report.file_name))
    assert np.array_equal(image, phantom.stored_values(14, marks.SHAPE).astype(int) - 1024)
    names = sorted(path.name for path in (out / "Images_png" / "000001_01_01").iterdir())
    assert names == [f"{number:03d}.png" for number in range(4, 30)]


def test_no_identity_is_in_what_is_kept(run: Any, export: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert run("harvest", "--folder", export, "--out", out).exit_code == 0
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 3 + 26
    for path in [*files, tmp_path / "set.mapping.json"]:
        content = path.read_bytes()
        assert not [word for word in IDENTITIES if word in content], path
        assert not [word for word in IDENTITIES if word in str(path.relative_to(tmp_path)).encode()]
    for name in ("set.mapping.json", "set.refused.csv"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_second_harvest_takes_only_what_is_new_and_goes_on_numbering(run: Any, export: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert run("harvest", "--folder", export, "--out", out).exit_code == 0
    before = (out / "DL_info.csv").read_bytes()
    said = json.loads(run("harvest", "--folder", export, "--out", out, "--json").stdout)
    assert (said["harvested_before"], said["new_rows"], said["rows"]) == (1, 0, 2)
    assert (out / "DL_info.csv").read_bytes() == before
    other = {"StudyInstanceUID": "1.2.9", "SeriesInstanceUID": "1.2.9.1", "PatientID": "P-2"}
    scanned = marks.scan(export / "other", slices=3, **other)
    for number, ds in enumerate(scanned.headers):
        ds.SOPInstanceUID = f"1.2.9.1.{number}"
        phantom.save(ds, scanned.paths[number])
    state = marks.gsps(scanned.key, marks.axes(marks.centred()), uid="1.2.9.2")
    phantom.save(state, export / "other" / "pr.dcm")
    said = json.loads(run("harvest", "--folder", export, "--out", out, "--json").stdout)
    assert (said["harvested_before"], said["new_rows"], said["patients"]) == (1, 1, 2)
    rows = read_table(out / "DL_info.csv")
    assert [(row.patient, row.study) for row in rows] == [(1, 1), (1, 1), (2, 1)]
    with (out / "lesions.csv").open(newline="") as file:
        assert [line["File_name"] for line in csv.DictReader(file)] == [row.file_name for row in rows]


def test_two_boxes_on_one_lesion_are_one_row(run: Any, tmp_path: Path) -> None:
    scanned = marks.scan(tmp_path / "export")
    moved = [(x + 1, y) for x, y in marks.centred()]
    groups = [
        marks.bidirectional(scanned.key, points, tracking_uid=f"1.2.3.99.{number}")
        for number, points in enumerate((marks.centred(), moved))
    ]
    phantom.save(marks.report(scanned.headers, *groups), tmp_path / "export" / "sr.dcm")
    said = json.loads(run("harvest", "--folder", tmp_path / "export", "--out", tmp_path / "set", "--json").stdout)
    assert said["rows"] == 1
    assert said["refused"] == {"the same lesion is marked already (boxes overlap by more than 60 %)": 1}


def test_images_that_lost_their_values_are_refused(run: Any, tmp_path: Path) -> None:
    scanned = marks.scan(tmp_path / "export", LossyImageCompression="01")
    phantom.save(marks.gsps(scanned.key, marks.axes(marks.centred())), tmp_path / "export" / "pr.dcm")
    result = run("harvest", "--folder", tmp_path / "export", "--out", tmp_path / "set", "--json")
    assert result.exit_code == 1
    (reason,) = json.loads(result.stdout)["refused"]
    assert "compressed with loss" in reason


def test_a_dry_run_writes_nothing(run: Any, export: Path, tmp_path: Path) -> None:
    result = run("harvest", "--folder", export, "--out", tmp_path / "set", "--dry-run", "--json")
    assert json.loads(result.stdout)["to_harvest"] == [phantom.STUDY]
    assert {path.name for path in tmp_path.iterdir()} == {"export"}


def test_without_marks_there_is_nothing(run: Any, tmp_path: Path) -> None:
    marks.scan(tmp_path / "export")
    assert run("harvest", "--folder", tmp_path / "export", "--out", tmp_path / "set").exit_code == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--peer or --folder"),
        (["--folder", ".", "--since", "7d"], "--peer"),
        (["--folder", ".", "--mapping", "set/inside.json"], "keep it outside"),
    ],
)
def test_what_cannot_be_carried_out_is_said(
    options: list[str], words: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("harvest", "--out", "set", *options)
    assert result.exit_code == 2
    assert words in result.output


def test_a_table_without_its_mapping_is_not_continued(run: Any, export: Path, tmp_path: Path) -> None:
    assert run("harvest", "--folder", export, "--out", tmp_path / "set").exit_code == 0
    (tmp_path / "set.mapping.json").unlink()
    result = run("harvest", "--folder", export, "--out", tmp_path / "set")
    assert result.exit_code == 2
    assert "is not its mapping" in result.output


class Broken:
    """A study whose files cannot be had, for a reason of the peer's or of ours."""

    study_uid, failed = "1.2.9.9", 0

    def __init__(self, error: Exception) -> None:
        self.error = error

    def documents(self) -> list[Path]:
        raise self.error

    def series_of(self, instance_uid: str) -> str:
        return ""

    def series(self, series_uid: str) -> list[Path]:
        return []


@pytest.mark.parametrize("error", [PeerBusy("PACS: C-GET answered 0xA700"), ZeroDivisionError("a defect")])
def test_a_study_that_fails_is_left_and_those_behind_it_are_taken(
    error: Exception, export: Path, tmp_path: Path
) -> None:
    (good,) = shelves(export)
    made = TrainingSet(tmp_path / "set", Mapping.open(tmp_path / "map.json"))
    todo = {"1.2.9.9": lambda _: Broken(error), good.study_uid: lambda _: good}
    (trouble,) = harvest_all(made, todo, {"kind": "folder"})
    assert len(made) == 2
    assert isinstance(trouble, PeerBusy if isinstance(error, PeerBusy) else AnalysisFailed)
    assert (made.has(good.study_uid), made.has("1.2.9.9")) == (True, False)


def test_a_peer_that_cannot_do_it_at_all_ends_it_and_keeps_what_was_done(export: Path, tmp_path: Path) -> None:
    (good,) = shelves(export)
    made = TrainingSet(tmp_path / "set", Mapping.open(tmp_path / "map.json"))
    todo = {good.study_uid: lambda _: good, "1.2.9.9": lambda _: Broken(NoCommonContext("no C-GET"))}
    with pytest.raises(NoCommonContext):
        harvest_all(made, todo, {"kind": "folder"})
    assert len(read_table(tmp_path / "set" / "DL_info.csv")) == 2
    assert Mapping.open(tmp_path / "map.json").done
