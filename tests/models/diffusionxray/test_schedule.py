"""The cosine schedule: the released values, and its continuous view."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.diffusionxray.config import ScheduleConfig
from models.diffusionxray.schedule import cosine, even_steps, every_step

SCHEDULE = cosine(ScheduleConfig())


def test_has_the_published_values():
    assert SCHEDULE.steps == 2000
    assert SCHEDULE.alpha_bar.dtype == np.float64
    assert SCHEDULE.alpha_bar[0] == 0.9999
    assert SCHEDULE.alpha_bar[-1] == pytest.approx(6e-11, rel=0.02)
    assert SCHEDULE.beta[-1] == 0.9999


def test_the_first_66_betas_are_clipped_and_no_more():
    assert (SCHEDULE.beta[:66] == 1e-4).all()
    assert (SCHEDULE.beta[66:] > 1e-4).all()
    assert SCHEDULE.alpha_bar[65] == pytest.approx(0.9999**66, rel=1e-12)


def test_is_the_cosine_between_the_clipped_ends():
    """Ratios, since the clipped beginning moves all later ᾱ by one factor."""
    at = (np.array([1001, 1501]) / 2000 + 0.008) / 1.008 * np.pi / 2
    expected = np.divide(*np.cos(at[::-1]) ** 2)
    assert SCHEDULE.alpha_bar[1500] / SCHEDULE.alpha_bar[1000] == pytest.approx(expected, rel=1e-12)


def test_agrees_with_the_released_arithmetic_in_single_precision():
    at = torch.linspace(0, 2000, 2001) / 2000
    ideal = torch.cos((at + 0.008) / 1.008 * torch.pi * 0.5) ** 2
    ideal = ideal / ideal[0]
    released = torch.cumprod(1 - torch.clip(1 - ideal[1:] / ideal[:-1], 0.0001, 0.9999), 0)
    np.testing.assert_allclose(SCHEDULE.alpha_bar[:1900], released[:1900].double(), rtol=5e-6)
    np.testing.assert_allclose(SCHEDULE.alpha_bar, released.double(), rtol=5e-4)


def test_tables_belong_together():
    np.testing.assert_allclose(SCHEDULE.alpha**2 + SCHEDULE.sigma**2, 1, rtol=1e-15)
    np.testing.assert_allclose(SCHEDULE.log_snr, np.log(SCHEDULE.alpha / SCHEDULE.sigma), rtol=1e-12, atol=1e-12)
    assert (np.diff(SCHEDULE.log_snr) < 0).all()
    assert SCHEDULE.log_snr[0] == pytest.approx(0.5 * np.log(0.9999 / 0.0001), rel=1e-12)


@given(st.floats(0, 1999))
def test_time_and_log_snr_are_inverse(time):
    back = SCHEDULE.time_of(SCHEDULE.log_snr_of(np.array(time)))
    assert float(back) == pytest.approx(time, abs=1e-7)


def test_every_step_visits_all_and_ends_in_the_image():
    path = every_step(SCHEDULE)
    assert path.evaluations == 2000
    np.testing.assert_array_equal(path.time[:-1], np.arange(1999, -1, -1))
    assert (path.alpha[-1], path.sigma[-1]) == (1, 0)
    assert path.log_snr[-1] == np.inf
    assert every_step(SCHEDULE, 10).evaluations == 200
    assert every_step(SCHEDULE, 10).time[0] == 1999


@given(st.integers(2, 50))
def test_few_steps_are_even_in_log_snr_and_end_in_the_image(evaluations):
    path = even_steps(SCHEDULE, evaluations)
    assert path.evaluations == evaluations
    np.testing.assert_allclose(np.diff(path.log_snr[:-1], 2), 0, atol=1e-9)
    assert path.time[0] == 1999
    assert path.time[-2] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(path.alpha**2 + path.sigma**2, 1, rtol=1e-14)
    assert (path.alpha[-1], path.sigma[-1]) == (1, 0)
