from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from gate import made
from images import marks
from images.marks import TABLE_BOX, Scan
from models.deeplesion.table import box_of
from node.dicom.marks.gsps import lengths_in, read_presentation
from node.dicom.marks.mark import Lines
from node.dicom.marks.resolve import Mark


def table_box(mark: Mark) -> tuple[float, ...]:
    """1-based, as the table has it."""
    return tuple(value + 1 for value in box_of([*mark.long_px, *mark.short_px]))  # type: ignore[arg-type]


def only(found: Any) -> Mark:
    assert found.refusals == ()
    (mark,) = found.marks
    return mark


def display(points: marks.Points, rows: int, columns: int) -> list[tuple[float, float]]:
    """Shares of the whole image as displayed area."""
    return [((x + 0.5) / columns, (y + 0.5) / rows) for x, y in points]


def test_a_state_by_highdicom_gives_the_box_of_the_table(tmp_path: Path, harvest: Any) -> None:
    paths = made.ct_series(tmp_path / "ct", shape=marks.SHAPE)
    headers = [pydicom.dcmread(path) for path in paths]
    key = headers[2]
    points = np.array([[x + 0.5, y + 0.5] for x, y in marks.centred()])
    graphics = [
        hd.pr.GraphicObject("POLYLINE", points[i : i + 2], units="PIXEL", tracking_id="1", tracking_uid="2.25.1")
        for i in (0, 2)
    ]
    layer = hd.pr.GraphicLayer("L", 1)
    state = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=headers,
        series_instance_uid="2.25.10",
        series_number=1,
        sop_instance_uid="2.25.11",
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        content_label="L",
        graphic_layers=[layer],
        graphic_annotations=[hd.pr.GraphicAnnotation([key], layer, graphic_objects=graphics)],
    )
    mark = only(harvest(Scan(paths, headers), state))
    assert np.allclose(table_box(mark), TABLE_BOX, rtol=0, atol=2e-5)
    assert mark.image.instance_uid == key.SOPInstanceUID
    assert mark.about.tracking_uid == "2.25.1"


@pytest.mark.parametrize("units", ["PIXEL", "DISPLAY", "MATRIX"])
def test_each_kind_of_units_gives_the_box_of_the_table(units: str, axial: Scan, harvest: Any) -> None:
    points = marks.centred()
    if units == "DISPLAY":
        shares = display(points, *marks.SHAPE)
        graphics = [marks.polyline(shares[:2], units), marks.polyline(shares[2:], units)]
    else:
        graphics = marks.axes(points, units)
    mark = only(harvest(axial, marks.gsps(axial.key, graphics)))
    assert np.allclose(table_box(mark), TABLE_BOX, rtol=0, atol=2e-5)
    assert mark.long_px[0] == pytest.approx(points[0], abs=2e-5)


def turned(image: np.ndarray[Any, Any], rotation: int, flip: bool) -> np.ndarray[Any, Any]:
    """What a viewer shows: clockwise rotation, then the flip (PS3.3 C.10.6)."""
    shown = np.rot90(image, -rotation // 90)
    return shown[:, ::-1] if flip else shown


@pytest.mark.parametrize("flip", [False, True], ids=["", "flipped"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_display_units_follow_rotation_and_flip_of_a_part_of_the_image(rotation: int, flip: bool, axial: Scan) -> None:
    """The displayed area is columns 101 to 240 and rows 41 to 120; numpy turns the image, not the code under test."""
    left, right, top, bottom = 101, 240, 41, 120
    y, x = np.mgrid[: bottom - top + 1, : right - left + 1]
    columns, rows = (turned(values, rotation, flip) for values in (x + left - 1, y + top - 1))
    corners = [[int(columns[i, j]) + 1, int(rows[i, j]) + 1] for i, j in ((0, 0), (-1, -1))]
    area = marks.item(DisplayedAreaTopLeftHandCorner=corners[0], DisplayedAreaBottomRightHandCorner=corners[1])
    height, width = columns.shape
    shown = [(30, 20), (30, 60), (15, 40), (45, 40)]  # pixel of the display: x, y
    shares = [((u + 0.5) / width, (v + 0.5) / height) for u, v in shown]
    state = marks.gsps(
        axial.key,
        [marks.polyline(shares[:2], "DISPLAY"), marks.polyline(shares[2:], "DISPLAY")],
        DisplayedAreaSelectionSequence=[area],
        ImageRotation=rotation,
        ImageHorizontalFlip="Y" if flip else "N",
    )
    (claim,) = read_presentation(state).claims
    assert isinstance(claim, Lines)
    got = [point for line in claim.lines for point in line.ends]
    assert np.allclose(got, [(columns[v, u], rows[v, u]) for u, v in shown], rtol=0, atol=1e-4)


def test_a_displayed_area_that_contradicts_the_rotation_is_refused(axial: Scan, harvest: Any) -> None:
    shares = display(marks.centred(), *marks.SHAPE)
    graphics = [marks.polyline(shares[:2], "DISPLAY"), marks.polyline(shares[2:], "DISPLAY")]
    found = harvest(axial, marks.gsps(axial.key, graphics, ImageRotation=180))
    assert found.marks == ()
    assert {it.reason for it in found.refusals} == {
        "in display units, and the displayed area contradicts rotation or flip"
    }


def test_the_displayed_area_of_another_image_is_not_taken(axial: Scan, harvest: Any) -> None:
    shares = display(marks.centred(), *marks.SHAPE)
    graphics = [marks.polyline(shares[:2], "DISPLAY"), marks.polyline(shares[2:], "DISPLAY")]
    state = marks.gsps(axial.key, graphics)
    state.DisplayedAreaSelectionSequence[0].ReferencedImageSequence = [marks.reference(axial.headers[0])]
    found = harvest(axial, state)
    assert {it.reason for it in found.refusals} == {"in display units, and no displayed area is given for the image"}


def test_both_axes_in_one_polyline_or_in_two_rulers(axial: Scan, harvest: Any) -> None:
    shifted = [(x + 0.5, y + 0.5) for x, y in marks.centred()]
    in_one = marks.gsps(axial.key, [marks.polyline(shifted)])
    other = axial.headers[3]
    rulers, drawn = [], []
    for number, ends in enumerate((shifted[:2], shifted[2:]), start=1):
        ruler = marks.item(CompoundGraphicInstanceID=number, CompoundGraphicUnits="PIXEL", CompoundGraphicType="RULER")
        ruler.GraphicData = [value for point in ends for value in point]
        rulers.append(ruler)
        drawn += [marks.polyline(ends, CompoundGraphicInstanceID=number)] * 2  # for viewers that know no rulers
    in_two = marks.gsps(other, drawn, compounds=rulers, uid="1.2.3.11.2")
    found = harvest(axial, in_one, in_two)
    assert found.refusals == ()
    assert [mark.image.instance_uid for mark in found.marks] == [axial.key.SOPInstanceUID, other.SOPInstanceUID]
    for mark in found.marks:
        assert np.allclose(table_box(mark), TABLE_BOX, rtol=0, atol=2e-5)


def kind_of(kind: str, **given: Any) -> Dataset:
    return marks.polyline([(10, 10), (30, 10), (20, 5), (20, 15)], GraphicType=kind, **given)


@pytest.mark.parametrize(
    ("graphic", "reason"),
    [
        (kind_of("ELLIPSE"), "an ellipse: its axes were drawn round the lesion, not measured on it"),
        (kind_of("CIRCLE"), "a circle, not an axis"),
        (kind_of("POINT"), "a point, not an axis"),
        (
            marks.polyline([(10, 10), (30, 10)]),
            "a single line: no second axis crosses it at a right angle",
        ),
        (marks.polyline([(50, 50), (90, 50), (90, 80), (50, 50)]), "a closed or freehand line, not two axes"),
        (marks.polyline([(1, 1), (9, 1), (9, 9)]), "a closed or freehand line, not two axes"),
        (marks.polyline([(10, 10), (30, 10)], units="FURLONG"), "in no units that the standard knows"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_what_is_no_axis_is_refused_with_the_reason(graphic: Dataset, reason: str, axial: Scan, harvest: Any) -> None:
    found = harvest(axial, marks.gsps(axial.key, [graphic]))
    assert found.marks == ()
    assert [it.reason for it in found.refusals] == [reason]


def test_an_arrow_of_three_strokes_is_no_lesion(axial: Scan, harvest: Any) -> None:
    strokes = [marks.polyline([(50, 50), end]) for end in ((90, 50), (58, 44), (58, 56))]
    found = harvest(axial, marks.gsps(axial.key, strokes))
    assert found.marks == ()
    assert len(found.refusals) == 3


def test_a_mark_on_two_images_at_once_is_refused(axial: Scan, harvest: Any) -> None:
    state = marks.gsps(axial.key, marks.axes(marks.centred()))
    state.GraphicAnnotationSequence[0].ReferencedImageSequence = [marks.reference(ds) for ds in axial.headers[:2]]
    found = harvest(axial, state)
    assert [it.reason for it in found.refusals] == ["drawn on several images at once"] * 2


@pytest.mark.parametrize(
    ("words", "taken"),
    [("L: 9.6 mm", True), ("9.6 x 3.6 mm", True), ("0.96 cm", True), ("15.0 mm", False), ("9.6 x 9.6 mm", False)],
)
def test_a_text_beside_it_checks_the_length(words: str, taken: bool, axial: Scan, harvest: Any) -> None:
    """Rows .7 mm, columns .8 mm apart: long axis 8.38 mm, short axis 4.08 mm; so only what is within 10 % passes."""
    long, short = marks.lengths_mm(marks.centred(), axial.key)
    assert (round(long, 2), round(short, 2)) == (8.38, 4.08)
    words = words.replace("9.6", f"{long:.1f}", 1).replace("3.6", f"{short:.1f}").replace("0.96", f"{long / 10:.2f}")
    text = marks.item(UnformattedTextValue=words)
    found = harvest(axial, marks.gsps(axial.key, marks.axes(marks.centred()), texts=[text]))
    assert len(found.marks) == taken
    if not taken:
        assert [it.reason for it in found.refusals] == ["the text beside it states another length"]


def test_lengths_are_read_out_of_words() -> None:
    assert lengths_in("Ax 12.3 mm, Series 5") == (12.3,)
    assert lengths_in("1,2 x 0,8 cm") == (12.0, 8.0)
    assert lengths_in("12 HU, 3 mmHg, 150 mm^2, 150 mm², 3 mm2, 20 cm³, 5 cm/s") == ()
    assert lengths_in("1.3x1.1 x .9 cm") == (13.0, 11.0, 9.0)
    assert lengths_in("L1: 1.2 cm\r\nL2: .8 cm") == (12.0, 8.0)


def test_a_ruler_that_is_turned_about_a_point_is_refused(axial: Scan, harvest: Any) -> None:
    rulers = [
        marks.item(
            CompoundGraphicInstanceID=number,
            CompoundGraphicType="RULER",
            CompoundGraphicUnits="PIXEL",
            GraphicData=line.GraphicData,
            RotationAngle=30.0,
        )
        for number, line in enumerate(marks.axes(marks.centred()))
    ]
    found = harvest(axial, marks.gsps(axial.key, [], compounds=rulers))
    assert [it.reason for it in found.refusals] == ["a ruler turned about a point"] * 2


def test_a_text_on_several_images_is_no_mark_that_was_lost(axial: Scan, harvest: Any) -> None:
    state = marks.gsps(axial.key, [], texts=[marks.item(UnformattedTextValue="Series 3")])
    state.GraphicAnnotationSequence[0].ReferencedImageSequence = [marks.reference(ds) for ds in axial.headers[:2]]
    found = harvest(axial, state)
    assert (found.marks, found.refusals) == ((), ())
