"""Spline surfaces: a ball whose volume is known, and drawn chests against their own meshes."""

import numpy as np
import pytest

from models.simulation.shapes import Grid
from models.simulation.solids import Pose, voxelise
from models.simulation.spline_chest import LATTICE_MM, MESH, Surface, draw_chest, fill


def enclosed_mm3(mesh):
    """By the divergence theorem."""
    a, b, c, d = mesh[:-1, :-1], mesh[1:, :-1], mesh[1:, 1:], mesh[:-1, 1:]
    parts = [
        np.einsum("ijk,ijk->", first, np.cross(second, third)) / 6 for first, second, third in ((a, b, c), (a, c, d))
    ]
    return abs(sum(parts))


def ball(radius, count=90):
    polar, around = np.linspace(0, np.pi, count)[:, None], np.linspace(0, 2 * np.pi, count)
    ring = np.sin(polar)
    return radius * np.stack(
        [np.broadcast_to(np.cos(polar), (count, count)), ring * np.sin(around), ring * np.cos(around)], -1
    )


def test_fills_a_ball_and_nothing_else():
    low, shape = np.array([-31.1, -32.3, -30.7]), (50, 40, 46)
    filled = fill(ball(27.0), low, shape, step_mm=1.5)
    z, y, x = np.meshgrid(*(start + 1.5 * np.arange(n) for start, n in zip(low, shape, strict=True)), indexing="ij")
    distance = np.sqrt(z**2 + y**2 + x**2)
    assert filled[distance < 26.8].all()
    assert not filled[distance > 27.0].any()


def test_a_surface_goes_through_its_poles_and_closes():
    ring = np.array([[0.0, 10, 10], [0, -10, 10], [0, -10, -10], [0, 10, -10]])
    points = np.stack([ring * part + (z, 0, 0) for part, z in ((0, -5), (1, -5), (1, 0), (1, 5), (0, 5))])
    mesh = Surface(points).mesh(31)
    assert np.allclose(mesh[0], (-5, 0, 0))
    assert np.allclose(mesh[-1], (5, 0, 0))
    assert np.allclose(mesh[:, 0], mesh[:, -1])
    assert np.abs(mesh).max() <= 10
    assert np.abs(mesh[:, 1] - mesh[:, 0]).max() == pytest.approx(np.abs(mesh[:, -1] - mesh[:, -2]).max(), rel=0.05)


@pytest.fixture(scope="module")
def chest():
    return draw_chest(np.random.default_rng(5))


@pytest.mark.parametrize("name", ["right lung", "left lung", "heart", "sternum"])
def test_the_lattice_holds_what_the_mesh_encloses(chest, name):
    mesh = chest[name][0].mesh(MESH)
    low = mesh.min((0, 1)) - LATTICE_MM
    shape = tuple(np.ceil((mesh.max((0, 1)) + LATTICE_MM - low) / LATTICE_MM).astype(int))
    assert fill(mesh, low, shape).sum() * LATTICE_MM**3 == pytest.approx(enclosed_mm3(mesh), rel=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_the_chest_lies_as_a_patient_does(seed):
    """Lungs of one to three litres beside each other, the heart between and more to the left, sternum in front."""
    parts = draw_chest(np.random.default_rng(seed))
    grid = Grid((42, 100, 140), (8.0, 3.0, 3.0))
    voxels, labels = voxelise(grid, [solid for _, solid in parts.values()], Pose())
    _, y, x = np.meshgrid(*grid.axes(), indexing="ij")
    numbers = {name: number for number, name in enumerate(parts, start=1)}
    for name, side in (("right lung", -1), ("left lung", 1)):
        lung = labels == numbers[name]
        assert (x[lung] * side > 0).mean() > 0.99
        assert 0.9 < lung.sum() * 72e-6 < 3.5
    heart, sternum, spine = (labels == numbers[name] for name in ("heart", "sternum", "spine"))
    assert 5 < x[heart].mean() < 50
    assert y[sternum].max() < y[heart].mean() < y[spine].min()
    assert (labels == 0)[:, [0, -1]].all()
    assert voxels.min() == -1000
    inside = [mesh for name, (surface, _) in parts.items() if name != "skin" for mesh in [surface.mesh(60)]]
    skin = parts["skin"][0].mesh(60)
    assert all(np.abs(mesh[..., 2]).max() < np.abs(skin[..., 2]).max() for mesh in inside)


def test_patients_differ_and_a_seed_is_a_patient():
    first, same, other = (draw_chest(np.random.default_rng(seed))["right lung"] for seed in (1, 1, 2))
    assert np.array_equal(first[0].points, same[0].points)
    assert not np.allclose(first[0].points, other[0].points, atol=1)
    assert first[1].hu == same[1].hu != other[1].hu
