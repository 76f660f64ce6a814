"""The simple filters do what their names say."""

import numpy as np
import pytest

from models.evaluation.baselines import bilateral, gaussian, non_local_means


@pytest.fixture
def step():
    """An edge of 800 HU with 20 HU of noise, (64, 64)."""
    rng = np.random.default_rng(0)
    image = np.where(np.arange(64) < 32, -760.0, 40.0) * np.ones((64, 1))
    return (image + 20 * rng.standard_normal((64, 64))).astype(np.float32)


FILTERS = {
    "gaussian": lambda image: gaussian(image, sigma_px=1.5),
    "bilateral": lambda image: bilateral(image, sigma_px=1.5, sigma_hu=60),
    "non-local means": lambda image: non_local_means(image, strength_hu=30),
}


@pytest.mark.parametrize("name", FILTERS)
def test_noise_falls_and_the_level_stays(name, step):
    result = FILTERS[name](step)
    assert result.dtype == np.float32
    assert result[:, 40:].std() < 0.6 * step[:, 40:].std()
    assert result[:, 40:].mean() == pytest.approx(step[:, 40:].mean(), abs=1)


@pytest.mark.parametrize(("name", "keeps"), [("gaussian", False), ("bilateral", True), ("non-local means", True)])
def test_only_the_gaussian_blurs_the_edge(name, keeps, step):
    profile = FILTERS[name](step).mean(0)
    assert (profile[32] - profile[31] > 700) == keeps
