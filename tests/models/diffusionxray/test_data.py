"""Pictures on disk: what comes back, who is kept apart from whom."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.contract import ModelError, Radiograph, SourceRef
from models.diffusionxray.data import (
    MOST,
    Picture,
    load_pictures,
    patient_of,
    picture_of,
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


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not an image", "not an image that can be read"),
        (b"", "not an image that can be read"),
        ("half", "not an image that can be read"),
        ("small", "fewer than 256 pixels a side"),
        ("flat", "fewer than 64 grey levels"),
        ("mask", "fewer than 64 grey levels"),
        ("colour", "in colour"),
    ],
)
def test_what_is_no_radiograph_is_left_out_with_the_reason_and_the_rest_is_taken(tmp_path, content, why):
    folder, chest = tmp_path / "cxr", _chest(1)
    _write(folder, "00000001.png", chest)
    path = folder / "00000002.png"
    grey = np.asarray(Image.open(folder / "00000001.png"))
    made = {
        "small": grey[:200],
        "flat": np.full_like(grey, 77),
        "mask": grey > 128,
        "colour": np.stack([grey, grey[::-1], grey.T], -1),
    }
    if content in made:
        Image.fromarray(made[content]).save(path)
    else:
        path.write_bytes((folder / "00000001.png").read_bytes()[:20_000] if content == "half" else content)
    left_out = []
    how = {"spacing_mm": 0.4, "left_out": lambda *told: left_out.append(told)}
    assert prepare_images(folder, tmp_path / "out", **how) == 1
    assert left_out == [("00000002.png", why)]
    (folder / "00000001.png").unlink()
    with pytest.raises(ModelError, match=r"no PNG or JPEG radiographs in .*cxr"):
        prepare_images(folder, tmp_path / "out", **how)


def test_an_image_is_the_same_however_its_grey_levels_are_stored(tmp_path):
    """Eight bits, sixteen, three equal channels, a palette: the same picture but for the rounding."""
    chest = _chest(1)
    share = (chest - chest.min()) / np.ptp(chest)
    grey = Image.fromarray(np.rint(share * 255).astype(np.uint8))
    stored = {
        "eight": grey,
        "sixteen": Image.fromarray(np.rint(share * 65535).astype(np.uint16)),
        "channels": grey.convert("RGB"),
        "palette": grey.convert("P"),
        "seen_through": grey.convert("LA"),
    }
    units = {}
    for name, image in stored.items():
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "00000001.png")
        prepare_images(tmp_path / name, tmp_path / "out" / name, spacing_mm=0.4)
        (picture,) = load_pictures(tmp_path / "out" / name)
        units[name] = picture.unit
    for unit in units.values():
        np.testing.assert_allclose(unit, units["eight"], atol=1.5 * 2 / 255 / 0.7)
    assert len(np.unique(units["sixteen"] - units["eight"])) > 1000


def radiograph(pixels: np.ndarray, **given) -> Radiograph:
    how = {"value_range": (0.0, 4095.0), "source": SourceRef("1.2.3"), "spacing_yx_mm": (0.2, 0.2)} | given
    return Radiograph(np.rint(pixels).astype(np.float32), **how)


def test_a_radiograph_becomes_a_picture_on_the_scale_of_its_own_greys():
    chest = _chest(1)
    pixels = 500 + 3000 * (chest - chest.min()) / np.ptp(chest)
    one = picture_of(radiograph(pixels), "p1", "site")
    assert (one.key, one.collection, one.spacing_mm, one.domain, one.split) == ("p1", "site", 0.2, "hq", split_of("p1"))
    assert (np.abs(one.unit) <= 1).mean() > 0.95
    assert len(np.unique(one.unit)) > 0.5 * one.unit.size
    softer = picture_of(radiograph(pixels / 2 + 100), "p1", "site", "test")
    assert softer.split == "test"
    np.testing.assert_allclose(softer.unit, one.unit, atol=0.01)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"spacing_yx_mm": None}, "how large a pixel is"),
        ({"spacing_yx_mm": (0.2, 0.3)}, "not square"),
        ({"pixels": np.full((300, 300), 7.0)}, "the same value"),
        ({"pixels": _chest(1, side=200) + 500}, "fewer than 256 pixels"),
    ],
)
def test_a_radiograph_that_is_no_picture_is_refused_with_the_reason(given, why):
    pixels = given.get("pixels", _chest(1) + 500)
    with pytest.raises(ModelError, match=why):
        picture_of(radiograph(pixels, **{name: value for name, value in given.items() if name != "pixels"}), "p", "s")
