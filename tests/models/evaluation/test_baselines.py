"""The simple filters do what their names say."""

import sys
import types

import numpy as np
import pytest

from models.contract import ModelError
from models.evaluation.baselines import bilateral, bm3d, gaussian, non_local_means, unsharp_mask


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


def test_bm3d_is_given_the_slice_and_its_noise(monkeypatch):
    given = {}

    def filtered(image, sigma_psd):
        given.update(dtype=image.dtype, sigma=sigma_psd)
        return image + 1

    monkeypatch.setitem(sys.modules, "bm3d", types.SimpleNamespace(bm3d=filtered))
    result = bm3d(np.zeros((8, 8), np.float32), sigma_hu=12.5)
    assert given == {"dtype": np.float64, "sigma": 12.5}
    assert result.dtype == np.float32
    assert (result == 1).all()


def test_without_its_package_bm3d_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ModelError, match=r"pacsnode\[evaluation\]"):
        bm3d(np.zeros((8, 8), np.float32), sigma_hu=12.5)


def test_an_unsharp_mask_steepens_the_edge_and_keeps_the_level(step):
    result = unsharp_mask(step, sigma_px=1.5, amount=0.5)
    before, after = step.mean(0), result.mean(0)
    assert after[32] - after[31] > 1.2 * (before[32] - before[31])
    assert result[:, 45:].mean() == pytest.approx(step[:, 45:].mean(), abs=1)
    np.testing.assert_array_equal(unsharp_mask(step, sigma_px=1.5, amount=0), step)
