"""The public set's layout, and everything that must not pass for it."""

import json

import numpy as np
import pytest
from PIL import Image

from models.clinreadnet.challenge import check_map, fold, load_challenge
from models.contract import ModelError


def abdomen(seed: int) -> np.ndarray:
    """An ellipse of soft tissue in air, −1000 … 400 HU as 0 … 1; other anatomy for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-256:256, -256:256]
    hu = np.where(np.hypot(y / rng.uniform(120, 200), x / rng.uniform(160, 240)) < 1, 60.0, -1000.0)
    return ((hu + rng.normal(0, 10, hu.shape) + 1000) / 1400).clip(0, 1).astype(np.float32)


def write(path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def folder(tmp_path):
    scores = {}
    for number, score in enumerate((0.2, 4.0, 2.6, 1.4)):
        write(tmp_path / "image" / f"{number:04d}.tif", abdomen(number))
        scores[f"{number:04d}.tif"] = score
    (tmp_path / "train.json").write_text(json.dumps(scores))
    return tmp_path


def relabel(folder, **changes) -> None:
    labels = json.loads((folder / "train.json").read_text())
    (folder / "train.json").write_text(json.dumps({**labels, **changes}))


def test_loads_images_and_scores(folder):
    rated = load_challenge(folder)
    assert [one.score for one in rated] == [0.2, 4.0, 2.6, 1.4]
    assert np.array_equal(rated[2].image(), abdomen(2))


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"train\.json and image/"):
        load_challenge(tmp_path)


@pytest.mark.parametrize("score", [0.3, -0.2, 4.2, float("nan")])
def test_a_label_that_no_five_readers_give_is_refused(folder, score):
    relabel(folder, **{"0001.tif": score})
    with pytest.raises(ModelError, match=r"0001\.tif: .* is not the mean"):
        load_challenge(folder)


def test_a_missing_image_is_named(folder):
    relabel(folder, **{"0007.tif": 2.0})
    with pytest.raises(ModelError, match=r"1 labelled images are missing, the first is 0007\.tif"):
        load_challenge(folder)


@pytest.mark.parametrize("labels", ["[]", "{}", "no json", '{"a": "b"}'])
def test_labels_that_are_none(folder, labels):
    (folder / "train.json").write_text(labels)
    with pytest.raises(ModelError):
        load_challenge(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: (255 * image).astype(np.uint8), "uint8"),
        (lambda image: image[:256], "not float32 of 512"),
        (lambda image: 1400 * image - 1000, "outside 0"),
        (lambda image: np.where(image > 0.5, np.float32("nan"), image), "outside 0"),
    ],
)
def test_pixels_of_another_kind_are_refused(folder, change, said):
    write(folder / "image" / "0000.tif", change(abdomen(0)))
    with pytest.raises(ModelError, match=said):
        load_challenge(folder)


def test_an_image_that_is_none_is_refused(folder):
    (folder / "image" / "0000.tif").write_text("no image")
    with pytest.raises(ModelError, match="cannot be read"):
        load_challenge(folder)


def test_the_viewing_window_is_not_the_stored_map(folder):
    for number in range(4):
        hu = 1400 * abdomen(number) - 1000
        write(folder / "image" / f"{number:04d}.tif", ((hu - 40) / 350 + 0.5).clip(0, 1).astype(np.float32))
    with pytest.raises(ModelError, match="no soft tissue"):
        load_challenge(folder)


def test_folds_keep_an_anatomy_on_one_side(folder):
    rng = np.random.default_rng(1)
    for number in range(4):
        noisy = (abdomen(number) + rng.normal(0, 0.05, (512, 512))).clip(0, 1).astype(np.float32)
        write(folder / "image" / f"{number + 4:04d}.tif", noisy)
        relabel(folder, **{f"{number + 4:04d}.tif": 1.0})
    rated = load_challenge(folder)
    check_map(rated)
    kept, held_out = fold(rated, 1, folds=2, seed=1)
    assert len(kept) == len(held_out) == 4
    anatomy = [{int(one.path.stem) % 4 for one in part} for part in (kept, held_out)]
    assert not anatomy[0] & anatomy[1]
    with pytest.raises(ModelError, match="no fold 2 of 2"):
        fold(rated, 2, folds=2, seed=1)
    with pytest.raises(ModelError, match="cannot fill"):
        fold(rated, 0, folds=6, seed=1)
