"""Samples and batches: boxes by the rule, patients whole, the same step the same batch, whole lesions in the crops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.contract import ModelError
from models.deeplesion import samples as made
from models.deeplesion.config import CATEGORIES, DataConfig, DeepLesionConfig, TrainConfig
from models.deeplesion.data import SampleStore, middle
from models.deeplesion.samples import (
    LabelledVolume,
    box_of,
    close,
    load_sample,
    load_volume,
    own_categories,
    plan_cases,
    sample_at,
    samples_of,
)
from models.simulation.cases import PlantedLesion

TRAINING = TrainConfig(steps=1, batch=6, crop_px=96)
CONFIG = DeepLesionConfig(data=DataConfig(slices_per_case=4, views=80, noise_slices=2))
OFFSETS = (-2.0, 0.0, 2.0)


def ball(centre: tuple[int, int, int], radius_px: int, category: str = "lung") -> PlantedLesion:
    """A ball on a grid of 2 mm slices and 0.8 mm pixels, as a voxel mask."""
    depth = int(radius_px * 0.8 / 2)
    z, y, x = np.mgrid[-depth : depth + 1, -radius_px : radius_px + 1, -radius_px : radius_px + 1]
    mask = (z * 2 / 0.8) ** 2 + y**2 + x**2 <= radius_px**2
    box = tuple(
        slice(at - reach, at + reach + 1) for at, reach in zip(centre, (depth, radius_px, radius_px), strict=True)
    )
    return PlantedLesion(category, (0.0, 0.0, 0.0), 1.6 * radius_px, 800.0, box, mask)


@pytest.fixture(scope="module")
def volume() -> LabelledVolume:
    lesions = (ball((10, 60, 50), 10), ball((5, 120, 130), 6, "liver"))
    hu = np.full((16, 160, 180), -850.0, np.float32)
    for lesion in lesions:
        hu[lesion.box][lesion.mask] = 30
    return LabelledVolume(hu, (2.0, 0.8, 0.8), lesions, "p1", "drawn", noise_free=True)


def test_a_box_is_the_masks_extent_and_five_pixels(volume):
    sample = sample_at(volume, 10, OFFSETS)
    assert sample.boxes.tolist() == [[50 - 10 - 5, 60 - 10 - 5, 50 + 10 + 1 + 5, 60 + 10 + 1 + 5]]
    assert sample.category.tolist() == [CATEGORIES.index("lung")]
    assert np.array_equal(sample.labels[50:71, 40:61], volume.lesions[0].mask[4].astype(np.uint8))
    assert sample.labels.sum() == volume.lesions[0].mask[4].sum()
    assert sample.hu.shape == (3, 160, 180)


def test_a_box_is_clipped_at_the_edge():
    section = np.zeros((20, 30), bool)
    section[0:3, 27:30] = True
    assert box_of(section, (20, 30)) == (22, 0, 30, 8)


def test_pixels_of_another_size_keep_boxes_in_pixels_of_the_network(volume):
    """At 0.4 mm the same mask is half as large, the margin is not."""
    fine = replace(volume, spacing_zyx_mm=(2.0, 0.4, 0.4))
    sample = sample_at(fine, 10, OFFSETS)
    assert sample.hu.shape == (3, 80, 90)
    assert sample.boxes.tolist() == [[20 - 5, 25 - 5, 30.5 + 5, 35.5 + 5]]


def test_a_grazed_lesion_is_neither_target_nor_background(volume):
    top = volume.lesions[0].box[0].stop - 1
    sample = sample_at(volume, top, OFFSETS)
    assert volume.lesions[0].mask[-1].sum() < 0.25 * volume.lesions[0].mask.sum((1, 2)).max()
    assert len(sample.boxes) == 0
    assert len(sample.ignore) == 1
    assert not sample.labels.any()


def test_noise_is_added_and_the_truth_stays(volume):
    noisy = samples_of(volume, CONFIG, seed=1)
    again = samples_of(volume, CONFIG, seed=1)
    assert len(noisy) == 4
    for one, other in zip(noisy, again, strict=True):
        assert np.array_equal(one.hu, other.hu)
        assert one.hu[:, :20, :20].std() > 1  # where the drawn volume is flat


def test_withheld_annotations_stay_in_the_truth(volume):
    half = replace(CONFIG, data=replace(CONFIG.data, unannotated_share=1.0))
    sample = next(s for s in samples_of(volume, half, seed=1) if len(s.boxes))
    assert not sample.annotated.any()
    assert sample.labels.any()


@pytest.fixture
def store(volume, tmp_path):
    return filled(volume, tmp_path)


def filled(volume: LabelledVolume, folder, categories: int = 5, config: DeepLesionConfig = CONFIG) -> SampleStore:
    for number, sample in enumerate(samples_of(volume, config, seed=2)):
        made.save_sample(folder / f"p1-{number:02d}.npz", sample)
    return SampleStore(list(folder.glob("*.npz")), seed=1, categories=categories)


def test_a_sample_survives_the_disk_to_one_hu(volume, tmp_path):
    sample = samples_of(volume, CONFIG, seed=2)[0]
    made.save_sample(tmp_path / "s.npz", sample)
    read = load_sample(tmp_path / "s.npz")
    assert np.abs(read.hu - sample.hu).max() <= 0.5 + 1e-3
    for name in ("labels", "boxes", "category", "annotated", "ignore"):
        assert np.array_equal(getattr(read, name), getattr(sample, name)), name
    assert (read.patient, read.family) == ("p1", "drawn")


def test_the_same_step_gives_the_same_batch(store):
    one, other, next_one = store.batch(7, TRAINING), store.batch(7, TRAINING), store.batch(8, TRAINING)
    assert torch.equal(one.hu, other.hu)
    assert not torch.equal(one.hu, next_one.hu)
    assert one.hu.shape == (6, 3, 96, 96)


def test_targets_lie_on_what_is_bright(store):
    """Box and mask follow crop and magnification: inside the mask HU are those of the lesion."""
    seen = 0
    for step in range(6):
        batch = store.batch(step, TRAINING)
        for hu, target in zip(batch.hu, batch.targets, strict=True):
            for box, mask in zip(target.boxes, target.masks, strict=True):
                seen += 1
                assert hu[1][mask].median() > -150
                y, x = torch.nonzero(mask, as_tuple=True)
                # The margin: five pixels before magnification by 0.85 to 1.2.
                assert 3.5 <= float(x.min() - box[0]) <= 7
                assert 3.5 <= float(box[3] - y.max() - 1) <= 7
                assert (box >= 0).all()
                assert (box <= 96).all()
    assert seen > 10


def test_what_nobody_annotated_is_no_target(volume, tmp_path):
    hidden = replace(CONFIG, data=replace(CONFIG.data, unannotated_share=1.0))
    store = filled(volume, tmp_path, config=hidden)
    assert not any(len(target.boxes) for target in store.batch(0, TRAINING).targets)


def test_the_single_category_twin_sees_one_category(volume, tmp_path):
    store = filled(volume, tmp_path, categories=1)
    categories = torch.cat([target.category for step in range(4) for target in store.batch(step, TRAINING).targets])
    assert len(categories)
    assert not categories.any()


def test_only_where_a_lesion_may_be_missed_is_the_teacher_asked(volume, tmp_path):
    store = filled(volume, tmp_path)
    assert store.batch(0, TRAINING).incomplete == [0, 1, 2, 3, 4, 5]
    known = SampleStore(list(tmp_path.glob("*.npz")), seed=1, categories=5, complete=("drawn",))
    assert known.batch(0, TRAINING).incomplete == []


def test_no_samples_are_refused():
    with pytest.raises(ModelError, match="no training samples"):
        SampleStore([], seed=1, categories=5)


def test_patients_and_families_stay_whole(volume, tmp_path):
    """Every patient is in one split, test families in no other, real patients held out are not trained on."""
    config = replace(CONFIG, data=DataConfig(cases=4, test_cases=1, validation_every=2), held_out=("held",))
    real = []
    for patient in ("held", "free"):
        for number in range(2):
            real.append(tmp_path / f"{patient}-{number}.npz")
            made.save_volume(real[-1], volume.hu, volume.spacing_zyx_mm, patient=patient, collection="real")
    plan = plan_cases(config, seed=1, volumes=real)
    splits: dict[str, set[str]] = {}
    for case in plan:
        splits.setdefault(case.patient, set()).add(case.split)
    assert all(len(found) == 1 for found in splits.values())
    assert splits["held"] == {"test"}
    assert splits["free"] == {"train"}
    assert len({case.name for case in plan}) == len(plan) == 2 * 4 + 3 + 4 * config.data.plantings
    families = {
        split: {case.family for case in plan if case.split == split} for split in ("train", "validation", "test")
    }
    assert families["train"] == {"anthropomorphic-chest", "anthropomorphic-abdomen", "real"}
    assert families["validation"] == {"anthropomorphic-chest", "anthropomorphic-abdomen"}
    assert families["test"] == {"forbild-thorax", "forbild-abdomen", "mird", "real"}


def test_a_real_volume_survives_the_disk(volume, tmp_path):
    made.save_volume(tmp_path / "v.npz", volume.hu + 0.3, (2.5, 0.7, 0.7), patient="abc", collection="real")
    read = load_volume(tmp_path / "v.npz")
    assert np.array_equal(read.hu, np.rint(volume.hu + 0.3))
    assert read.spacing_zyx_mm == (2.5, 0.7, 0.7)
    assert (read.patient, read.family, read.noise_free, read.lesions) == ("abc", "real", False, ())
    np.savez(tmp_path / "w.npz", hu=np.zeros((2, 2, 2)))
    with pytest.raises(ModelError, match="not a prepared volume"):
        load_volume(tmp_path / "w.npz")


def test_a_network_of_fewer_slices_sees_the_middle_ones():
    stack = np.arange(9, dtype=np.float32)[:, None, None]
    assert middle(stack, 9).ravel().tolist() == list(range(9))
    assert middle(stack, 3).ravel().tolist() == [3, 4, 5]
    assert middle(stack, 1).ravel().tolist() == [4]
    for slices in (11, 2):
        with pytest.raises(ModelError, match=f"looks at {slices}"):
            middle(stack, slices)


def test_samples_say_whether_their_categories_are_their_own(tmp_path):
    assert own_categories(tmp_path) is None
    close(tmp_path, 7)
    assert own_categories(tmp_path) == 7
    for damaged in ("", "[]", '{"categories": null}'):
        (tmp_path / made.CLOSED).write_text(damaged)
        with pytest.raises(ModelError, match="damaged"):
            own_categories(tmp_path)
