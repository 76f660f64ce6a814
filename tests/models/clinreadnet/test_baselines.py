"""The simple ways to score: their statistics by known distributions, their fit by known planes."""

import numpy as np
import pytest

from models.clinreadnet.baselines import (
    asymmetric_gaussian,
    fitted,
    generalised_gaussian,
    noise_features,
    normalised,
    scene_features,
)
from models.contract import ModelError


@pytest.mark.parametrize(("draw", "shape"), [("standard_normal", 2.0), ("laplace", 1.0)])
def test_shapes_of_known_distributions(draw, shape):
    values = getattr(np.random.default_rng(1), draw)(size=200_000)
    found, spread = generalised_gaussian(values)
    assert found == pytest.approx(shape, rel=0.03)
    assert spread == pytest.approx(values.std(), rel=0.01)


def test_a_lopsided_distribution_has_two_widths():
    rng = np.random.default_rng(1)
    draws = np.abs(rng.standard_normal(400_000))
    side = rng.random(draws.size) < 3 / 4
    values = np.where(side, 3 * draws, -draws)
    shape, mean, left, right = asymmetric_gaussian(values)
    assert shape == pytest.approx(2, rel=0.05)
    assert (left, right) == pytest.approx((1, 3), rel=0.02)
    assert mean == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.03)


def test_nothing_at_all_has_a_shape_too():
    assert generalised_gaussian(np.zeros(5)) == (2.0, 0.0)
    assert asymmetric_gaussian(np.ones(5)) == (2.0, 0.0, 0.0, 1.0)


def test_detail_over_contrast_is_the_same_for_twice_the_contrast():
    image = np.random.default_rng(1).normal(0.5, 0.1, (64, 64))
    once, twice = normalised(image), normalised(0.5 + 2 * (image - 0.5))
    assert np.corrcoef(once.ravel(), twice.ravel())[0, 1] > 0.999
    assert abs(normalised(np.full((16, 16), 0.3))).max() < 1e-9


def test_thirty_six_features():
    hu = np.random.default_rng(1).normal(40, 20, (65, 64)).astype(np.float32)
    assert scene_features(hu).shape == (36,)
    assert np.isfinite(scene_features(np.full((64, 64), -1000, np.float32))).all()


def test_noise_is_measured_where_tissue_is_soft():
    rng = np.random.default_rng(1)
    quiet, loud = (rng.normal(40, spread, (128, 128)).astype(np.float32) for spread in (10, 40))
    assert np.exp(noise_features(quiet)[0]) == pytest.approx(10, rel=0.15)
    assert noise_features(loud)[0] > noise_features(quiet)[0] + 1
    assert np.isfinite(noise_features(np.full((64, 64), -1000, np.float32))).all()


def test_a_plane_is_found_again():
    rng = np.random.default_rng(1)
    rows = [rng.standard_normal(2) for _ in range(400)]
    scores = [2 + 0.5 * row[0] - 0.25 * row[1] for row in rows]
    regressor = fitted(noise_features, rows, scores)
    assert regressor.of_features(np.stack(rows[:20])) == pytest.approx(scores[:20], abs=0.02)
    assert regressor.of_features(np.array([[99.0, 0], [-99, 0]])).tolist() == [4, 0]
    with pytest.raises(ModelError):
        fitted(noise_features, [], [])
