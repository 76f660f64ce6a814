"""Marks in a real Orthanc, fetched by query/retrieve and turned into rows: `pacsnode harvest` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from images import marks, phantom
from models.deeplesion.table import LesionRow, image_path, read_image, read_table
from system import studies
from system.orthanc import Orthanc, Remote
from system.processes import free_port

POINTS = [(40.25, 61.5), (58.75, 61.5), (49.5, 55.125), (49.5, 67.875)]
"""Pixel centres at whole numbers; 18.5 and 12.75 px of 2.8125 mm."""
NOT_OURS = ("1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.59")
PATIENT = "Zettelmann^Zacharias"
IDENTITIES = (b"Zettelmann", b"ZETTELMANN", b"Zacharias", b"ZZ-4711", b"Reader^Rita", b"General Hospital", b"20260301")


@dataclass(frozen=True)
class Marked:
    """A study as Orthanc has it, and where its marks are."""

    uid: str
    images: list[Dataset]
    pacs: Orthanc
    move_to: str


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marked]:
    """A phantom CT of two series, of which one is marked: a report on slice 10, a presentation state on slice 15.

    Beside them what a CT study of today has too: a dose report, and a note of key objects in the series of the report.
    """
    folder = tmp_path_factory.mktemp("harvest")
    made = [studies.ct_study(folder / f"{number}", name="marked", series=number) for number in (1, 2)]
    files = [file for study in made for file in study.files]
    datasets = []
    for file in files:
        ds = dcmread(file)
        ds.PatientName, ds.PatientID, ds.PatientAge, ds.PatientSex = PATIENT, "ZZ-4711", "093Y", "M"
        ds.save_as(file)
        datasets.append(ds)
    first = datasets[: len(made[0].files)]
    documents = [
        marks.report(first, marks.bidirectional(first[9], POINTS), uid="2.25.4711.1"),
        marks.gsps(first[14], marks.axes(POINTS), uid="2.25.4711.2"),
    ]
    documents += [marks.document(kind, f"2.25.4711.{place}", first[0]) for place, kind in enumerate(NOT_OURS, start=3)]
    for number, document in enumerate(documents):
        document.SeriesInstanceUID = studies.uid("marked", "documents", number % 3)
        document.PatientID, document.PatientName = "ZZ-4711", PATIENT
        document.StudyDate = "20260301"
        files.append(phantom.save(document, folder / f"document-{number}.dcm"))
    ourselves = Remote("NODE", free_port())
    with Orthanc(folder / "pacs", node=ourselves) as pacs:
        assert pacs.upload(files) == {made[0].uid}
        yield Marked(made[0].uid, first, pacs, f"{ourselves.aet}:{ourselves.port}")


def harvest(marked: Marked, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    peer = f"PACS@127.0.0.1:{marked.pacs.port}"
    command = [sys.executable, "-m", "node", "harvest", "--peer", peer, "--out", str(out), "--json", *options]
    environment = {**os.environ, "PACSNODE_AET": "NODE", "PACSNODE_HOME": str(out.parent / "home")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, cwd=studies.REPOSITORY, env=environment
    )


@pytest.fixture(scope="module")
def out(marked: Marked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training") / "set"
    done = harvest(marked, out, "--since", "2026-02-01", "--until", "2026-03-31")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["found"], said["documents"], said["new_rows"]) == (1, 2, 2)
    assert (said["refused"], said["objects_not_sent"], said["left"]) == ({}, 0, [])
    return out


def rows_of(out: Path) -> dict[str, LesionRow]:
    return {row.origin: row for row in read_table(out / "DL_info.csv")}


def test_both_kinds_of_mark_are_rows_with_the_points_that_were_drawn(out: Path) -> None:
    rows = rows_of(out)
    assert set(rows) == {"SR TID 1501", "GSPS"}
    for row in rows.values():
        assert np.allclose(row.points_px, POINTS, rtol=0, atol=1e-3)
        assert row.box_px == pytest.approx((35.25, 50.125, 63.75, 72.875), abs=1e-3)
        assert row.diameters_mm == pytest.approx((52.03125, 35.859375), abs=1e-3)
        assert (row.sex, row.age) == ("M", 90)  # 93 years would be few
        assert row.spacing_mm == pytest.approx((2.8125, 2.8125, 2.5))
    # 24 slices, the last one highest: slice 10 of the files is 15th from the head
    assert (rows["SR TID 1501"].key_slice, rows["GSPS"].key_slice) == (15, 10)
    assert (rows["SR TID 1501"].slice_range, rows["GSPS"].slice_range) == ((3, 24), (1, 22))


def test_the_key_slice_holds_the_values_of_the_marked_image(out: Path, marked: Marked) -> None:
    row = rows_of(out)["SR TID 1501"]
    image = read_image(out / "Images_png" / image_path(row.file_name))
    assert np.array_equal(image, marked.images[9].pixel_array.astype(int) - 1024)


def test_only_the_marked_series_was_fetched(out: Path) -> None:
    assert [path.name for path in (out / "Images_png").iterdir()] == ["000001_01_01"]


def test_nobody_is_named_in_what_was_kept(out: Path, marked: Marked) -> None:
    uids = {str(ds.SOPInstanceUID).encode() for ds in marked.images} | {marked.uid.encode()}
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 3 + 24
    for path in [*files, out.with_name("set.mapping.json")]:
        content = path.read_bytes()
        assert not [word for word in (*IDENTITIES, *uids) if word in content], path
    assert out.with_name("set.mapping.json").stat().st_mode & 0o777 == 0o600


def test_the_second_time_nothing_is_fetched(out: Path, marked: Marked) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*.csv")}
    done = harvest(marked, out, "--study", marked.uid)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["harvested_before"], said["new_rows"], said["rows"]) == (1, 0, 2)
    assert {path: path.read_bytes() for path in out.rglob("*.csv")} == before


def test_what_appears_later_is_taken_what_is_replaced_or_rejected_goes(marked: Marked, tmp_path: Path) -> None:
    """A workstation adds marks, a report is amended, and a note takes an image out of use: each is asked for, and
    fetched, once."""
    folder, out = tmp_path / "later", tmp_path / "set"

    def look() -> dict[str, int]:
        done = harvest(marked, out, "--study", marked.uid)
        assert done.returncode == 0, done.stderr
        said: dict[str, int] = json.loads(done.stdout)
        return {name: said[name] for name in ("changed", "new_rows", "dropped_rows", "rows", "objects_not_sent")}

    def store(document: Dataset, name: str) -> str:
        document.SeriesInstanceUID = studies.uid("marked", name)
        document.PatientID, document.PatientName, document.StudyDate = "ZZ-4711", PATIENT, "20260301"
        path = phantom.save(document, folder / f"{name}.dcm")
        with httpx.Client(trust_env=False) as client:
            at = f"http://127.0.0.1:{marked.pacs.http_port}/instances"
            stored: str = client.post(at, content=path.read_bytes()).raise_for_status().json()["ID"]
        return stored

    added = []
    try:
        assert look() == {"changed": 0, "new_rows": 2, "dropped_rows": 0, "rows": 2, "objects_not_sent": 0}
        added.append(store(marks.gsps(marked.images[11], marks.axes(POINTS), uid="2.25.4711.11"), "state"))
        moved = [(x + 9, y) for x, y in POINTS]
        amended = marks.report(marked.images, marks.bidirectional(marked.images[9], moved), uid="2.25.4711.12")
        added.append(store(marks.supersede(amended, "2.25.4711.1"), "amended"))
        assert look() == {"changed": 1, "new_rows": 2, "dropped_rows": 1, "rows": 3, "objects_not_sent": 0}
        before = (out / "DL_info.csv").read_bytes()
        assert look() == {"changed": 0, "new_rows": 0, "dropped_rows": 0, "rows": 3, "objects_not_sent": 0}
        assert (out / "DL_info.csv").read_bytes() == before
        added.append(store(marks.key_objects(marked.images[11], uid="2.25.4711.13"), "note"))
        look()
        assert sorted(row.origin for row in read_table(out / "DL_info.csv")) == ["GSPS", "SR TID 1501"]
        assert {row.image_size for row in read_table(out / "DL_info.csv")} == {(128, 128)}
        assert len(list(out.rglob("*.png"))) == 23  # the rejected image is no neighbour either
    finally:
        for instance in added:
            marked.pacs.request("DELETE", f"/instances/{instance}")


def test_by_move_the_same_comes_as_by_get(out: Path, marked: Marked, tmp_path: Path) -> None:
    done = harvest(marked, tmp_path / "set", "--study", marked.uid, "--move-to", marked.move_to)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["objects_not_sent"] == 0
    moved, got = rows_of(tmp_path / "set"), rows_of(out)
    for origin in ("SR TID 1501", "GSPS"):
        assert moved[origin].points_px == got[origin].points_px
        images = [read_image(at / "Images_png" / image_path(got[origin].file_name)) for at in (tmp_path / "set", out)]
        assert np.array_equal(*images)


def test_an_archive_that_limits_its_answers_is_harvested_whole(tmp_path: Path) -> None:
    """Orthanc then ends with 0xFE00: over studies, over a study's series, and over the images of one."""
    files = []
    for number in range(1, 6):
        images = []
        for file in studies.ct_study(tmp_path / f"{number}", name=f"limited-{number}", slices=3).files:
            ds = dcmread(file)
            ds.PatientID, ds.StudyDate = f"L-{number}", f"2026010{number}"
            ds.save_as(file)
            images.append(ds)
            files.append(file)
        report = marks.report(images, marks.bidirectional(images[1], POINTS), uid=f"2.25.4713.{number}.1")
        state = marks.gsps(images[2], marks.axes(POINTS), uid=f"2.25.4713.{number}.2")
        for document in (report, state):
            document.StudyDate = images[0].StudyDate
            files.append(phantom.save(document, tmp_path / f"{document.SOPInstanceUID}.dcm"))
    pacs = Orthanc(tmp_path / "pacs", node=Remote("NODE", free_port()))
    pacs.configuration |= {"LimitFindResults": 2, "LimitFindInstances": 2}
    with pacs:
        assert len(pacs.upload(files)) == 5
        done = harvest(Marked("", [], pacs, ""), tmp_path / "set", "--since", "2026-01-01", "--until", "2026-01-31")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["found"], said["patients"], said["rows"], said["left"]) == (5, 5, 10, [])


def test_a_destination_that_the_peer_does_not_know_is_said(marked: Marked, tmp_path: Path) -> None:
    done = harvest(marked, tmp_path / "set", "--study", marked.uid, "--move-to", f"NOBODY:{free_port()}")
    assert done.returncode != 0
    assert "C-MOVE" in done.stderr


def test_a_dry_run_only_asks(marked: Marked, tmp_path: Path) -> None:
    patients = tmp_path / "patients.txt"
    patients.write_text("ZZ-4711\nnobody\n", encoding="utf8")
    done = harvest(marked, tmp_path / "set", "--dry-run", "--patient-list", str(patients))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["to_harvest"] == [marked.uid]
    assert not (tmp_path / "set").exists()


def test_without_studies_there_is_nothing(marked: Marked, tmp_path: Path) -> None:
    assert harvest(marked, tmp_path / "set", "--until", "2020-01-01").returncode == 1


def test_a_peer_that_is_not_there_is_tried_again_later(marked: Marked, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "node", "harvest", "--peer", f"X@127.0.0.1:{free_port()}", "--out", "set"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(studies.REPOSITORY)},
    )
    assert done.returncode == 3, done.stderr
    assert "no connection" in done.stderr
