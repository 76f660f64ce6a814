"""Stored values to pictures and back: exact, whatever the detector makes of its bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract import ModelError
from models.diffusionxray.scale import Scale, scale_of


@pytest.mark.parametrize("bits", [12, 14, 16])
@pytest.mark.parametrize("used", [1.0, 0.02])
def test_every_stored_value_comes_back(bits, used):
    pixels = np.arange(2**bits, dtype=np.float32)[None]
    value_range = (0.0, float(2**bits - 1))
    scale = Scale(100.0, 100 + used * (value_range[1] - 100))
    unit = scale.unit(pixels, value_range)
    assert unit.dtype == np.float32
    assert unit[0, 100] == -1
    assert len(np.unique(unit)) == 2**bits
    np.testing.assert_array_equal(scale.stored(unit, value_range), pixels)


@given(st.integers(-32768, 32767), st.integers(1, 65535), st.sampled_from([1.0, 0.5, 0.25]), st.integers(0, 2**32 - 1))
def test_any_range_comes_back(low, steps, step, seed):
    value_range = (float(low), low + steps * step)
    drawn = np.random.default_rng(seed).integers(0, steps + 1, (4, 5))
    pixels = (low + step * drawn).astype(np.float32)
    scale = Scale(*value_range)
    np.testing.assert_array_equal(scale.stored(scale.unit(pixels, value_range), value_range, step), pixels)


def test_what_is_beyond_the_range_is_cut_and_on_the_way_in_refused():
    scale = Scale(0, 4095)
    assert scale.stored(np.array([[-2.0, 5.0]], np.float32), (0, 4095)).tolist() == [[0, 4095]]
    for value in (-1.0, 4096.0, np.nan, np.inf):
        with pytest.raises(ModelError, match="outside"):
            scale.unit(np.array([[value]], np.float32), (0, 4095))


def _anatomy() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (200, 200)).astype(np.float32)


@given(st.floats(0.01, 1000), st.floats(-100, 100))
def test_the_picture_is_the_same_whatever_gain_and_offset_the_detector_has(gain, offset):
    image = _anatomy()
    other = ((image.astype(np.float64) + offset) * gain).astype(np.float32)
    expected, found = (scale_of(one).unit(one, (-1e6, 1e6)) for one in (image, other))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_most_of_the_picture_is_within_the_unit_and_the_rest_is_kept():
    image = _anatomy()
    unit = scale_of(image).unit(image, (-10, 10))
    assert (np.abs(unit) <= 1).mean() == pytest.approx(0.99, abs=0.002)
    assert unit.max() > 1.2


def test_collimation_lettering_and_padding_do_not_move_the_scale():
    image = _anatomy()
    bordered = np.pad(image, 60, constant_values=-50.0)
    bordered[:8, :] = 90.0
    padding = np.zeros(bordered.shape, bool)
    padding[-60:] = True
    bordered[padding] = 1000.0
    expected, found = scale_of(image), scale_of(bordered, padding)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.05)


def test_two_grey_values_have_a_scale_and_one_has_none():
    mask = np.zeros((10, 10), np.float32)
    mask[5:] = 1
    assert scale_of(mask) == Scale(0, 1)
    for empty in (np.zeros((10, 10), np.float32), np.zeros((0, 4), np.float32), np.full((3, 3), np.nan, np.float32)):
        with pytest.raises(ModelError):
            scale_of(empty)
