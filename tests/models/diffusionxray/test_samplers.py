"""Samplers against Gaussian data, whose score, flow and marginals are known exactly; seeds.

x_0 ~ N(MEAN, VARIANCE): then E[ε | x_t] = σ (x_t − α MEAN) / (α² VARIANCE + σ²), and the probability flow keeps
(x_t − α MEAN) / √(α² VARIANCE + σ²) constant.
"""

import hashlib
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.diffusionxray.config import ScheduleConfig
from models.diffusionxray.samplers import Noise, ancestral, ddim, dpm_solver, refine, seed_of
from models.diffusionxray.schedule import Path, cosine, even_steps, every_step

MEAN, VARIANCE = 0.2, 0.09
SCHEDULE = cosine(ScheduleConfig())
COARSE = cosine(ScheduleConfig(steps=100))
LIKE = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
NOISE = Noise(seed_of("1.2.3"))


def knows(path: Path, variance: float | np.ndarray = VARIANCE, mean: float = MEAN):
    """The ideal network: the mean noise in Gaussian data, at the path's own α and σ."""
    at = {time: (alpha, sigma) for time, alpha, sigma in zip(path.time[:-1], path.alpha, path.sigma, strict=False)}

    def noise_in(x: torch.Tensor, time: float) -> torch.Tensor:
        alpha, sigma = at[time]
        return sigma * (x - alpha * mean) / torch.as_tensor(alpha**2 * variance + sigma**2)

    return noise_in


def flowed(path: Path, index: int, start: torch.Tensor) -> torch.Tensor:
    """Where the probability flow takes the start, exactly."""
    (alpha, sigma), (alpha_0, sigma_0) = ((path.alpha[i], path.sigma[i]) for i in (index, 0))
    spread = math.sqrt((alpha**2 * VARIANCE + sigma**2) / (alpha_0**2 * VARIANCE + sigma_0**2))
    return alpha * MEAN + spread * (start - alpha_0 * MEAN)


def errors(sampler, evaluations):
    """Largest distance from the exact flow at t = 0, per number of evaluations."""
    found = []
    for count in evaluations:
        path = even_steps(SCHEDULE, count, exact_end=False)
        out = sampler(knows(path), path, LIKE, NOISE, limit=None)
        found.append(float((out - flowed(path, -1, NOISE.field(0, LIKE))).abs().max()))
    return found


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpm_solver, 2)])
def test_converges_to_the_probability_flow_at_its_order(sampler, order):
    found = errors(sampler, (80, 160, 320))
    measured = [math.log2(before / after) for before, after in pairwise(found)]
    assert measured == pytest.approx([order, order], abs=0.15)


def test_the_solver_needs_far_fewer_evaluations_than_ddim():
    assert errors(dpm_solver, (20,)) < errors(ddim, (80,))


@pytest.mark.parametrize("sampler", [ancestral, ddim, dpm_solver])
def test_the_last_step_is_exact(sampler):
    """The result is x̂_0 of the last state: data without any spread come back without any noise."""
    path = even_steps(SCHEDULE, 12)
    out = sampler(knows(path, variance=0.0), path, LIKE, NOISE, limit=None)
    assert float((out - MEAN).abs().max()) < 1e-12


def test_the_released_last_step_would_leave_one_percent_of_noise():
    path = even_steps(SCHEDULE, 12, exact_end=False)
    out = ddim(knows(path, variance=0.0), path, LIKE, NOISE, limit=None)
    assert float((out - path.alpha[-1] * MEAN).std()) == pytest.approx(0.01, rel=0.05)


def ancestral_moments(path: Path) -> tuple[float, float]:
    """Mean and variance of what ancestral sampling gives with the ideal network: it is linear in x."""
    mean, variance = 0.0, 1.0
    for index, (alpha_t, alpha_s) in enumerate(pairwise(path.alpha)):
        var_t, var_s = path.sigma[index] ** 2, path.sigma[index + 1] ** 2
        slope = alpha_t * VARIANCE / (alpha_t**2 * VARIANCE + var_t)  # of x̂_0
        kept = alpha_t / alpha_s
        beta = 1 - kept**2
        gain = alpha_s * beta / var_t * slope + kept * var_s / var_t
        shift = alpha_s * beta / var_t * (1 - slope * alpha_t) * MEAN
        mean, variance = gain * mean + shift, gain**2 * variance + beta * var_s / var_t
    return mean, variance


@pytest.mark.parametrize("sampler", [ancestral, lambda *given, **told: ddim(*given, eta=1.0, **told)])
def test_ancestral_marginals_are_the_analytic_ones(sampler):
    path = every_step(COARSE)
    out = sampler(knows(path), path, LIKE, NOISE, limit=None)
    mean, variance = ancestral_moments(path)
    count = out.numel()
    assert float(out.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / count))
    assert float(out.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / count))


def test_ancestral_marginals_converge_to_the_data():
    short = [
        abs(ancestral_moments(every_step(cosine(ScheduleConfig(steps=steps))))[1] - VARIANCE) for steps in (250, 500)
    ]
    assert math.log2(short[0] / short[1]) == pytest.approx(1, abs=0.3)
    mean, variance = ancestral_moments(every_step(SCHEDULE))
    assert mean == pytest.approx(MEAN, abs=1e-3)
    assert variance == pytest.approx(VARIANCE, rel=0.01)


def test_ddim_with_eta_1_is_ancestral_sampling():
    path = every_step(COARSE)
    one = ancestral(knows(path), path, LIKE, NOISE)
    other = ddim(knows(path), path, LIKE, NOISE, eta=1.0)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sampler", [ddim, dpm_solver])
def test_deterministic_samplers_have_the_ancestral_marginals_in_the_end(sampler):
    """Coordinates of different variance: the exact flow is diagonal, as is any covariance in its own basis."""
    variance = np.linspace(0.01, 0.25, 64)  # per column
    path = even_steps(SCHEDULE, 200)
    like = torch.zeros(1, 1, 4000, 64, dtype=torch.float64)
    out = sampler(knows(path, variance), path, like, NOISE, limit=None)
    np.testing.assert_allclose(out[0, 0].var(0), variance, rtol=4.5 * math.sqrt(2 / 4000) + 0.02)
    np.testing.assert_allclose(out[0, 0].mean(0), MEAN, atol=4.5 * 0.5 / math.sqrt(4000))


def test_the_conditional_posterior_is_sampled():
    """y = x_0 + n: the ideal network that is told y samples N(m(y), v), v = VARIANCE s² / (VARIANCE + s²)."""
    y, noise_variance = 0.5, 0.04
    v = VARIANCE * noise_variance / (VARIANCE + noise_variance)
    m = (MEAN * noise_variance + y * VARIANCE) / (VARIANCE + noise_variance)
    path = even_steps(SCHEDULE, 40)
    out = dpm_solver(knows(path, v, m), path, LIKE, NOISE, limit=None)
    assert float(out.mean()) == pytest.approx(m, abs=4 * math.sqrt(v / out.numel()))
    assert float(out.var()) == pytest.approx(v, rel=4 * math.sqrt(2 / out.numel()) + 0.01)


@pytest.mark.parametrize("sampler", [ancestral, ddim, dpm_solver])
def test_images_stay_in_range_whatever_the_network_says(sampler):
    path = even_steps(SCHEDULE, 5)
    out = sampler(lambda x, _time: 50 * torch.sin(40 * x), path, LIKE, NOISE)
    assert float(out.abs().max()) <= 1


# The flow: x ~ N(MEAN, VARIANCE), m its posterior mean, so that m and x have covariance var(m).
SAFE_VARIANCE, START_SD = 0.06, 0.05
START_VARIANCE = SAFE_VARIANCE + START_SD**2


def ideal_velocity(state: torch.Tensor, t: float) -> torch.Tensor:
    """E[x − Z_0 | Z_t], linear for Gaussians."""
    variance = (1 - t) ** 2 * START_VARIANCE + t**2 * VARIANCE + 2 * t * (1 - t) * SAFE_VARIANCE
    covariance = (1 - t) * (SAFE_VARIANCE - START_VARIANCE) + t * (VARIANCE - SAFE_VARIANCE)
    return covariance / variance * (state - MEAN)


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(1)
    safe = MEAN + math.sqrt(SAFE_VARIANCE) * rng.standard_normal(LIKE.shape)
    truth = safe + math.sqrt(VARIANCE - SAFE_VARIANCE) * rng.standard_normal(LIKE.shape)
    return torch.from_numpy(safe), torch.from_numpy(truth)


def test_the_flow_converges_to_its_transport_at_first_order():
    safe, _ = pairs()
    start = safe + START_SD * NOISE.field(0, safe)
    exact = MEAN + math.sqrt(VARIANCE / START_VARIANCE) * (start - MEAN)
    found = [
        float((refine(ideal_velocity, safe, NOISE, steps=steps, start_sd=START_SD) - exact).abs().max())
        for steps in (32, 64, 128)
    ]
    assert [math.log2(before / after) for before, after in pairwise(found)] == pytest.approx([1, 1], abs=0.1)


def test_four_steps_of_the_flow_look_like_the_data_and_err_less_than_a_sample_of_the_posterior():
    safe, truth = pairs()
    out = refine(ideal_velocity, safe, NOISE, steps=4, start_sd=START_SD)
    assert float(out.var()) == pytest.approx(VARIANCE, rel=0.1)
    assert float(safe.var()) < 0.75 * VARIANCE
    posterior_sample = 2 * (VARIANCE - SAFE_VARIANCE)
    assert float((out - truth).square().mean()) < 0.75 * posterior_sample
    assert float((out - truth).square().mean()) > float((safe - truth).square().mean())


def test_the_flow_is_asked_at_the_beginning_of_each_step():
    zero = torch.zeros(1, 1, 1, 1)
    out = refine(torch.full_like, zero, NOISE, steps=4, start_sd=0.0)
    assert float(out) == (0 + 0.25 + 0.5 + 0.75) / 4


def test_no_step_gives_the_conservative_restoration():
    safe, _ = pairs()
    assert refine(ideal_velocity, safe, NOISE, steps=0, start_sd=START_SD) is safe


def test_the_seed_of_an_image_is_the_head_of_a_known_hash():
    assert seed_of("abc") == 0xBA7816BF8F01CFEA  # FIPS 180-2, appendix B.1
    uid = "1.2.840.113619.2.5.1762583153.215519.978957063.78"
    assert seed_of(uid) == int(hashlib.sha256(uid.encode()).hexdigest()[:16], 16)
    assert seed_of(uid) != seed_of(uid + "9")


@pytest.mark.parametrize("sampler", [ancestral, ddim, dpm_solver])
def test_two_runs_are_equal_to_the_bit_and_other_seeds_differ(sampler):
    path = even_steps(COARSE, 8)
    like = torch.zeros(1, 1, 16, 16)
    torch.manual_seed(1)
    one = sampler(knows(path), path, like, Noise(seed_of("1.2.3")))
    torch.manual_seed(2)
    assert torch.equal(one, sampler(knows(path), path, like, Noise(seed_of("1.2.3"))))
    assert not torch.equal(one, sampler(knows(path), path, like, Noise(seed_of("1.2.4"))))
    assert not torch.equal(one, sampler(knows(path), path, like, Noise(seed_of("1.2.3"), sample=1)))


@given(st.integers(0, 2**64 - 1), st.integers(0, 3), st.integers(0, 2000))
def test_a_noise_field_depends_on_its_key_alone(seed, sample, index):
    like = torch.zeros(1, 1, 3, 5)
    field = Noise(seed, sample).field(index, like)
    Noise(seed, sample).field(index + 1, like)
    assert torch.equal(field, Noise(seed, sample).field(index, like))
    assert not torch.equal(field, Noise(seed, sample).field(index + 1, like))
    assert not torch.equal(field, Noise(seed, sample + 1).field(index, like))
    assert not torch.equal(field, Noise(seed ^ 1, sample).field(index, like))


def test_noise_is_standard_normal():
    field = NOISE.field(3, torch.zeros(1, 1, 500, 500)).numpy()
    assert field.mean() == pytest.approx(0, abs=4 / 500)
    assert field.std() == pytest.approx(1, abs=4 / 500 / math.sqrt(2))
    assert (np.abs(field) < 1.959964).mean() == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05) / 500)
    assert np.corrcoef(field[0, 0, 1:].ravel(), field[0, 0, :-1].ravel())[0, 1] == pytest.approx(0, abs=4 / 500)
