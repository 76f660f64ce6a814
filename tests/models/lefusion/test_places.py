"""Where lesions of a liver may be, and what they are; those of lungs are in test_insert."""

import numpy as np
import pytest

from models.contract import ModelError
from models.lefusion.insert import ByHand, insert_lesions
from models.lefusion.places import GAP_MM, InLiver, Spot

SPACING = (2.5, 1.0, 1.0)


@pytest.fixture(scope="module")
def abdomen():
    """(voxels, mask of the liver): 60 HU in 30."""
    z, y, x = np.ogrid[:40, :120, :140]
    mask = ((z - 20) * 2.5 / 45) ** 2 + ((y - 60) / 45) ** 2 + ((x - 60) / 50) ** 2 < 1
    voxels = np.where(mask, 60.0, 30.0) + np.random.default_rng(0).normal(0, 12, mask.shape)
    return voxels.astype(np.float32), mask


@pytest.fixture(scope="module")
def made(abdomen):
    voxels, mask = abdomen
    return insert_lesions(
        voxels, SPACING, ByHand(), count=8, seed=1, places=InLiver.of(mask, voxels, SPACING)
    )  # fmt: skip


def test_lesions_are_wholly_in_the_liver(abdomen, made):
    voxels, mask = abdomen
    after, truth = made
    assert len(truth) == 8
    assert not (after != voxels)[~mask].any()
    for lesion in truth:
        assert mask[lesion.box][lesion.mask].all()


def test_they_are_darker_or_brighter_than_the_liver_by_what_is_told(abdomen, made):
    voxels, mask = abdomen
    after, truth = made
    assert {lesion.kind for lesion in truth} == {"darker", "brighter"}
    for lesion in truth:
        sign = 1 if lesion.kind == "brighter" else -1
        assert 8 < sign * lesion.contrast_hu < 95
        assert sign * (lesion.mean_hu - voxels[mask].mean()) > 5
        assert 8 < after[lesion.box][lesion.mask].std() < 12 + abs(lesion.contrast_hu) / 3


def test_what_is_no_liver_is_refused(abdomen):
    voxels, mask = abdomen
    with pytest.raises(ModelError, match="empty"):
        InLiver.of(np.zeros_like(mask), voxels, SPACING)
    with pytest.raises(ModelError, match="median is -8"):
        InLiver.of(mask, voxels - 900, SPACING)


def test_a_thin_liver_has_no_room_and_says_so(abdomen):
    voxels, mask = abdomen
    thin = np.zeros_like(mask)
    thin[18:20] = mask[18:20]
    places = InLiver.of(thin, voxels, SPACING)
    assert all(places.spot([], np.random.default_rng(seed)) is None for seed in range(20))


def test_spots_keep_apart():
    first = Spot((0, 0, 0), 10)
    assert Spot((0, 0, 10 + GAP_MM), 10).beside([first]) is not None
    assert Spot((0, 0, 9 + GAP_MM), 10).beside([first]) is None
