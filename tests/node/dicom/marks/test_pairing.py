from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import marks
from images.marks import Scan
from node.dicom.marks.mark import Line
from node.dicom.marks.pairing import angle_deg, pair

SQUARE = (1.0, 1.0)


def lines(*ends: Any, **given: Any) -> list[Line]:
    return [Line(one, **given) for one in ends]


def test_the_longer_of_two_crossing_lines_is_the_long_axis() -> None:
    (found,), left = pair(lines(((10, 5), (10, 12)), ((5, 10), (20, 10))), SQUARE)
    assert (found.long, found.short, left) == (1, 0, [])
    assert found.angle_deg == pytest.approx(90)


def test_length_and_angle_are_those_in_millimetres() -> None:
    """8 rows of 2 mm are longer than 12 columns of 1 mm; a slant of 45° in pixels is one of 63.4° in mm."""
    (found,), _ = pair(lines(((0, 4), (12, 4)), ((6, 0), (6, 8))), (2.0, 1.0))
    assert found.long == 1
    slanted = angle_deg(((0, 4), (12, 4)), ((2, 0), (10, 8)), (2.0, 1.0))
    assert slanted == pytest.approx(np.degrees(np.arctan(2)))


@pytest.mark.parametrize(("lean", "taken"), [(14.9, True), (15.1, False)])
def test_from_75_degrees_on_the_angle_is_right(lean: float, taken: bool) -> None:
    dx = 4 * np.tan(np.radians(lean))
    found, _ = pair(lines(((0, 0), (20, 0)), ((10 - dx, -4), (10 + dx, 4))), SQUARE)
    assert bool(found) == taken


@pytest.mark.parametrize(("beyond", "taken"), [(0.049, True), (0.051, False)])
def test_the_crossing_may_lie_a_twentieth_beyond_an_end(beyond: float, taken: bool) -> None:
    found, left = pair(lines(((0, 0), (20, 0)), ((10, 10 * beyond), (10, 10 * (1 + beyond)))), SQUARE)
    assert bool(found) == taken
    assert len(left) == (0 if taken else 2)


def test_lines_that_meet_at_their_ends_are_an_angle_or_a_frame() -> None:
    """A short axis that starts on the long one, away from its ends, may still be one."""
    angle = lines(((0, 0), (20, 0)), ((0, 0), (1, 12)))
    frame = lines(((0, 0), (20, 0)), ((20, 0), (20, 9)), ((20, 9), (0, 9)), ((0, 9), (0, 0)))
    for drawn in (angle, frame):
        assert pair(drawn, SQUARE) == ([], list(range(len(drawn))))
    assert len(pair(lines(((0, 0), (20, 0)), ((5, 0), (5, 9))), SQUARE)[0]) == 1


def test_the_second_axis_of_another_lesion_is_not_taken() -> None:
    """Two crosses side by side, their lines in mixed order."""
    first, second = (((0, 0), (20, 0)), ((10, -5), (10, 5))), (((40, 0), (60, 0)), ((50, -5), (50, 5)))
    pairs, left = pair(lines(first[0], second[1], second[0], first[1]), SQUARE)
    assert [(found.long, found.short) for found in pairs] == [(0, 3), (2, 1)]
    assert left == []


def test_lines_tied_by_their_writer_go_before_a_better_angle() -> None:
    long = Line(((0, 0), (20, 0)), group=1)
    straight, tied = Line(((8, -5), (8, 5))), Line(((12, -5), (13, 5)), group=1)
    pairs, left = pair([long, straight, tied], SQUARE)
    assert [(found.long, found.short) for found in pairs] == [(0, 2)]
    assert left == [1]


def test_lines_of_different_tracking_uids_are_never_one_lesion() -> None:
    crossing = [Line(((0, 0), (20, 0)), tracking_uid="1.2"), Line(((10, -5), (10, 5)), tracking_uid="1.3")]
    assert pair(crossing, SQUARE) == ([], [0, 1])


@st.composite
def recist_pairs(draw: st.DrawFn) -> list[tuple[float, float]]:
    """Any long and short axis that cross at 80° or more inside the image of the fixture."""
    angle = draw(st.floats(0, np.pi))
    lean = draw(st.floats(-0.17, 0.17))
    long_mm = draw(st.floats(2, 40))
    short_mm = long_mm * draw(st.floats(0.2, 0.95))
    at, across = draw(st.floats(0.1, 0.9)), draw(st.floats(0.1, 0.9))
    centre = np.array([draw(st.floats(60, 200)), draw(st.floats(55, 75))])
    along = np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-np.sin(angle + lean), np.cos(angle + lean)])
    scale = np.array([0.8, 0.7])  # mm: columns, rows
    ends = [
        centre - at * long_mm * along / scale,
        centre + (1 - at) * long_mm * along / scale,
        centre - across * short_mm * aside / scale,
        centre + (1 - across) * short_mm * aside / scale,
    ]
    return [(float(x), float(y)) for x, y in ends]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=recist_pairs(), units=st.sampled_from(["PIXEL", "MATRIX", "DISPLAY"]), swapped=st.booleans())
def test_any_pair_goes_through_a_presentation_state_and_comes_back(
    points: list[tuple[float, float]], units: str, swapped: bool, axial: Scan, resolved: Any
) -> None:
    if units == "DISPLAY":
        height, width = marks.SHAPE
        stored = [((x + 0.5) / width, (y + 0.5) / height) for x, y in points]
    else:
        stored = [(x + 0.5, y + 0.5) for x, y in points]
    graphics = [marks.polyline(stored[:2], units), marks.polyline(stored[2:], units)]
    (mark,) = resolved(axial, marks.gsps(axial.key, graphics[::-1] if swapped else graphics))
    assert np.allclose([*mark.long_px, *mark.short_px], points, rtol=0, atol=5e-5)
    assert mark.image.instance_uid == axial.key.SOPInstanceUID


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=recist_pairs())
def test_any_pair_goes_through_a_report_and_comes_back(
    points: list[tuple[float, float]], axial: Scan, resolved: Any
) -> None:
    (mark,) = resolved(axial, marks.report(axial.headers, marks.bidirectional(axial.key, points)))
    assert np.allclose([*mark.long_px, *mark.short_px], points, rtol=0, atol=5e-5)
