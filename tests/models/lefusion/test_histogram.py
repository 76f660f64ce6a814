"""Histograms of lesions: nothing is dropped, nothing is asked that training never showed."""

import numpy as np
import pytest

from models.contract import ModelError
from models.lefusion.histogram import LIVER, LUNG, PRESETS, histogram, jittered, preset, wasserstein_hu


def test_voxels_beyond_the_window_are_in_the_outermost_bins():
    hu = np.array([-3000, -1001, -1000, -30, 399, 400, 2500], np.float32)
    shares = histogram(hu, np.ones(7, bool))
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    assert shares[0] == pytest.approx(3 / 7)
    assert shares[-1] == pytest.approx(3 / 7)
    assert shares[11] == pytest.approx(1 / 7)


def test_only_the_lesion_counts_and_an_empty_one_is_refused():
    hu = np.array([[-900, 50], [60, -900]], np.float32)
    assert histogram(hu, hu > 0)[12] == 1
    with pytest.raises(ModelError, match="without a voxel"):
        histogram(hu, np.zeros((2, 2), bool))


@pytest.mark.parametrize(
    ("texture", "mean", "sd", "above", "below"),
    [("ground-glass", -343, 238, 0.13, 0.57), ("part-solid", -127, 176, 0.41, 0.19), ("solid", 69, 56, 0.97, 0.0)],
)
def test_the_presets_are_the_published_ones(texture, mean, sd, above, below):
    """Numbers of dossier 5, which were computed from the released file by other code."""
    shares, centres = preset(texture).astype(np.float64), LUNG.centres_hu.astype(np.float64)
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    assert (shares * centres).sum() == pytest.approx(mean, abs=1)
    assert np.sqrt((shares * (centres - mean) ** 2).sum()) == pytest.approx(sd, abs=1)
    assert shares[centres > -37].sum() == pytest.approx(above, abs=0.006)
    assert shares[centres < -300].sum() == pytest.approx(below, abs=0.006)
    assert set(PRESETS) == {"ground-glass", "part-solid", "solid"}


def test_a_faint_liver_lesion_is_told_from_liver_on_the_livers_own_window_alone():
    everywhere = np.ones((8, 8), bool)
    liver, lesion = np.full((8, 8), 95.0, np.float32), np.full((8, 8), 57.0, np.float32)
    assert wasserstein_hu(histogram(liver, everywhere), histogram(lesion, everywhere)) == 0
    apart = wasserstein_hu(histogram(liver, everywhere, LIVER), histogram(lesion, everywhere, LIVER), LIVER)
    assert apart == pytest.approx(38, abs=LIVER.bin_hu)


def test_the_distance_of_histograms_is_that_by_which_greys_moved():
    rng = np.random.default_rng(1)
    hu = rng.normal(-300, 90, 4000).astype(np.float32)
    everywhere = np.ones(4000, bool)
    moved = wasserstein_hu(histogram(hu, everywhere), histogram(hu + 2 * np.float32(LUNG.bin_hu), everywhere))
    assert moved == pytest.approx(2 * LUNG.bin_hu, rel=0.01)


def test_jitter_is_small_and_keeps_the_sum():
    wanted = preset("part-solid")
    changed = jittered(wanted, np.random.default_rng(1))
    assert changed.sum() == pytest.approx(1, abs=1e-6)
    assert not np.array_equal(changed, wanted)
    assert np.all(np.abs(changed - wanted) <= 0.23 * wanted)


def test_hu_and_units_are_the_window_and_back():
    hu = np.array([-1000, -300, 400, 900, -1100], np.float32)
    assert LUNG.unit(hu).tolist() == [-1, 0, 1, 1, -1]
    assert LUNG.hu(LUNG.unit(hu)).tolist() == [-1000, -300, 400, 400, -1000]
