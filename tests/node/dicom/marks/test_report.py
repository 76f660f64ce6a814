from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from gate import made
from images import marks, phantom
from images.marks import TABLE_BOX, Scan
from models.deeplesion.table import box_of
from node.dicom.marks.mark import Origin, Pair
from node.dicom.marks.report import read_report
from node.dicom.marks.resolve import Mark

OBLIQUE_3_DEG = [np.cos(0.052), 0.0, np.sin(0.052), 0.0, 1.0, 0.0]


def table_box(mark: Mark) -> tuple[float, ...]:
    """1-based, as the table has it."""
    return tuple(value + 1 for value in box_of([*mark.long_px, *mark.short_px]))  # type: ignore[arg-type]


def only(found: Any) -> Mark:
    assert found.refusals == ()
    (mark,) = found.marks
    return mark


def in_patient(image: Any, points: marks.Points) -> list[Any]:
    """PS3.3 C.7.6.2.1.1, written out once more."""
    row, column = np.array(image.ImageOrientationPatient[:3]), np.array(image.ImageOrientationPatient[3:])
    between_rows, between_columns = (float(value) for value in image.PixelSpacing)
    origin = np.array(image.ImagePositionPatient, float)
    return [origin + x * between_columns * row + y * between_rows * column for x, y in points]


def by_highdicom(image: Any, others: list[Any], *, in_space: bool = False) -> Any:
    """A TID 1500 report with one TID 1501 group."""
    points = marks.centred()
    lengths = marks.lengths_mm(points, image)
    measured = []
    for (name, length), ends in zip(
        (((codes.SCT.LongAxis), lengths[0]), ((codes.SCT.ShortAxis), lengths[1])), (points[:2], points[2:]), strict=True
    ):
        if in_space:
            place: Any = hd.sr.CoordinatesForMeasurement3D(
                hd.sr.GraphicTypeValues3D.POLYLINE,
                np.array(in_patient(image, ends)),
                frame_of_reference_uid=image.FrameOfReferenceUID,
            )
        else:
            place = hd.sr.CoordinatesForMeasurement(
                hd.sr.GraphicTypeValues.POLYLINE,
                np.array(ends) + 0.5,
                source_image=hd.sr.SourceImageForMeasurement(image.SOPClassUID, image.SOPInstanceUID),
            )
        measured.append(
            hd.sr.Measurement(
                name=name,
                value=length,
                unit=codes.UCUM.Millimeter,
                referenced_coordinates=[place],
            )
        )
    groups = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid="2.25.77", identifier="one"),
        measurements=measured,
        finding_type=codes.SCT.Mass,
    )
    return report_by_highdicom(groups, others)


def report_by_highdicom(group: Any, others: list[Any]) -> Any:
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_person_context=hd.sr.ObserverContext(
                codes.DCM.Person,
                hd.sr.PersonObserverIdentifyingAttributes(name="Reader^Rita", organization_name="General Hospital"),
            )
        ),
        procedure_reported=Code("77477000", "SCT", "CT"),
        imaging_measurements=[group],
    )
    return hd.sr.Comprehensive3DSR(
        evidence=others,
        content=content[0],
        series_instance_uid="2.25.20",
        series_number=1,
        sop_instance_uid="2.25.21",
        instance_number=1,
        manufacturer="m",
    )


@pytest.mark.parametrize("in_space", [False, True], ids=["SCOORD", "SCOORD3D"])
def test_a_report_by_highdicom_gives_the_box_of_the_table(in_space: bool, tmp_path: Path, harvest: Any) -> None:
    paths = made.ct_series(tmp_path / "ct", shape=marks.SHAPE)
    headers = [pydicom.dcmread(path) for path in paths]
    report = by_highdicom(headers[2], headers, in_space=in_space)
    mark = only(harvest(Scan(paths, headers), report))
    assert np.allclose(table_box(mark), TABLE_BOX, rtol=0, atol=3e-5)
    assert mark.image.instance_uid == headers[2].SOPInstanceUID
    assert mark.about.tracking_uid == "2.25.77"
    assert (mark.about.finding or ("",))[0] == "4147007"
    assert (mark.about.observer, mark.about.institution) == ("person", "General Hospital")


@pytest.mark.parametrize("in_space", [False, True], ids=["SCOORD", "SCOORD3D"])
def test_axes_of_a_region_by_highdicom_are_measured_on_it(in_space: bool, tmp_path: Path, harvest: Any) -> None:
    """TID 1410: it has no place for coordinates of single measurements."""
    paths = made.ct_series(tmp_path / "ct", shape=marks.SHAPE)
    headers = [pydicom.dcmread(path) for path in paths]
    image = headers[2]
    between_rows, between_columns = (float(value) for value in image.PixelSpacing)
    kite = [(20.0, 50.0), (25.0, 45.0), (40.0, 50.0), (25.0, 55.0), (20.0, 50.0)]
    if in_space:
        region: Any = hd.sr.ImageRegion3D(
            hd.sr.GraphicTypeValues3D.POLYGON,
            np.array(in_patient(image, kite)),
            frame_of_reference_uid=image.FrameOfReferenceUID,
        )
    else:
        source = hd.sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID)
        region = hd.sr.ImageRegion(hd.sr.GraphicTypeValues.POLYLINE, np.array(kite) + 0.5, source_image=source)
    axes = {codes.SCT.LongAxis: 20 * between_columns, codes.SCT.ShortAxis: 10 * between_rows}
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid="2.25.77", identifier="one"),
        referenced_region=region,
        measurements=[hd.sr.Measurement(name=name, value=mm, unit=codes.UCUM.Millimeter) for name, mm in axes.items()],
    )
    mark = only(harvest(Scan(paths, headers), report_by_highdicom(group, headers)))
    assert (mark.about.origin, mark.image.instance_uid) == (Origin.PLANAR, image.SOPInstanceUID)
    assert (mark.long_mm, mark.short_mm) == pytest.approx(list(axes.values()), abs=1e-3)


def test_our_walk_sees_what_highdicom_sees(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path / "ct", shape=marks.SHAPE)
    headers = [pydicom.dcmread(path) for path in paths]
    report = by_highdicom(headers[2], headers)
    report.save_as(tmp_path / "sr.dcm")
    (group,) = hd.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    (claim,) = read_report(pydicom.dcmread(tmp_path / "sr.dcm")).claims
    assert isinstance(claim, Pair)
    for theirs, ours, length in zip(
        group.get_measurements(), (claim.long, claim.short), (claim.long_mm, claim.short_mm), strict=True
    ):
        assert np.array_equal(theirs.referenced_coordinates[0].value - 0.5, np.array(ours))
        assert theirs.value == pytest.approx(length, abs=1e-9)


def test_what_dcmjs_writes_is_read(axial: Scan, harvest: Any) -> None:
    """IMAGE items without a concept name, the same in old codes: highdicom refuses the former."""
    old = marks.group(
        marks.number(marks.code("G-A185", "SRT"), 8.378, marks.scoord(axial.headers[3], marks.centred()[:2])),
        marks.number(marks.code("G-A186", "SRT"), 4.081, marks.scoord(axial.headers[3], marks.centred()[2:])),
        tracking_uid="1.2.3.99.2",
    )
    new = marks.bidirectional(axial.key, marks.centred())
    found = harvest(axial, marks.report(axial.headers, new, old))
    assert found.refusals == ()
    assert [mark.index for mark in found.marks] == [3, 1]
    for mark in found.marks:
        assert np.allclose(table_box(mark), TABLE_BOX, rtol=0, atol=2e-5)


def test_coordinates_may_be_referred_to_by_position(axial: Scan, harvest: Any) -> None:
    """A NUM whose SCOORD stands elsewhere in the tree (PS3.3 C.17.3.2.5)."""
    long, short = marks.lengths_mm(marks.centred(), axial.key)
    referred = marks.item(RelationshipType="INFERRED FROM", ReferencedContentItemIdentifier=[1, 4, 1, 7])
    measured = marks.group(
        marks.number(marks.LONG, long, referred),
        marks.number(marks.SHORT, short, marks.scoord(axial.key, marks.centred()[2:])),
        marks.scoord(axial.key, marks.centred()[:2]),
    )
    report = marks.report(axial.headers, measured)
    assert report.ContentSequence[3].ContentSequence[0].ContentSequence[6].ValueType == "SCOORD"
    assert np.allclose(table_box(only(harvest(axial, report))), TABLE_BOX, rtol=0, atol=2e-5)


def test_a_report_that_refers_to_itself_in_a_circle_is_read_to_an_end(axial: Scan, harvest: Any) -> None:
    back = marks.item(RelationshipType="INFERRED FROM", ReferencedContentItemIdentifier=[1])
    length = marks.number(marks.LONG, 8.0, *[back] * 6)
    found = harvest(axial, marks.report(axial.headers, marks.group(length, marks.number(marks.SHORT, 4.0, back))))
    assert found.marks == ()
    assert len(found.refusals) == 1


@pytest.mark.parametrize(
    "elements",
    [
        {"ImageOrientationPatient": OBLIQUE_3_DEG, "PixelSpacing": [0.61, 0.93]},
        {"ImageOrientationPatient": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]},
        {"ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, -1.0, 0.0]},
    ],
    ids=["oblique, unequal spacing", "prone", "seen from the head"],
)
def test_coordinates_in_the_patient_come_through_the_image_plane(elements: Any, tmp_path: Path, harvest: Any) -> None:
    scanned = marks.scan(tmp_path / "ct", **elements)
    key, points = scanned.key, marks.centred()
    long, short = marks.lengths_mm(points, key)
    places = in_patient(key, points)
    measured = marks.group(
        marks.number(marks.LONG, long, marks.scoord3d(places[:2], key.FrameOfReferenceUID)),
        marks.number(marks.SHORT, short, marks.scoord3d(places[2:], key.FrameOfReferenceUID)),
    )
    mark = only(harvest(scanned, marks.report(scanned.headers, measured)))
    assert mark.image.instance_uid == key.SOPInstanceUID
    assert np.allclose(table_box(mark), TABLE_BOX, rtol=0, atol=1e-4)


def test_points_off_every_plane_are_refused(axial: Scan, harvest: Any) -> None:
    """Slices 2.5 mm apart from 2.5 to 12.5 mm; 1.3 mm past the last one is more than half a step."""
    key = axial.headers[4]
    long, short = marks.lengths_mm(marks.centred(), key)
    places = [place + np.array([0, 0, 1.3]) for place in in_patient(key, marks.centred())]
    measured = marks.group(
        marks.number(marks.LONG, long, marks.scoord3d(places[:2], key.FrameOfReferenceUID)),
        marks.number(marks.SHORT, short, marks.scoord3d(places[2:], key.FrameOfReferenceUID)),
    )
    found = harvest(axial, marks.report(axial.headers, measured))
    assert [it.reason for it in found.refusals] == ["no image lies where the mark is in the patient"]


def test_a_frame_of_a_multi_frame_image_is_the_slice(tmp_path: Path, harvest: Any) -> None:
    values = np.stack([phantom.stored_values(number, marks.SHAPE) for number in range(4)])
    ds = phantom.enhanced_ct([(-10.0, -20.0, 2.5 * number) for number in (3, 0, 2, 1)], values)
    paths = [phantom.save(ds, tmp_path / "ct" / "enhanced.dcm")]
    ds.PixelSpacing = [0.7, 0.8]
    scanned = Scan(paths, [ds, ds])
    report = marks.report([ds], marks.bidirectional(ds, marks.centred(), frame=3))
    state = marks.gsps(ds, marks.axes(marks.centred()), frame=4)
    nowhere = marks.gsps(ds, marks.axes(marks.centred()), uid="1.2.3.11.9")
    found = harvest(scanned, report, state, nowhere)
    assert [(mark.about.origin, mark.image.frame, mark.index) for mark in found.marks] == [
        (Origin.BIDIRECTIONAL, 3, 1),  # head first: frame 1 at 7.5 mm, frame 3 at 5 mm, frame 4 at 2.5 mm
        (Origin.GSPS, 4, 2),
    ]
    assert all(np.allclose(table_box(mark), TABLE_BOX, rtol=0, atol=2e-5) for mark in found.marks)
    assert [it.reason for it in found.refusals] == ["no frame of the key image is named, or one that it has not"]


def test_a_polygon_is_measured_by_its_diameters(axial: Scan, harvest: Any) -> None:
    """A kite: 20 px wide (16 mm), 10 px high (7 mm) at a quarter of its width."""
    kite = [(20.0, 50.0), (25.0, 45.0), (40.0, 50.0), (25.0, 55.0), (20.0, 50.0)]
    region = marks.scoord(axial.key, kite, kind="POLYGON")
    region.ConceptNameCodeSequence = [marks.code("111030", "DCM", "Image Region")]
    mark = only(harvest(axial, marks.report(axial.headers, marks.group(region, template="1410"))))
    assert mark.about.origin == Origin.PLANAR
    assert (mark.long_mm, mark.short_mm) == pytest.approx((16.0, 7.0), abs=1e-4)
    assert np.allclose(sorted(mark.long_px), [(20, 50), (40, 50)], rtol=0, atol=1e-4)
    assert np.allclose(sorted(mark.short_px), [(25, 45), (25, 55)], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("stated", "taken"), [(16.4, True), (20.0, False)])
def test_axes_without_places_are_measured_on_the_region_of_their_group(
    stated: float, taken: bool, axial: Scan, harvest: Any
) -> None:
    """TID 1410: several measurements of one region, some with coordinates of their own."""
    kite = [(20.0, 50.0), (25.0, 45.0), (40.0, 50.0), (25.0, 55.0), (20.0, 50.0)]
    region = marks.scoord(axial.key, kite, kind="POLYGON")
    region.ConceptNameCodeSequence = [marks.code("111030", "DCM", "Image Region")]
    measured = [
        marks.number(marks.code("42798000", "SCT", "Area"), 56.0, unit=marks.code("mm2", "UCUM")),
        marks.number(marks.LONG, stated),
        marks.number(marks.SHORT, 6.0),
        marks.number(marks.code("410668003", "SCT"), 16.0, marks.scoord(axial.key, [kite[0], kite[2]])),
    ]
    found = harvest(axial, marks.report(axial.headers, marks.group(region, *measured, template="1410")))
    assert len(found.marks) == taken
    if taken:
        assert (found.marks[0].long_mm, found.marks[0].short_mm) == pytest.approx((16.0, 7.0), abs=1e-4)
        assert found.marks[0].about.origin == Origin.PLANAR
    else:
        assert [it.reason for it in found.refusals] == ["stated and measured length differ by more than 10 %"]


@pytest.mark.parametrize(
    ("long", "short"),
    [("131187009", "131188004"), ("131187009", "131189007"), ("103339001", "131189007"), ("G-A193", "G-A194")],
)
def test_axes_go_by_several_names(long: str, short: str, axial: Scan, harvest: Any) -> None:
    group = marks.bidirectional(axial.key, marks.centred())
    for item, name in zip(group.ContentSequence[-2:], (long, short), strict=True):
        item.ConceptNameCodeSequence = [marks.code(name, "SRT" if name.startswith("G") else "SCT")]
    mark = only(harvest(axial, marks.report(axial.headers, group)))
    assert np.allclose(table_box(mark), TABLE_BOX, rtol=0, atol=3e-5)


def test_of_a_volume_by_its_contours_the_longest_counts(axial: Scan, harvest: Any) -> None:
    def kite(image: Any, width: float) -> Any:
        corners = [(20.0, 50.0), (25.0, 47.0), (20.0 + width, 50.0), (25.0, 53.0), (20.0, 50.0)]
        region = marks.scoord(image, corners, kind="POLYGON")
        region.ConceptNameCodeSequence = [marks.code("111030", "DCM", "Image Region")]
        return region

    regions = [kite(image, width) for image, width in zip(axial.headers, (11.0, 12.0, 16.0, 15.0), strict=False)]
    mark = only(harvest(axial, marks.report(axial.headers, marks.group(*regions, template="1411"))))
    assert mark.about.origin == Origin.VOLUMETRIC
    assert mark.image.instance_uid == axial.headers[2].SOPInstanceUID
    assert (mark.long_mm, mark.short_mm) == pytest.approx((12.8, 4.2), abs=1e-4)


def _without_short(image: Any) -> Any:
    return marks.group(marks.number(marks.LONG, 8.0, marks.scoord(image, marks.centred()[:2])))


def _without_places(_: Any) -> Any:
    return marks.group(marks.number(marks.LONG, 8.0), marks.number(marks.SHORT, 4.0))


def _length_only(image: Any) -> Any:
    return marks.group(marks.number(marks.code("410668003", "SCT"), 8.0, marks.scoord(image, marks.centred()[:2])))


def _numbers_only(_: Any) -> Any:
    return marks.group(marks.number(marks.code("118565006", "SCT"), 8.0))


def _wrong_length(image: Any) -> Any:
    group = marks.bidirectional(image, marks.centred())
    group.ContentSequence[-2].MeasuredValueSequence[0].NumericValue = "9.5"  # 8.38 mm between the ends: 13 % off
    return group


def _parallel(image: Any) -> Any:
    return marks.bidirectional(image, [(50, 50), (70, 50), (52, 51), (68, 52)])


def _outside(image: Any) -> Any:
    return marks.bidirectional(image, [(-5, 50), (20, 50), (8, 45), (8, 55)])


@pytest.mark.parametrize(
    ("group_of", "reason"),
    [
        (_without_short, "a long axis without its short axis, or the other way round"),
        (_without_places, "an axis without coordinates"),
        (_length_only, "one length, without a second axis"),
        (_numbers_only, "a group without coordinates"),
        (_wrong_length, "stated and measured length differ by more than 10 %"),
        (_parallel, "its axes do not cross at a right angle"),
        (_outside, "it reaches outside of the image"),
    ],
)
def test_every_group_that_is_no_row_is_counted_with_its_reason(
    group_of: Any, reason: str, axial: Scan, harvest: Any
) -> None:
    good = marks.bidirectional(axial.headers[3], marks.centred(), tracking_uid="1.2.3.99.5")
    found = harvest(axial, marks.report(axial.headers, group_of(axial.key), good))
    assert [it.reason for it in found.refusals] == [reason]
    assert [mark.index for mark in found.marks] == [1]


def test_a_report_that_was_replaced_counts_no_more(axial: Scan, harvest: Any) -> None:
    first = marks.report(axial.headers, marks.bidirectional(axial.key, marks.centred()), uid="1.2.3.88.1")
    second = marks.report(axial.headers, marks.bidirectional(axial.headers[3], marks.centred()), uid="1.2.3.88.2")
    replaced = marks.item(ReferencedSOPClassUID=first.SOPClassUID, ReferencedSOPInstanceUID=first.SOPInstanceUID)
    series = marks.item(SeriesInstanceUID=first.SeriesInstanceUID, ReferencedSOPSequence=[replaced])
    second.PredecessorDocumentsSequence = [
        marks.item(StudyInstanceUID=first.StudyInstanceUID, ReferencedSeriesSequence=[series])
    ]
    found = harvest(axial, first, second)
    assert [mark.about.document_uid for mark in found.marks] == ["1.2.3.88.2"]
    assert [it.reason for it in found.refusals] == ["replaced by a later report"]


def test_the_same_lesion_in_report_and_state_is_one_row_and_a_person_comes_first(axial: Scan, harvest: Any) -> None:
    state = marks.gsps(axial.key, marks.axes(marks.centred(), TrackingUID="1.2.3.99.1"))
    by_person = marks.report(axial.headers, marks.bidirectional(axial.key, marks.centred()))
    by_device = marks.report(
        axial.headers, marks.bidirectional(axial.key, marks.centred()), uid="1.2.3.88.0", person=False
    )
    found = harvest(axial, by_device, state, by_person)
    (mark,) = found.marks
    assert (mark.about.origin, mark.about.observer) == (Origin.BIDIRECTIONAL, "person")
    assert [it.reason for it in found.refusals] == ["the same lesion is marked already (tracking UID)"] * 2


def test_results_of_this_node_are_no_marks_of_readers(axial: Scan, harvest: Any) -> None:
    report = marks.report(axial.headers, marks.bidirectional(axial.key, marks.centred()))
    report.Manufacturer = "pacsnode"
    found = harvest(axial, report)
    assert found.marks == ()
    assert [it.reason for it in found.refusals] == ["made by this node, not by a reader"]


def test_a_series_that_is_not_axial_is_refused(tmp_path: Path, harvest: Any) -> None:
    scanned = marks.scan(tmp_path / "ct", ImageOrientationPatient=[0.0, 1.0, 0.0, 0.0, 0.0, -1.0])
    found = harvest(scanned, marks.gsps(scanned.key, marks.axes(marks.centred())))
    assert [it.reason for it in found.refusals] == ["not an axial image"]


def test_a_mark_on_a_key_image_copy_is_refused(tmp_path: Path, axial: Scan, harvest: Any) -> None:
    """A secondary capture says nowhere in space it is."""
    copy = phantom.pixels(phantom.header("1.2.840.10008.5.1.4.1.1.7", 77), phantom.stored_values(1, marks.SHAPE))
    copy.SeriesInstanceUID, copy.SOPInstanceUID, copy.Modality = "1.2.3.7", "1.2.3.7.1", "OT"
    path = phantom.save(copy, tmp_path / "copy" / "copy.dcm")
    found = harvest(axial, marks.gsps(copy, marks.axes(marks.centred())), more=[path])
    assert found.marks == ()
    assert [it.reason for it in found.refusals] == ["the marked series is not usable: The modality says OT, not CT."]
    absent = phantom.ct(9, SeriesInstanceUID="1.2.3.8", SOPInstanceUID="1.2.3.8.1")
    (document,) = [read_report(marks.report([absent], marks.bidirectional(absent, marks.centred())))]
    assert document.series_of == {"1.2.3.8.1": "1.2.3.8"}
