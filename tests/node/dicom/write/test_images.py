"""Whole studies through the gate: every kind of source, every kind of result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate import made, quirks
from gate.files import items
from gate.gate import OWN, complaints
from node.dicom.read import read_volume
from node.dicom.write import SeriesSource, write_images
from node.errors import AnalysisFailed

JAPANESE = {
    "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
    "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ReferringPhysicianName": "Suzuki^Hanako=鈴木^花子",
}
UTF8 = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Иванов^Пётр", "StudyDescription": "Грудная клетка →"}
ABSENT = ("AccessionNumber", "StudyID", "ReferringPhysicianName", "PatientBirthDate", "PatientSex", "StudyTime")

CT_STUDIES: dict[str, dict[str, Any]] = {
    "axial, odd width": {},
    "oblique": {"orientation": made.OBLIQUE},
    "tilted gantry": {"tilt_mm": 0.7},
    "sagittal": {"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)},
    "Japanese names": JAPANESE,
    "UTF-8 names": UTF8,
    "absent type 2 attributes": dict.fromkeys(ABSENT),
    "no body part, no time zone": {"BodyPartExamined": None, "TimezoneOffsetFromUTC": None},
    "paired body part": {"BodyPartExamined": "KNEE"},
    "one slice": {"slices": 1},
}
RADIOGRAPHS: dict[str, dict[str, Any]] = {
    "DX": {},
    "DX for processing": {"sop_class": made.DX_PROCESSING},
    "DX MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    "CR": {"sop_class": made.CR},
    "CR MONOCHROME1": {"sop_class": made.CR, "PhotometricInterpretation": "MONOCHROME1"},
}


@pytest.mark.parametrize("name", CT_STUDIES)
def test_the_gate_has_nothing_against_results_of_ct(name: str, run_of: Any, tmp_path: Path) -> None:
    run = run_of(made.ct_series(tmp_path / "in", **{"slices": 3, **CT_STUDIES[name]}), lesions=1)
    assert complaints(made.keep(tmp_path / "out", run.results), run.paths) == []


@pytest.mark.parametrize("name", RADIOGRAPHS)
def test_the_gate_has_nothing_against_results_of_radiographs(name: str, run_of: Any, tmp_path: Path) -> None:
    run = run_of(made.radiograph(tmp_path / "in", **RADIOGRAPHS[name]), lesions=1)
    assert complaints(made.keep(tmp_path / "out", run.results), run.paths) == []


def test_the_gate_has_nothing_against_results_of_enhanced_ct(run_of: Any, tmp_path: Path) -> None:
    run = run_of(made.enhanced_ct(tmp_path / "in"), lesions=1)
    assert complaints(made.keep(tmp_path / "out", run.results), run.paths) == []


def words(report: Any) -> str:
    return " ".join(str(item.get("TextValue", "")) for item in items(report))


def _nothing_is_lost(run: made.Run, folder: Path) -> None:
    """Every result is there, valid where it is not a copy of the fault itself, and refers to what is there."""
    derived = ["derived"] * len(run.grid.sources)
    assert [result.kind for result in run.images] == [*derived, "seg", "gsps", "sc", "sc"]
    checks = ("segread", "hdread", "refs", "segmentation", "codes", "layout", "values")
    assert complaints(made.keep(folder / "all", run.results), run.paths, checks=checks) == []
    of_lesions = [result for result in run.images if result.kind in ("seg", "gsps")]
    assert complaints(made.keep(folder / "lesions", of_lesions), run.paths, checks=("iod", "strict")) == []


@pytest.mark.parametrize("fault", quirks.SINGLE_FRAME)
def test_a_quirk_of_the_headers_costs_no_result(fault: str, run_of: Any, tmp_path: Path) -> None:
    paths = quirks.plant(quirks.SINGLE_FRAME[fault], made.ct_series(tmp_path / "in", slices=4))
    _nothing_is_lost(run_of(paths, lesions=1), tmp_path)


@pytest.mark.parametrize("fault", quirks.MULTI_FRAME)
def test_a_quirk_of_a_multi_frame_header_costs_no_result(fault: str, run_of: Any, tmp_path: Path) -> None:
    paths = quirks.plant(quirks.MULTI_FRAME[fault], made.enhanced_ct(tmp_path / "in"))
    _nothing_is_lost(run_of(paths, lesions=1), tmp_path)


def test_a_volume_of_two_multi_frame_images_names_frames_of_both(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    def lower(ds: Any, _index: int) -> None:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{made.ROOT}.2.4.2"
        for frame in ds.PerFrameFunctionalGroupsSequence:
            frame.PlanePositionSequence[0].ImagePositionPatient[2] -= 5

    paths = made.enhanced_ct(tmp_path / "upper", slices=2)
    paths += quirks.plant(lower, made.enhanced_ct(tmp_path / "lower", slices=2))
    run = run_of(paths, lesions=1)  # on slices 1 and 2: the last of the one image and the first of the other
    assert [result.kind for result in run.images] == ["derived"] * 4 + ["seg", "gsps", "sc", "sc"]
    segmentation = read_back(run.images[4])
    assert len(segmentation.SourceImageSequence) == 2
    named = [
        group.DerivationImageSequence[0].SourceImageSequence[0]
        for group in segmentation.PerFrameFunctionalGroupsSequence
    ]
    found = {(str(item.ReferencedSOPInstanceUID), int(item.ReferencedFrameNumber)) for item in named}
    assert found == {(ref.instance_uid, ref.frame) for ref in run.grid.sources[1:3]}
    assert complaints(made.keep(tmp_path / "out", run.results), run.paths) == []


@pytest.mark.parametrize(
    ("library", "kind", "note"),
    [
        ("seg.Segmentation", "seg", "no segmentation"),
        ("pr.GrayscaleSoftcopyPresentationState", "gsps", "no presentation state"),
    ],
)
@pytest.mark.parametrize("refusal", [ValueError, TypeError, AttributeError])
def test_what_the_library_refuses_is_left_out_alone_and_said(
    library: str,
    kind: str,
    note: str,
    refusal: type[Exception],
    run_of: Any,
    read_back: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(**_given: Any) -> None:
        raise refusal("this header")

    monkeypatch.setattr(f"highdicom.{library}", refuse)
    run = run_of(made.ct_series(tmp_path / "in"), lesions=2)
    left = [each for each in ("seg", "gsps") if each != kind]
    assert [result.kind for result in run.images] == ["derived"] * 5 + left + ["sc", "sc"]
    assert note in words(read_back(run.reports[0]))
    assert any(note in line for line in run.findings.notes)
    assert "this header" in caplog.text
    assert complaints(made.keep(tmp_path / "out", run.results), run.paths, checks=OWN) == []


def test_a_second_run_makes_the_same_bytes(run_of: Any, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    one, other = run_of(paths, lesions=2), run_of(list(reversed(paths)), lesions=2)
    assert [result.data for result in one.results] == [result.data for result in other.results]


def test_another_revision_makes_other_uids_in_other_series(run_of: Any, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    one = run_of(paths, lesions=1)
    other = run_of(paths, lesions=1, stamp=made.stamp(revision=2, replaces=1))
    for field in ("sop_instance_uid", "series_instance_uid"):
        assert not {getattr(r, field) for r in one.results} & {getattr(r, field) for r in other.results}


def test_what_it_says_of_a_result_is_what_the_file_says(ct_run: Any, read_back: Any) -> None:
    for result in ct_run.results:
        ds = read_back(result)
        assert ds.SOPInstanceUID == result.sop_instance_uid == ds.file_meta.MediaStorageSOPInstanceUID
        assert ds.SOPClassUID == result.sop_class_uid
        assert ds.SeriesInstanceUID == result.series_instance_uid
        assert ds.file_meta.TransferSyntaxUID == result.transfer_syntax_uid
    assert [r.kind for r in ct_run.images] == ["derived"] * 5 + ["seg", "gsps", "sc", "sc"]
    assert ct_run.images[2].label == "AI denoised 3/5"
    groups = [result.group for result in ct_run.images]
    assert len(set(groups)) == len(groups)


def test_images_come_one_at_a_time(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    results = write_images(made.findings(volume), volume, SeriesSource.load(paths), made.stamp())
    assert next(results).kind == "derived"


def test_refuses_a_stamp_of_another_study(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    with pytest.raises(AnalysisFailed, match="another study"):
        list(
            write_images(made.findings(volume), volume, SeriesSource.load(paths), made.stamp(study_instance_uid="1.2"))
        )


def test_refuses_two_images_of_one_kind(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    twice = made.findings(volume, images=(made.denoised(volume.voxels),) * 2)
    with pytest.raises(AnalysisFailed, match="same kind"):
        list(write_images(twice, volume, SeriesSource.load(paths), made.stamp()))


@pytest.mark.parametrize("bad", ["shape", "nan"])
def test_refuses_an_image_that_is_not_on_the_grid_or_not_finite(bad: str, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    image = made.denoised(volume.voxels)
    array = image.array[:, :-1] if bad == "shape" else np.where(image.array > 0, np.nan, image.array)
    findings = made.findings(volume, images=(replace(image, array=array),))
    with pytest.raises(AnalysisFailed):
        list(write_images(findings, volume, SeriesSource.load(paths), made.stamp()))


def test_no_image_was_let_out_still_gives_a_summary_page(run_of: Any, tmp_path: Path) -> None:
    run = run_of(made.ct_series(tmp_path), images=())
    assert [result.kind for result in run.images] == ["sc"]
