"""The chest phantom: tissues where they belong, the same for the same seed."""

import numpy as np
import pytest

from models.simulation.anatomy import draw_anatomy
from models.simulation.phantom import chest_phantom
from models.simulation.radiograph import Exposure, chest_radiograph
from models.simulation.shapes import Grid, Tube, paint_tube
from models.simulation.vessels import TreeConfig, grow_tree

SMALL = {"shape_zyx": (8, 128, 128), "spacing_zyx_mm": (6.0, 3.0, 3.0)}


@pytest.fixture(scope="module")
def phantom():
    return chest_phantom(seed=5, nodules=3, **SMALL)


def test_holds_air_lung_fat_muscle_and_bone(phantom):
    hu = phantom.voxels
    assert np.isfinite(hu).all()
    assert hu.dtype == np.float32
    assert hu.shape == SMALL["shape_zyx"]
    for low, high in ((-1001, -990), (-920, -780), (-115, -85), (30, 70), (300, 1000)):
        assert np.mean((hu > low) & (hu < high)) > 0.002


def test_lungs_lie_on_both_sides_within_the_body(phantom):
    lung = (phantom.voxels > -930) & (phantom.voxels < -700)
    left, right = lung[:, :, 64:].sum(), lung[:, :, :64].sum()
    assert min(left, right) > 0.5 * max(left, right)
    assert not lung[:, 0].any()
    assert not lung[:, :, 0].any()


def test_same_seed_same_patient_other_seed_another(phantom):
    again = chest_phantom(seed=5, nodules=3, **SMALL)
    assert np.array_equal(phantom.voxels, again.voxels)
    assert phantom.nodules == again.nodules
    assert not np.array_equal(phantom.voxels, chest_phantom(seed=6, nodules=3, **SMALL).voxels)


def test_says_where_its_nodules_are(phantom):
    """At the stated centre of a solid nodule there is soft tissue, not lung."""
    assert len(phantom.nodules) == 3
    middle = (np.array(SMALL["shape_zyx"]) - 1) / 2
    solid = [nodule for nodule in phantom.nodules if nodule.texture == "solid" and nodule.diameter_mm > 7]
    assert solid
    for nodule in solid:
        index = np.rint(np.array(nodule.centre_mm) / SMALL["spacing_zyx_mm"] + middle).astype(int)
        assert phantom.voxels[tuple(index)] > -300


def test_vessels_taper_and_stay_in_the_lung():
    rng = np.random.default_rng(2)
    anatomy = draw_anatomy(rng)
    tubes = grow_tree(
        anatomy.hilum(1), np.array([0.2, 0.0, 1.0]), lambda point: anatomy.in_lung(point, 1), TreeConfig(), rng
    )
    radii = np.array([tube.radius_mm for tube in tubes])
    assert len(tubes) > 200
    assert radii.min() < 0.7
    root, *branches = tubes
    thickness = {tuple(tube.end): tube.radius_mm for tube in tubes}
    assert root.radius_mm == TreeConfig().root_radius_mm
    assert all(tube.radius_mm < thickness[tuple(tube.start)] for tube in branches)
    outside = [tube for tube in tubes[1:] if not anatomy.in_lung(tube.start, 1) and tube.radius_mm < 2]
    assert len(outside) < 0.05 * len(tubes)


def test_a_thin_tube_fills_its_share_of_a_voxel():
    grid = Grid((9, 9, 9), (1.0, 1.0, 1.0))
    cover = np.zeros(grid.shape_zyx, np.float32)
    paint_tube(cover, grid, Tube(np.array([-4.0, 0, 0]), np.array([4.0, 0, 0]), 0.25))
    assert cover[4, 4, 4] == pytest.approx(np.pi * 0.25**2, rel=0.01)
    assert cover[4, 0, 0] == 0


def test_the_radiograph_is_bright_where_the_chest_is_dense():
    phantom = chest_phantom(seed=5, nodules=0, shape_zyx=(48, 64, 80), spacing_zyx_mm=(7.0, 5.0, 5.0))
    how = Exposure(detector_px=(96, 96), pixel_mm=4.4)
    image = chest_radiograph(phantom, seed=1, exposure=how)
    assert image.shape == (96, 96)
    assert image.min() >= 0
    assert image.max() <= 4095
    spine, lung, air = image[40:50, 46:50].mean(), image[40:50, 26:32].mean(), image[40:50, :4].mean()
    assert spine > lung + 300 > air + 600
    assert np.array_equal(image, chest_radiograph(phantom, seed=1, exposure=how))
    assert not np.array_equal(image, chest_radiograph(phantom, seed=2, exposure=how))
