"""Spline surfaces: a ball whose volume is known, and the chest of the source against its own meshes."""

import numpy as np
import pytest

from models.simulation.nurbs import LATTICE_MM, MESH, Surface, chest, fill, surfaces
from models.simulation.shapes import Grid
from models.simulation.solids import Pose, voxelise


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
    knots = np.array([0, 0, 0, 0, 0.5, 1, 1, 1, 1])
    columns = np.array([[0.0, 10, 0], [0, 10, 10], [0, -10, 10], [0, -10, -10], [0, 10, 0]])
    points = np.stack([columns * part + (z, 0, 0) for part, z in ((0, -5), (1, -5), (1, 0), (1, 5), (0, 5))])
    mesh = Surface(points, knots, knots).mesh(31)
    assert np.allclose(mesh[0], (-5, 0, 0))
    assert np.allclose(mesh[-1], (5, 0, 0))
    assert np.allclose(mesh[:, 0], mesh[:, -1])
    assert np.abs(mesh).max() <= 10


@pytest.mark.parametrize("name", ["rlung", "llung", "sternum"])
def test_the_lattice_holds_what_the_mesh_encloses(name):
    mesh = surfaces()[name].mesh(MESH)
    low = mesh.min((0, 1)) - LATTICE_MM
    shape = tuple(np.ceil((mesh.max((0, 1)) + LATTICE_MM - low) / LATTICE_MM).astype(int))
    assert fill(mesh, low, shape).sum() * LATTICE_MM**3 == pytest.approx(enclosed_mm3(mesh), rel=0.005)


def test_the_chest_lies_as_a_patient_does():
    """Lungs of about 1.4 l on both sides, sternum in front; smoothing the lattice moves no surface."""
    grid = Grid((30, 90, 140), (8.0, 3.0, 3.0))
    voxels, labels = voxelise(grid, chest(), Pose())
    names = [solid.name for solid in chest()]
    _, y, x = np.meshgrid(*grid.axes(), indexing="ij")
    for name, side in (("rlung", -1), ("llung", 1)):
        lung = (labels == 1 + list(surfaces()).index(name)) & (x * side > 0)
        assert lung.sum() * 72e-3 == pytest.approx(enclosed_mm3(surfaces()[name].mesh(MESH)) / 1000, rel=0.03)
    sternum = labels == 1 + names.index("bone")
    assert y[sternum].mean() < -50
    assert voxels[labels == 0].min() == -1000
    assert ((voxels > -760) & (voxels < -720)).mean() > 0.08
