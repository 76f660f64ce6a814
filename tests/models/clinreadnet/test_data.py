"""Batches: the same for the same step, crops first and whole images last."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.clinreadnet.challenge import Rated
from models.clinreadnet.config import DataConfig, TrainConfig
from models.clinreadnet.data import PhysicsStore, RatedStore, flipped, shape_of_step
from models.clinreadnet.degrade import Ingredients
from models.clinreadnet.labels import Physics
from models.clinreadnet.network import stored_units
from models.clinreadnet.samples import Facts, load_sample, save_sample
from models.contract import ModelError

CPU = torch.device("cpu")
TRAINING = TrainConfig(steps=10, batch=8, crop_px=32, whole_share=0.2)
THINNING = (1, 2)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(1)
    found = []
    for name in ("a-0", "a-1", "b-0"):
        base = np.full((64, 64), -1000, np.float32)
        base[8:56, 8:56] = 40
        noise = rng.normal(0, 10, (2, 64, 64)).astype(np.float32)
        parts = Ingredients(base, 0 * noise, noise, 0 * noise, 0.0, THINNING)
        physics = Physics((10, 14), (0, 0), (0, 0), ((4e4, 0, 0), (8e4, 0, 0)), 400.0, 0.0)
        save_sample(tmp_path / f"{name}.npy", parts, Facts(name[0], "f", "hann", 0.7, THINNING, physics))
        found.append(tmp_path / f"{name}.npy")
    return found


def test_crops_first_and_whole_images_last():
    assert shape_of_step(0, TRAINING) == (8, 32)
    assert shape_of_step(7, TRAINING) == (8, 32)
    assert shape_of_step(8, TRAINING) == (2, None)
    assert shape_of_step(8, replace(TRAINING, batch=2)) == (1, None)


def test_the_same_step_gives_the_same_batch(files):
    store, other = (PhysicsStore(files, DataConfig(), seed=1) for _ in range(2))
    batch = store.batch(3, TRAINING)
    again = other.batch(3, TRAINING)
    assert torch.equal(batch.images(CPU), again.images(CPU))
    assert torch.equal(batch.level, again.level)
    assert not torch.equal(batch.images(CPU), store.batch(4, TRAINING).images(CPU))
    assert batch.images(CPU).shape == (8, 1, 32, 32)
    assert store.batch(9, TRAINING).images(CPU).shape == (2, 1, 64, 64)


def test_what_is_handed_over_is_whole_numbers_and_mixes_to_images_of_the_samples(files):
    config = DataConfig(fractions=(0.25, 0.25), full_share=0.0)
    batch = PhysicsStore(files[:1], config, seed=1).batch(9, TRAINING)
    assert batch.planes.dtype == torch.int16
    assert batch.planes.shape == (2, 4, 64, 64)
    sample = load_sample(files[0])
    possible = [
        stored_units(torch.from_numpy(np.ascontiguousarray(image))).numpy().tobytes()
        for view in range(2)
        for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1))
        for whole in (sample.image(view, 0.25, signs=signs),)
        for image in (whole, whole[::-1], whole[:, ::-1], whole[::-1, ::-1])
    ]
    assert all(image.numpy().tobytes() in possible for image in batch.images(CPU)[:, 0])


def test_units_and_levels_are_those_of_the_network(files):
    batch = PhysicsStore(files, DataConfig(), seed=1).batch(0, replace(TRAINING, batch=64))
    assert float(batch.images(CPU).min()) >= 0
    assert float(batch.images(CPU).max()) <= 1
    assert batch.level.dtype == torch.int64
    assert 0 <= int(batch.level.min()) < int(batch.level.max()) <= 20


def test_noisier_images_have_lower_levels(files):
    batch = PhysicsStore(files, DataConfig(), seed=1).batch(0, replace(TRAINING, batch=64))
    noise = [float(np.log(image[image > 0.5].std())) for image in batch.images(CPU).numpy()]
    assert np.corrcoef(noise, batch.level.numpy())[0, 1] < -0.9


def test_crops_lie_on_the_body(files):
    batch = PhysicsStore(files, DataConfig(), seed=1).batch(0, replace(TRAINING, batch=64))
    assert float((batch.images(CPU) > 0.5).float().mean((1, 2, 3)).min()) > 0.35


def test_nothing_to_train_on_is_said():
    with pytest.raises(ModelError):
        PhysicsStore([], DataConfig(), seed=1)
    with pytest.raises(ModelError):
        RatedStore([], seed=1)


def test_rated_images_are_cropped_and_flipped_and_nothing_else(tmp_path):
    rng = np.random.default_rng(1)
    image = rng.random((512, 512)).astype(np.float32)
    Image.fromarray(image).save(tmp_path / "0.tif")
    store = RatedStore([Rated(tmp_path / "0.tif", 2.6)], seed=1)
    batch = store.batch(0, TRAINING)
    assert batch.level.tolist() == [13] * 8
    assert np.isin(batch.images(CPU).numpy(), image).all()
    assert store.batch(9, TRAINING).images(CPU).shape == (2, 1, 512, 512)


def test_a_flip_turns_rows_or_columns():
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    rng = np.random.default_rng(1)
    seen = {flipped(image, rng).tobytes() for _ in range(40)}
    assert seen == {one.tobytes() for one in (image, image[::-1], image[:, ::-1], image[::-1, ::-1])}
