from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from images.phantom import AXIAL
from node.dicom.read.geometry import Plane, distances, place, plane_of
from node.errors import NotEligible

Array = NDArray[np.float64]
AXIAL_PLANE = plane_of([AXIAL])

metres = st.floats(-1000, 1000, allow_nan=False)
sizes = st.floats(0.1, 10, allow_nan=False)
quaternions = st.tuples(*[st.floats(-1, 1, allow_nan=False)] * 4).filter(lambda q: sum(x * x for x in q) > 0.01)


def rotation(quaternion: tuple[float, ...]) -> Array:
    w, x, y, z = np.array(quaternion) / math.sqrt(sum(part * part for part in quaternion))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(
    quaternion=quaternions,
    origin=st.tuples(metres, metres, metres),
    step=sizes,
    spacing=st.tuples(sizes, sizes),
    lean=st.floats(-0.5, 0.5),
    count=st.integers(2, 30),
    index=st.tuples(st.integers(0, 29), st.integers(0, 511), st.integers(0, 511)),
)
def test_an_index_goes_to_its_millimetres_and_back(
    quaternion: tuple[float, ...],
    origin: tuple[float, ...],
    step: float,
    spacing: tuple[float, float],
    lean: float,
    count: int,
    index: tuple[int, int, int],
) -> None:
    row, column, normal = rotation(quaternion).T
    way = step * (normal + lean * column)  # lean: gantry tilt
    positions = np.array(origin) + np.arange(count)[:, None] * way
    plane = plane_of([np.concatenate([row, column])])
    placed = place(plane, positions, spacing, thickness_mm=None)
    z, y, x = index
    millimetres = placed.affine @ [z, y, x, 1]
    expected = np.array(origin) + z * way + y * spacing[0] * column + x * spacing[1] * row
    np.testing.assert_allclose(millimetres, [*expected, 1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.inv(placed.affine) @ millimetres, [z, y, x, 1], rtol=0, atol=1e-5)
    assert placed.even_steps
    assert placed.spacing_zyx_mm == pytest.approx((step, *spacing))
    assert placed.gantry_tilt_deg == pytest.approx(math.degrees(math.atan(lean)), abs=0.11)
    assert np.diff(distances(plane, positions)).min() > 0


def test_orientations_that_differ_by_rounding_have_one_plane() -> None:
    plane = plane_of([AXIAL, (0.99999, 0.0001, 0, 0, 1, 0.0001), AXIAL])
    np.testing.assert_array_equal(plane.normal, [0, 0, 1])


def test_rounded_cosines_are_made_orthonormal() -> None:
    plane = plane_of([(0.707, 0.707, 0, -0.707, 0.707, 0.001)])
    axes = np.array([plane.row, plane.column, plane.normal])
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 1, 0, 0), (0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 2, 0), (1, 0, 0, 0.1, 1, 0.0)]
)
def test_refuses_directions_that_are_not_at_right_angles(orientation: tuple[float, ...]) -> None:
    with pytest.raises(NotEligible, match="right angles"):
        plane_of([orientation])


def along_z(*places: float) -> Array:
    return np.array([[0, 0, z] for z in places], dtype=np.float64)


def test_takes_rounding_of_positions_for_even() -> None:
    placed = place(AXIAL_PLANE, along_z(0, 1.3, 2.5, 3.8, 5.0), (1, 1), thickness_mm=None)
    assert placed.even_steps
    assert placed.notes == ()


@pytest.mark.parametrize("step", [0.3, 0.625, 0.75, 0.9])
def test_thin_slices_whose_positions_are_rounded_are_evenly_spaced(step: float) -> None:
    positions = along_z(*(round(step * n - 80, 1) for n in range(200)))
    placement = place(AXIAL_PLANE, positions, (1, 1), thickness_mm=None)
    assert placement.even_steps
    assert placement.notes == ()
    assert placement.spacing_zyx_mm[0] == pytest.approx(step, rel=1e-3)


def test_thin_slices_of_which_one_is_missing_are_not() -> None:
    positions = along_z(*(round(0.625 * n, 1) for n in range(200) if n != 90))
    placement = place(AXIAL_PLANE, positions, (1, 1), thickness_mm=None)
    assert not placement.even_steps
    assert placement.notes


@pytest.mark.parametrize("step", [0.625, 0.8, 1.25, 1.5, 2.5, 3.2, 4.3])
@pytest.mark.parametrize("start", [-180.0, -63.437, 12.5])
def test_positions_in_whole_millimetres_are_those_of_an_even_grid(step: float, start: float) -> None:
    true = start + step * np.arange(90)
    placement = place(AXIAL_PLANE, along_z(*np.round(true)), (1, 1), thickness_mm=None)
    assert placement.even_steps
    assert placement.spacing_zyx_mm[0] == pytest.approx(step, rel=0.01)
    grid = placement.affine[2, 3] + placement.affine[2, 0] * np.arange(90)
    assert np.abs(grid - true).max() < 0.6
    assert "in whole millimetres" in placement.notes[0]
    assert not any("missing" in note for note in placement.notes)


def test_the_step_that_a_header_states_is_taken_where_it_explains_whole_positions() -> None:
    positions = along_z(*np.round(1.25 * np.arange(7) - 40))
    told = place(AXIAL_PLANE, positions, (1, 1), thickness_mm=None, stated_mm=(5.0, 1.25))
    assert told.spacing_zyx_mm[0] == 1.25
    assert told.even_steps
    assert not place(AXIAL_PLANE, positions, (1, 1), thickness_mm=None).even_steps, "one step of 2 mm proves nothing"


@pytest.mark.parametrize("gone", [(50,), (20, 21), (10, 40, 77, 78)])
@pytest.mark.parametrize("stated", [(), (1.0,), (1.25,), (1.0, 1.25)])
def test_missing_slices_of_a_grid_of_whole_millimetres_stay_missing(
    gone: tuple[int, ...], stated: tuple[float, ...]
) -> None:
    positions = along_z(*(z for z in range(100) if z not in gone))
    placement = place(AXIAL_PLANE, positions, (1, 1), thickness_mm=None, stated_mm=stated)
    assert not placement.even_steps
    assert f"Slices missing: {len(gone)}" in placement.notes[0]


def test_a_gap_in_rounded_positions_is_no_even_grid() -> None:
    true = np.delete(2.5 * np.arange(60), range(30, 36))
    placement = place(AXIAL_PLANE, along_z(*np.round(true)), (1, 1), thickness_mm=None, stated_mm=(2.5,))
    assert not placement.even_steps


def test_a_tilted_gantry_in_whole_millimetres_keeps_its_tilt() -> None:
    tilt = math.radians(20)
    plane = plane_of([(1, 0, 0, 0, math.cos(tilt), math.sin(tilt))])
    positions = np.array([-231.5, -190, 0]) + along_z(*np.round(np.arange(0, 150, 2.5)))
    placed = place(plane, positions, (0.7, 0.7), thickness_mm=None)
    assert placed.even_steps
    assert placed.gantry_tilt_deg == pytest.approx(20, abs=0.3)
    assert placed.spacing_zyx_mm[0] == pytest.approx(2.5 * math.cos(tilt), rel=0.01)


def test_says_that_steps_are_uneven() -> None:
    placed = place(AXIAL_PLANE, along_z(0, 1, 2.4, 3), (1, 1), thickness_mm=None)
    assert not placed.even_steps
    assert placed.spacing_zyx_mm[0] == pytest.approx(1.0)
    assert "unevenly spaced, 0.60 to 1.40 mm" in placed.notes[0]


def test_says_how_many_slices_are_missing() -> None:
    placed = place(AXIAL_PLANE, along_z(0, 2, 4, 10, 12, 16), (1, 1), thickness_mm=None)
    assert not placed.even_steps
    assert placed.spacing_zyx_mm[0] == 2
    assert "missing: 3, in gaps: 2 (usual step 2.00 mm)" in placed.notes[0]


def test_the_affine_of_uneven_slices_is_their_best_fit() -> None:
    positions = along_z(0, 1, 2.4, 3)
    affine = place(AXIAL_PLANE, positions, (1, 1), thickness_mm=None).affine
    slope, start = np.polyfit(range(4), positions[:, 2], 1)
    np.testing.assert_allclose(affine[2, [0, 3]], [slope, start])


@pytest.mark.parametrize(("thickness", "step"), [(5.0, 5.0), (None, 1.0), (0.0, 1.0)])
def test_a_single_slice_is_as_thick_as_it_says(thickness: float | None, step: float) -> None:
    placed = place(AXIAL_PLANE, along_z(7), (0.5, 0.6), thickness_mm=thickness)
    assert placed.spacing_zyx_mm == (step, 0.5, 0.6)
    np.testing.assert_array_equal(placed.affine[:, 3], [0, 0, 7, 1])
    assert placed.even_steps


def test_tilt_has_the_sign_of_the_header_for_a_supine_patient() -> None:
    tilt = math.radians(-18.5)
    plane = plane_of([(1, 0, 0, 0, math.cos(tilt), math.sin(tilt))])
    placed = place(plane, along_z(0, 2.5, 5), (0.5, 0.5), thickness_mm=None)
    assert placed.gantry_tilt_deg == pytest.approx(-18.5)
    assert placed.spacing_zyx_mm[0] == pytest.approx(2.5 * math.cos(tilt))
    assert "tilt of -18.5°" in placed.notes[0]


@pytest.mark.parametrize("shifted", [[0, 0, 0, 20, 20, 20], [0, 0, 20, 0, 0, 0]])
def test_slices_shifted_sideways_are_neither_tilted_nor_uneven(shifted: list[float]) -> None:
    positions = along_z(*range(0, 18, 3))
    positions[:, 0] += shifted
    placed = place(AXIAL_PLANE, positions, (0.8, 0.8), thickness_mm=None)
    assert not placed.even_steps
    assert placed.gantry_tilt_deg == 0
    assert placed.spacing_zyx_mm[0] == 3
    (note,) = placed.notes
    assert "shifted sideways" in note


def test_a_tilted_gantry_whose_positions_are_rounded_shifts_nothing_sideways() -> None:
    tilt = math.radians(20)
    plane = plane_of([(1, 0, 0, 0, math.cos(tilt), math.sin(tilt))])
    placed = place(plane, np.round(along_z(*np.arange(0, 200, 0.625)), 1), (0.7, 0.7), thickness_mm=None)
    assert placed.gantry_tilt_deg == pytest.approx(20, abs=0.1)
    assert not any("sideways" in note for note in placed.notes)


def test_a_plane_knows_its_normal() -> None:
    np.testing.assert_array_equal(Plane(np.array([0.0, 1, 0]), np.array([0.0, 0, -1])).normal, [-1, 0, 0])
