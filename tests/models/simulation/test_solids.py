"""Solids, and the FORBILD and MIRD patients made of them, against numbers of their descriptions."""

import numpy as np
import pytest

from models.simulation import forbild, mird
from models.simulation.shapes import Grid
from models.simulation.solids import Pose, brick, ellipsoid, rod, upright, voxelise

GRID = Grid((40, 60, 60), (1.5, 1.0, 1.0))


@pytest.mark.parametrize(
    ("solid", "volume_mm3"),
    [
        (ellipsoid((0, 2, 1), (15, 10, 20), 0, turn_deg=30), 4 / 3 * np.pi * 15 * 10 * 20),
        (upright((1, 0, 0), (12, 20), 0, half_height=16.2), np.pi * 12 * 20 * 32.4),
        (rod((-10, -8, 3), (12, 9, -6), 7, 0), np.pi * 49 * np.sqrt(22**2 + 17**2 + 9**2)),
        (brick((0, 1, 2), (10.5, 12, 7), 0), 8 * 10.5 * 12 * 7),
    ],
)
def test_fills_its_volume(solid, volume_mm3):
    voxels, _ = voxelise(GRID, [solid], Pose())
    assert (voxels + 1000).sum() / 1000 * 1.5 == pytest.approx(volume_mm3, rel=0.01)


def test_a_pose_scales_shifts_and_turns():
    """A ball 20 mm in front of the axis, 6 mm up: at half size, turned by 90° about the axis."""
    ball = ellipsoid((6, -20, 0), (5, 5, 5), 0)
    voxels, _ = voxelise(GRID, [ball], Pose(scale=0.5, level_mm=4, turn_deg=90))
    weight = voxels + 1000
    axes = np.meshgrid(*GRID.axes(), indexing="ij")
    centre = [float((weight * axis).sum() / weight.sum()) for axis in axes]
    assert weight.sum() / 1000 * 1.5 == pytest.approx(4 / 3 * np.pi * 2.5**3, rel=0.05)
    assert centre[0] == pytest.approx(1.0, abs=0.05)
    assert np.hypot(centre[1], centre[2]) == pytest.approx(10, abs=0.05)
    assert abs(centre[1]) < 0.05


def hu_at(solids, *point):
    """HU of the description itself: the last solid that holds the point."""
    z, y, x = (np.full((1, 1, 1), value, np.float32) for value in point)
    found = [solid.hu for solid in solids if solid.inside(z, y, x).all()]
    return found[-1] if found else -1000.0


@pytest.mark.parametrize(
    ("point", "hu"),
    [
        ((0, 0, 105), -740), ((0, 0, -105), -740), ((0, -40, 0), 50), ((0, 25, -25), 50), ((60, -45, 5), 50),
        ((75, -10, -10), 50), ((0, 50, 0), 180), ((0, 50, 16.5), 920), ((0, 0, 0), 0), ((0, 0, 198), 0),
        ((0, 0, 201), -1000), ((175, 0, 230), 0), ((0, 0, 230), -1000), ((25, -93.5, 0), 250), ((25, -90, 0), -20),
    ],
)  # fmt: skip
def test_the_forbild_thorax_is_as_described(point, hu):
    assert hu_at(forbild.thorax(), *point) == pytest.approx(hu)


def test_the_forbild_thorax_has_five_pairs_of_ribs():
    assert sum(solid.hu == forbild.RIB for solid in forbild.thorax()) == 5 * 2 * 9


@pytest.mark.parametrize(("point", "hu"), [((0, 0, -100), 60), ((0, 70, 0), 180), ((0, 0, 60), 0), ((0, -119, 0), 0)])
def test_the_forbild_abdomen_is_as_described(point, hu):
    assert hu_at(forbild.abdomen(), *point) == pytest.approx(hu)


@pytest.mark.parametrize(
    ("point", "hu"),
    [
        ((100, 0, -73.3), -704), ((70, -20, 73.3), 35), ((0, 0, -100), 60), ((0, 0, 100), 35), ((18, 29.4, 94.9), 50),
        ((-22.5, 58.8, 60), 30), ((-22.5, 58.8, 20), 35), ((0, 53.9, 0), 480), ((153, -30, 0), 45), ((8, 0, 168), 480),
        ((22, 0, 168), 35), ((-243, -44, 0), 8),
    ],
)  # fmt: skip
def test_the_mird_trunk_is_as_described(point, hu):
    assert hu_at(mird.trunk(), *point) == pytest.approx(hu)
