"""Neighbouring slices lie where they should; the official loader's positions are there to compare."""

import math

import numpy as np
import pytest

from models.deeplesion.resample import mixes, positions_of, resize, resized_shape, slab

OFFSETS = tuple(2.0 * p for p in range(-5, 6))
KEY = 40


def linear(count: int, interval: float) -> np.ndarray:
    """A volume whose value is its position along the normal, mm."""
    return np.broadcast_to((np.arange(count) * interval)[:, None, None], (count, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("interval", [0.6, 1, 1.5, 2, 2.5, 3, 4, 5])
def test_a_volume_linear_in_z_gives_the_linear_value(interval):
    volume = linear(81, interval)
    planes = slab(volume, KEY, positions_of(81, interval), OFFSETS)
    assert planes.shape == (11, 3, 4)
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes[:, 0, 0] - KEY * interval, OFFSETS, atol=2e-5)


@pytest.mark.parametrize(
    ("interval", "positions"),
    [
        (5, (2, 2, 7, 7, 10)),
        (3, (2, 5, 6, 8, 11)),
        (2.5, (2, 4.5, 7, 9.5, 10)),
        (1, (2, 4, 6, 8, 10)),
        (2, (2, 4, 6, 8, 10)),
        (4, (2, 4, 6, 8, 10)),
    ],
)
def test_the_legacy_switch_gives_the_official_loaders_positions(interval, positions):
    volume = linear(81, interval)
    planes = slab(volume, KEY, positions_of(81, interval), OFFSETS, legacy=True)
    expected = [*(-p for p in reversed(positions)), 0, *positions]
    np.testing.assert_allclose(planes[:, 0, 0] - KEY * interval, expected, atol=2e-5)


@pytest.mark.parametrize("interval", [math.nan, 0.0, -2.0])
@pytest.mark.parametrize("legacy", [False, True])
def test_an_unusable_interval_repeats_the_key_slice(interval, legacy):
    planes = slab(linear(9, 1.0), 4, positions_of(9, interval), OFFSETS, legacy=legacy)
    assert (planes == 4).all()


@pytest.mark.parametrize("legacy", [False, True])
def test_beyond_the_end_the_last_slice_stands_in(legacy):
    planes = slab(linear(4, 2.0), 3, positions_of(4, 2.0), (-4.0, 0.0, 4.0), legacy=legacy)
    assert planes[:, 0, 0].tolist() == [2.0, 6.0, 6.0]
    alone = slab(linear(1, 2.0), 0, positions_of(1, 2.0), (-2.0, 0.0, 2.0), legacy=legacy)
    assert (alone == 0).all()


def test_uneven_slices_are_weighed_by_where_they_are():
    """Slices at 0, 6 and 8 mm: 2 mm below the middle one lies a third of the way down, not the whole."""
    positions = np.array([0.0, 6.0, 8.0])
    below, middle, above = mixes(1, positions, (-2.0, 0.0, 2.0))
    assert (below.lower, below.upper) == (0, 1)
    assert below.weight == pytest.approx(2 / 3)
    assert positions[middle.lower] + middle.weight * (positions[middle.upper] - positions[middle.lower]) == 6
    assert positions[above.lower] + above.weight * (positions[above.upper] - positions[above.lower]) == 8


def test_whole_numbers_are_interpolated_as_numbers():
    """int16 sums would wrap."""
    volume = np.array([[[32000]], [[32000]], [[32000]]], np.int16)
    assert slab(volume, 1, positions_of(3, 5.0), (-2.0, 0.0, 2.0)).ravel().tolist() == [32000.0] * 3


def test_resizing_keeps_the_field_and_linear_images():
    assert resized_shape((512, 256), (0.4, 0.8), 0.8) == (256, 256)
    x = (np.arange(64, dtype=np.float32) + 0.5) * 0.5
    image = np.broadcast_to(x, (2, 32, 64)).astype(np.float32)
    small = resize(image, (16, 32))
    expected = (np.arange(32) + 0.5) * 1.0
    np.testing.assert_allclose(small[:, 8, 2:-2], np.broadcast_to(expected, (2, 32))[:, 2:-2], atol=1e-4)
    assert resize(image, (32, 64)) is image
