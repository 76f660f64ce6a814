from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from gate import made, quirks
from gate.gate import complaints
from node.dicom.read import read_radiograph, read_volume
from node.dicom.write import SeriesSource, write_images
from node.errors import AnalysisFailed


def _derived(run: Any, read_back: Any) -> list[Any]:
    return [read_back(result) for result in run.images if result.kind == "derived"]


def test_a_viewer_cannot_take_it_for_the_original(ct_run: Any, read_back: Any) -> None:
    for ds in _derived(ct_run, read_back):
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "AI_DENOISED"]
        assert ds.SeriesDescription == "AI denoised CT Thorax 2.5 B40f"
        assert ds.SeriesNumber == 9033
        assert ds.SeriesInstanceUID != ct_run.source.series_instance_uid
        assert "Research use only" in ds.ImageComments
        assert "ab" * 32 in ds.DerivationDescription
        assert "HU bias in soft tissue: 0.3 HU" in ds.DerivationDescription


def test_it_is_read_as_the_series_that_it_was_made_of(ct_run: Any, tmp_path: Path) -> None:
    """The demonstration's picture of before and after does so."""
    derived = [result for result in ct_run.images if result.kind == "derived"]
    before, after = read_volume(ct_run.paths), read_volume(made.keep(tmp_path, derived))
    assert after.voxels.shape == before.voxels.shape
    np.testing.assert_allclose(after.affine, before.affine)
    assert 0 < np.abs(after.voxels - before.voxels).mean() < 100


def test_a_long_derivation_ends_in_whole_sentences_and_keeps_the_caution(tmp_path: Path, read_back: Any) -> None:
    paths = made.ct_series(tmp_path, slices=2)
    volume = read_volume(paths)
    checks = {f"detail at edges of region {number}": "12 % taken away (limit 25)" for number in range(20)}
    image = replace(made.denoised(volume.voxels), checks=checks)
    findings = made.findings(volume, images=(image,))
    said = read_back(next(write_images(findings, volume, SeriesSource.load(paths), made.stamp()))).DerivationDescription
    assert 900 < len(said) <= 1024
    assert said.endswith("(limit 25). More in the report. " + made.stamp().note)


def test_an_arrangement_of_colours_is_not_told_of_one_grey_value(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    """Scanners write it, and de-identification keeps it; PS3.3 C.7.6.3.1.3 allows it with several samples only."""
    run = run_of(made.ct_series(tmp_path, PlanarConfiguration=0))
    assert all("PlanarConfiguration" in pydicom.dcmread(path) for path in run.paths)
    images = _derived(run, read_back)
    assert images
    assert not any("PlanarConfiguration" in ds for ds in images)


@pytest.mark.parametrize("stated", ["YES", "NO", None, ""])
def test_what_is_burned_in_is_what_the_source_says(
    stated: str | None, run_of: Any, read_back: Any, tmp_path: Path
) -> None:
    said = {} if stated is None else {"BurnedInAnnotation": stated}
    for paths in (made.ct_series(tmp_path / "ct", **said), made.radiograph(tmp_path / "cr", sop_class=made.CR, **said)):
        for ds in _derived(run_of(paths), read_back):
            assert ds.get("BurnedInAnnotation") == (stated or None)


@pytest.mark.parametrize(("stated", "written"), [("YES", "YES"), ("NO", "NO"), (None, "YES"), ("", "YES")])
def test_a_class_that_asks_what_is_burned_in_gets_the_cautious_answer(
    stated: str | None, written: str, run_of: Any, read_back: Any, tmp_path: Path
) -> None:
    run = run_of(made.radiograph(tmp_path / "in", BurnedInAnnotation=stated))
    [ds] = _derived(run, read_back)
    assert ds.BurnedInAnnotation == written
    assert ("does not say" in ds.ImageComments) == (not stated)
    [result] = [result for result in run.images if result.kind == "derived"]
    assert complaints(made.keep(tmp_path / "out", [result]), run.paths, checks=("iod", "strict", "derived")) == []


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"ViewPosition": None, "PatientPosition": "HFS"},
        {"ContrastBolusVolume": 3},
        {"ClinicalTrialTimePointDescription": "second visit"},
        {"ClinicalTrialSeriesID": "scanner's", "ClinicalTrialSeriesDescription": "scanner's"},
    ],
)
def test_what_a_module_in_use_asks_for_is_there_if_only_empty(stated: Any, run_of: Any, tmp_path: Path) -> None:
    for sop_class in (made.DX, made.CR):
        run = run_of(made.radiograph(tmp_path / sop_class, sop_class=sop_class, **stated))
        kept = made.keep(tmp_path / f"out-{sop_class}", run.results)
        assert complaints(kept, run.paths, checks=("iod", "entity")) == []


def test_a_radiograph_with_a_frame_of_reference_keeps_it_whole(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    (ds,) = _derived(run_of(made.radiograph(tmp_path, FrameOfReferenceUID="2.25.7")), read_back)
    assert ds.FrameOfReferenceUID == "2.25.7"
    assert ds["PositionReferenceIndicator"].is_empty


def test_a_series_of_a_trial_is_the_scanners_and_not_ours(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path, ClinicalTrialSeriesID="S1", ClinicalTrialCoordinatingCenterName="C")
    for ds in _derived(run_of(paths), read_back):
        assert "ClinicalTrialSeriesID" not in ds
        assert "ClinicalTrialCoordinatingCenterName" not in ds


@pytest.mark.parametrize(
    ("half", "absent"),
    [
        ({"ShutterLeftVerticalEdge": 3}, "ShutterLeftVerticalEdge"),
        ({"CollimatorLeftVerticalEdge": 3}, "CollimatorLeftVerticalEdge"),
        ({"PositionReferenceIndicator": "x"}, "PositionReferenceIndicator"),
    ],
)
def test_half_a_module_says_nothing_and_is_left_out(
    half: Any, absent: str, run_of: Any, read_back: Any, tmp_path: Path
) -> None:
    run = run_of(made.radiograph(tmp_path, **half))
    (ds,) = _derived(run, read_back)
    assert absent not in ds
    whole = {"ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 3, "ShutterRightVerticalEdge": 30}
    (ds,) = _derived(run_of(made.radiograph(tmp_path / "whole", **whole)), read_back)
    assert ds.ShutterLeftVerticalEdge == 3


@pytest.mark.parametrize(
    ("stated", "answer"),
    [
        ({"PresentationIntentType": None}, {"PresentationIntentType": "FOR PRESENTATION"}),
        ({"PresentationLUTShape": None}, {"PresentationLUTShape": "IDENTITY"}),
        (
            {"PresentationLUTShape": None, "PhotometricInterpretation": "MONOCHROME1"},
            {"PresentationLUTShape": "INVERSE"},
        ),
        (
            {"RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None},
            {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"},
        ),
        ({"ImageLaterality": None}, {"ImageLaterality": "U"}),
        ({"ImageLaterality": None, "BodyPartExamined": "RIB", "Laterality": "L"}, {"ImageLaterality": "L"}),
        ({"PixelSpacingCalibrationDescription": None}, {"PixelSpacingCalibrationType": "GEOMETRY"}),
        ({"Laterality": "R", "ImageLaterality": "L"}, {"ImageLaterality": "L"}),
    ],
)
def test_a_dx_image_says_what_it_must_where_only_one_answer_is_left(
    stated: Any, answer: Any, run_of: Any, read_back: Any, tmp_path: Path
) -> None:
    run = run_of(made.radiograph(tmp_path / "in", **stated))
    (ds,) = _derived(run, read_back)
    assert {keyword: ds.get(keyword) for keyword in answer} == answer
    assert "Laterality" not in ds
    kept = made.keep(tmp_path / "out", [result for result in run.images if result.kind == "derived"])
    assert complaints(kept, [], checks=("iod",)) == []


@pytest.mark.parametrize("keyword", ["ImagerPixelSpacing", "PatientOrientation", "PixelIntensityRelationship"])
def test_a_dx_image_invents_nothing(keyword: str, run_of: Any, read_back: Any, tmp_path: Path) -> None:
    (ds,) = _derived(run_of(made.radiograph(tmp_path, **{keyword: None})), read_back)
    assert not ds.get(keyword)


@pytest.mark.parametrize("stated", [None, "ORIGINAL", ["ORIGINAL", "PRIMARY"]])
def test_a_ct_image_without_a_kind_is_axial(stated: Any, run_of: Any, read_back: Any, tmp_path: Path) -> None:
    for ds in _derived(run_of(made.ct_series(tmp_path, ImageType=stated)), read_back):
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "AI_DENOISED"]


def test_where_the_patient_lay_is_empty_where_nobody_said_it(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    without = made.radiograph(tmp_path / "cr", sop_class=made.CR, PatientOrientation=None)
    for paths in (made.ct_series(tmp_path / "ct", PatientPosition=None), without):
        run = run_of(paths)
        kept = made.keep(tmp_path / f"out-{run.source.first.Modality}", run.images)
        assert complaints(kept, [], checks=("iod",)) == []


def test_values_are_those_of_the_network_to_half_a_unit(ct_run: Any, read_back: Any) -> None:
    array = ct_run.findings.images[0].array
    for index, ds in enumerate(_derived(ct_run, read_back)):
        hu = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        assert np.abs(hu - array[index]).max() <= 0.5


def test_positions_are_copied_digit_by_digit(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path, orientation=made.OBLIQUE)
    by_position = {str(pydicom.dcmread(path)["ImagePositionPatient"].value) for path in paths}
    derived = _derived(run_of(paths), read_back)
    assert {str(ds["ImagePositionPatient"].value) for ds in derived} == by_position


def test_number_of_the_image_is_that_of_its_source(ct_run: Any, read_back: Any) -> None:
    numbers = {path.name: pydicom.dcmread(path).InstanceNumber for path in ct_run.paths}
    for ds in _derived(ct_run, read_back):
        source = f"{ds.SourceImageSequence[0].ReferencedSOPInstanceUID}.dcm"
        assert ds.InstanceNumber == numbers[source]


def test_padding_keeps_exactly_its_stored_value(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path, PixelPaddingValue=0)
    for path in paths:
        ds = pydicom.dcmread(path)
        values = ds.pixel_array.copy()
        values[:5, :5] = 0
        ds.PixelData = values.tobytes()
        ds.save_as(path)
    run = run_of(paths)
    assert run.grid.padding is not None
    assert run.grid.padding[:, :5, :5].all()
    for ds in _derived(run, read_back):
        assert ds.PixelPaddingValue == 0
        assert (ds.pixel_array[:5, :5] == 0).all()
        # and nothing else has become padding
        assert (ds.pixel_array == 0).sum() == 25


def test_a_padding_value_that_marks_nothing_is_left_out(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    run = run_of(made.ct_series(tmp_path, PixelPaddingValue=0))
    assert run.grid.padding is None
    assert all("PixelPaddingValue" not in ds for ds in _derived(run, read_back))


def test_values_beyond_the_stored_bits_are_clipped_and_do_not_wrap(tmp_path: Path, read_back: Any) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    image = made.denoised(volume.voxels)
    image.array[:, 3, 3], image.array[:, 4, 4] = 1e6, -1e6
    findings = made.findings(volume, images=(image,))
    results = write_images(findings, volume, SeriesSource.load(paths), made.stamp())
    first = read_back(next(results)).pixel_array
    assert first[3, 3] == 4095
    assert first[4, 4] == 0


def test_single_frame_images_come_of_a_multi_frame_source(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    run = run_of(made.enhanced_ct(tmp_path))
    derived = _derived(run, read_back)
    assert {str(ds.SOPClassUID) for ds in derived} == {made.CT}
    assert sorted(ds.SourceImageSequence[0].ReferencedFrameNumber for ds in derived) == [1, 2, 3, 4]
    assert all("of a multi-frame source" in ds.DerivationDescription for ds in derived)
    for ds in derived:
        frame = ds.SourceImageSequence[0].ReferencedFrameNumber
        assert float(ds.ImagePositionPatient[2]) == 50.0 - 2.5 * (frame - 1)
        assert ds.ImageType[2] == "AXIAL"
        assert ds.KVP == 120


def test_private_elements_step_and_references_of_the_scanner_stay_behind(
    run_of: Any, read_back: Any, tmp_path: Path
) -> None:
    paths = made.ct_series(tmp_path, PerformedProcedureStepID="PPS1", SmallestImagePixelValue=1, OperatorsName="X^Y")
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.private_block(0x0029, "ACME", create=True).add_new(0x10, "LO", "secret")
        ds.save_as(path)
    for ds in _derived(run_of(paths), read_back):
        for keyword in ("PerformedProcedureStepID", "SmallestImagePixelValue", "OperatorsName"):
            assert keyword not in ds
        assert not any(element.tag.is_private for element in ds)
        assert ds.Manufacturer == "ACME"
        assert ds.KVP == 120


def test_loss_of_the_source_is_not_kept_silent(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    paths = made.ct_series(
        tmp_path,
        LossyImageCompression="01",
        LossyImageCompressionRatio=12.5,
        LossyImageCompressionMethod="ISO_10918_1",
    )
    for ds in _derived(run_of(paths), read_back):
        assert ds.LossyImageCompression == "01"
        assert ds.LossyImageCompressionRatio == 12.5


def test_monochrome1_is_turned_back(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    paths = made.radiograph(tmp_path, sop_class=made.CR, PhotometricInterpretation="MONOCHROME1")
    run = run_of(paths)
    assert run.grid.inverted
    (ds,) = _derived(run, read_back)
    assert ds.PhotometricInterpretation == "MONOCHROME1"
    assert ds.SOPClassUID == made.CR
    turned = sum(run.grid.value_range) - run.findings.images[0].array
    assert np.abs(ds.pixel_array - turned).max() <= 0.5


def test_a_modality_table_is_replaced_by_the_values_behind_it(tmp_path: Path, read_back: Any, run_of: Any) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table["LUTDescriptor"].VR = "US"
    table.ModalityLUTType = "US"
    table.LUTData = list(range(4095, -1, -1))
    table["LUTData"].VR = "US"
    paths = made.radiograph(tmp_path, sop_class=made.CR, ModalityLUTSequence=[table])
    (ds,) = _derived(run_of(paths), read_back)
    assert "ModalityLUTSequence" not in ds
    assert np.abs(ds.pixel_array - made.denoised(read_radiograph(paths[0]).pixels).array).max() <= 0.5


def _windows(ds: Any) -> tuple[Any, Any]:
    return tuple([float(v) for v in np.atleast_1d(ds[key].value)] for key in ("WindowCenter", "WindowWidth"))  # type: ignore[return-value]


BROKEN = {
    "empty": {"WindowCenter": "", "WindowWidth": ""},
    "of width 0": {"WindowCenter": 40, "WindowWidth": 0},
    "narrower than 1": {"WindowCenter": 40, "WindowWidth": 0.5},
    "without centre": {"WindowCenter": None},
    "without width": {"WindowWidth": None},
    "of an unknown function": {"VOILUTFunction": "CURVED"},
}


@pytest.mark.parametrize("stated", BROKEN.values(), ids=BROKEN.keys())
def test_a_window_that_cannot_be_used_is_replaced(stated: Any, run_of: Any, read_back: Any, tmp_path: Path) -> None:
    run = run_of(made.ct_series(tmp_path / "ct", **stated))
    for ds in _derived(run, read_back):
        assert _windows(ds) == ([40], [400]), "soft tissue"
        assert "VOILUTFunction" not in ds
    for sop_class in (made.CR, made.DX):
        paths = made.radiograph(tmp_path / sop_class, sop_class=sop_class, **stated)
        run = run_of(paths)
        (ds,) = _derived(run, read_back)
        ([centre], [width]) = _windows(ds)
        low, high = np.percentile(made.phantom((48, 41), 1), (0.5, 99.5))
        assert (centre - width / 2, centre + width / 2) == pytest.approx((low, high), abs=0.01)
        assert complaints(made.keep(tmp_path / f"out-{sop_class}", run.images), paths) == []


def test_an_image_for_processing_gets_no_window(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    paths = made.radiograph(tmp_path / "in", sop_class=made.DX_PROCESSING, WindowCenter=None, WindowWidth=0)
    run = run_of(paths)
    (ds,) = _derived(run, read_back)
    assert "WindowCenter" not in ds
    assert "WindowWidth" not in ds
    assert complaints(made.keep(tmp_path / "out", run.images), paths) == []


def test_a_width_that_is_no_number_makes_no_window(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"1500", b"15OO"))
    assert {str(_windows(ds)) for ds in _derived(run_of(paths), read_back)} == {"([40.0], [400.0])"}


def test_of_windows_without_partners_only_the_whole_ones_stay(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    run = run_of(made.ct_series(tmp_path, WindowCenter=[40, 50], WindowWidth=300, WindowCenterWidthExplanation="SOFT"))
    for ds in _derived(run, read_back):
        assert _windows(ds) == ([40], [300])


def test_a_slice_without_window_is_shown_as_the_others_are(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    quirk = quirks.on_one(2, quirks.says(WindowCenter="", WindowWidth=""))
    run = run_of(quirks.plant(quirk, made.ct_series(tmp_path)))
    assert {str(_windows(ds)) for ds in _derived(run, read_back)} == {"([40.0, -600.0], [400.0, 1500.0])"}


def test_a_made_window_of_a_bright_air_image_is_in_its_own_values(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    elements = {"PhotometricInterpretation": "MONOCHROME1", "WindowWidth": 0}
    (ds,) = _derived(run_of(made.radiograph(tmp_path, sop_class=made.CR, **elements)), read_back)
    ([centre], [width]) = _windows(ds)
    low, high = np.percentile(made.phantom((48, 41), 1), (0.5, 99.5))
    assert (centre - width / 2, centre + width / 2) == pytest.approx((low, high), abs=0.01)


def test_refuses_a_volume_whose_slices_are_not_where_their_headers_say(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    volume.slice_origins_mm[1, 2] += 1
    with pytest.raises(AnalysisFailed, match="position"):
        list(write_images(made.findings(volume), volume, SeriesSource.load(paths), made.stamp()))


def test_refuses_a_slice_without_header(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    with pytest.raises(AnalysisFailed, match="no header"):
        list(write_images(made.findings(volume), volume, SeriesSource.load(paths[1:]), made.stamp()))


def test_a_series_without_frame_of_reference_gets_one_of_its_own(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    run = run_of(made.ct_series(tmp_path, FrameOfReferenceUID=None))
    assert len({str(ds.FrameOfReferenceUID) for ds in _derived(run, read_back)}) == 1
