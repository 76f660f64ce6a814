"""From primary radiation to stored values: scatter where it is thick, sharpness, counts, grey levels."""

from dataclasses import replace

import numpy as np
import pytest

from models.simulation.drr import View, areal_densities, transmitted
from models.simulation.phantom import ChestPhantom, chest_phantom
from models.simulation.radiograph import (
    Display,
    Exposure,
    arriving,
    chest_radiograph,
    counted,
    density_of,
    develop,
    scattered,
    seen,
    spacing_at_patient_mm,
    stored,
)

PLAIN = Exposure(detector_px=(512, 512), pixel_mm=0.2, scatter_per_g_cm2=0.0, focal_spot_mm=0.0, electronic=0.0)
"""Neither scatter nor focal spot nor the detector's own noise."""


def RNG() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture(scope="module")
def chest() -> ChestPhantom:
    return chest_phantom(seed=3, nodules=0, shape_zyx=(60, 80, 100), spacing_zyx_mm=(6.0, 4.5, 4.2))


def test_noise_variance_goes_as_one_over_the_exposure():
    flat = np.full((512, 512), 0.2, np.float32)
    variances = [counted(flat, replace(PLAIN, photons=n), RNG()).var() for n in (1000.0, 4000.0, 16000.0)]
    assert variances[0] / variances[1] == pytest.approx(4.0, rel=0.03)
    assert variances[1] / variances[2] == pytest.approx(4.0, rel=0.03)


def test_without_a_spread_of_light_noise_is_that_of_the_photons():
    flat = np.full((512, 512), 0.2, np.float32)
    read = counted(flat, replace(PLAIN, mtf_half_lp_mm=np.inf, photons=5000.0), RNG())
    assert read.var() == pytest.approx(0.2 / 5000, rel=0.02)
    read = counted(flat, replace(PLAIN, mtf_half_lp_mm=np.inf, photons=5000.0, electronic=40.0), RNG())
    assert read.var() == pytest.approx(0.2 / 5000 + (40 / 5000) ** 2, rel=0.02)


@pytest.mark.parametrize("half_lp_mm", [1.0, 1.5])
def test_the_noise_power_has_the_colour_of_the_modulation_transfer_squared(half_lp_mm):
    how = replace(PLAIN, mtf_half_lp_mm=half_lp_mm)
    noise = counted(np.full((2048, 256), 0.3, np.float32), how, RNG()) - 0.3
    power = (np.abs(np.fft.rfft(noise - noise.mean(), axis=0)) ** 2).mean(1)
    f = np.fft.rfftfreq(2048, how.pixel_mm)
    low, half = (f > 0.02) & (f < 0.12), np.abs(f - half_lp_mm) < 0.05
    low_mtf = 0.5 ** ((0.07 / half_lp_mm) ** 2)
    assert power[half].mean() / power[low].mean() == pytest.approx((0.5 / low_mtf) ** 2, rel=0.1)


def test_the_mean_reading_is_the_signal():
    for level in (0.01, 0.1, 0.9):
        read = counted(np.full((512, 512), level, np.float32), replace(PLAIN, electronic=4.0), RNG())
        assert read.mean() == pytest.approx(level, rel=2e-3)


@pytest.mark.parametrize("half_lp_mm", [1.5, 2.0, 3.0])
def test_modulation_is_one_half_at_the_stated_frequency(half_lp_mm):
    how = replace(PLAIN, pixel_mm=0.05, mtf_half_lp_mm=half_lp_mm)
    wave = np.tile(np.sin(2 * np.pi * half_lp_mm * np.arange(2000) * how.pixel_mm), (9, 1)).astype(np.float32)
    inner = seen(wave, how)[4, 400:1600]
    assert inner.std() * 2**0.5 == pytest.approx(0.5, rel=0.02)


def test_the_focal_spot_blurs_by_its_size_and_the_magnification():
    how = Exposure(focal_spot_mm=1.2, source_mm=1800.0, gap_mm=300.0)
    assert how.magnification == pytest.approx(1.2)
    assert how.focal_blur_mm * 2.355 == pytest.approx(1.2 * 0.2)
    step = np.zeros((65, 65), np.float32)
    step[:, 32:] = 1
    fine = replace(how, pixel_mm=0.02, scatter_per_g_cm2=0.0)
    slope = np.diff(arriving(step, fine)[32])
    assert slope.max() / 0.02 == pytest.approx(1 / ((2 * np.pi) ** 0.5 * how.focal_blur_mm), rel=0.02)


def test_scatter_is_a_third_to_a_half_behind_the_lung_and_more_behind_the_middle(chest):
    """Without a grid; 0.3 to 0.5 and 0.6 to 0.8 are what is measured in patients."""
    how = Exposure(detector_px=(200, 200), pixel_mm=1.8, grid_factor=1.0)
    primary = transmitted(*areal_densities(chest.voxels, chest.spacing_zyx_mm, how))
    share = scattered(primary, how) / (scattered(primary, how) + primary)
    lung, middle = share[86:104, 47:68].mean(), share[117:146, 96:104].mean()
    assert 0.3 < lung < 0.5
    assert 0.6 < middle < 0.8


def test_the_grid_divides_scatter_and_air_scatters_nothing():
    primary = np.full((96, 96), 0.15, np.float32)
    with_grid, without = Exposure(grid_factor=4.0), Exposure(grid_factor=1.0)
    np.testing.assert_allclose(scattered(primary, without), 4 * scattered(primary, with_grid), rtol=1e-5)
    assert not scattered(np.ones((96, 96), np.float32), without).any()


def test_scatter_takes_contrast():
    """Of a faint step by the share of the primary in what arrives."""
    primary = np.full((256, 256), 0.15, np.float32)
    primary[:, 128:] *= 0.98
    how = replace(PLAIN, scatter_per_g_cm2=0.06, grid_factor=1.0, pixel_mm=0.35)
    reaching = arriving(primary, how)
    share = 0.15 / (0.15 + scattered(primary, how)[128, 127])
    contrast = (reaching[128, 127] - reaching[128, 128]) / reaching[128, 127]
    assert contrast == pytest.approx(0.02 * share, rel=0.02)


def test_every_curve_rises_and_the_inverted_one_falls():
    signal = np.exp(-np.linspace(0, 7, 200, dtype=np.float32))[None]
    for curve in ("log", "sigmoid", "linear"):
        for bits in (8, 12):
            values = stored(signal, Display(curve=curve, bits=bits))
            assert (np.diff(values) >= 0).all()
            assert values.min() >= 0
            assert values.max() <= 2**bits - 1
            assert values.max() - values.min() > 0.8 * (2**bits - 1)
            np.testing.assert_array_equal(values, np.rint(values))
            inverted = stored(signal, Display(curve=curve, bits=bits, inverted=True))
            np.testing.assert_array_equal(values + inverted, 2**bits - 1)


def test_the_plain_curve_is_the_logarithm():
    signal = np.exp(-np.linspace(0, 7, 200, dtype=np.float32))[None]
    values = stored(signal, Display(densest=7.0, bits=12))
    np.testing.assert_allclose(values, density_of(signal) / 7.0 * 4095, atol=0.51)


def test_the_same_seed_gives_the_same_radiograph_another_seed_another(chest):
    how = Exposure(detector_px=(96, 96), pixel_mm=4.0)
    one = chest_radiograph(chest, seed=1, exposure=how)
    np.testing.assert_array_equal(one, chest_radiograph(chest, seed=1, exposure=how))
    assert not np.array_equal(one, chest_radiograph(chest, seed=2, exposure=how))
    inverted = chest_radiograph(chest, seed=1, exposure=how, display=Display(inverted=True))
    np.testing.assert_array_equal(one + inverted, 4095)


def test_behind_lead_there_is_no_logarithm_of_nothing():
    assert np.isfinite(develop(np.zeros((32, 32), np.float32), Exposure(detector_px=(32, 32)), seed=1)).all()


def test_the_spacing_in_the_patient_is_smaller_than_on_the_detector():
    assert spacing_at_patient_mm(View(pixel_mm=0.4, source_mm=1800.0, gap_mm=180.0)) == pytest.approx(0.36)
