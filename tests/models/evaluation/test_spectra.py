"""Spectra against closed forms."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.evaluation.spectra import Spectrum, edge_transfer, noise_power_spectrum


def disc(radius_mm: float, spacing_mm: float, sigma_mm: float, side: int = 128) -> np.ndarray:
    """Sampled four times finer than its pixels, blurred, averaged."""
    fine = 4 * side
    axis = (np.arange(fine) - (fine - 1) / 2) * spacing_mm / 4
    sharp = 100.0 * (np.hypot(axis[:, None], axis) < radius_mm)
    blurred = gaussian_filter(sharp, sigma_mm / spacing_mm * 4)
    return blurred.reshape(side, 4, side, 4).mean((1, 3)).astype(np.float32)


def test_white_noise_has_the_same_power_at_all_frequencies():
    noise = np.random.default_rng(0).normal(0, 10, (200, 64, 64)).astype(np.float32)
    spectrum = noise_power_spectrum(noise, 0.8)
    assert spectrum.value[2:] == pytest.approx(100 * 0.64, rel=0.08)
    assert spectrum.frequency[-1] == pytest.approx(0.5 / 0.8)


def test_what_all_repeats_share_is_no_noise():
    noise = np.random.default_rng(0).normal(0, 10, (40, 32, 32)).astype(np.float32)
    anatomy = 500 * np.random.default_rng(1).random((32, 32)).astype(np.float32)
    plain, with_anatomy = noise_power_spectrum(noise, 1.0), noise_power_spectrum(noise + anatomy, 1.0)
    assert with_anatomy.value == pytest.approx(plain.value, rel=1e-3)


def test_blurred_noise_is_lower_in_frequency_by_the_square_of_the_transfer():
    noise = np.random.default_rng(0).normal(0, 10, (400, 64, 64)).astype(np.float32)
    blurred = gaussian_filter(noise, (0, 1, 1), mode="wrap")
    before, after = noise_power_spectrum(noise, 1.0), noise_power_spectrum(blurred, 1.0)
    wanted = np.exp(-4 * np.pi**2 * before.frequency**2)
    assert (after.value / before.value)[1:20] == pytest.approx(wanted[1:20], rel=0.05)
    assert after.mean_frequency < before.mean_frequency / 2


@pytest.mark.parametrize("sigma_mm", [0.8, 1.2, 2.0])
def test_the_edge_of_a_blurred_disc_gives_the_blur(sigma_mm):
    transfer = edge_transfer(disc(20, 0.8, sigma_mm), 0.8, 20)
    # exp(−2 π² σ² f²) = 1/2, and the pixel's own average.
    pixel = np.sinc(0.8 * transfer.frequency)
    wanted = Spectrum(transfer.frequency, np.exp(-2 * (np.pi * sigma_mm * transfer.frequency) ** 2) * pixel)
    assert transfer.half == pytest.approx(wanted.half, rel=0.03)
    assert transfer.value[0] == 1


def test_a_curve_that_stays_high_has_no_half():
    assert np.isnan(Spectrum(np.arange(4.0), np.ones(4)).half)
