"""The gate against planted mistakes: each must be found, by the check that is there for it. A dead gate shows here."""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from gate import made
from gate.files import items
from gate.gate import CHECKS, OWN, complaints

Mutation = Callable[[Any], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Path]]:
    """One object of each kind, beside the rest of its study."""
    run = made.process(made.ct_series(tmp_path_factory.mktemp("ct"), BodyPartExamined="CHEST"), lesions=2)
    objects = {f"{r.kind}-{number:03d}": pydicom.dcmread(io.BytesIO(r.data)) for number, r in enumerate(run.results)}
    return objects, run.paths


def _planted(good: tuple[dict[str, Any], list[Path]], kind: str, mutation: Mutation, folder: Path) -> list[Path]:
    paths = []
    done = False
    for name, ds in good[0].items():
        mutated = ds
        if name.startswith(kind) and not done:
            mutated = deepcopy(ds)
            with pydicom.config.disable_value_validation():
                mutation(mutated)
            done = True
        paths.append(folder / f"{name}.dcm")
        with pydicom.config.disable_value_validation():
            mutated.save_as(paths[-1], enforce_file_format=True)
    assert done
    return paths


def _set(**elements: Any) -> Mutation:
    def mutation(ds: Any) -> None:
        for keyword, value in elements.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    return mutation


def _at(name: str, change: Mutation) -> Mutation:
    """Changes the first content item of that name."""

    def mutation(ds: Any) -> None:
        for item in items(ds):
            names = item.get("ConceptNameCodeSequence") or []
            if names and names[0].CodeMeaning == name:
                change(item)
                return
        raise LookupError(name)

    return mutation


def _value(value: str) -> Mutation:
    def change(item: Any) -> None:
        measured = item.MeasuredValueSequence[0]
        measured.NumericValue = value
        measured.FloatingPointValue = float(value)

    return change


def _unit(value: str) -> Mutation:
    return lambda item: setattr(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0], "CodeValue", value)


def _scoord(change: Callable[[np.ndarray[Any, Any]], Any]) -> Mutation:
    def mutation(ds: Any) -> None:
        line = next(item for item in items(ds) if item.get("ValueType") == "SCOORD")
        line.GraphicData = [float(v) for v in change(np.array(line.GraphicData, float).reshape(-1, 2)).ravel()]

    return mutation


def _refer(**elements: Any) -> Mutation:
    def mutation(ds: Any) -> None:
        for item in items(ds):
            if item.get("ReferencedSOPSequence"):
                for keyword, value in elements.items():
                    setattr(item.ReferencedSOPSequence[0], keyword, value)
                return

    return mutation


def _pixels(change: Callable[[Any], Any]) -> Mutation:
    def mutation(ds: Any) -> None:
        ds.PixelData = np.ascontiguousarray(change(ds.pixel_array)).tobytes()

    return mutation


def _without(name: str) -> Mutation:
    """Takes the first content item of that name out of its parent."""

    def mutation(ds: Any) -> None:
        for parent in items(ds):
            for index, item in enumerate(parent.get("ContentSequence") or []):
                names = item.get("ConceptNameCodeSequence") or []
                if names and names[0].CodeMeaning == name:
                    del parent.ContentSequence[index]
                    return

    return mutation


def _short_evidence(ds: Any) -> None:
    ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence.pop()


def _wrong_series_in_evidence(ds: Any) -> None:
    one, other = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[:2]
    one.SeriesInstanceUID, other.SeriesInstanceUID = other.SeriesInstanceUID, one.SeriesInstanceUID


def _group_without_coordinates(ds: Any) -> None:
    for item in items(ds):
        if item.get("ValueType") == "NUM" and "ContentSequence" in item:
            del item.ContentSequence


def _moved_frame(ds: Any) -> None:
    frames = ds.PerFrameFunctionalGroupsSequence
    one, other = frames[0].PlanePositionSequence, frames[-1].PlanePositionSequence
    frames[0].PlanePositionSequence, frames[-1].PlanePositionSequence = other, one


def _axes_on_nothing(ds: Any) -> None:
    ds.GraphicAnnotationSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID = "2.25.123"


def _two_windows(ds: Any) -> None:
    for item in ds.SoftcopyVOILUTSequence:
        item.WindowCenter, item.WindowWidth = [40, -600], [400, 1500]


def _half_a_pixel_off(ds: Any) -> None:
    line = ds.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    line.GraphicData = [float(value) - 0.5 for value in line.GraphicData]


def _axes_on_the_next_image(ds: Any) -> None:
    annotation = ds.GraphicAnnotationSequence[0]
    reference = annotation.ReferencedImageSequence[0]
    reference.ReferencedSOPInstanceUID = str(reference.ReferencedSOPInstanceUID)[:-1] + "4"


def _words(old: str, new: str) -> Mutation:
    def mutation(ds: Any) -> None:
        text = ds.GraphicAnnotationSequence[0].TextObjectSequence[0]
        assert old in text.UnformattedTextValue
        text.UnformattedTextValue = text.UnformattedTextValue.replace(old, new)

    return mutation


def _exchanged_segments(ds: Any) -> None:
    one, other = ds.SegmentSequence
    one.TrackingUID, other.TrackingUID = other.TrackingUID, one.TrackingUID


def _segment_without_tracking(ds: Any) -> None:
    del ds.SegmentSequence[0].TrackingUID


def _mirrored_mask(ds: Any) -> None:
    mask = ds.pixel_array[..., ::-1]
    ds.PixelData = np.packbits(np.ascontiguousarray(mask).ravel(), bitorder="little").tobytes()
    ds.PixelData += b"\0" * (len(ds.PixelData) % 2)


def _empty_mask(ds: Any) -> None:
    ds.PixelData = b"\0" * len(ds.PixelData)


def _implicit(ds: Any) -> None:
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def _private(ds: Any) -> None:
    ds.private_block(0x0029, "ACME", create=True).add_new(0x10, "LO", "x")


def _unnamed_equipment(ds: Any) -> None:
    ds.ContributingEquipmentSequence[-1].Manufacturer = "SOMEBODY"


def _wrong_meaning(ds: Any) -> None:
    ds.DerivationCodeSequence[0].CodeMeaning = "Edge enhancement"


def _retired_scheme(ds: Any) -> None:
    code = ds.DerivationCodeSequence[0]
    code.CodeValue, code.CodingSchemeDesignator = "T-D4000", "SRT"


MISTAKES: list[tuple[str, str, str, Mutation]] = [
    # seen by own checks only
    ("segment that does not exist", "refs", "sr", _at("Referenced Segment", _refer(ReferencedSegmentNumber=9))),
    ("volume 10 % off", "values", "sr", _at("Volume", _value("60.6"))),
    ("volume in mm", "values", "sr", _at("Volume", _unit("mm"))),
    ("coordinates outside the image", "values", "sr", _scoord(lambda p: p + 500)),
    ("axis beside the lesion", "values", "sr", _scoord(lambda p: p + np.array([0, 14]))),
    ("axis of another length", "values", "sr", _scoord(lambda p: (p - p[0]) * 3 + p[0])),
    ("certainty of 910 %", "values", "sr", _at("Certainty of Finding", _value("910"))),
    ("long axis shorter than short axis", "values", "sr", _at("Long Axis", _value("0.1"))),
    ("mirrored mask", "values", "seg", _mirrored_mask),
    ("empty mask", "segmentation", "seg", _empty_mask),
    ("frames of the mask exchanged", "segmentation", "seg", _moved_frame),
    ("mask in another frame of reference", "segmentation", "seg", _set(FrameOfReferenceUID="2.25.77")),
    ("segment without tracking UID", "segmentation", "seg", _segment_without_tracking),
    ("derived in another frame of reference", "derived", "derived", _set(FrameOfReferenceUID="2.25.77")),
    ("image type ORIGINAL", "derived", "derived", _set(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])),
    ("no source image sequence", "derived", "derived", _set(SourceImageSequence=None)),
    ("changed rescale intercept", "derived", "derived", _set(RescaleIntercept=-1000)),
    ("moved slice", "derived", "derived", _set(ImagePositionPatient=[-20.0, -30.0, 77.0])),
    ("turned slice", "derived", "derived", _set(ImageOrientationPatient=[-1.0, 0.0, 0.0, 0.0, 1.0, 0.0])),
    ("other pixel spacing", "derived", "derived", _set(PixelSpacing=[0.8, 0.7])),
    ("mirrored picture", "derived", "derived", _pixels(lambda p: p[:, ::-1])),
    ("window lost", "derived", "derived", _set(WindowCenter=None, WindowWidth=None)),
    ("window of width 0", "derived", "derived", _set(WindowCenter=0, WindowWidth=0)),
    ("scanner lost", "derived", "derived", _set(Manufacturer="pacsnode")),
    ("tracking UID absent", "layout", "sr", _without("Tracking Unique Identifier")),
    ("group without coordinates", "layout", "sr", _group_without_coordinates),
    ("verified by nobody", "layout", "sr", _set(VerificationFlag="VERIFIED")),
    ("intended use absent", "layout", "sr", _without("Intended use")),
    ("report without measurement group", "layout", "sr", _without("Imaging Measurements")),
    ("wrong code meaning", "codes", "derived", _wrong_meaning),
    ("retired coding scheme", "codes", "derived", _retired_scheme),
    ("private scheme not identified", "codes", "sr", _set(CodingSchemeIdentificationSequence=None)),
    ("other accession number", "identity", "sr", _set(AccessionNumber="B-99")),
    ("other study", "identity", "derived", _set(StudyInstanceUID="2.25.5")),
    ("other patient", "identity", "seg", _set(PatientID="P-18")),
    ("issuer of the patient's number lost", "identity", "sc", _set(IssuerOfPatientID=None)),
    ("series of the source used again", "identity", "derived", _set(SeriesInstanceUID=f"{made.ROOT}.2.3")),
    ("description without AI", "identity", "derived", _set(SeriesDescription="CT Thorax 2.5 B40f")),
    ("another series time in one series", "identity", "derived", _set(SeriesTime="235959")),
    ("equipment not named", "identity", "sc", _unnamed_equipment),
    ("private elements", "identity", "derived", _private),
    ("reference to nothing", "refs", "sr", _refer(ReferencedSOPInstanceUID="2.25.123")),
    ("reference with wrong class", "refs", "sr", _refer(ReferencedSOPClassUID=made.DX)),
    ("frame that does not exist", "refs", "sr", _refer(ReferencedFrameNumber=9)),
    ("evidence incomplete", "refs", "sr", _short_evidence),
    ("evidence in the wrong series", "refs", "sr", _wrong_series_in_evidence),
    ("axes drawn on nothing", "refs", "gsps", _axes_on_nothing),
    ("axes half a pixel off", "forms", "gsps", _half_a_pixel_off),
    ("axes on the next image", "forms", "gsps", _axes_on_the_next_image),
    ("another lesion's number", "forms", "gsps", _words("lesion 1:", "lesion 2:")),
    ("another length in words", "forms", "gsps", _words("5.6 x", "5.8 x")),
    ("another score in words", "forms", "gsps", _words("score 0.91", "score 0.19")),
    ("another lesion's segment", "forms", "seg", _exchanged_segments),
    (
        "segment called by another number",
        "forms",
        "seg",
        lambda ds: _set(SegmentLabel="AI lesion 2")(ds.SegmentSequence[0]),
    ),
    # seen by outside tools
    ("displayed area absent", "iod", "gsps", _set(DisplayedAreaSelectionSequence=None)),
    ("two windows in one presentation state", "ps", "gsps", _two_windows),
    ("Implicit VR", "strict", "sc", _implicit),
    ("pixel data too short", "strict", "derived", lambda ds: setattr(ds, "PixelData", ds.PixelData[:-100])),
    ("date that is none", "strict", "derived", _set(ContentDate="20261399")),
    ("type 1 attribute absent", "iod", "derived", _set(RescaleSlope=None)),
    ("value that is not enumerated", "iod", "sr", _set(CompletionFlag="DONE")),
    ("conversion type absent", "iod", "sc", _set(ConversionType=None)),
    ("sex differs within the study", "entity", "sc", _set(PatientSex="M")),
    ("content item without value type", "srtree", "sr", _at("Long Axis", _set(ValueType=None))),
    ("number without concept", "hdread", "sr", _at("Volume", _set(ConceptNameCodeSequence=None))),
    ("segment without the images it is of", "hdread", "sr", _without("Source series for segmentation")),
    ("segment sequence absent", "segread", "seg", _set(SegmentSequence=None)),
    ("content item of no known kind", "tid1500", "sr", _at("Long Axis", _set(ValueType=None))),
]


@pytest.mark.parametrize(("check", "kind", "mutation"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_finds_the_mistake(
    check: str, kind: str, mutation: Mutation, good: tuple[dict[str, Any], list[Path]], tmp_path: Path
) -> None:
    assert complaints(_planted(good, kind, mutation, tmp_path), good[1], checks=[check])


def test_has_nothing_against_what_is_right(good: tuple[dict[str, Any], list[Path]], tmp_path: Path) -> None:
    assert complaints(_planted(good, "sr", lambda _: None, tmp_path), good[1]) == []


def test_every_check_has_a_mistake_that_it_finds() -> None:
    assert {mistake[1] for mistake in MISTAKES} == set(CHECKS)
    assert set(OWN) < set(CHECKS)
