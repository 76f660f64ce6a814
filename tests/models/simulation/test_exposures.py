"""One chest exposed in several ways: what physics says of each, and that with and without nodules noise is the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.simulation.exposures import USUAL, VIEW, WAYS, Rays, draw_rays, exposed

SMALL = replace(VIEW, detector_px=(160, 160), pixel_mm=0.8, photons=4 * VIEW.photons)


@pytest.fixture(scope="module")
def rays() -> Rays:
    return draw_rays(7, view=SMALL, voxel_zyx_mm=(2.0, 4.0, 2.0))


def slabs(soft: tuple[float, float] = (10.0, 20.0)) -> Rays:
    """Two halves of stated thickness; the second picture has 0.5 g/cm² more in a square of the first half."""
    plane = np.repeat(np.float32(soft), 64)[None].repeat(128, 0)
    more = plane.copy()
    more[54:74, 22:42] += 0.5
    both = np.stack([plane, more])
    return Rays(both, np.zeros_like(both), np.array([[63.5, 31.5, 20.0]]), replace(VIEW, detector_px=(128, 128)))


def test_nodules_lie_where_they_are_said_to(rays: Rays) -> None:
    assert len(rays.nodules) == 2
    added = rays.soft[1] - rays.soft[0]
    for row, column, diameter in rays.nodules:
        rows, columns = np.ogrid[:160, :160]
        near = np.hypot(rows - row, columns - column) < diameter / 2 + 2
        peak = np.unravel_index(int(np.where(near, added, 0).argmax()), added.shape)
        assert np.hypot(peak[0] - row, peak[1] - column) < diameter / 2
        added = np.where(np.hypot(rows - row, columns - column) < diameter + 4, 0, added)
    assert np.abs(added).max() < 1e-3


@pytest.mark.parametrize("way", WAYS)
def test_noise_is_the_same_with_nodules_and_without(rays: Rays, way: str) -> None:
    made = exposed(rays, WAYS[way], seed=3)
    noise = made.read[0] - made.truth[0]
    change = (made.read[1] - made.truth[1]) - noise
    assert float(noise.std()) > 0.003
    assert float(change.std()) < 0.2 * float(noise.std())
    assert abs(float(noise.mean())) < 0.3 * float(noise.std())
    again = exposed(rays, WAYS[way], seed=3)
    np.testing.assert_array_equal(made.read[1], again.read[1])
    assert not np.array_equal(made.read[0], exposed(rays, WAYS[way], seed=4).read[0])


def test_a_quarter_of_the_photons_is_twice_the_noise() -> None:
    flat = slabs((10.0, 14.0))
    usual, few = (
        exposed(flat, {**WAYS[way], "electronic": 0.0}, seed=5) for way in (USUAL, "a quarter of the photons")
    )
    inner = np.s_[8:-8, 8:48]
    noise = [float((one.read[0] - one.truth[0])[inner].std()) for one in (usual, few)]
    assert noise[1] / noise[0] == pytest.approx(2.0, rel=0.05)


def nodule_per_range(way: str, bone: float = 0.0) -> float:
    """What 0.5 g/cm² of soft tissue shows, of the range from the thin half to the thick one, in which bone may lie."""
    rays = slabs()
    rays.bone[:, :, 64:] = bone
    truth = exposed(rays, WAYS[way], seed=1).truth
    return float((truth[1] - truth[0])[60:68, 28:36].mean())


def test_scatter_without_a_grid_takes_contrast_from_a_nodule() -> None:
    assert nodule_per_range("no grid") < 0.97 * nodule_per_range(USUAL)


def test_a_soft_beam_gives_more_of_the_range_to_bone() -> None:
    shares = [nodule_per_range(way, bone=2.0) for way in ("80 kV", USUAL, "140 kV")]
    assert shares[0] < shares[1] < shares[2]
    without = [nodule_per_range(way) for way in ("80 kV", USUAL, "140 kV")]
    assert shares[2] / shares[0] > 1.02 * without[2] / without[0]


def test_a_soft_detector_blurs_the_edge() -> None:
    steep = [np.abs(np.diff(exposed(slabs(), WAYS[way], seed=1).truth[0][64])).max() for way in WAYS]
    by_way = dict(zip(WAYS, steep, strict=True))
    assert by_way["soft detector, wide focal spot"] < 0.8 * by_way[USUAL]
