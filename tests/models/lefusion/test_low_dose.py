"""Noise of a lower dose: as strong as physics says, from nothing but header and seed."""

import numpy as np
import pytest
import torch

from models.contract import Acquisition, ModelError
from models.lefusion.low_dose import assumed, at_dose

SPACING = (3.0, 2.0, 2.0)
KNOWN = Acquisition(exposure_mas=200.0, kvp=120.0, slice_thickness_mm=3.0, kernel="B30f")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def water():
    y, x = np.ogrid[-64:64, -64:64]
    disc = np.where(np.hypot(y, x) * 2 < 100, 0.0, -1000.0)
    return np.repeat(disc[None], 5, 0).astype(np.float32)


def noise_of(water, fraction, how=KNOWN, seed=1):
    change = at_dose(water, SPACING, how, fraction, seed=seed) - water
    return change[:, 44:84, 44:84]


def test_a_quarter_of_the_dose_adds_three_times_the_variance_that_a_half_adds(water):
    half, quarter = (noise_of(water, fraction).var() for fraction in (0.5, 0.25))
    assert quarter / half == pytest.approx(3, rel=0.05)  # (1 - a) / a


def test_fewer_milliamperes_and_thinner_slices_are_noisier(water):
    usual = noise_of(water, 0.25).std()
    assert noise_of(water, 0.25, Acquisition(exposure_mas=50.0, kvp=120.0, slice_thickness_mm=3.0)).std() > 1.7 * usual
    assert noise_of(water, 0.25, Acquisition(exposure_mas=200.0, kvp=120.0, slice_thickness_mm=1.0)).std() > 1.5 * usual


def test_slices_have_noise_of_their_own_and_the_mean_stays(water):
    noise = noise_of(water, 0.25)
    assert np.corrcoef(noise[0].ravel(), noise[4].ravel())[0, 1] == pytest.approx(0, abs=0.1)
    assert abs(noise.mean()) < 0.1 * noise.std()
    assert np.array_equal(noise_of(water, 0.25), noise)
    assert not np.array_equal(noise_of(water, 0.25, seed=2), noise)


def test_pixels_that_are_not_square_are_refused(water):
    with pytest.raises(ModelError, match="square"):
        at_dose(water, (3.0, 2.0, 1.0), KNOWN, 0.5, seed=1)


def test_what_is_assumed_is_said():
    assert assumed(KNOWN) == ()
    said = assumed(Acquisition(exposure_mas=3.0))
    assert [words.split()[-2] for words in said] == ["200", "120", "3", "standard"]
