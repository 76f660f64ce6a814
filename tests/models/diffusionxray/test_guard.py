"""Bounds: theorems held for drawn images, coverage for drawn calibration sets, numbers against white noise."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage, stats

from models.contract import ModelError
from models.diffusionxray.guard import (
    cap_residual,
    conformal_quantile,
    frequency_split,
    local_noise_sd,
    mean_and_spread,
    range_null,
    redegradation,
    risk_controlling_widening,
    share_decided,
    share_open,
    widening_needed,
)

values = st.floats(-(2.0**17), 2.0**17, width=32)


def image(elements):
    return arrays(np.float32, (2, 3), elements=elements)


def noise(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(image(values), image(values), image(st.floats(0, 2.0**12, width=32)), st.floats(0, 3))
def test_the_cap_is_never_exceeded_in_exact_arithmetic(safe, generated, noise_sd, cap):
    out = cap_residual(safe, generated, noise_sd, cap)
    for m, s, told in zip(safe.flat, noise_sd.flat, out.flat, strict=True):
        assert abs(Fraction(float(told)) - Fraction(float(m))) <= Fraction(cap) * Fraction(float(s))


@given(image(values), image(st.floats(0, 2.0**12, width=32)), st.floats(-0.999, 0.999))
def test_the_cap_leaves_what_is_within_it(safe, noise_sd, part):
    generated = (safe + part * 3 * noise_sd).astype(np.float32)
    within = np.abs(generated.astype(np.float64) - safe) <= 2.999 * noise_sd.astype(np.float64)
    # one float32 of rounding at most: bounds are rounded towards m
    out = cap_residual(safe, generated, noise_sd, 3)
    np.testing.assert_array_equal(out[within], np.clip(generated, out, out)[within])
    assert (np.abs(out.astype(np.float64) - generated)[within] <= np.spacing(np.abs(generated))[within]).all()


def test_the_cap_by_hand():
    safe, s = np.zeros((1, 3), np.float32), np.array([[1, 1, 0]], np.float32)
    out = cap_residual(safe, np.array([[10, -1, 5]], np.float32), s, 2.0)
    assert out[0, 0] == pytest.approx(2, rel=1e-6)
    assert out[0, 1:].tolist() == [-1, 0]


def test_a_bound_that_rounds_up_to_a_single_precision_number_is_not_reached():
    """1 + k s is 2⁻⁵⁴ below 1 + 2⁻²³, which double precision cannot tell apart."""
    one, s = np.ones((1, 1), np.float32), np.full((1, 1), 2.0**-23, np.float32)
    assert cap_residual(one, 2 * one, s, 1 - 2.0**-31).item() == 1.0
    assert cap_residual(one, 2 * one, s, 1 + 2.0**-20).item() == 1 + 2.0**-23


def test_a_cap_that_bounds_nothing_is_refused():
    one = np.ones((1, 1), np.float32)
    for cap in (3.1, -1.0, math.nan):
        with pytest.raises(ModelError, match="cap"):
            cap_residual(one, one, one, cap)
    for bad in (-one, one * np.nan, one * np.inf):
        with pytest.raises(ModelError, match="noise"):
            cap_residual(one, one, bad, 3)
    for safe, generated in ((one * np.nan, one), (one, one * np.inf)):
        with pytest.raises(ModelError, match="not finite"):
            cap_residual(safe, generated, one, 3)


def test_the_generator_cannot_shift_a_level():
    safe = noise(64, 64)
    out = frequency_split(safe, safe + 0.5, split_mm=1.6, spacing_yx_mm=(0.2, 0.2))
    np.testing.assert_allclose(out, safe, atol=1e-6)


def test_fine_structure_is_the_generators_and_coarse_structure_the_safe_one():
    """A wave of frequency f passes with 1 − exp(−2 π² σ² f²)."""
    safe = np.zeros((512, 8), np.float32)
    for cycles in (8, 32, 128):  # whole and half periods, so that mirroring continues them
        wave = np.cos(np.pi * cycles * np.arange(512) / 511)[:, None].repeat(8, 1).astype(np.float32)
        out = frequency_split(safe, wave, split_mm=1.6, spacing_yx_mm=(0.2, 0.2))
        passed = 1 - math.exp(-2 * (math.pi * 8 * cycles / 2 / 511) ** 2)
        np.testing.assert_allclose(out, passed * wave, atol=2e-4)


@pytest.mark.parametrize("diameter_mm", [5.0, 10.0, 20.0])
def test_the_contrast_of_a_generated_disc_is_cut_as_told(diameter_mm):
    at = (np.arange(401) - 200) * 0.1
    disc = (np.hypot(at[:, None], at) < diameter_mm / 2).astype(np.float32)
    out = frequency_split(np.zeros_like(disc), disc, split_mm=1.6, spacing_yx_mm=(0.1, 0.1))
    assert out[200, 200] == pytest.approx(share_decided(diameter_mm, 1.6), abs=0.005)
    assert share_decided(5.0, 1.6) == pytest.approx(0.295, abs=0.001)


def test_spacing_is_that_of_each_axis():
    spot = np.zeros((65, 65), np.float32)
    spot[32, 32] = 1
    coarse = spot - frequency_split(np.zeros_like(spot), spot, split_mm=2.0, spacing_yx_mm=(0.5, 1.0))
    expected = ndimage.gaussian_filter(spot.astype(np.float64), (4, 2))
    np.testing.assert_allclose(coarse, expected, atol=1e-7)


def mean_of_blocks(x):
    return x.reshape(x.shape[0] // 4, 4, x.shape[1] // 4, 4).mean((1, 3))


def spread_over_blocks(y):
    return y.repeat(4, 0).repeat(4, 1)


def test_the_range_is_the_measurements_and_the_null_space_the_generators():
    measured, generated = noise(4, 8), noise(16, 32, seed=2)
    out = range_null(generated, measured, mean_of_blocks, spread_over_blocks)
    np.testing.assert_allclose(mean_of_blocks(out), measured, atol=1e-6)
    unseen = generated - spread_over_blocks(mean_of_blocks(generated))
    np.testing.assert_allclose(out - spread_over_blocks(measured), unseen, atol=1e-6)


def test_unit_noise_looks_consistent_and_an_added_nodule_does_not():
    measured = noise(256, 256) * 0.1
    sd = np.full((256, 256), 0.1, np.float32)
    truth = np.zeros((256, 256), np.float32)
    good = redegradation(truth, measured, sd, block_px=32, block_z=3.0)
    assert good.blocks.shape == (8, 8)
    assert good.outliers <= 1 / 64
    assert max(map(abs, good.correlation_yx)) < 4 / 256
    at = np.arange(256) - 112
    truth += 0.1 * (np.hypot(at[:, None], at) < 16)
    bad = redegradation(truth, measured, sd, block_px=32, block_z=3.0)
    assert bad.blocks[3, 3] == bad.worst > 10
    assert bad.outliers >= 1 / 64


def test_correlation_of_the_residual_is_that_of_each_axis():
    white = noise(301, 300)
    along_y = ((white[1:] + white[:-1]) / math.sqrt(2)).astype(np.float32)
    found = redegradation(along_y, np.zeros_like(along_y), np.ones_like(along_y), block_px=32, block_z=3.0)
    assert found.correlation_yx == pytest.approx((0.5, 0), abs=4 / 300)


def test_block_chi_square_by_hand():
    z = np.zeros((5, 4), np.float32)
    z[0, 0], z[0, 2] = 4, 2
    found = redegradation(z, np.zeros_like(z), np.ones_like(z), block_px=2, block_z=3.0)
    expected = [[12 / math.sqrt(8), 0], [-math.sqrt(2), -math.sqrt(2)]]
    np.testing.assert_allclose(found.blocks, expected)
    assert (found.outliers, found.worst) == (0.25, pytest.approx(12 / math.sqrt(8)))
    with pytest.raises(ModelError, match="positive"):
        redegradation(z, z, z, block_px=2, block_z=3.0)
    with pytest.raises(ModelError, match="at least 8"):
        redegradation(z, z, np.ones_like(z), block_px=8, block_z=3.0)


def test_mean_and_spread_of_two_samples():
    mean, sd = mean_and_spread([np.array([[1.0]], np.float32), np.array([[3.0]], np.float32)])
    assert (mean.item(), sd.item()) == (2, pytest.approx(math.sqrt(2)))
    with pytest.raises(ModelError, match="one sample"):
        mean_and_spread([mean])


def test_local_noise_is_found_on_a_slope():
    y, x = np.mgrid[:200, :230]
    scale = np.where(x < 115, 1.0, 4.0)
    found = local_noise_sd((0.3 * x - 0.2 * y + scale * noise(200, 230)).astype(np.float32))
    assert found.shape == (200, 230)
    assert np.median(found[:, :90]) == pytest.approx(1, rel=0.08)  # the largest of three answers
    assert np.median(found[:, 140:]) == pytest.approx(4, rel=0.08)
    with pytest.raises(ModelError, match="more than 16"):
        local_noise_sd(np.zeros((18, 40), np.float32))


def test_all_is_open_in_noise_and_nothing_where_detail_stands_out():
    image, sd = noise(120, 120), np.ones((120, 120), np.float32)
    open_to = share_open(image, sd, (1.5, 3.0))
    assert (open_to == 1).mean() > 0.98
    image[:, 60:62] += 15
    open_to = share_open(image, sd, (1.5, 3.0))
    assert (open_to[:, 59:63] == 0).all()
    assert (open_to[:, :50] == 1).mean() > 0.98
    assert (share_open(np.zeros_like(image), 0 * sd, (1.5, 3.0)) == 1).all()  # no detail, no noise


def test_a_share_of_a_change_is_never_more_than_the_change():
    image, changed = noise(60, 60), noise(60, 60, seed=2)
    open_to = share_open(image, np.full((60, 60), 0.3, np.float32), (1.5, 3.0))
    assert open_to.min() == 0
    assert 0 < open_to.max() <= 1
    held = image + open_to * (changed - image)
    assert (np.abs(held - image) <= np.abs(changed - image) + 1e-6).all()


@pytest.mark.parametrize(("softness_px", "within"), [(0.0, 0.1), (0.6, 0.2), (1.0, 0.3)])
def test_soft_noise_is_told_nearly_as_large_as_it_is(softness_px, within):
    soft = ndimage.gaussian_filter(noise(256, 256), softness_px) if softness_px else noise(256, 256)
    told = np.median(local_noise_sd((soft / soft.std()).astype(np.float32)))
    assert told == pytest.approx(1, abs=within)


def test_the_conformal_rank_by_hand():
    assert conformal_quantile(np.arange(1.0, 100), 0.1) == 90
    assert conformal_quantile([3.0, 1.0, 2.0, 4.0], 0.2) == 4
    assert conformal_quantile([5.0, 1.0, 2.0], 0.5) == 2
    with pytest.raises(ModelError, match="too few"):
        conformal_quantile(np.arange(8.0), 0.1)
    assert conformal_quantile(np.arange(9.0), 0.1) == 8


@pytest.mark.parametrize(("count", "alpha"), [(19, 0.1), (50, 0.1), (99, 0.05)])
def test_conformal_coverage_is_the_finite_sample_one(count, alpha):
    """Exchangeable but not independent: all scores of one set share a scale. Expectation k / (n + 1), law Beta."""
    rng = np.random.default_rng(count)
    rank = math.ceil(round((count + 1) * (1 - alpha), 9))
    shared = rng.lognormal(size=20_000)
    scores = rng.exponential(size=(20_000, count + 1)) * shared[:, None]
    limit = np.array([conformal_quantile(row, alpha) for row in scores[:, :-1]])
    covered = (scores[:, -1] <= limit).mean()
    expected = rank / (count + 1)
    assert 1 - alpha <= expected <= 1 - alpha + 1 / (count + 1)
    assert covered == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20_000))
    coverage_given_set = 1 - np.exp(-limit / shared)
    assert stats.kstest(coverage_given_set, stats.beta(rank, count + 1 - rank).cdf).pvalue > 0.001


def test_the_widening_that_an_image_needs():
    truth = np.array([[1.0, 2.0, 0.0, -6.0]], np.float32)
    centre, spread = np.zeros_like(truth), np.array([[1.0, 1.0, 0.0, 2.0]], np.float32)
    assert widening_needed(truth, centre, spread, 0.0) == 3
    assert widening_needed(truth, centre, spread, 0.25) == 2
    assert widening_needed(truth, centre, spread, 0.75) == 0
    assert widening_needed(truth, centre, spread, 1.0) == 0
    assert widening_needed(truth, centre, np.zeros_like(truth), 0.0) == math.inf


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 0.3]))
def test_the_widening_leaves_no_more_than_the_share_outside(seed, share):
    rng = np.random.default_rng(seed)
    truth, centre = rng.standard_normal((2, 6, 7)).astype(np.float32)
    spread = rng.exponential(size=(6, 7)).astype(np.float32)
    needed = widening_needed(truth, centre, spread, share)
    error = np.abs(truth.astype(np.float64) - centre)
    assert (error / spread > needed).mean() <= share
    assert (error / spread >= needed).mean() > share


def test_widened_intervals_cover_unseen_images():
    """Images whose sampler tells a third of the true error: the calibrated interval holds all the same."""
    rng = np.random.default_rng(1)

    def one():
        spread = rng.lognormal(size=(12, 12)).astype(np.float32)
        difficulty = rng.lognormal(sigma=0.3)
        return (3 * difficulty * spread * rng.standard_normal((12, 12))).astype(np.float32), spread

    covered = []
    for _ in range(60):
        needed = [
            widening_needed(error, np.zeros_like(error), spread, 0.05) for error, spread in (one() for _ in range(49))
        ]
        widening = conformal_quantile(needed, 0.1)
        assert widening > 3
        for _ in range(10):
            error, spread = one()
            covered.append((np.abs(error) > widening * spread).mean() <= 0.05)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.06)


def test_risk_control_holds_with_its_confidence():
    """Shares of pixels outside, exponential in λ with a rate per image: expected risk is known."""
    rng = np.random.default_rng(1)
    widenings = np.linspace(0, 8, 161)
    missed = []
    for _ in range(400):
        rate = rng.uniform(0.5, 1.5, 300)
        chosen = risk_controlling_widening(np.exp(-rate[:, None] * widenings), widenings, alpha=0.2, delta=0.1)
        missed.append((math.exp(-0.5 * chosen) - math.exp(-1.5 * chosen)) / chosen > 0.2)
    assert np.mean(missed) <= 0.1


def test_risk_control_takes_the_last_crossing_and_refuses_too_few_images():
    risks = np.array([[0.9, 0.1, 0.4, 0.0, 0.0]] * 200)
    chosen = risk_controlling_widening(risks, np.arange(5.0), alpha=0.3, delta=0.1)
    assert chosen == 3
    with pytest.raises(ModelError, match="more images"):
        risk_controlling_widening(np.zeros((12, 5)), np.arange(5.0), alpha=0.3, delta=0.1)
    assert risk_controlling_widening(np.zeros((13, 5)), np.arange(5.0), alpha=0.3, delta=0.1) == 0
