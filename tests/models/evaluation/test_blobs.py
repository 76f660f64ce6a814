"""The blob detector finds what is put in, and is set to fire as seldom as it is asked to."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.contract import ModelError
from models.evaluation.blobs import WEAKEST, Candidate, candidates, threshold_for, touching

SPACING_MM = 0.5


def texture(seed, side=160):
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((side, side)), 2)
    return (0.02 * field / field.std()).astype(np.float32)


def blob(row, column, diameter_mm, contrast, side=160):
    y, x = np.mgrid[:side, :side]
    sigma = diameter_mm / SPACING_MM / (2 * np.sqrt(2))
    return (contrast * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * sigma**2))).astype(np.float32)


@pytest.mark.parametrize("diameter_mm", [5, 8, 12])
def test_the_surest_candidate_is_the_blob_at_its_place_and_about_its_size(diameter_mm):
    found = candidates(texture(0) + blob(70, 90, diameter_mm, 0.3), SPACING_MM)
    assert np.hypot(found[0].row - 70, found[0].column - 90) < diameter_mm / SPACING_MM / 4
    assert 1 / 1.6 < found[0].diameter_px * SPACING_MM / diameter_mm < 1.6
    assert found[0].score > 1.5 * found[1].score


def test_dark_blobs_are_no_candidates():
    found = candidates(texture(0) - blob(70, 90, 8, 0.3), SPACING_MM)
    assert all(np.hypot(one.row - 70, one.column - 90) > 4 for one in found)


def test_the_contrast_of_the_whole_picture_does_not_matter():
    picture = texture(1) + blob(60, 60, 8, 0.2)
    once, twice = candidates(picture, SPACING_MM), candidates(2 * picture + 0.1, SPACING_MM)
    assert [one.score for one in once] == pytest.approx([one.score for one in twice], rel=1e-3)


def test_an_even_field_has_no_candidates():
    assert candidates(np.full((160, 160), 0.3, np.float32), SPACING_MM) == []


def test_overlapping_sizes_are_one_candidate():
    found = candidates(texture(2) + blob(80, 80, 10, 0.4), SPACING_MM)
    assert sum(np.hypot(one.row - 80, one.column - 80) < 8 for one in found) == 1
    assert not any(touching(one, other) for one in found for other in found if one is not other)


def test_a_threshold_lets_so_many_through():
    pictures = [candidates(texture(seed), SPACING_MM) for seed in range(6)]
    for rate in (0.0, 0.5, 2.0):
        threshold = threshold_for(pictures, rate)
        assert sum(one.score >= threshold for found in pictures for one in found) == 6 * rate
    assert threshold_for([[Candidate(0, 0, 5, 9.0)]], 1.0) == WEAKEST
    with pytest.raises(ModelError, match="there are none"):
        threshold_for([], 1.0)


def test_a_blob_larger_than_the_picture_is_not_looked_for():
    assert candidates(texture(3, side=20), 0.2, diameters_mm=(18.0,)) == []
