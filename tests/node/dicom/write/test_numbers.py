from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from node.dicom.write.numbers import Coding


def _header(**elements: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


@given(
    st.sampled_from([(12, 0), (12, 1), (16, 0), (16, 1)]),
    st.sampled_from([(1.0, -1024.0), (2.0, -1000.5), (0.5, 0.0), (1.0, 0.0)]),
    st.lists(st.floats(-1e7, 1e7, width=32), min_size=1, max_size=20),
)
def test_stored_values_mean_what_was_asked_or_the_nearest_that_can_be_stored(
    form: tuple[int, int], rescale: tuple[float, float], wanted: list[float]
) -> None:
    coding = Coding.of_ct(
        _header(BitsStored=form[0], PixelRepresentation=form[1], RescaleSlope=rescale[0], RescaleIntercept=rescale[1]),
        padded=False,
    )
    values = np.array([wanted], dtype=np.float32)
    stored = coding.store(values, None, values).astype(float)
    assert stored.min() >= coding.lowest
    assert stored.max() <= coding.highest
    meant = stored * rescale[0] + rescale[1]
    ends = sorted((coding.lowest * rescale[0] + rescale[1], coding.highest * rescale[0] + rescale[1]))
    nearest = np.clip(values.astype(float), *ends)
    assert np.abs(meant - nearest).max() <= rescale[0] / 2 + 1e-6


def test_anatomy_does_not_vanish_as_padding() -> None:
    coding = Coding.of_ct(
        _header(BitsStored=16, PixelRepresentation=1, RescaleIntercept=0, PixelPaddingValue=-1000), padded=True
    )
    received = np.array([[-1000.0, 40.0, 50.0]], dtype=np.float32)
    after = np.array([[-900.0, -1000.0, 51.0]], dtype=np.float32)
    padded = np.array([[True, False, False]])
    assert coding.store(after, padded, received).tolist() == [[-1000, -999, 51]]


def test_padding_outside_the_stored_bits_takes_all_sixteen_and_a_sign() -> None:
    coding = Coding.of_ct(
        _header(BitsStored=12, PixelRepresentation=0, RescaleIntercept=-1024, PixelPaddingValue=63536), padded=True
    )
    assert (coding.bits_stored, coding.signed, coding.padding) == (16, True, (-2000, -2000))
    ds = Dataset()
    received = np.array([[-3024.0, 0.0]], dtype=np.float32)
    stored = coding.store(received, np.array([[True, False]]), received)
    coding.describe(ds, stored)
    assert stored.tolist() == [[-2000, 1024]]
    assert ds.PixelPaddingValue == -2000
    assert ds["PixelPaddingValue"].VR == "SS"
    assert (ds.BitsStored, ds.HighBit, ds.PixelRepresentation) == (16, 15, 1)


@pytest.mark.parametrize("declared", [0, -2000])
def test_a_fill_value_beside_the_declared_padding_stays_what_it_was(declared: int) -> None:
    coding = Coding.of_ct(_header(BitsStored=16, PixelRepresentation=1, PixelPaddingValue=declared), padded=True)
    received = np.array([[-3024.0, 40.0]], dtype=np.float32)
    assert coding.store(received, np.array([[True, False]]), received).tolist() == [[-3024, 40]]


def test_a_padding_range_is_kept() -> None:
    header = _header(BitsStored=16, PixelRepresentation=1, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1500)
    coding = Coding.of_ct(header, padded=True)
    ds = Dataset()
    coding.describe(ds, np.zeros((2, 2), dtype=np.int16))
    assert (ds.PixelPaddingValue, ds.PixelPaddingRangeLimit) == (-2000, -1500)


@pytest.mark.parametrize(("stored", "allocated"), [(8, 8), (10, 16), (14, 16)])
def test_bits_of_a_radiograph_are_kept(stored: int, allocated: int) -> None:
    coding = Coding.of_radiograph(_header(BitsStored=stored, BitsAllocated=allocated), padded=False)
    assert (coding.bits_stored, coding.bits_allocated) == (stored, allocated)
    assert coding.dtype.itemsize * 8 == allocated


@pytest.mark.parametrize("given", [{"RescaleSlope": 2}, {"RescaleSlope": 0}, {"RescaleIntercept": 5}])
def test_half_a_rescale_is_none(given: dict[str, float]) -> None:
    header = _header(BitsStored=12, BitsAllocated=16, **given)
    coding = Coding.of_radiograph(header, padded=False)
    values = np.array([[100.0, 3000.0]], dtype=np.float32)
    stored = coding.store(values, None, values)
    coding.describe(header, stored)
    assert stored.tolist() == [[100, 3000]]
    assert (header.RescaleSlope, header.RescaleIntercept) == (1, 0)


def test_the_first_of_several_rescales_is_meant() -> None:
    header = _header(BitsStored=12, BitsAllocated=16, RescaleSlope=[0.5, 1], RescaleIntercept=[-10, 0])
    coding = Coding.of_radiograph(header, padded=False)
    coding.describe(header, np.zeros((2, 2), np.uint16))
    assert (coding.slope, coding.intercept) == (header.RescaleSlope, header.RescaleIntercept) == (0.5, -10)


@pytest.mark.parametrize(
    ("signed", "declared", "padding"), [(0, 65535, 65535), (1, -32768, -32768), (1, 63536, -2000), (0, 4095, 4095)]
)
def test_padding_of_a_radiograph_beyond_its_bits_is_kept_without_another_sign(
    signed: int, declared: int, padding: int
) -> None:
    header = _header(BitsStored=12, BitsAllocated=16, PixelRepresentation=signed, PixelPaddingValue=declared)
    coding = Coding.of_radiograph(header, padded=True)
    received = np.array([[0.0, 40.0]], dtype=np.float32)  # of the padding what the stored bits hold
    stored = coding.store(received, np.array([[True, False]]), received)
    coding.describe(header, stored)
    assert stored.tolist() == [[padding, 40]]
    assert header.PixelPaddingValue == padding
    assert header.PixelRepresentation == signed
    assert coding.lowest <= padding <= coding.highest
    assert coding.bits_stored == (12 if padding in (4095, -2000) else 16)


def test_pixel_data_have_an_even_length() -> None:
    ds = Dataset()
    coding = Coding.of_radiograph(_header(BitsStored=8, BitsAllocated=8), padded=False)
    coding.describe(ds, np.zeros((3, 3), dtype=np.uint8))
    assert len(ds.PixelData) == 10
