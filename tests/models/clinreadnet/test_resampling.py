"""Many draws at once say what one draw says, set by set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.clinreadnet.correlation import agreement, rank_correlation
from models.clinreadnet.resampling import drawn_agreement, drawn_rank_correlation, of_patients


@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from((3, 21, 1000)))
def test_every_draw_is_the_agreement_of_the_images_drawn(seed, patients, levels):
    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(patients), rng.integers(patients, size=4 * patients)])
    truth = rng.integers(levels, size=len(owner)).astype(float)
    told = np.round(truth + rng.normal(0, levels / 4, len(owner)), 0 if seed % 2 else 6)
    counts = rng.multinomial(patients, np.full(patients, 1 / patients), size=6)
    found = drawn_agreement(told, truth, owner, counts)
    ranked = drawn_rank_correlation(told, truth, owner, counts)
    for row, rank, draw in zip(found, ranked, counts, strict=True):
        drawn = np.repeat(np.arange(len(owner)), draw[owner])
        wanted = list(agreement(told[drawn], truth[drawn]).values())
        assert row == pytest.approx(wanted, abs=1e-9, nan_ok=True)
        if not np.isnan(rank):
            assert rank == pytest.approx(rank_correlation(told[drawn], truth[drawn]), abs=1e-9)


def test_what_does_not_vary_correlates_with_nothing():
    owner, counts = np.array([0, 0, 1]), np.array([[1, 1]])
    (row,) = drawn_agreement(np.full(3, 2.0), np.array([1.0, 2, 3]), owner, counts)
    assert np.isnan(row[:4]).all()
    assert row[4] == pytest.approx(2 / 3)


def test_patients_are_numbered():
    owner, count = of_patients(["b", "a", "b"])
    assert owner.tolist() == [1, 0, 1]
    assert count == 2
