"""Rays through a volume against closed forms: thickness, attenuation, magnification, place."""

import numpy as np
import pytest
import torch

from models.simulation.drr import (
    BEAM_80_KV,
    BEAM_120_KV,
    BEAM_140_KV,
    CM2_PER_G,
    Beam,
    View,
    areal_densities,
    transmitted,
)

AIR = -1000.0
VIEW = View(detector_px=(65, 65), pixel_mm=2.0, source_mm=1000.0, gap_mm=200.0)
SPACING_MM = (1.0, 2.0, 1.0)


def slab(hu: float, *, planes: int = 40) -> np.ndarray:
    """Wider than the field, 60 coronal planes of which the middle ones hold it."""
    voxels = np.full((160, 60, 160), AIR, np.float32)
    voxels[:, 30 - planes // 2 : 30 + planes // 2] = hu
    return voxels


def ball(centre_zyx_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    """Of water in air, edges supersampled."""
    fine = 3
    z, y, x = (
        ((np.arange(n * fine) + 0.5) / fine - n / 2) * step - at
        for n, step, at in zip((96, 60, 96), SPACING_MM, centre_zyx_mm, strict=True)
    )
    inside = (z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < radius_mm**2).astype(np.float32)
    return (inside.reshape(96, fine, 60, fine, 96, fine).mean((1, 3, 5)) - 1) * 1000


def slant() -> np.ndarray:
    away = (np.arange(65) - 32) * VIEW.pixel_mm
    return np.sqrt(1 + (away[:, None] ** 2 + away**2) / VIEW.source_mm**2)


def test_a_slab_of_water_is_as_thick_as_it_is_and_thicker_at_a_slant():
    soft, bone = areal_densities(slab(0.0), SPACING_MM, VIEW)
    np.testing.assert_allclose(soft, 8.0 * slant(), rtol=1e-5)
    assert not bone.any()


@pytest.mark.parametrize("beam", [BEAM_80_KV, BEAM_120_KV, BEAM_140_KV])
def test_attenuation_of_a_slab_is_the_sum_of_exponentials(beam: Beam):
    for hu, density, kind in ((0.0, 1.0, 0), (-300.0, 0.7, 0), (1500.0, 1.9, 1)):
        through = transmitted(*areal_densities(slab(hu), SPACING_MM, VIEW), beam)
        exact = sum(w * np.exp(-CM2_PER_G[keV][kind] * density * 8.0 * slant()) for keV, w in beam.lines)
        np.testing.assert_allclose(through, exact, rtol=1e-4)
    assert sum(share for _, share in beam.lines) == pytest.approx(1.0)


def test_a_harder_beam_goes_through_more_and_shows_less_of_the_bones():
    soft, bone = torch.tensor([10.0, 10.0]), torch.tensor([0.0, 1.0])
    through = [transmitted(soft, bone, beam) for beam in (BEAM_80_KV, BEAM_120_KV, BEAM_140_KV)]
    assert through[0][0] < through[1][0] < through[2][0]
    contrasts = [np.log(beside / behind) for beside, behind in through]
    assert contrasts[0] > contrasts[1] > contrasts[2] > 0.15


def test_two_slabs_attenuate_as_their_sum():
    """The beam hardens: not as the product of both, but as the thicknesses add."""
    thin, thick = (areal_densities(slab(0.0, planes=n), SPACING_MM, VIEW) for n in (20, 40))
    np.testing.assert_allclose(2 * thin[0], thick[0], rtol=1e-5)
    assert (transmitted(*thick) > transmitted(*thin) ** 2 * 1.002).all()


def test_between_soft_tissue_and_cortex_a_voxel_is_a_mixture():
    soft, bone = (part[32, 32].item() for part in areal_densities(slab(825.0), SPACING_MM, VIEW))
    assert soft == pytest.approx(bone, rel=1e-4)
    assert soft + bone == pytest.approx(8.0 * (1 + 0.6e-3 * 825), rel=1e-4)


@pytest.mark.parametrize("y_mm", [-30.0, 0.0, 30.0])
def test_the_shadow_of_a_ball_is_its_chords_from_a_point(y_mm):
    soft, _ = areal_densities(ball((0.0, y_mm, 0.0), 20.0), SPACING_MM, VIEW)
    along = VIEW.source_mm - VIEW.gap_mm - y_mm
    away = (np.arange(65) - 32) * VIEW.pixel_mm
    squared = away[:, None] ** 2 + away**2
    distance2 = along**2 * squared / (squared + VIEW.source_mm**2)
    exact = 2 * np.sqrt(np.clip(400 - distance2, 0, None)) / 10
    inner = distance2 < 18**2
    assert np.abs(soft.numpy() - exact)[inner].max() < 0.05 * 4.0
    assert np.sqrt(np.mean((soft.numpy() - exact)[inner] ** 2)) < 0.01 * 4.0


@pytest.mark.parametrize("y_mm", [-30.0, 30.0])
def test_magnification_is_that_of_the_distance_from_the_source(y_mm):
    """By the second moment of the shadow; the far ball (from the detector) is the larger one."""
    soft = areal_densities(ball((0.0, y_mm, 0.0), 15.0), SPACING_MM, VIEW)[0].numpy()
    away = (np.arange(65) - 32) * VIEW.pixel_mm
    spread = np.sqrt((soft.sum(0) * away**2).sum() / soft.sum())
    assert spread / (15.0 / 5**0.5) == pytest.approx(1000.0 / (800.0 - y_mm), rel=0.01)


def test_a_shadow_falls_where_it_is_said_to():
    """Head up, the patient's right on the left."""
    for centre in ((25.0, -20.0, -15.0), (-18.0, 25.0, 22.0)):
        soft = areal_densities(ball(centre, 8.0), SPACING_MM, VIEW)[0].numpy()
        row, column, larger = VIEW.shadow(centre)
        rows, columns = np.mgrid[:65, :65]
        assert (soft * rows).sum() / soft.sum() == pytest.approx(row, abs=0.05)
        assert (soft * columns).sum() / soft.sum() == pytest.approx(column, abs=0.05)
        assert (row < 32) == (centre[0] > 0)
        assert larger == pytest.approx(1000 / (800 - centre[1]))
    assert VIEW.magnification == pytest.approx(1.25)


def test_air_lets_everything_through():
    through = transmitted(torch.zeros(3, 3), torch.zeros(3, 3))
    np.testing.assert_allclose(through, 1.0, rtol=1e-6)
    assert through.dtype == np.float32
