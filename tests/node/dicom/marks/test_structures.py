"""Tumours of structure sets: axes on the slice where they are longest, in the image's own pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from images import marks
from images.marks import Scan
from node.dicom.marks.lesions import NOT_A_LESION
from node.dicom.marks.mark import Origin

OBLIQUE = [0.998, 0.0500, 0.0387, -0.0502, 0.9987, 0.0042]
"""Some three degrees off the axial plane."""


def on(image: Dataset, pixels: Any) -> tuple[Dataset, list[list[float]]]:
    """A polygon (x, y, pixel centres at whole numbers) as millimetres in the patient."""
    row, column = np.reshape([float(value) for value in image.ImageOrientationPatient], (2, 3))
    down, across = (float(value) for value in image.PixelSpacing)
    origin = np.array([float(value) for value in image.ImagePositionPatient])
    return image, [(origin + x * across * row + y * down * column).tolist() for x, y in pixels]


def ellipse(long_mm: float, short_mm: float, image: Dataset, *, corners: int = 180, turned: float = 0.4) -> Any:
    """Round pixel (120, 60), its long axis turned, with axes as given in mm."""
    down, across = (float(value) for value in image.PixelSpacing)
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    along, beside = long_mm / 2 * np.cos(angle), short_mm / 2 * np.sin(angle)
    x = along * np.cos(turned) - beside * np.sin(turned)
    y = along * np.sin(turned) + beside * np.cos(turned)
    return np.stack([120 + x / across, 60 + y / down], axis=1)


def reasons(study: Any) -> list[str]:
    return [refusal.reason for refusal in study.refusals]


@pytest.mark.parametrize("oblique", [False, True])
def test_the_longest_slice_of_a_tumour_has_its_two_axes(oblique: bool, tmp_path: Path, harvest: Any) -> None:
    given = {"ImageOrientationPatient": OBLIQUE} if oblique else {}
    scanned = marks.scan(tmp_path / "ct", **given)
    sizes = [(12.0, 9.0), (31.0, 18.0), (20.0, 11.0)]
    contours = [on(image, ellipse(*size, image)) for image, size in zip(scanned.headers[1:4], sizes, strict=True)]
    study = harvest(scanned, marks.structure_set(scanned.headers, marks.structure("GTV-1", *contours)))
    assert study.refusals == ()
    (mark,) = study.marks
    assert (mark.about.origin, mark.about.observer) == (Origin.CONTOUR, "person")
    assert mark.image.instance_uid == scanned.headers[2].SOPInstanceUID
    assert (mark.long_mm, mark.short_mm) == pytest.approx((31, 18), rel=2e-3)
    assert np.mean(mark.long_px, axis=0) == pytest.approx([120, 60], abs=0.05)
    down, across = (float(value) for value in scanned.key.PixelSpacing)
    (x1, y1), (x2, y2) = mark.long_px
    assert abs(np.arctan((y2 - y1) * down / ((x2 - x1) * across)) - 0.4) < 0.02


def test_organs_outlines_and_margins_are_no_lesions_and_are_counted(axial: Scan, harvest: Any) -> None:
    drawn = on(axial.key, ellipse(30, 20, axial.key))
    study = harvest(
        axial,
        marks.structure_set(
            axial.headers,
            marks.structure("BODY", drawn, interpreted="EXTERNAL"),
            marks.structure("Lungs-GTV", drawn, interpreted="ORGAN"),
            marks.structure("PTV", drawn, interpreted="PTV"),
            marks.structure("Mrs Smith", drawn, interpreted="GTV"),
        ),
    )
    assert len(study.marks) == 1
    assert reasons(study) == [NOT_A_LESION] * 3
    assert "Smith" not in repr(study)


@pytest.mark.parametrize(("kind", "points"), [("POINT", 1), ("OPEN_PLANAR", 9), ("CLOSED_PLANAR", 2)])
def test_what_encloses_nothing_is_refused(kind: str, points: int, axial: Scan, harvest: Any) -> None:
    image, drawn = on(axial.key, ellipse(30, 20, axial.key))
    region = marks.structure("GTV", (image, drawn[:points]), kind=kind)
    study = harvest(axial, marks.structure_set(axial.headers, region))
    assert (study.marks, reasons(study)) == ((), ["a tumour without closed contours"])


def test_a_contour_on_no_image_is_refused(axial: Scan, harvest: Any) -> None:
    image, drawn = on(axial.key, ellipse(30, 20, axial.key))
    between = [[x, y, z + 1.3] for x, y, z in drawn]
    study = harvest(axial, marks.structure_set(axial.headers[:2], marks.structure("GTV", (image, between))))
    assert len(study.marks) == 1  # of 2.5 mm: nearer to the next image
    assert study.marks[0].image.instance_uid == axial.headers[2].SOPInstanceUID


def test_a_contour_beyond_the_scan_is_refused(tmp_path: Path, axial: Scan, harvest: Any) -> None:
    image, drawn = on(axial.headers[-1], ellipse(30, 20, axial.key))
    beyond = [[x, y, z + 2.5] for x, y, z in drawn]
    study = harvest(axial, marks.structure_set(axial.headers, marks.structure("GTV", (image, beyond))))
    assert (study.marks, reasons(study)) == ((), ["no image lies where the mark is in the patient"])


def test_a_set_that_was_rejected_or_replaced_marks_nothing(axial: Scan, harvest: Any) -> None:
    region = marks.structure("GTV", on(axial.key, ellipse(30, 20, axial.key)))
    earlier = marks.structure_set(axial.headers, region)
    later = marks.structure_set(axial.headers, region, uid="1.2.3.481.2", ApprovalStatus="REJECTED")
    later.PredecessorStructureSetSequence = [marks.reference(earlier)]
    study = harvest(axial, earlier, later)
    assert study.marks == ()
    assert set(reasons(study)) == {
        "a structure set that was rejected (Approval Status)",
        "replaced by a later report",
    }


def test_a_tumour_on_the_study_before_is_refused_as_such(axial: Scan, harvest: Any) -> None:
    structures = marks.structure_set(axial.headers, marks.structure("GTV", on(axial.key, ellipse(30, 20, axial.key))))
    study = structures.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    study.ReferencedSOPInstanceUID = "1.2.77"
    for image in (
        *study.RTReferencedSeriesSequence[0].ContourImageSequence,
        *structures.ROIContourSequence[0].ContourSequence[0].ContourImageSequence,
    ):
        image.ReferencedSOPInstanceUID = f"1.2.77.{image.ReferencedSOPInstanceUID.rpartition('.')[2]}"
    assert reasons(harvest(axial, structures)) == ["the key image is of another study"]


def test_a_measured_mark_on_the_slice_counts_before_the_contour(axial: Scan, harvest: Any) -> None:
    """By tracking UID; without one the boxes tell, when rows are made."""
    structures = marks.structure_set(axial.headers, marks.structure("GTV", on(axial.key, ellipse(30, 20, axial.key))))
    structures.RTROIObservationsSequence[0].TrackingUID = "1.2.3.99.1"
    report = marks.report(axial.headers, marks.bidirectional(axial.headers[3], marks.centred()))
    study = harvest(axial, structures, report)
    assert [mark.about.origin for mark in study.marks] == [Origin.BIDIRECTIONAL]
    assert reasons(study) == ["the same lesion is marked already (tracking UID)"]
