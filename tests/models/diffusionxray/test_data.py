"""Pictures on disk: what comes back, who is kept apart from whom."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.contract import ModelError
from models.diffusionxray.data import (
    MOST,
    Picture,
    load_pictures,
    patient_of,
    prepare_images,
    quantised,
    save_picture,
    split_of,
    unquantised,
)


def _chest(seed: int, side: int = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(0, 1, (side, side)), 1).astype(np.float32)


def _write(folder, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    low, high = pixels.min(), pixels.max()
    Image.fromarray(np.rint((pixels - low) / (high - low) * 255).astype(np.uint8)).save(folder / name)


def test_a_picture_comes_back_to_a_hair(tmp_path):
    unit = np.random.default_rng(1).uniform(-1.9, 1.9, (40, 50)).astype(np.float32)
    save_picture(Picture("p1", "set", unit, 0.31, "lq", "validation"), tmp_path)
    (found,) = load_pictures(tmp_path, domain="lq")
    assert (found.key, found.collection, found.spacing_mm, found.domain, found.split) == (
        "p1", "set", 0.31, "lq", "validation",
    )  # fmt: skip
    assert np.abs(found.unit - unit).max() <= MOST / 65535 * 1.01
    with pytest.raises(ModelError, match="hq, any split"):
        load_pictures(tmp_path)


@given(st.floats(-3, 3, width=32))
def test_what_is_beyond_is_cut_and_the_rest_is_within_half_a_step(value):
    back = float(unquantised(quantised(np.array([value], np.float32)))[0])
    assert abs(back - min(max(value, -MOST), MOST)) <= MOST / 65535 * 1.01


def test_images_of_one_patient_go_to_one_split_and_grey_levels_are_spread(tmp_path):
    folder = tmp_path / "cxr"
    for patient in range(30):
        for image in range(2):
            _write(folder, f"{patient:08d}_{image:03d}.png", _chest(10 * patient + image))
    assert prepare_images(folder, tmp_path / "out", spacing_mm=0.4) == 60
    found = load_pictures(tmp_path / "out")
    splits = {one.key: {other.split for other in found if other.key == one.key} for one in found}
    assert len(splits) == 30
    assert all(len(seen) == 1 for seen in splits.values())
    assert {"train", "test"} <= set.union(*splits.values())
    for one in found:
        assert one.split == split_of(one.key)
        assert one.spacing_mm == 0.4
        assert (np.abs(one.unit) <= 1).mean() > 0.95
        assert len(np.unique(one.unit)) > 2000  # 256 levels would be steps to learn


def test_a_whole_collection_can_be_kept_for_the_test(tmp_path):
    folder = tmp_path / "other"
    for patient in range(6):
        _write(folder, f"{patient:08d}.png", _chest(patient))
    prepare_images(folder, tmp_path / "out", spacing_mm=0.4, split="test")
    assert {one.split for one in load_pictures(tmp_path / "out")} == {"test"}


def test_the_same_folder_prepared_twice_is_the_same(tmp_path):
    _write(tmp_path / "cxr", "00000001_000.png", _chest(1))
    for _ in range(2):
        prepare_images(tmp_path / "cxr", tmp_path / "out", spacing_mm=0.4)
    assert len(load_pictures(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("00000013_003.png", "00000013"),
        ("CR_ap_14d9761b_a38e1877.png", "14d9761b"),
        ("normal_IM-0170-0001.png", "normal_IM-0170-0001"),
        ("p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34.jpg", "10000032"),
        ("p10/p10000032/s53189527/2a2277a9-b0ded155-c0de8eb9.jpg", "10000032"),
        ("train/patient00001/study1/view1_frontal.jpg", "patient00001"),
        ("train/patient00002/study1/view1_frontal.jpg", "patient00002"),
        ("feedback/effaced.png", "effaced"),
    ],
)
def test_patients_are_told_by_their_numbers(name, patient):
    assert patient_of(Path(name)) == patient


def test_images_of_one_patient_in_folders_of_studies_stay_in_one_split(tmp_path):
    for number in range(12):
        path = tmp_path / "cxr" / "p10" / "p10000032" / f"s{number:08d}" / f"{number * 7919:08x}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (300, 300), dtype=np.uint8)).save(path)
    prepare_images(tmp_path / "cxr", tmp_path / "out", spacing_mm=0.4)
    assert len({path.parent.name for path in (tmp_path / "out").rglob("*.npz")}) == 1


def test_shares_of_the_splits_are_as_stated():
    splits = [split_of(f"{number:08d}") for number in range(5000)]
    assert splits.count("test") / 5000 == pytest.approx(0.20, abs=0.02)
    assert splits.count("validation") / 5000 == pytest.approx(0.12, abs=0.02)


def test_what_is_no_radiograph_is_refused_by_name(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"not an image")
    with pytest.raises(ModelError, match=r"a\.png"):
        prepare_images(tmp_path / "broken", tmp_path / "out", spacing_mm=0.4)
    _write(tmp_path / "small", "b.png", _chest(1, side=100))
    with pytest.raises(ModelError, match="fewer than 256"):
        prepare_images(tmp_path / "small", tmp_path / "out", spacing_mm=0.4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no PNG"):
        prepare_images(tmp_path / "empty", tmp_path / "out", spacing_mm=0.4)
