"""Nobody is on both sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.clinreadnet.folds import grouped_folds, pseudo_patients, thumbnail


@given(st.lists(st.integers(0, 12), min_size=30, max_size=80), st.integers(0, 5))
def test_groups_stay_whole_and_every_fold_has_some(groups, seed):
    count = min(4, len(set(groups)))
    folds = grouped_folds(groups, count, seed=seed)
    for group in set(groups):
        assert len({int(fold) for fold, one in zip(folds, groups, strict=True) if one == group}) == 1
    sizes = np.bincount(folds, minlength=count)
    assert sizes.min() >= 1
    largest = max(groups.count(group) for group in set(groups))
    assert sizes.max() - sizes.min() <= largest


def test_the_same_seed_gives_the_same_folds_whatever_the_order():
    groups = list("aaabbcccddde")
    folds = grouped_folds(groups, 3, seed=1)
    assert np.array_equal(folds[::-1], grouped_folds(groups[::-1], 3, seed=1))


def test_too_few_groups_are_refused():
    with pytest.raises(ValueError, match="2 groups cannot fill 3"):
        grouped_folds(["a", "a", "b"], 3, seed=1)


def test_one_anatomy_at_several_doses_is_one_patient():
    rng = np.random.default_rng(1)
    anatomies = [np.kron(rng.random((8, 8)), np.ones((64, 64))) for _ in range(3)]
    images = [one + noise * rng.standard_normal((512, 512)) for one in anatomies for noise in (0, 0.05, 0.1)]
    found = pseudo_patients(np.stack([thumbnail(image.astype(np.float32)) for image in images]), distance=0.02)
    assert len(set(found.tolist())) == 3
    assert all(len(set(found[3 * k : 3 * k + 3].tolist())) == 1 for k in range(3))


def test_a_single_image_is_a_patient():
    assert pseudo_patients(np.zeros((1, 16, 16), np.float32), distance=0.1).tolist() == [0]


def test_a_thumbnail_is_block_means():
    image = np.arange(32 * 48, dtype=np.float32).reshape(32, 48)
    assert thumbnail(image).shape == (16, 16)
    assert thumbnail(image)[0, 0] == image[:2, :3].mean()
