from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import dcmread

from images import marks, phantom
from models.deeplesion.config import SPACING_MM, DeepLesionConfig, DetectConfig, NetworkConfig, TrainConfig
from models.deeplesion.data import SampleStore
from models.deeplesion.marked import make_marked_samples
from models.deeplesion.samples import load_sample
from models.deeplesion.table import LesionType, image_path, read_image, read_table
from models.deeplesion.train import Run
from node.cli.harvest import harvest_all
from node.cli.harvested import TrainingSet
from node.dicom.marks.deidentify import Mapping
from node.dicom.marks.shelf import FolderShelf, shelves
from node.dicom.marks.study import marks_of
from node.dicom.read.codec import Codec
from node.errors import AnalysisFailed, ConfigurationError, NoCommonContext, PeerBusy, PeerUnreachable

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


def test_a_detector_learns_a_step_from_what_was_harvested(run: Any, export: Path, tmp_path: Path) -> None:
    """The box that it learns is the mark's: between the ends, 5 pixels more on all sides, on pixels of its own size."""
    torch.set_num_threads(1)
    assert run("harvest", "--folder", export, "--out", tmp_path / "set").exit_code == 0
    narrow = NetworkConfig(
        categories=("lung", "liver"),
        widths=(16, 16, 24),
        fpn_channels=16,
        rpn_width=16,
        head_widths=(16, 32),
        mask_width=8,
        detect=DetectConfig(before_nms=100, proposals=24),
    )
    config = DeepLesionConfig(network=narrow)
    samples = make_marked_samples(tmp_path / "set", tmp_path / "samples", config)
    by_report, _ = read_table(tmp_path / "set" / "DL_info.csv")
    sample = load_sample(samples[0])
    scale = np.array([0.8, 0.7, 0.8, 0.7]) / SPACING_MM
    assert np.allclose(sample.boxes, [(np.array(by_report.box_px) + 0.5) * scale], atol=0.3)  # to whole pixels
    assert sample.hu.shape[0] == 3
    training = TrainConfig(steps=1, batch=6, crop_px=64, warmup_steps=1)
    learning = Run(config, training, seed=1, device=torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in learning.network.state_dict().items()}
    store = SampleStore(samples, seed=1, categories=2)
    assert any(len(targets.boxes) for targets in store.batch(0, training).targets)
    learning.fit(store, tmp_path / "checkpoint.pt", lambda *_: None)
    assert any(not torch.equal(before[name], tensor) for name, tensor in learning.network.state_dict().items())


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


@pytest.mark.parametrize(
    ("value", "scheme", "kept", "kind"),
    [
        ("T-28000", "SRT", "T-28000 SRT", LesionType.LUNG),
        ("12738006", "SCT", "12738006 SCT", LesionType.UNLABELLED),  # a brain: no part of the body that the table has
        ("39607008", "99SMITH", "", LesionType.UNLABELLED),
        ("SMITH-JOHN", "SCT", "", LesionType.UNLABELLED),
        ("19610203", "DCM", "", LesionType.UNLABELLED),  # no code of DICOM's: a date of birth
    ],
)
def test_of_codes_only_what_a_public_scheme_can_hold_is_kept(
    value: str, scheme: str, kept: str, kind: LesionType, run: Any, tmp_path: Path
) -> None:
    scanned = marks.scan(tmp_path / "export")
    group = marks.bidirectional(scanned.key, marks.centred())
    group.ContentSequence[3].ConceptCodeSequence = [marks.code(value, scheme)]
    phantom.save(marks.report(scanned.headers, group), tmp_path / "export" / "sr.dcm")
    assert run("harvest", "--folder", tmp_path / "export", "--out", tmp_path / "set").exit_code == 0
    (row,) = read_table(tmp_path / "set" / "DL_info.csv")
    with (tmp_path / "set" / "lesions.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["Site"], row.lesion_type) == (kept, kind)


@pytest.mark.parametrize("kind", ["slender", "air", "flat"])
def test_a_mark_that_is_unlike_a_lesions_is_possibly_noisy(kind: str, run: Any, tmp_path: Path) -> None:
    scanned = marks.scan(tmp_path / "export")
    points = [(90, 60), (150, 60), (120, 58), (120, 62)] if kind == "slender" else marks.centred()
    stored = phantom.stored_values(2, marks.SHAPE)
    if kind == "air":
        stored = stored % 50
    elif kind == "flat":
        stored[:] = 1030
    scanned.key.PixelData = stored.tobytes()
    phantom.save(scanned.key, scanned.paths[1])
    good = marks.gsps(scanned.headers[3], marks.axes(marks.centred()), uid="1.2.3.11.2")
    for number, state in enumerate((marks.gsps(scanned.key, marks.axes(points)), good)):
        phantom.save(state, tmp_path / "export" / f"pr-{number}.dcm")
    said = json.loads(run("harvest", "--folder", tmp_path / "export", "--out", tmp_path / "set", "--json").stdout)
    assert said["possibly_noisy"] == 1
    assert {row.key_slice: row.noisy for row in read_table(tmp_path / "set" / "DL_info.csv")} == {4: True, 2: False}


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

    def holdings(self) -> frozenset[str]:
        return frozenset()

    def documents(self) -> list[Path]:
        raise self.error

    def series_of(self, instance_uid: str, said: str) -> str:
        return ""

    def series(self, series_uid: str, *, without: Any = ()) -> list[Path]:
        return []


def troubles_of(*given: Any) -> list[Any]:
    return harvest_all(*given).troubles


@pytest.mark.parametrize("error", [PeerBusy("PACS: C-GET answered 0xA700"), ZeroDivisionError("a defect")])
def test_a_study_that_fails_is_left_and_those_behind_it_are_taken(
    error: Exception, export: Path, tmp_path: Path
) -> None:
    (good,) = shelves(export)
    made = TrainingSet(tmp_path / "set", Mapping.open(tmp_path / "map.json"))
    todo = {"1.2.9.9": lambda _: Broken(error), good.study_uid: lambda _: good}
    (trouble,) = troubles_of(made, todo, {"kind": "folder"})
    assert len(made) == 2
    assert isinstance(trouble, PeerBusy if isinstance(error, PeerBusy) else AnalysisFailed)
    assert "1.2.9.9" in trouble.reason
    assert (made.has(good.study_uid), made.has("1.2.9.9")) == (True, False)


def test_a_peer_that_cannot_do_it_at_all_ends_it_and_keeps_what_was_done(export: Path, tmp_path: Path) -> None:
    (good,) = shelves(export)
    made = TrainingSet(tmp_path / "set", Mapping.open(tmp_path / "map.json"))
    todo = {good.study_uid: lambda _: good, "1.2.9.9": lambda _: Broken(NoCommonContext("no C-GET"))}
    with pytest.raises(NoCommonContext):
        harvest_all(made, todo, {"kind": "folder"})
    assert len(read_table(tmp_path / "set" / "DL_info.csv")) == 2
    assert Mapping.open(tmp_path / "map.json").done


def training_set(tmp_path: Path) -> TrainingSet:
    return TrainingSet(tmp_path / "set", Mapping.open(tmp_path / "map.json"))


def other_study(folder: Path, *, slices: int = 29) -> FolderShelf:
    """Of another patient, with other pixels, marked where the first one is."""
    scanned = marks.scan(folder, slices=slices, StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1", PatientID="P-2")
    for number, ds in enumerate(scanned.headers):
        ds.SOPInstanceUID = f"1.2.9.1.{number}"
        ds.PixelData = (ds.pixel_array + 7).tobytes()
        phantom.save(ds, scanned.paths[number])
    phantom.save(
        marks.gsps(scanned.headers[slices // 2], marks.axes(marks.centred()), uid="1.2.9.2"), folder / "pr.dcm"
    )
    (shelf,) = shelves(folder)
    return shelf


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def test_images_that_a_killed_harvest_left_do_not_become_somebody_elses(export: Path, tmp_path: Path) -> None:
    """Nothing of it was saved, so its number of the patient is given again."""
    (first,) = shelves(export)
    other = other_study(tmp_path / "other", slices=7)
    with Codec() as codec:
        killed = training_set(tmp_path)
        killed.mapping.save()
        killed.add(marks_of(first, codec), codec)
        made = training_set(tmp_path)
        made.add(marks_of(other, codec), codec)
    (row,) = made.rows
    assert row.patient == 1
    image = read_image(tmp_path / "set" / "Images_png" / image_path(row.file_name))
    assert np.array_equal(image, phantom.stored_values(4, marks.SHAPE).astype(int) + 7 - 1024)
    assert len(list((tmp_path / "set").rglob("*.png"))) == 7


def test_a_save_that_was_cut_off_between_its_files_is_ended(export: Path, tmp_path: Path) -> None:
    (first,) = shelves(export)
    made = training_set(tmp_path)
    assert troubles_of(made, {first.study_uid: lambda _: first}, {}) == []
    made.save({})
    table = made.table.read_bytes()
    with Codec() as codec:
        made.add(marks_of(other_study(tmp_path / "other"), codec), codec)
    made.save({})
    made.table.rename(made.table.with_suffix(".new"))  # the lesions had been moved, the table not
    made.table.write_bytes(table)
    assert len(training_set(tmp_path)) == 3


def test_images_of_something_else_are_not_harvested_over(export: Path, tmp_path: Path) -> None:
    (tmp_path / "set" / "Images_png").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="something else"):
        training_set(tmp_path)


def test_what_came_of_a_study_is_kept_and_the_rest_is_asked_for_again(export: Path, tmp_path: Path) -> None:
    (whole,) = shelves(export)
    short = FolderShelf(whole.study_uid, dict(whole.paths), whole.marked, whole.series_by_instance, failed=14)
    short.paths[phantom.SERIES] = whole.paths[phantom.SERIES][:15]
    made = training_set(tmp_path)
    (trouble,) = troubles_of(made, {whole.study_uid: lambda _: short}, {})
    made.save({})
    assert "14 objects did not come" in trouble.reason
    made = training_set(tmp_path)
    assert (len(made), made.has(whole.study_uid)) == (2, False)
    assert troubles_of(made, {whole.study_uid: lambda _: whole}, {}) == []
    said = made.save({})
    assert (said["rows"], said["objects_not_sent"], made.has(whole.study_uid)) == (2, 0, True)
    by_report = made.rows[0]
    image = read_image(tmp_path / "set" / "Images_png" / image_path(by_report.file_name))
    assert by_report.key_slice == 16  # and not 2, as without the other images
    assert np.array_equal(image, phantom.stored_values(14, marks.SHAPE).astype(int) - 1024)


def test_a_neighbour_that_cannot_be_used_is_left_out_and_counted(run: Any, export: Path, tmp_path: Path) -> None:
    for number in (13, 27):
        path = export / "ct" / f"{phantom.SERIES}.{number}.dcm"
        ds = dcmread(path)
        ds.BurnedInAnnotation = "YES"
        ds.save_as(path)
    result = run("harvest", "--folder", export, "--out", tmp_path / "set", "--json")
    said = json.loads(result.stdout)
    assert (said["rows"], said["neighbours_left_out"], said["images"]) == (2, 1, 25)
    assert not (tmp_path / "set" / "Images_png" / "000001_01_01" / "017.png").exists()


def test_two_harvests_do_not_share_a_set_and_what_a_killed_one_fetched_is_removed(
    run: Any, export: Path, tmp_path: Path
) -> None:
    fetched = tmp_path / "set.fetched"
    (fetched / "tmpdeadbeef").mkdir(parents=True)
    with locked(fetched):
        result = run("harvest", "--folder", export, "--out", tmp_path / "set")
    assert (result.exit_code, "another harvest" in result.output) == (2, True)
    assert run("harvest", "--folder", export, "--out", tmp_path / "set").exit_code == 0
    assert not fetched.exists()


def test_a_peer_that_is_gone_is_not_asked_for_every_study(tmp_path: Path) -> None:
    asked = []

    def opened(uid: str) -> Any:
        def open_it(_: Path) -> Broken:
            asked.append(uid)
            return Broken(PeerUnreachable("PACS: no connection"))

        return open_it

    troubles = troubles_of(training_set(tmp_path), {str(number): opened(str(number)) for number in range(9)}, {})
    assert asked == ["0", "1", "2"]
    assert "6 studies were not tried" in troubles[-1].reason


def test_files_that_are_no_objects_or_contradict_each_other_are_said(run: Any, export: Path, tmp_path: Path) -> None:
    (export / "notes.txt").write_text("Smith")
    first = dcmread(export / "ct" / f"{phantom.SERIES}.1.dcm")
    first.save_as(export / "same.dcm")
    first.ImageComments = "other"
    first.save_as(export / "zz-other.dcm")
    result = run("harvest", "--folder", export, "--out", tmp_path / "set")
    assert result.exit_code == 0
    assert "1 files left out: not a DICOM object" in result.output
    assert "1 files left out: other content under the SOP Instance UID" in result.output


def test_what_breaks_the_program_is_told_without_what_it_held(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trouble,) = troubles_of(training_set(tmp_path), {"1": lambda _: Broken(KeyError("Smith^John"))}, {})
    said = capsys.readouterr().err
    assert "KeyError" in said
    assert "Smith" not in said
    assert isinstance(trouble, AnalysisFailed)


def add(export: Path, document: Any, name: str) -> None:
    phantom.save(document, export / f"{name}.dcm")


def harvested(run: Any, export: Path, tmp_path: Path) -> dict[str, Any]:
    result = run("harvest", "--folder", export, "--out", tmp_path / "set", "--json")
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def of(said: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(said[name] for name in names)


def headers(export: Path) -> list[Any]:
    return [dcmread(export / "ct" / f"{phantom.SERIES}.{number}.dcm") for number in range(1, 30)]


def key_slices(tmp_path: Path) -> list[tuple[int, str]]:
    return [(row.key_slice, row.origin) for row in read_table(tmp_path / "set" / "DL_info.csv")]


CHANGES = ("harvested_before", "changed", "new_rows", "dropped_rows", "rows")


def test_marks_that_appear_later_are_taken_once_and_the_others_stay(run: Any, export: Path, tmp_path: Path) -> None:
    assert of(harvested(run, export, tmp_path), *CHANGES) == (0, 0, 2, 0, 2)
    add(export, marks.gsps(headers(export)[7], marks.axes(marks.centred()), uid="1.2.3.11.9"), "later")
    assert of(harvested(run, export, tmp_path), *CHANGES) == (0, 1, 1, 0, 3)
    assert key_slices(tmp_path) == [(16, "SR TID 1501"), (22, "GSPS"), (28, "GSPS")]
    refused = (tmp_path / "set.refused.csv").read_text()
    assert refused.count("a single line") == 1  # of the first look, and read again since
    assert of(harvested(run, export, tmp_path), *CHANGES) == (1, 0, 0, 0, 3)


def test_a_report_that_replaces_another_replaces_its_rows(run: Any, export: Path, tmp_path: Path) -> None:
    harvested(run, export, tmp_path)
    images = headers(export)
    moved = [(x - 30, y) for x, y in marks.centred()]
    later = marks.report(images, marks.bidirectional(images[13], moved), uid="1.2.3.88.2")
    add(export, marks.supersede(later, "1.2.3.88.1"), "addendum")
    said = harvested(run, export, tmp_path)
    assert of(said, *CHANGES) == (0, 1, 1, 1, 2)
    assert said["refused"]["replaced by a later report"] == 1
    row, _ = read_table(tmp_path / "set" / "DL_info.csv")
    assert np.allclose(row.points_px, moved, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        ("113001", "for quality reasons"),
        ("113037", "for patient safety reasons"),
        ("113038", "incorrect modality worklist entry"),
        ("113039", "data retention policy expired"),
    ],
)
def test_what_is_rejected_loses_its_rows_and_images(
    title: str, reason: str, run: Any, export: Path, tmp_path: Path
) -> None:
    """An image with a mark, and the presentation state of another one."""
    harvested(run, export, tmp_path)
    add(export, marks.key_objects(headers(export)[13], dcmread(export / "pr.dcm"), title=title), "ko")
    said = harvested(run, export, tmp_path)
    assert of(said, *CHANGES) == (0, 1, 0, 2, 0)
    assert said["refused"] == {f"rejected in the PACS: {reason}": 2}
    assert (said["objects_rejected"], said["documents"]) == (2, 2)
    assert not list((tmp_path / "set").rglob("*.png"))


def test_a_rejected_neighbour_is_no_slice_of_the_set(run: Any, export: Path, tmp_path: Path) -> None:
    add(export, marks.key_objects(headers(export)[10]), "ko")
    harvested(run, export, tmp_path)
    by_report, _ = read_table(tmp_path / "set" / "DL_info.csv")
    assert (by_report.key_slice, by_report.slice_range) == (16, (4, 18))  # 19th from the head: a gap there is the end
    next_one = read_image(tmp_path / "set" / "Images_png" / "000001_01_01" / "019.png")
    assert np.array_equal(next_one, phantom.stored_values(10, marks.SHAPE).astype(int) - 1024)


@pytest.mark.parametrize("title", ["113000", "113010", "113030"])
def test_a_note_of_what_is_of_interest_rejects_nothing(title: str, run: Any, export: Path, tmp_path: Path) -> None:
    add(export, marks.key_objects(headers(export)[13], title=title), "ko")
    assert of(harvested(run, export, tmp_path), "rows", "objects_rejected") == (2, 0)


def test_what_replaced_a_report_and_was_rejected_does_not_bring_the_old_one_back(
    run: Any, export: Path, tmp_path: Path
) -> None:
    images = headers(export)
    later = marks.report(images, marks.bidirectional(images[9], marks.centred()), uid="1.2.3.88.2")
    add(export, marks.supersede(later, "1.2.3.88.1"), "addendum")
    add(export, marks.key_objects(later), "ko")
    harvested(run, export, tmp_path)
    assert key_slices(tmp_path) == [(28, "GSPS")]


def test_a_study_that_was_given_to_another_patient_is_not_there_twice(run: Any, export: Path, tmp_path: Path) -> None:
    harvested(run, export, tmp_path)
    for path in export.rglob("*.dcm"):
        ds = dcmread(path)
        ds.PatientID = "P-2"
        ds.save_as(path)
    add(export, marks.gsps(headers(export)[7], marks.axes(marks.centred()), uid="1.2.3.11.9"), "later")
    assert harvested(run, export, tmp_path)["rows"] == 3
    assert {row.patient for row in read_table(tmp_path / "set" / "DL_info.csv")} == {2}
    assert [path.name for path in (tmp_path / "set" / "Images_png").iterdir()] == ["000002_01_01"]


@pytest.mark.parametrize("rejecting", [False, True])
def test_a_changed_study_that_comes_in_part_keeps_its_rows_unless_something_is_rejected(
    rejecting: bool, export: Path, tmp_path: Path
) -> None:
    (whole,) = shelves(export)
    made = training_set(tmp_path)
    assert troubles_of(made, {whole.study_uid: lambda _: whole}, {}) == []
    changed = marks.gsps(headers(export)[7], marks.axes(marks.centred()), uid="1.2.3.11.9")
    add(export, changed, "later")
    if rejecting:
        add(export, marks.key_objects(changed), "ko")
    (now,) = shelves(export)
    now.paths[phantom.SERIES], now.failed = [], 29
    (trouble,) = troubles_of(made, {now.study_uid: lambda _: now}, {})
    assert ("earlier rows stay" in trouble.reason, len(made)) == ((False, 0) if rejecting else (True, 2))
    (again,) = shelves(export)
    assert troubles_of(made, {again.study_uid: lambda _: again}, {}) == []
    assert len(made) == (2 if rejecting else 3)


def test_a_harvest_that_is_killed_over_a_changed_study_leaves_no_row_without_its_images(
    export: Path, tmp_path: Path
) -> None:
    (first,) = shelves(export)
    made = training_set(tmp_path)
    assert troubles_of(made, {first.study_uid: lambda _: first}, {}) == []
    made.save({})
    add(export, marks.gsps(headers(export)[7], marks.axes(marks.centred()), uid="1.2.3.11.9"), "later")
    (changed,) = shelves(export)
    with Codec() as codec:
        training_set(tmp_path).add(marks_of(changed, codec), codec, holdings=changed.holdings())
    again = training_set(tmp_path)  # nothing was saved
    assert (len(again), again.has(first.study_uid)) == (0, False)
    assert troubles_of(again, {first.study_uid: lambda _: changed}, {}) == []
    assert [row.patient for row in again.rows] == [1, 1, 1]


def test_a_dry_run_tells_what_has_changed_since(run: Any, export: Path, tmp_path: Path) -> None:
    def plan() -> Any:
        said = json.loads(run("harvest", "--folder", export, "--out", tmp_path / "set", "--dry-run", "--json").stdout)
        return said["to_harvest"], said["harvested_before"]

    harvested(run, export, tmp_path)
    assert plan() == ([], 1)
    add(export, marks.gsps(headers(export)[7], marks.axes(marks.centred()), uid="1.2.3.11.9"), "later")
    assert plan() == ([phantom.STUDY], 0)
    assert len(read_table(tmp_path / "set" / "DL_info.csv")) == 2
