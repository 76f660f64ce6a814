"""Degraded pictures: on the same grid, in the same place, as bright as before, and as noisy as was said."""

import time
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.simulation.degradation import (
    Degradation,
    DegradationRange,
    UnseenDegradation,
    bicubic_pair,
    coloured_noise,
    degrade,
    degrade_unseen,
    draw_degradation,
    draw_unseen,
)

SPACING_MM = 0.2


@pytest.fixture
def scene() -> np.ndarray:
    """Smooth structures of several sizes, the finer the fainter, about -0.9…0.9."""
    rng = np.random.default_rng(11)
    total = np.zeros((256, 256))
    for size, amplitude in ((3, 0.04), (8, 0.12), (25, 0.3)):
        layer = gaussian_filter(rng.standard_normal(total.shape), size, mode="wrap")
        total += amplitude * layer / layer.std()
    return total.clip(-0.95, 0.95).astype(np.float32)


def displacement(moved: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Least-squares shift (row, column) in pixels, by the gradient of the softened pictures."""
    moved, still = (gaussian_filter(np.float64(image), 3)[16:-16, 16:-16] for image in (moved, still))
    slopes = np.stack([slope.ravel() for slope in np.gradient(still)], 1)
    return np.linalg.lstsq(slopes, -(moved - still).ravel(), rcond=None)[0]


def test_the_displacement_is_measured_right(scene):
    """The ruler of the next tests finds a shift of 0.3 pixels."""
    spectrum = np.fft.fft2(scene)
    shift = np.exp(-2j * np.pi * np.fft.fftfreq(256)[:, None] * 0.3)
    assert displacement(np.fft.ifft2(spectrum * shift).real, scene) == pytest.approx([0.3, 0.0], abs=0.02)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_moves_and_the_mean_stays(scene, seed):
    how = draw_degradation(np.random.default_rng(seed))
    worse = degrade(scene, SPACING_MM, how, RNG())
    assert worse.shape == scene.shape
    assert worse.dtype == np.float32
    assert np.isfinite(worse).all()
    # Without the noise, which would move the ruler.
    quiet = replace(how, photons=np.inf, electronic=0.0)
    assert np.abs(displacement(degrade(scene, SPACING_MM, quiet, RNG()), scene)).max() < 0.05
    assert abs(float(worse.mean() - scene.mean())) < 0.004


@pytest.mark.parametrize("coarse", [1.5, 2.0, 2.7])
def test_a_coarser_detector_moves_nothing_even_where_it_does_not_divide(scene, coarse):
    part = scene[:251, :243]
    assert np.abs(displacement(degrade(part, SPACING_MM, Degradation(coarse=coarse), RNG()), part)).max() < 0.005
    assert np.abs(displacement(bicubic_pair(part, coarse), part)).max() < 0.005


def test_without_any_degradation_it_is_the_picture_itself(scene):
    np.testing.assert_allclose(degrade(scene, SPACING_MM, Degradation(), RNG()), scene, atol=1e-6)
    np.testing.assert_allclose(degrade_unseen(scene, SPACING_MM, UnseenDegradation(), RNG()), scene, atol=1e-6)


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_quantum_noise_follows_the_exposure(level):
    """Variance = 1 / (photons · exposure), through the slope of the logarithm."""
    how = Degradation(photons=2000.0, contrast_per_unit=1.5, correlation_px=0.6)
    flat = np.full((512, 512), level, np.float32)
    noise = degrade(flat, SPACING_MM, how, RNG()) - level
    assert noise.var() == pytest.approx(np.exp(1.5 * level) / 2000 / 1.5**2, rel=0.03)
    halved = degrade(flat, SPACING_MM, replace(how, photons=1000.0), RNG()) - level
    assert halved.var() / noise.var() == pytest.approx(2.0, rel=0.02)


def test_electronic_noise_grows_twice_as_fast_where_it_is_dense():
    how = Degradation(electronic=0.02, contrast_per_unit=1.5)
    sds = [degrade(np.full((256, 256), level, np.float32), SPACING_MM, how, RNG()).std() for level in (0.0, 0.5)]
    assert sds[0] == pytest.approx(0.02 / 1.5, rel=0.02)
    assert sds[1] / sds[0] == pytest.approx(np.exp(0.75), rel=0.02)


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("electronic", [0.0, 0.08])
def test_the_strongest_noise_does_not_shift_the_level(level, electronic):
    how = Degradation(photons=1 / 0.13**2, contrast_per_unit=2.0, correlation_px=0.2, electronic=electronic)
    assert how.noise_sd > 0.064
    flat = np.full((512, 512), level, np.float32)
    assert degrade(flat, SPACING_MM, how, RNG()).mean() == pytest.approx(level, abs=0.002)


@pytest.mark.parametrize("softness", [0.5, 0.8, 1.5])
def test_noise_has_the_spectrum_of_the_point_spread_and_unit_variance(softness):
    noise = coloured_noise((1024, 256), softness, RNG())
    assert noise.std() == pytest.approx(1.0, rel=0.02)
    power = (np.abs(np.fft.rfft(noise, axis=0)) ** 2).mean(1)
    f = np.fft.rfftfreq(1024)
    # The sampled Gaussian's own transform, so that aliasing is in the expectation too.
    taps = np.arange(-12, 13)
    point_spread = np.exp(-(taps**2) / (2 * softness**2))
    expected = (point_spread * np.cos(2 * np.pi * f[:, None] * taps)).sum(1) ** 2
    low, high = (f > 0.02) & (f < 0.06), (f > 0.2) & (f < 0.24)
    ratio, wanted = power[high].mean() / power[low].mean(), expected[high].mean() / expected[low].mean()
    assert ratio == pytest.approx(wanted, rel=0.08)


def test_a_picture_blurred_after_it_was_taken_has_soft_noise(scene):
    flat = np.zeros_like(scene)
    how = Degradation(blur_mm=0.4, photons=500.0, electronic=0.02)
    fine = degrade(flat, SPACING_MM, how, RNG())
    soft = degrade(flat, SPACING_MM, replace(how, noise_first=True), RNG())
    assert soft.std() == pytest.approx(fine.std(), rel=0.1)
    assert np.diff(soft).std() < 0.5 * np.diff(fine).std()


def test_blur_is_that_many_millimetres_wide():
    """Of a faint point, so that the exposure is nearly straight in the picture."""
    point = np.zeros((65, 65), np.float32)
    point[32, 32] = 0.01
    for spacing in (0.1, 0.2):
        spot = degrade(point, spacing, Degradation(blur_mm=0.4), RNG())
        away = (np.arange(65) - 32) * spacing
        assert np.sqrt((spot.sum(0) * away**2).sum() / spot.sum()) == pytest.approx(0.4, rel=0.01)


def test_grey_levels_are_those_of_the_bits(scene):
    rounded = degrade(scene, SPACING_MM, Degradation(bits=8), RNG())
    assert len(np.unique(rounded)) <= 256
    assert np.abs(rounded - scene).max() <= 1 / 255 + 1e-6


def test_same_seed_same_bits_other_seed_another(scene):
    for draw, act in ((draw_degradation, degrade), (draw_unseen, degrade_unseen)):
        assert draw(RNG()) == draw(RNG()) != draw(np.random.default_rng(8))
        one = act(scene, SPACING_MM, draw(RNG()), RNG())
        np.testing.assert_array_equal(one, act(scene, SPACING_MM, draw(RNG()), RNG()))
        assert not np.array_equal(one, act(scene, SPACING_MM, draw(RNG()), np.random.default_rng(8)))


def test_what_is_drawn_fills_its_range():
    span = DegradationRange()
    drawn = [draw_degradation(np.random.default_rng(seed)) for seed in range(400)]
    noise = np.array([how.noise_sd for how in drawn])
    assert span.noise_sd[0] <= noise.min() < 0.005
    assert 0.065 < noise.max() <= span.noise_sd[1]
    blur = np.array([how.blur_mm for how in drawn])
    assert blur.min() < 0.02
    assert 0.47 < blur.max() <= 0.5
    assert {how.noise_first for how in drawn} == {True, False}
    assert {how.bits for how in drawn} == {None, 8, 9, 10, 11, 12}
    assert 0.4 < np.mean([how.coarse == 1.0 for how in drawn]) < 0.6


def test_the_range_can_be_narrowed():
    mild = DegradationRange(blur_mm=(0.0, 0.1), noise_sd=(0.004, 0.006), native=1.0)
    drawn = [draw_degradation(np.random.default_rng(seed), mild) for seed in range(50)]
    assert max(how.blur_mm for how in drawn) <= 0.1
    assert max(how.noise_sd for how in drawn) <= 0.006001
    assert all(how.coarse == 1.0 for how in drawn)


@pytest.mark.parametrize("seed", range(6))
def test_the_unseen_family_moves_nothing_either(scene, seed):
    how = draw_unseen(np.random.default_rng(seed))
    worse = degrade_unseen(scene, SPACING_MM, how, np.random.default_rng(seed))
    assert worse.dtype == np.float32
    quiet = replace(how, row_sd=0.0, column_sd=0.0, cloud_sd=0.0, grain_sd=0.0)
    assert np.abs(displacement(degrade_unseen(scene, SPACING_MM, quiet, RNG()), scene)).max() < 0.03
    assert abs(float(worse.mean() - scene.mean())) < 0.004
    assert np.std(worse - scene) > 0.01


def test_each_part_of_the_unseen_family_does_something(scene):
    strong = {"motion_mm": 1.5, "row_sd": 0.02, "column_sd": 0.02, "cloud_sd": 0.03, "grain_sd": 0.02}
    strong |= {"dead_share": 0.01, "jpeg_quality": 50}
    assert {field.name for field in fields(UnseenDegradation)} == {*strong, "motion_deg", "cloud_mm"}
    for name, value in strong.items():
        worse = degrade_unseen(scene, SPACING_MM, UnseenDegradation(**{name: value}), RNG())
        assert np.std(worse - scene) > 0.0005, name


def test_structured_noise_runs_along_rows_or_columns():
    flat = np.zeros((128, 128), np.float32)
    rows = degrade_unseen(flat, SPACING_MM, UnseenDegradation(row_sd=0.02), RNG())
    assert np.ptp(rows, axis=1).max() < 1e-6
    assert rows[:, 0].std() == pytest.approx(0.02, rel=0.25)
    columns = degrade_unseen(flat, SPACING_MM, UnseenDegradation(column_sd=0.02), RNG())
    assert np.ptp(columns, axis=0).max() < 1e-6


def test_movement_smears_along_its_direction():
    point = np.zeros((65, 65), np.float32)
    point[32, 32] = 1
    away = (np.arange(65) - 32) * SPACING_MM
    smeared = degrade_unseen(point, SPACING_MM, UnseenDegradation(motion_mm=3.0, motion_deg=0.0), RNG())
    along, across = (np.sqrt((smeared.sum(axis) * away**2).sum() / smeared.sum()) for axis in (0, 1))
    assert along == pytest.approx(3.0 / 12**0.5, rel=0.05)  # of a line that long
    assert across < 0.05


def test_bicubic_down_and_up_takes_what_the_coarse_grid_cannot_hold():
    x = np.arange(256)
    slow, fast = (np.tile(0.5 * np.sin(2 * np.pi * x / period), (256, 1)).astype(np.float32) for period in (32, 3))
    assert np.std(bicubic_pair(slow, 2) - slow) < 0.01
    assert np.std(bicubic_pair(fast, 2)) < 0.35 * np.std(fast)


def test_a_crop_takes_milliseconds(scene):
    """Processor time of the quickest of some, so that a busy machine does not fail it."""
    strong = Degradation(blur_mm=0.5, photons=100.0, electronic=0.05, coarse=1.3, bits=8, noise_first=True)
    took = []
    for _ in range(8):
        start = time.process_time()
        degrade(scene, SPACING_MM, strong, RNG())
        took.append(time.process_time() - start)
    assert min(took) < 0.02


def RNG() -> np.random.Generator:
    return np.random.default_rng(7)
