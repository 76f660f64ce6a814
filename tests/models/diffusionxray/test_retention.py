"""Checks on degraders: degraders of known faults, whose faults must be found in their true size."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from models.contract import ModelError
from models.diffusionxray.config import CropConfig
from models.diffusionxray.data import Picture
from models.diffusionxray.pairs import make_bank, read_bank, read_pair
from models.diffusionxray.retention import (
    FWHM,
    Checked,
    Limits,
    Nodules,
    displacement,
    keep_pairs,
    nodule_retention,
    places,
    profile,
)

NODULES = Nodules(diameter_px=8.0, contrast=0.2)


def textured(seed: int, side: int = 128, coarse_px: float = 4.0) -> np.ndarray:
    """A random picture with structure of a given size in every direction, standard deviation 0.2, float32 (Y, X)."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((side, side)), coarse_px, mode="wrap")
    return (0.2 * field / field.std() - 0.2).astype(np.float32)


def batch(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.stack([textured(seed) for seed in range(count)]))[:, None]


def shifted(pictures, by: tuple[float, float]):
    """Moved down and to the right by Fourier's theorem, exactly, whatever is at the edge coming round."""
    moved = [
        np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(one.astype(np.float64)), by)).real
        for one in np.asarray(pictures)
    ]
    return np.stack(moved).astype(np.float32)


def noisy(seed: int, shape, sd: float = 0.03) -> torch.Tensor:
    return sd * torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def grey(clean: torch.Tensor, seed: int) -> torch.Tensor:
    """A fair degrader: less contrast, another level, noise."""
    return 0.8 * clean - 0.1 + noisy(seed, clean.shape)


def erases(clean: torch.Tensor, seed: int) -> torch.Tensor:
    """Structure of up to the nodules' size is gone."""
    smooth = ndimage.gaussian_filter(clean.numpy(), 25.0, axes=(-2, -1))
    return torch.from_numpy(smooth) + 0.8 * batch(len(clean)) + noisy(seed, clean.shape)


def exaggerates(clean: torch.Tensor, seed: int) -> torch.Tensor:
    return batch(len(clean)) + 3 * (clean - batch(len(clean))) + noisy(seed, clean.shape)


def moves(by: tuple[float, float]):
    def degrade(clean: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.from_numpy(shifted(clean[:, 0], by))[:, None] * 0.8 + noisy(seed, clean.shape)

    return degrade


def test_the_profile_has_its_contrast_and_its_width_at_half_of_it():
    nodule = profile(Nodules(diameter_px=8, contrast=0.2))
    middle = len(nodule) // 2
    assert nodule[middle, middle] == pytest.approx(0.2)
    assert nodule[middle, middle + 4] == pytest.approx(0.1)
    assert nodule[middle, 0] < 0.01 * 0.2
    assert pytest.approx(2.3548, abs=1e-4) == FWHM


def test_nodules_are_put_apart_inside_the_body_and_never_over_the_range():
    picture = textured(1, 200)
    picture[:, :60], picture[150:] = -1.0, 0.95  # air, and what is as dense as can be
    at = places(picture, NODULES, seed=1)
    assert 3 <= len(at) <= NODULES.most
    assert (at[:, 1] > 60).all()
    assert (at[:, 0] < 150).all()
    apart = np.abs(at[:, None] - at[None]).max(-1) + 1000 * np.eye(len(at))
    assert apart.min() >= 2 * NODULES.reach_px + 1
    assert not np.array_equal(at, places(picture, NODULES, seed=2))
    assert np.array_equal(at, places(picture, NODULES, seed=1))


@pytest.mark.parametrize("gain", [0.3, 1.0, 1.7])
def test_the_share_is_the_degraders_gain_and_noise_does_not_matter(gain):
    found = nodule_retention(
        lambda clean, seed: gain * clean + 0.1 + noisy(seed, clean.shape, sd=0.5), batch(), seed=3, nodules=NODULES
    )
    for one in found:
        assert len(one.share) == NODULES.most
        np.testing.assert_allclose(one.share, gain, rtol=1e-3)
        assert one.moved_px.max() < 0.01


def test_a_change_of_the_whole_pictures_level_is_no_contrast():
    found = nodule_retention(lambda clean, _seed: 0 * clean + clean.mean(), batch(), seed=3, nodules=NODULES)
    assert all(np.abs(one.share).max() < 1e-3 for one in found)


def test_blur_takes_the_share_that_the_matched_filter_predicts():
    """A Gaussian of σ, blurred by b, is one of √(σ² + b²) with σ² / (σ² + b²) of its contrast."""
    sigma, blur = NODULES.diameter_px / FWHM, 2.0
    found = nodule_retention(
        lambda clean, _seed: torch.from_numpy(ndimage.gaussian_filter(clean.numpy(), blur, axes=(-2, -1))),
        batch(), seed=3, nodules=NODULES,
    )  # fmt: skip
    wider = math.hypot(sigma, blur)
    offset = np.arange(-NODULES.reach_px, NODULES.reach_px + 1)
    before, after = (
        (sigma / sd) ** 2 * np.exp(-0.5 * np.hypot(offset[:, None], offset) ** 2 / sd**2) for sd in (sigma, wider)
    )
    expected = np.cov(before.ravel(), after.ravel())[0, 1] / before.var(ddof=1)
    assert 0.7 < expected < 0.9
    for one in found:
        np.testing.assert_allclose(one.share, expected, rtol=0.01)


@pytest.mark.parametrize("by", [(0.0, 0.0), (0.3, -0.4), (1.5, 0.0), (-2.0, 2.0)])
def test_the_centroid_is_found_where_the_nodule_went(by):
    for one in nodule_retention(moves(by), batch(), seed=3, nodules=NODULES):
        np.testing.assert_allclose(one.moved_px, math.hypot(*by), atol=0.1)


def test_a_nodule_that_is_gone_is_nowhere():
    found = nodule_retention(lambda clean, _seed: batch(len(clean)), batch(), seed=3, nodules=NODULES)
    for one in found:
        assert (one.share == 0).all()
        assert np.isnan(one.moved_px).all()


def test_a_nodule_turned_dark_counts_below_zero():
    found = nodule_retention(lambda clean, _seed: -clean, batch(1), seed=3, nodules=NODULES)
    np.testing.assert_allclose(found[0].share, -1, rtol=1e-3)


def test_the_same_draws_are_asked_for_with_and_without():
    asked = []

    def degrade(clean: torch.Tensor, seed: int) -> torch.Tensor:
        asked.append((seed, clean.shape))
        return grey(clean, seed)

    clean = batch()
    one = nodule_retention(degrade, clean, seed=5, nodules=NODULES)
    assert asked == [(5, clean.shape)] * 2
    other = nodule_retention(degrade, clean, seed=5, nodules=NODULES, degraded=grey(clean, 5))
    assert len(asked) == 3
    assert all(np.array_equal(a.share, b.share) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("by", [(0.0, 0.0), (0.25, -0.6), (1.0, 0.5), (-1.4, 2.2)])
def test_known_shifts_are_measured_to_a_tenth_of_a_pixel(by):
    picture = textured(4, 256, coarse_px=2.5)
    moved = 0.7 * ndimage.gaussian_filter(shifted(picture[None], by)[0], 0.8) - 0.1
    moved = moved + 0.01 * np.random.default_rng(1).standard_normal(picture.shape)
    found = displacement(picture, moved.astype(np.float32))
    assert found.shape == (4, 4, 2)
    np.testing.assert_allclose(np.median(found, (0, 1)), by, atol=0.1)
    assert (np.abs(found - by) < 0.25).mean() > 0.9


def test_one_block_that_moved_is_told_from_those_that_did_not():
    picture = textured(4, 192, coarse_px=2.5)
    moved = picture.copy()
    moved[64:128, 64:128] = shifted(picture[None], (2.0, -1.0))[0, 64:128, 64:128]
    found = displacement(picture, moved)
    np.testing.assert_allclose(found[1, 1], (2, -1), atol=0.25)
    still = np.delete(found.reshape(9, 2), 4, axis=0)
    assert np.abs(still).max() <= 0.05


def test_blocks_without_a_place_to_hold_on_to_are_left_out():
    picture = textured(4, 448, coarse_px=2.5)
    picture[:128] = 0.3  # nothing
    picture[128:320] = 0.3 * np.sin(np.arange(448) / 3)  # stripes: along them nothing can be told
    found = displacement(picture, picture)
    assert np.isnan(found[[0, 3]]).all()  # the rows between are bounded by an edge, and that is structure
    assert np.isfinite(found[[2, 5, 6]]).all()


def test_noise_alone_is_no_structure():
    noise = (0.02 * np.random.default_rng(1).standard_normal((128, 128))).astype(np.float32)
    assert np.isnan(displacement(noise, noise)).all()


def test_pictures_that_cannot_be_compared_are_refused():
    for other, block_px in ((textured(1, 64), 64), (textured(1), 8)):
        with pytest.raises(ModelError, match="one shape"):
            displacement(textured(1), other, block_px)


def kept_of(degrade, clean=None, **told):
    clean = batch() if clean is None else clean
    return keep_pairs(clean, degrade(clean, 3), degrade, seed=3, nodules=NODULES, **told)


def test_a_fair_degraders_pairs_are_kept():
    kept = kept_of(grey)
    assert kept.keep.all()
    assert kept.dropped == {}


@pytest.mark.parametrize(
    ("degrade", "reason"),
    [(erases, "nodules lost"), (exaggerates, "nodules exaggerated"), (moves((1.2, 0.9)), "displaced")],
)
def test_a_degrader_at_fault_is_caught_and_its_pairs_are_dropped(degrade, reason):
    kept = kept_of(degrade)
    assert not kept.keep.any()
    assert kept.dropped == {reason: 2}


def test_a_small_displacement_is_let_pass():
    assert kept_of(moves((0.3, -0.3))).keep.all()
    assert kept_of(moves((0.3, -0.3)), limits=Limits(moved_px=0.3)).dropped == {"displaced": 2}


def test_pairs_are_judged_one_by_one():
    """Of three pictures, the second loses its nodules and the third is no picture at all: the first stays."""

    def degrade(clean: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.cat([grey(clean, seed)[:1], erases(clean, seed)[1:2], grey(clean, seed)[2:] * torch.nan])

    kept = kept_of(degrade, batch(3))
    assert kept.keep.tolist() == [True, False, False]
    assert kept.dropped == {"nodules lost": 1, "not finite": 1}


def test_a_degrader_that_spares_most_nodules_but_not_enough_is_caught():
    """A third of the picture loses its nodules."""

    def degrade(clean: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.cat([erases(clean, seed)[..., :43, :], grey(clean, seed)[..., 43:, :]], -2)

    assert kept_of(degrade).dropped == {"nodules lost": 2}
    assert kept_of(degrade, limits=Limits(nodules=0.5)).keep.all()


def test_a_picture_on_which_nothing_can_be_measured_teaches_nothing():
    assert kept_of(grey, torch.full((1, 1, 128, 128), -1.0)).dropped == {"nothing to measure": 1}
    assert kept_of(grey, torch.full((1, 1, 128, 128), 0.0)).dropped == {"nothing to measure": 1}


def test_pairs_that_lost_their_nodules_stay_out_of_the_bank_and_are_counted(tmp_path):
    config = CropConfig(bank_px=128, together=2, spacing_mm=(0.25, 0.25), gain=0, offset=0, bend=0)
    fine, coarse = (ndimage.gaussian_filter(np.random.default_rng(3).standard_normal((272, 272)), px) for px in (2, 12))
    field = fine + 30 * coarse
    pictures = [Picture("p", "made", (0.3 * field / field.std()).clip(-1, 0.8).astype(np.float32), 0.25)]
    erasing = Checked(lambda clean, _seed: torch.from_numpy(ndimage.gaussian_filter(clean.numpy(), (0, 0, 14, 14))))
    how = {"count": 2, "seed": 0, "made_by": {}}
    assert make_bank(erasing, pictures, tmp_path / "lost", config, **how, keep=erasing.keep) == (0, 2)
    assert sum(erasing.dropped.values()) == 2
    fair = Checked(lambda clean, seed: clean + noisy(seed, clean.shape, 0.02))
    assert make_bank(fair, pictures, tmp_path / "kept", config, **how, keep=fair.keep) == (2, 2)
    assert not fair.dropped
    clean, degraded, _ = read_pair(read_bank(tmp_path / "kept", "fair")[0])
    assert (degraded - clean).std() == pytest.approx(0.02, rel=0.1)
