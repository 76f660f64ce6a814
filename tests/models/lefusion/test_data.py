"""Lesions for training: where they lie in their crops, what their histograms count, and what is kept apart."""

import dataclasses

import numpy as np
import pytest

from models.contract import ModelError
from models.lefusion.config import CROP_ZYX, TrainConfig
from models.lefusion.data import (
    DIAMETERS_MM,
    REGION_ZYX,
    SHAPES,
    CropStore,
    ShapeStore,
    condition_of,
    cut,
    draw_shape,
    load_crops,
    prepare_chest,
)
from models.lefusion.histogram import LUNG, histogram
from models.lefusion.masks import equivalent_diameter
from seeded.lesion_crops import region

SMALL = TrainConfig(steps=2, batch=6, crop_zyx=(12, 24, 24))


def lung(shape=(24, 120, 160), spacing=(2.0, 2.0, 2.0)):
    """Two lungs in soft tissue, with noise: enough for nodules."""
    rng = np.random.default_rng(0)
    voxels = np.full(shape, -1000.0)
    voxels[:, 10:-10, 10:-10] = 40
    voxels[:, 25:-25, 20:70] = -850
    voxels[:, 25:-25, 90:140] = -850
    return (voxels + rng.normal(0, 15, shape)).astype(np.float32), spacing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("lesions")
    voxels, spacing = lung()
    for split in ("train", "test"):
        prepare_chest(voxels, spacing, f"chest-{split}", made, split, lesions=5)
    return made


def test_prepared_lesions_differ_from_the_healthy_chest_at_their_masks_alone(folder):
    crops = load_crops(folder, "train")
    assert len(crops) >= 3
    shares = []
    for crop in crops:
        assert crop.hu.shape == crop.healthy.shape == crop.mask.shape == REGION_ZYX
        changed = np.abs(crop.hu.astype(int) - crop.healthy) > 100
        shares.append(changed[crop.mask].mean())
        reach = np.argwhere(changed)
        lesion = np.argwhere(crop.mask)
        assert (reach.min(0) >= lesion.min(0) - 6).all()
        assert (reach.max(0) <= lesion.max(0) + 6).all()
        assert not (crop.core & ~crop.mask).any()
        assert not (crop.mask & ~crop.organ).any()
    assert min(shares) > 0.3  # vessels and wall in a lesion stay
    assert np.median(shares) > 0.8


def test_the_three_textures_are_there(folder):
    crops = load_crops(folder, "train") + load_crops(folder, "test")
    kinds = {("all" if crop.core.sum() == crop.mask.sum() else "part" if crop.core.any() else "none") for crop in crops}
    assert kinds == {"all", "part", "none"}


def test_lesions_for_tests_have_another_chest_and_another_generator(folder):
    train, test = load_crops(folder, "train"), load_crops(folder, "test")
    assert {crop.key for crop in train}.isdisjoint(crop.key for crop in test)
    assert {crop.source for crop in train} == {SHAPES["train"]}
    assert {crop.source for crop in test} == {SHAPES["test"]}
    assert SHAPES["train"] != SHAPES["test"]


def test_a_chest_without_lungs_and_a_folder_without_lesions_are_refused(folder, tmp_path):
    with pytest.raises(ModelError, match="no lungs"):
        prepare_chest(np.zeros((8, 64, 64), np.float32), (2.0, 2.0, 2.0), "k", tmp_path, "train", lesions=1)
    with pytest.raises(ModelError, match="no prepared lesions"):
        load_crops(tmp_path, "test")
    (tmp_path / "train").mkdir(exist_ok=True)
    np.savez(tmp_path / "train" / "bad.npz", hu=np.zeros(3))
    with pytest.raises(ModelError, match="not a prepared lesion"):
        load_crops(tmp_path, "train")


def test_a_crop_holds_the_whole_lesion_and_seldom_in_its_middle():
    one, rng = region(), np.random.default_rng(1)
    centres = []
    for _ in range(200):
        crop = cut(one, (16, 32, 32), rng)
        assert crop.hu.shape == (16, 32, 32)
        assert crop.mask.sum() == one.mask.sum()
        centres.append(np.argwhere(crop.mask).mean(0))
    spread = np.ptp(centres, axis=0)
    assert (spread > [2, 15, 15]).all()


def test_image_mask_and_organ_are_cut_and_mirrored_together():
    one = region(at=(18, 36, 45), radius=5, core_radius=2)
    rng = np.random.default_rng(2)
    for _ in range(20):
        crop = cut(one, CROP_ZYX, rng)
        assert (crop.hu[crop.mask & ~crop.core] == -500).all()
        assert (crop.hu[crop.core] == 60).all()
        assert np.array_equal(crop.hu[~crop.mask], crop.healthy[~crop.mask])


def test_a_lesion_larger_than_its_crop_is_not_refused():
    crop = cut(region(radius=10), (12, 16, 16), np.random.default_rng(1))
    assert crop.mask.any()


def test_histograms_are_those_of_the_lesion_not_of_what_was_there_before():
    batch = CropStore([region()], classes=1, seed=1).batch(0, SMALL)
    assert batch.condition.shape == (6, LUNG.bins)
    assert batch.condition[0, 5] == 1  # −500 HU
    assert batch.condition.sum(1).tolist() == pytest.approx([1] * 6)
    assert batch.image.shape == batch.masks.shape == (6, 1, *SMALL.crop_zyx)
    assert batch.image[batch.masks].unique().tolist() == pytest.approx([2 * 500 / 1400 - 1])


def test_two_classes_have_a_mask_and_a_histogram_each_and_the_same_image():
    store = CropStore([region(core_radius=2), region(seed=1)], classes=2, seed=1)
    batch = store.batch(0, dataclasses.replace(SMALL, batch=16))
    assert batch.image.shape == (16, 2, *SMALL.crop_zyx)
    assert (batch.image[:, 0] == batch.image[:, 1]).all()
    assert not (batch.masks[:, 0] & batch.masks[:, 1]).any()
    glass, solid = batch.condition.split(LUNG.bins, 1)
    assert (glass[:, 5] == 1).all()
    without = ~batch.masks[:, 1].flatten(1).any(1)
    assert 0 < without.sum() < 16
    assert (solid[without] == 0).all()
    assert (solid[~without][:, 12] == 1).all()
    hu = np.full((4, 4, 4), 60, np.float32)
    assert np.array_equal(condition_of(hu, [hu > 0])[: LUNG.bins], histogram(hu, hu > 0))


def test_batches_follow_from_seed_and_step_alone():
    regions = [region(), region(seed=1)]
    first, again = (CropStore(regions, classes=1, seed=3).batch(5, SMALL) for _ in range(2))
    other = CropStore(regions, classes=1, seed=3).batch(6, SMALL)
    assert first.image.equal(again.image)
    assert not first.image.equal(other.image)


def test_shapes_have_the_diameter_asked_for_whoever_draws_them():
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        got = [equivalent_diameter(draw_shape((40, 40, 40), rng, split, diameter_mm=14)) for _ in range(12)]
        assert np.mean(got) == pytest.approx(14, rel=0.06)


def test_batches_of_shapes_are_coded_masks_in_their_spheres():
    batch = ShapeStore(seed=1).batch(0, dataclasses.replace(SMALL, crop_zyx=(32, 32, 32)))
    assert set(batch.image.unique().tolist()) == set(batch.beside.unique().tolist()) == {-1, 1}
    assert (batch.beside[batch.image == 1] == 1).all()
    assert batch.condition is None
    volumes = (batch.image == 1).flatten(1).sum(1)
    assert volumes.max() > 4 * volumes.min()
    assert volumes.max() <= 1.1 * np.pi / 6 * DIAMETERS_MM[1] ** 3
