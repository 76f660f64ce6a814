"""Lesions planted into a uniform volume, where every number can be checked."""

from dataclasses import replace

import numpy as np
import pytest

from models.simulation.lesions import Plan, apart, drawn, ellipsoid, lobulated, overlaps, plant
from models.simulation.shapes import Grid

GRID = Grid((33, 49, 49), (1.0, 0.8, 0.8))
SHAPES = {
    "ellipsoid": lambda seed: ellipsoid(np.random.default_rng(seed), edge_mm=0.4),
    "lobulated": lambda seed: lobulated(np.random.default_rng(seed), spread=0.15),
    "spiculated": lambda seed: lobulated(np.random.default_rng(seed), spread=0.2, spikes=9),
}


@pytest.fixture
def tissue():
    return np.full(GRID.shape_zyx, 100, np.float32)


def plan_of(cover, **changes):
    whole = np.ones(GRID.shape_zyx, bool)
    return replace(Plan("liver", np.array([0.3, 1.0, -2.0]), 12.0, -40.0, "shift", cover, whole), **changes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_has_the_diameter_contrast_and_place_that_were_planned(shape, seed, tissue):
    lesion = plant(tissue, GRID, plan_of(SHAPES[shape](seed)))
    assert lesion.diameter_mm == pytest.approx(12.0, rel=0.06)
    assert lesion.contrast_hu == pytest.approx(-40)
    assert tissue.min() == pytest.approx(60, abs=0.5)
    assert tissue.max() == pytest.approx(100, abs=0.01)
    assert lesion.centre_mm == pytest.approx((16.3, 20.2, 17.2))
    mask = np.zeros(tissue.shape, bool)
    mask[lesion.box] = lesion.mask
    assert np.array_equal(mask, tissue < 80)


def test_spicules_and_lobes_vary_the_radius_more_than_waves(tissue):
    """Surface over volume, from the voxels that are partly filled."""
    rim = {}
    for shape, make in SHAPES.items():
        counts = []
        for seed in range(6):
            volume = tissue.copy()
            plant(volume, GRID, plan_of(make(seed), diameter_mm=16.0))
            counts.append(np.abs(np.diff((volume < 80).astype(int), axis=2)).sum())
        rim[shape] = np.mean(counts)
    assert rim["spiculated"] > rim["lobulated"] > rim["ellipsoid"]


def test_a_raised_lesion_leaves_a_brighter_vessel(tissue):
    tissue[:] = -850
    tissue[:, 24, 20:28] = 180
    plant(tissue, GRID, plan_of(SHAPES["ellipsoid"](1), level=30.0, fill="raise"))
    assert np.all(tissue[:, 24, 20:28] == 180)
    assert tissue[16, 26, 22] == pytest.approx(30, abs=1)


def test_a_shifted_lesion_keeps_the_texture_and_pushes_vessels_aside(tissue):
    texture = np.random.default_rng(0).normal(0, 4, tissue.shape).astype(np.float32).clip(-8, 8)
    tissue += texture
    tissue[:, 26, :] = 170
    before = tissue.copy()
    lesion = plant(tissue, GRID, plan_of(SHAPES["ellipsoid"](1)))
    # At the centre (voxel 16, 25, 22) the lesion fills all: the tissue moved as a whole, the vessel is gone.
    np.testing.assert_allclose((tissue - before)[16, 25, 20:24], -40, atol=0.5)
    assert tissue[16, 26, 22] == pytest.approx(60, abs=8)
    assert lesion.contrast_hu == pytest.approx(-40)


def test_what_sticks_out_of_its_host_is_cut_and_too_little_is_not_planted(tissue):
    host = np.zeros(tissue.shape, bool)
    host[:, :, :24] = True
    lesion = plant(tissue, GRID, plan_of(SHAPES["ellipsoid"](2), host=host))
    assert np.all(tissue[:, :, 24:] == 100)
    assert lesion.diameter_mm < 12
    untouched = tissue.copy()
    host[:, :, 18:] = False
    assert plant(tissue, GRID, plan_of(SHAPES["ellipsoid"](2), host=host)) is None
    assert np.array_equal(tissue, untouched)


def test_lesions_that_would_share_voxels_share_none(tissue):
    first = plant(tissue, GRID, plan_of(SHAPES["spiculated"](3)))
    near = plan_of(SHAPES["spiculated"](4), centre=np.array([0.3, 1.0, 7.0]))
    for plan, most in ((near, 2), (apart(near, [first]), 1)):
        filled = np.zeros(tissue.shape, int)
        for lesion in (first, plant(tissue.copy(), GRID, plan)):
            filled[lesion.box] += lesion.mask
        assert filled.max() == most


def test_draws_by_published_quantiles():
    rng = np.random.default_rng(5)
    values = [drawn(((0.0, 4.5), (0.25, 9.0), (0.5, 12.0), (0.75, 18.0), (1.0, 36.0)), rng) for _ in range(4000)]
    np.testing.assert_allclose(np.percentile(values, (25, 50, 75)), (9, 12, 18), rtol=0.05)
    assert min(values) >= 4.5
    assert max(values) <= 36


def test_keeps_a_gap():
    plans = [plan_of(SHAPES["ellipsoid"](0))]
    assert overlaps(np.array([0.3, 1.0, 12.9]), 12.0, plans)
    assert not overlaps(np.array([0.3, 1.0, 13.1]), 12.0, plans)
