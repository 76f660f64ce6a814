"""What fewer views and less current do, and that the noise adds up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.clinreadnet.degrade import Ingredients, Source, added_noise, ingredients_of, total_noise
from models.contract import Acquisition
from models.simulation.dose import Scanner
from models.simulation.geometry import ParallelBeam

SCANNER = Scanner(geometry=ParallelBeam(views=96, channels=96, pitch_mm=4.0), kernel="hann", photons=1e5, crosstalk=0.0)
THINNING = (1, 4, 8)


@pytest.fixture(scope="module")
def source() -> Source:
    """A water ellipse with a bone in it."""
    y, x = np.mgrid[-32:32, -32:32] * 5.0
    hu = np.where(np.hypot(y / 110, x / 140) < 1, 40.0, -1000.0)
    hu[np.hypot(y, x - 60) < 15] = 900
    return Source("a", hu.astype(np.float32), 5.0, "a", "ellipse", True, Acquisition())


@pytest.fixture(scope="module")
def parts(source: Source) -> Ingredients:
    return ingredients_of(source, SCANNER, THINNING, seed=1)


@given(st.floats(0.2, 6), st.sampled_from((1, 2, 4, 8)), st.floats(0.05, 1))
def test_own_and_added_noise_make_the_total(own, thinning, fraction):
    """Noise of all views has 1/thinning of the variance of that of the remaining ones."""
    added, total = added_noise(own, thinning, fraction), total_noise(own, fraction)
    assert added[0] >= -1e-12
    assert added[0] + own**2 / thinning == pytest.approx(total[0])
    assert added[1] == total[1]


def test_drawn_slices_get_all_noise_and_scanned_ones_what_is_missing():
    assert added_noise(0.0, 8, 0.25) == total_noise(0.0, 0.25) == (4, 16)
    assert added_noise(1.0, 1, 1.0) == (0, 0)
    assert added_noise(1.0, 1, 0.5) == pytest.approx((1, 3))


def test_all_views_bring_no_streaks_and_fewer_bring_more(parts):
    inside = np.hypot(*np.mgrid[-32:32, -32:32]) < 18
    streaks = [float(plane[inside].std()) for plane in parts.streaks]
    assert streaks[0] == 0
    assert 0.2 < streaks[1] < streaks[2]


def test_the_anatomy_keeps_its_resolution(parts, source):
    assert parts.base is source.hu
    assert parts.own_noise == 0


def test_another_kernel_changes_edges_and_not_levels(source):
    soft = ingredients_of(source, replace(SCANNER, kernel="soft"), (1,), seed=1)
    change = soft.base - source.hu
    y, x = np.mgrid[-32:32, -32:32] * 5.0
    assert np.abs(change[np.hypot(y + 50, x + 50) < 15]).max() < 15
    steepest = [np.abs(np.diff(image[32, 36:52])).max() for image in (soft.base, source.hu)]
    assert steepest[0] < 0.95 * steepest[1]


def test_noise_of_fewer_views_at_the_same_current_grows_with_the_root(parts):
    spread = [float(plane[16:48, 16:48].std()) for plane in parts.quantum]
    assert spread[1] / spread[0] == pytest.approx(2, rel=0.15)
    assert spread[2] / spread[0] == pytest.approx(8**0.5, rel=0.15)


def test_mixing_is_a_weighted_sum(parts):
    fraction = 0.25
    wanted = parts.base + parts.streaks[1] + 2 * parts.quantum[1] - 4 * parts.electronic[1]
    assert np.allclose(parts.mixed(1, fraction, signs=(1, -1)), wanted, atol=1e-3)


def test_a_scanned_slice_at_full_current_with_all_views_is_itself():
    rng = np.random.default_rng(1)
    base = rng.normal(40, 10, (8, 8)).astype(np.float32)
    noise = rng.normal(0, 10, (1, 8, 8)).astype(np.float32)
    parts = Ingredients(base, np.zeros_like(noise), noise, noise, 1.5, (1,))
    assert np.array_equal(parts.mixed(0, 1.0), base)


def test_own_noise_is_measured_against_what_full_current_gives(source):
    y, x = np.mgrid[-32:32, -32:32] * 5.0
    water = np.where(np.hypot(y / 140, x / 150) < 1, 40.0, -1000.0).astype(np.float32)
    clean = replace(source, hu=water)
    noise = ingredients_of(clean, SCANNER, (1,), seed=5).quantum[0]
    scanned = replace(clean, hu=water + 3 * noise, noise_free=False)
    assert ingredients_of(scanned, SCANNER, (1,), seed=9).own_noise == pytest.approx(3, rel=0.15)
    empty = replace(scanned, hu=np.full((64, 64), -1000, np.float32))
    assert ingredients_of(empty, SCANNER, (1,), seed=9).own_noise == 1.0
