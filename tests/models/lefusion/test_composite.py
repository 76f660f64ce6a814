"""The composite: the outside bit for bit, the edge as sharp as asked, millimetres the right way round."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.contract import ModelError
from models.lefusion.composite import (
    COLLAR_VOXELS,
    composite,
    crop_at,
    difference,
    first_mm,
    mask_at,
    on_volume,
    settled,
    soft_edge,
)

SHAPE = (16, 24, 24)


def blob(shape=SHAPE, at=(8, 12, 12), radius=4.0):
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((axis - middle) ** 2 for axis, middle in zip(axes, at, strict=True)) <= radius**2


def healthy(seed=1, shape=SHAPE):
    """With values beyond the window that networks see."""
    return np.random.default_rng(seed).normal(-700, 900, shape).astype(np.float32)


def test_beyond_the_collar_not_a_bit_changes():
    mask, before = blob(), healthy()
    drawn = np.full(SHAPE, 50, np.float32)
    change = difference([drawn], [mask], before, sigma_voxels=0.8)
    after = composite(before, change)
    outside = ~blob(radius=4.0 + COLLAR_VOXELS)
    assert np.array_equal(after[outside].view(np.int32), before[outside].view(np.int32))
    assert after[8, 12, 12] == pytest.approx(50, abs=1)
    collar = blob(radius=4.9) & ~mask
    assert (after[collar] != before[collar]).all()


def test_the_edge_is_that_of_the_point_spread():
    mask = np.zeros((9, 9, 40), bool)
    mask[..., 20:] = True
    soft = soft_edge(mask, 0.8)[4, 4]
    assert soft[:18].max() == 0
    assert soft[19] + soft[20] == pytest.approx(1, abs=1e-5)
    assert 0.2 < soft[19] < 0.35
    assert np.array_equal(soft_edge(mask, 0.0), mask.astype(np.float32))


def test_what_the_network_drew_outside_of_the_mask_is_not_used():
    mask, before = blob(), healthy()
    drawn = np.where(mask, np.float32(50), np.float32(1e6))
    change = difference([drawn], [mask], before, sigma_voxels=0.8)
    assert np.abs(before + change).max() < 5000


def test_classes_are_put_together_and_must_not_overlap():
    first, second = blob(at=(8, 8, 12), radius=3), blob(at=(8, 16, 12), radius=3)
    before = np.full(SHAPE, -800, np.float32)
    drawn = [np.full(SHAPE, 40, np.float32), np.full(SHAPE, -500, np.float32)]
    after = composite(before, difference(drawn, [first, second], before, sigma_voxels=0.0))
    assert (after[first] == 40).all()
    assert (after[second] == -500).all()
    assert (after[~first & ~second] == -800).all()
    with pytest.raises(ModelError, match="overlap"):
        difference(drawn, [first, first], before, sigma_voxels=0.0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 0.8), (0.5, 1.2, 0.6)])
def test_a_place_in_millimetres_is_the_middle_of_its_crop(spacing):
    """A ramp of other steepness along each axis: what is swapped, mirrored or shifted shows."""
    axes = [np.arange(n) * step for n, step in zip((30, 60, 50), spacing, strict=True)]
    ramp = (axes[0][:, None, None] + 100 * axes[1][None, :, None] + 10_000 * axes[2][None, None, :]).astype(np.float32)
    centre = tuple(axis.mean() for axis in axes)
    crop = crop_at(ramp, spacing, centre, (4, 8, 6))
    z, y, x = (first + np.arange(n) for first, n in zip(first_mm(centre, (4, 8, 6)), (4, 8, 6), strict=True))
    told = z[:, None, None] + 100 * y[None, :, None] + 10_000 * x[None, None, :]
    assert np.allclose(crop, told, rtol=1e-4)
    assert crop[2, 4, 3] == pytest.approx(centre[0] + 100 * centre[1] + 10_000 * centre[2], rel=1e-4)


def test_a_mask_is_cut_as_its_image_is():
    volume_mask = blob((20, 60, 60), (9, 20, 33), 8.0)
    spacing, centre = (2.0, 0.8, 0.7), (19.0, 17.0, 22.0)
    image = crop_at(volume_mask.astype(np.float32), spacing, centre, SHAPE)
    mask = mask_at(volume_mask, spacing, centre, SHAPE)
    assert set(np.unique(mask)) == {False, True}
    clear = (image < 0.01) | (image > 0.99)
    assert np.array_equal(mask[clear], image[clear] > 0.5)
    assert not mask_at(np.ones((4, 8, 8), bool), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (8, 8, 8))[:4].any()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.75, 0.75), (5.0, 0.9, 0.6)])
def test_a_difference_arrives_at_its_place_and_whole(spacing):
    shape = tuple(int(np.ceil(60 / step)) for step in spacing)
    centre = (31.0, 25.5, 33.2)
    change = np.where(blob(), np.float32(400), np.float32(0))
    placed = on_volume(change, shape, spacing, centre)
    added = np.zeros(shape)
    added[placed[0]] = placed[1]
    assert added.sum() * np.prod(spacing) == pytest.approx(change.sum(), rel=0.03)
    places = np.indices(shape).reshape(3, -1) * np.array(spacing)[:, None]
    found = (places * added.ravel()).sum(1) / added.sum()
    assert found == pytest.approx(np.array(centre), abs=0.25)


def test_a_difference_beyond_the_volume_is_refused():
    with pytest.raises(ModelError, match="does not meet"):
        on_volume(np.ones(SHAPE, np.float32), SHAPE, (1.0, 1.0, 1.0), (100.0, 5.0, 5.0))


def test_noise_stays_on_a_lesion_and_the_edge_of_what_it_replaced_does_not():
    region = np.full(SHAPE, -850, np.float32)
    region[:, 12:] = 40
    region += np.random.default_rng(1).normal(0, 10, SHAPE).astype(np.float32)
    interpolated = gaussian_filter(region, 1.0)
    soft = soft_edge(blob(radius=6), 0.8)
    change = soft * (50 - interpolated)
    after = settled(region, change, soft, interpolated, most_hu=60.0)
    inside = blob(radius=4)
    assert np.abs(after[inside] - 50).max() <= 65
    assert np.abs((region + change)[inside] - 50).max() > 150
    assert after[inside].std() > 5
    assert np.array_equal(after[soft == 0], region[soft == 0])
