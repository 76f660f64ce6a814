"""Values of an image to stored bits and back, as its source coded them (PS3.3 C.7.6.3, C.11.1): never wraps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue
from pydicom.valuerep import format_number_as_ds

from models.contract import BoolArray, FloatArray

_LEAST_BITS_OF_CT = 12
"""PS3.3 C.8.2.1.1.4: a CT image has 12 to 16 bits stored."""


@dataclass(frozen=True)
class Coding:
    """How stored values mean what they mean.

    lowest, highest     of the stored bits
    padding             (from, to) of stored values that mean "no pixel here"; None where the header names none
    other_fills         whether padding may hold other values than those
    """

    slope: float
    intercept: float
    bits_stored: int
    bits_allocated: int
    signed: bool
    padding: tuple[int, int] | None
    carries_rescale: bool = True
    other_fills: bool = False

    @classmethod
    def of_ct(cls, header: Any, *, padded: bool) -> Coding:
        """16 bits allocated; bits stored as received, unless the padding value needs all of them and a sign.

        padded          whether any pixel of the series is padding; else a padding value could only blank anatomy
        """
        bits = max(_LEAST_BITS_OF_CT, min(16, int(header.get("BitsStored") or 16)))
        slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
        signed = header.get("PixelRepresentation") == 1
        coding = cls(
            slope=1.0 if slope in (None, "") else float(slope),
            intercept=0.0 if intercept in (None, "") else float(intercept),
            bits_stored=bits,
            bits_allocated=16,
            signed=signed,
            padding=_padding(header, bits, signed=signed) if padded else None,
            other_fills=True,
        )
        if coding.padding is not None and not coding.lowest <= coding.padding[0] <= coding.padding[1] <= coding.highest:
            coding = replace(coding, bits_stored=16, signed=True)
        return coding

    @classmethod
    def of_radiograph(cls, header: Any, *, padded: bool) -> Coding:
        """As received. Where a modality LUT stood, values after it are stored and the LUT is left out.

        A padding value beyond the stored bits, which only unused bits can hold, makes all sixteen stored.
        """
        signed = header.get("PixelRepresentation") == 1
        bits = min(16, int(header.get("BitsStored") or 16))
        table = header.get("ModalityLUTSequence")
        if table:
            bits = min(16, int(table[0].LUTDescriptor[2]))
            return cls(1.0, 0.0, bits, 16 if bits > 8 else 8, signed=False, padding=None, carries_rescale=False)
        slope, intercept = _rescale(header)
        coding = cls(
            slope=slope,
            intercept=intercept,
            bits_stored=bits,
            bits_allocated=16 if bits > 8 else min(16, int(header.get("BitsAllocated") or 8)),
            signed=signed,
            padding=_padding(header, bits, signed=signed, keeps_sign=True) if padded else None,
            carries_rescale="RescaleSlope" in header or "RescaleIntercept" in header,
        )
        if coding.padding is not None and not coding.lowest <= coding.padding[0] <= coding.padding[1] <= coding.highest:
            coding = replace(coding, bits_stored=16, bits_allocated=16)
        return coding

    @property
    def lowest(self) -> int:
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        return (1 << (self.bits_stored - (1 if self.signed else 0))) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    def store(self, values: FloatArray, padded: BoolArray | None, received: FloatArray) -> NDArray[Any]:
        """Rounded and clipped to the stored bits.

        values          (Y, X) after rescale
        padded          (Y, X): there the received value stays what it was; within the padding, without `other_fills`
        received        (Y, X) after rescale, of the source
        """
        stored = self._to_stored(values)
        if padded is not None:
            stored = self._off_padding(stored)
            kept = self._to_stored(received)
            if self.padding is not None and not self.other_fills:
                kept = kept.clip(*self.padding)
            stored = np.where(padded, kept, stored)
        return stored.astype(self.dtype)

    def describe(self, ds: Any, stored: NDArray[Any]) -> None:
        """Image pixel module and pixel data of a monochrome image."""
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = ds.get("PhotometricInterpretation") or "MONOCHROME2"
        ds.Rows, ds.Columns = stored.shape
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = self.bits_allocated, self.bits_stored, self.bits_stored - 1
        ds.PixelRepresentation = int(self.signed)
        self._declare_padding(ds)
        if self.carries_rescale:
            for keyword, value in (("RescaleSlope", self.slope), ("RescaleIntercept", self.intercept)):
                if ds.get(keyword) != value:
                    setattr(ds, keyword, format_number_as_ds(value))
        elif "ModalityLUTSequence" in ds:
            del ds.ModalityLUTSequence
        ds.PixelData = stored.tobytes() + (b"\0" if stored.nbytes % 2 else b"")
        ds["PixelData"].VR = "OW" if self.bits_allocated > 8 else "OB"

    def _declare_padding(self, ds: Any) -> None:
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
            if keyword in ds:
                del ds[keyword]
        if self.padding is not None:
            vr = "SS" if self.signed else "US"
            value, limit = self.padding
            ds[tag_for_keyword("PixelPaddingValue")] = DataElement("PixelPaddingValue", vr, value)
            if limit != value:
                ds[tag_for_keyword("PixelPaddingRangeLimit")] = DataElement("PixelPaddingRangeLimit", vr, limit)

    def _to_stored(self, values: FloatArray) -> NDArray[np.int32]:
        wide = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        clipped: NDArray[np.int32] = np.clip(wide, self.lowest, self.highest).astype(np.int32)
        return clipped

    def _off_padding(self, stored: NDArray[np.int32]) -> NDArray[np.int32]:
        """Anatomy must not vanish as padding because a network made it exactly that dark."""
        if self.padding is None:
            return stored
        low, high = self.padding
        beside = high + 1 if high < self.highest else low - 1
        moved: NDArray[np.int32] = np.where((stored >= low) & (stored <= high), beside, stored)
        return moved


def _rescale(header: Any) -> tuple[float, float]:
    """(slope, intercept), the first of several; 1 and 0 where either is missing, as the reader takes it."""
    stated = [header.get(keyword) for keyword in ("RescaleSlope", "RescaleIntercept")]
    slope, intercept = (next(iter(value), None) if isinstance(value, MultiValue) else value for value in stated)
    return (1.0, 0.0) if slope in (None, "") or intercept in (None, "") else (float(slope), float(intercept))


def _padding(header: Any, bits_stored: int, *, signed: bool, keeps_sign: bool = False) -> tuple[int, int] | None:
    """(lower, upper) of the declared padding as stored values.

    What the bits stored cannot hold is what 16 bits make of it, with a sign: 63536 is -2000. With `keeps_sign` unsigned
    pixels remain unsigned, and so does their padding.
    """
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    ends = [value, limit if isinstance(limit, int) else value]
    lowest = -(1 << (bits_stored - 1)) if signed else 0
    highest = (1 << (bits_stored - (1 if signed else 0))) - 1
    sign = 0 if keeps_sign and not signed else 0x8000
    low, high = sorted(end if lowest <= end <= highest else ((end & 0xFFFF) ^ sign) - sign for end in ends)
    return low, high
