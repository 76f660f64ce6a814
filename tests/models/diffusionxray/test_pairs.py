"""Pairs of crops: aligned, repeatable, from the mix that was asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.contract import ModelError
from models.diffusionxray.config import TRAINING as PRESETS
from models.diffusionxray.config import CropConfig, TrainConfig
from models.diffusionxray.data import Picture
from models.diffusionxray.pairs import (
    IDENTITY,
    MIX,
    MixedPairs,
    draw_crop,
    make_bank,
    read_bank,
    read_pair,
    with_coarse_of,
)

CROPS = CropConfig(bank_px=64)
BY = {"degrader": "brighter"}
TRAINING = TrainConfig(steps=10, batch=3, crop_px=48)


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    rng = np.random.default_rng(1)
    smooth = [gaussian_filter(rng.normal(0, 1, (300, 280)), 4) for _ in range(3)]
    return [Picture(f"p{k}", "made", (one / one.std() / 2).astype(np.float32), 0.3) for k, one in enumerate(smooth)]


def _brighter(clean: torch.Tensor, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return clean + 0.2 + 0.01 * torch.randn(clean.shape, generator=draws)


def test_a_step_follows_from_its_number_alone(pictures):
    one, again, other = (MixedPairs(pictures, {"physics": 1}, None, CROPS, seed=seed) for seed in (1, 1, 2))
    again.batch(3, TRAINING)
    first, second, third = one.batch(7, TRAINING), again.batch(7, TRAINING), other.batch(7, TRAINING)
    assert torch.equal(first.clean, second.clean)
    assert torch.equal(first.degraded, second.degraded)
    assert not torch.equal(first.clean, third.clean)
    assert first.clean.shape == first.degraded.shape == (3, 1, 48, 48)
    assert first.clean.dtype == torch.float32


@pytest.mark.parametrize("name", ["physics", "bicubic", "identity"])
def test_both_crops_show_the_same_place(pictures, name):
    store = MixedPairs(pictures, {name: 1}, None, CROPS, seed=1)
    for step in range(6):
        batch = store.batch(step, TRAINING)
        for clean, degraded in zip(batch.clean[:, 0].numpy(), batch.degraded[:, 0].numpy(), strict=True):
            assert not np.array_equal(clean, degraded)
            assert np.corrcoef(gaussian_filter(clean, 2).ravel(), gaussian_filter(degraded, 2).ravel())[0, 1] > 0.95


def test_crops_have_the_pixel_size_that_they_say(pictures):
    """A ramp of one per pixel rises by the new pixel over the old one."""
    ramp = Picture("r", "made", np.tile(np.arange(300, dtype=np.float32), (300, 1)), 0.3)
    plain = replace(CROPS, gain=0, offset=0, bend=0)
    for seed in range(8):
        crop = draw_crop([ramp], 48, plain, np.random.default_rng(seed))
        slope = np.abs(np.diff(crop.unit[:, 8:-8], axis=1)).mean()
        assert slope == pytest.approx(crop.spacing_mm / 0.3, rel=0.01)
        assert 0.19 <= crop.spacing_mm <= 0.46


def test_tones_keep_the_order_of_greys():
    ramp = Picture("r", "made", np.tile(np.linspace(-1.5, 1.5, 300, dtype=np.float32), (300, 1)), 0.3)
    for seed in range(20):
        crop = draw_crop([ramp], 48, CROPS, np.random.default_rng(seed)).unit
        rising = np.diff(crop[:, 4:-4], axis=1)
        assert (rising > 0).all() or (rising < 0).all()


def test_the_mix_is_as_asked_for(pictures, tmp_path):
    make_bank(_brighter, pictures, tmp_path / "munit", CROPS, count=8, seed=1, made_by=BY)
    store = MixedPairs(pictures, {"munit": 3, "bicubic": 1}, tmp_path, CROPS, seed=1)
    brighter = [
        float((pair.degraded - pair.clean)[k].mean()) > 0.1
        for pair in (store.batch(step, TRAINING) for step in range(60))
        for k in range(3)
    ]
    assert np.mean(brighter) == pytest.approx(0.75, abs=0.1)


def test_the_identity_teaches_to_leave_pictures_alone_sharp_and_soft(pictures):
    """The same twice, but for less than an eighth of a grey level of 8 bits; never equal, which a loss refuses."""
    grain = replace(pictures[0], unit=pictures[0].unit + np.random.default_rng(1).normal(0, 0.1, (300, 280)))
    grain = replace(grain, unit=grain.unit.astype(np.float32))
    fine, apart = [], []
    for step in range(20):
        batch = MixedPairs([grain], {IDENTITY: 1}, None, CROPS, seed=1).batch(step, TRAINING)
        for clean, degraded in zip(batch.clean[:, 0].numpy(), batch.degraded[:, 0].numpy(), strict=True):
            fine.append(float((clean - gaussian_filter(clean, 1)).std()))
            apart.append(float((degraded - clean).std()))
    assert min(apart) > 0
    assert max(apart) < 2e-3
    soft = np.array(fine) < 0.6 * max(fine)
    assert soft.mean() == pytest.approx(CROPS.soft_share, abs=0.2)


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_the_crops_of_each_preset_fit_in_those_of_the_banks(preset):
    assert PRESETS[preset].crop_px <= CropConfig().bank_px


def test_what_ships_learns_from_identities_too():
    assert 0 < MIX[IDENTITY] < 0.5


def test_a_bank_is_made_once_goes_on_where_it_was_and_leaves_out_what_is_not_kept(pictures, tmp_path):
    asked: list[int] = []

    def degrader(clean: torch.Tensor, seed: int) -> torch.Tensor:
        asked.append(seed)
        return _brighter(clean, seed)

    bank, config = tmp_path / "bank", replace(CROPS, together=2)

    def keep(clean: torch.Tensor, degraded: torch.Tensor) -> list[bool]:
        assert clean.shape == degraded.shape == (2, 1, 64, 64)
        return [True, False]

    assert make_bank(degrader, pictures, bank, config, count=4, seed=1, made_by=BY, keep=keep) == (2, 4)
    assert make_bank(degrader, pictures, bank, config, count=5, seed=1, made_by=BY, keep=keep) == (3, 6)
    assert asked == [1, 3, 5]
    whole = tmp_path / "whole"
    make_bank(_brighter, pictures, whole, config, count=6, seed=1, made_by=BY, keep=keep)
    for one, other in zip(read_bank(bank, "bank"), read_bank(whole, "whole"), strict=True):
        assert one.name == other.name
        for first, second in zip(read_pair(one), read_pair(other), strict=True):
            np.testing.assert_array_equal(first, second)


def test_a_bank_holds_the_pairs_of_one_degrader(pictures, tmp_path):
    """Trained on, a degrader is another one: its old pairs would pass for those of the new."""
    make_bank(_brighter, pictures, tmp_path, CROPS, count=4, seed=1, made_by=BY)
    make_bank(_brighter, pictures, tmp_path, CROPS, count=8, seed=1, made_by=BY)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for seed, by, crops in ((1, {"degrader": "another"}, CROPS), (2, BY, CROPS), (1, BY, replace(CROPS, gain=0.5))):
        with pytest.raises(ModelError, match="take the folder away"):
            make_bank(_brighter, pictures, tmp_path, crops, count=12, seed=seed, made_by=by)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "maker.json").unlink()
    with pytest.raises(ModelError, match="take the folder away"):
        make_bank(_brighter, pictures, tmp_path, CROPS, count=8, seed=1, made_by=BY)


def test_coarse_structure_is_the_clean_ones_and_fine_structure_stays(pictures):
    clean = pictures[0].unit
    grain = np.random.default_rng(2).normal(0, 0.1, clean.shape).astype(np.float32)
    moved = with_coarse_of(clean, (1.1 * clean + 0.4 + grain).astype(np.float32), 10.0)
    low = gaussian_filter(moved - clean, 20)
    assert np.abs(low).max() < 0.05
    assert np.corrcoef((moved - clean).ravel(), grain.ravel())[0, 1] > 0.7


def test_the_store_leaves_coarse_structure_alone_where_asked(pictures, tmp_path):
    make_bank(_brighter, pictures, tmp_path / "munit", CROPS, count=4, seed=1, made_by=BY)
    raw, kept = (
        MixedPairs(pictures, {"munit": 1}, tmp_path, CROPS, seed=1, keep_coarse=keep).batch(0, TRAINING)
        for keep in (False, True)
    )
    assert torch.equal(raw.clean, kept.clean)
    assert float((raw.degraded - raw.clean).mean()) == pytest.approx(0.2, abs=0.01)
    assert float((kept.degraded - kept.clean).mean()) == pytest.approx(0, abs=0.01)


def test_what_cannot_be_mixed_is_refused(pictures, tmp_path):
    with pytest.raises(ModelError, match="degrader munit"):
        MixedPairs(pictures, {"munit": 1}, tmp_path, CROPS, seed=1)
    for mix in ({}, {"physics": 0}, {"physics": np.nan}, {"physics": np.inf}):
        with pytest.raises(ModelError, match="positive"):
            MixedPairs(pictures, mix, None, CROPS, seed=1)
    make_bank(_brighter, pictures, tmp_path / "munit", CROPS, count=1, seed=1, made_by=BY)
    with pytest.raises(ModelError, match="larger than those"):
        MixedPairs(pictures, {"munit": 1}, tmp_path, CROPS, seed=1).batch(0, replace(TRAINING, crop_px=96))
