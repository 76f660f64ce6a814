"""Stored values of one frame, from any transfer syntax that can be decoded under a permissive licence.

One decoder is named for each syntax, so that the same file gives the same numbers wherever the node runs:
an additional package on one machine changes nothing, and pylibjpeg-libjpeg (GPL) is never asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, get_frame, parse_basic_offsets

from models.contract import BoolArray
from node.dicom.elements import UNREADABLE, integer, number, parse, text
from node.dicom.header import LOSSY_TRANSFER_SYNTAXES, transfer_syntax
from node.dicom.read.codec import Codec
from node.errors import NotEligible, NotUnderstood

IntArray = NDArray[np.int64]

_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
_JPEG_EXTENDED, _JPEG_LOSSLESS = "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57"
_PLUGINS = {
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    _JPEG_EXTENDED: "pillow",  # 8 bits; 12 see `_decoder`
    _JPEG_LOSSLESS: "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000, by OpenJPEG
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # High-throughput JPEG 2000, by OpenJPEG
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
    _RLE: "pydicom",
}
DECODED = frozenset({*_NATIVE, *_PLUGINS})
"""Transfer syntaxes of which pixels are read."""
_PIXEL_DATA = 0x7FE00010
_LARGEST_FRAME_PX = 1 << 28


@dataclass(frozen=True)
class PixelFormat:
    """Image Pixel Module (PS3.3 C.7.6.3), checked: `bits_stored` bits end at `high_bit` of `bits_allocated`."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    transfer_syntax_uid: str

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest value that the stored bits allow."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


class PixelFile:
    """One opened file: its data set, and its frames as stored values.

    raises   NotEligible   unreadable, no pixels, colour, or a format that cannot be decoded
    """

    def __init__(self, path: Path, codec: Codec) -> None:
        self._codec = codec
        try:
            self.dataset = parse(path, stop_at=_PIXEL_DATA + 1)  # what some writers fill files up with is not read
        except NotUnderstood as exc:
            raise NotEligible(exc.reason) from exc
        self.format = pixel_format(self.dataset, transfer_syntax(self.dataset))
        element = self.dataset.get_item(_PIXEL_DATA) if _PIXEL_DATA in self.dataset else None
        if element is None or not isinstance(element.value, bytes):
            raise NotEligible("The image has no pixel data.")
        self._encoded: bytes = element.value
        self._swapped = element.VR == "OW" and self.format.transfer_syntax_uid == _BIG_ENDIAN
        self._padding = _padding_range(self.dataset)

    @property
    def lossy(self) -> bool:
        """Whether compression has changed the values, now or earlier (PS3.3 C.7.6.1.1.5)."""
        return text(self.dataset, 0x00282110) == "01" or self.format.transfer_syntax_uid in LOSSY_TRANSFER_SYNTAXES

    def frame(self, index: int) -> tuple[IntArray, BoolArray | None]:
        """Stored values int64 (Y, X) of one frame (0-based), and where the header declares padding (None: nowhere).

        Bits outside Bits Stored (overlays, PS3.5 8.1.2) are removed; padding written across them keeps its value.
        """
        container = self._native(index) if self.format.transfer_syntax_uid in _NATIVE else self._decompressed(index)
        stored = self._stored(container)
        if self._padding is None:
            return stored, None
        low, high = self._padding_as_stored(*self._padding)
        padding: BoolArray = (stored >= low) & (stored <= high)
        if low == high and not self.format.range[0] <= low <= self.format.range[1]:
            padding |= container == (low & ((1 << self.format.bits_allocated) - 1))
            stored[padding] = low
        return stored, padding if padding.any() else None

    def _native(self, index: int) -> NDArray[np.unsignedinteger]:
        size = self.format.bits_allocated // 8
        length = self.format.rows * self.format.columns * size
        if len(self._encoded) < (index + 1) * length:
            raise NotEligible("The pixel data are shorter than the image: the file is truncated.")
        order = ">" if self.format.transfer_syntax_uid == _BIG_ENDIAN else "<"
        if size == 1 and self._swapped:
            whole = self._encoded + b"\0" * (len(self._encoded) % 2)
            flat = np.frombuffer(whole, np.uint16).byteswap().view(np.uint8)[index * length : (index + 1) * length]
        else:
            pixels = length // size
            flat = np.frombuffer(self._encoded, f"{order}u{size}", count=pixels, offset=index * length)
        return flat.reshape(self.format.rows, self.format.columns)

    def _decompressed(self, index: int) -> NDArray[np.unsignedinteger]:
        uid, plugin = self._decoder()
        try:
            encoded = _one_of(self._encoded, index, self.format.frames)
        except UNREADABLE as exc:
            raise NotEligible("The compressed pixel data are not put together as DICOM has it.") from exc
        return self._codec.decode(encoded, plugin=plugin, options={"transfer_syntax_uid": uid, **self._options()})

    def _decoder(self) -> tuple[str, str]:
        """(transfer syntax under which the decoder is asked, its name)

        pydicom keeps 12-bit extended JPEG from GDCM, which decodes it as DCMTK does, value for value. What is passed on
        as lossless JPEG is decoded by the process that the stream names.
        """
        uid = self.format.transfer_syntax_uid
        if uid == _JPEG_EXTENDED and self.format.bits_stored > 8:
            uid = _JPEG_LOSSLESS
        return uid, _PLUGINS[uid]

    def _options(self) -> dict[str, object]:
        return {
            "rows": self.format.rows,
            "columns": self.format.columns,
            "number_of_frames": self.format.frames,
            "samples_per_pixel": 1,
            "photometric_interpretation": self.format.photometric,
            "pixel_representation": int(self.format.signed),
            "bits_allocated": self.format.bits_allocated,
            "bits_stored": self.format.bits_stored,
            "pixel_keyword": "PixelData",
            "allow_excess_frames": False,
            "correct_unused_bits": False,  # done below, once for all syntaxes
        }

    def _stored(self, container: NDArray[np.unsignedinteger]) -> IntArray:
        form = self.format
        values = container.astype(np.int64)
        if form.transfer_syntax_uid in _NATIVE or form.transfer_syntax_uid == _RLE:
            values >>= form.high_bit + 1 - form.bits_stored  # the JPEGs leave their values at bit 0
        values &= (1 << form.bits_stored) - 1
        if form.signed:
            sign = 1 << (form.bits_stored - 1)
            values = (values ^ sign) - sign
        return values

    def _padding_as_stored(self, value: int, limit: int) -> tuple[int, int]:
        """(lower, upper). A range up to 65535 ends there in unsigned pixels; as -1 it would begin below all of them."""
        if value == limit or self.format.signed:
            low, high = sorted((self._as_stored(value), self._as_stored(limit)))
        else:
            low, high = sorted(end & ((1 << self.format.bits_allocated) - 1) for end in (value, limit))
        return low, high

    def _as_stored(self, value: int) -> int:
        """A padding value as the pixels' own representation has it: 63536 is -2000 in signed 16 bits."""
        low, high = self.format.range
        if low <= value <= high:
            return value
        sign = 1 << (self.format.bits_allocated - 1)
        return ((value & (2 * sign - 1)) ^ sign) - sign


def _one_of(encapsulated: bytes, index: int, frames: int) -> bytes:
    """The stream of one frame. All fragments are those of a single frame, whatever its table of offsets says."""
    if frames > 1:
        return get_frame(encapsulated, index, number_of_frames=frames)
    buffer = BytesIO(encapsulated)
    parse_basic_offsets(buffer)
    return b"".join(generate_fragments(buffer))


def pixel_format(dataset: Dataset, transfer_syntax_uid: str) -> PixelFormat:
    """Checked description of the pixels. raises NotEligible, in words."""
    rows, columns = integer(dataset, 0x00280010) or 0, integer(dataset, 0x00280011) or 0
    allocated = integer(dataset, 0x00280100) or 0
    stored = integer(dataset, 0x00280101) or allocated
    high_bit = integer(dataset, 0x00280102)
    photometric = text(dataset, 0x00280004).upper()
    samples = integer(dataset, 0x00280002) or 1
    if samples == 1 and not photometric:
        raise NotEligible("The header does not say what the pixels mean (no photometric interpretation).")
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise NotEligible("A colour image; only greyscale images carry measured values.")
    if rows < 1 or columns < 1 or rows * columns > _LARGEST_FRAME_PX:
        raise NotEligible("The header gives no usable number of rows and columns.")
    if allocated not in {8, 16, 32} or not 1 <= stored <= allocated:
        raise NotEligible(f"Pixels of {stored} bits in {allocated} are not a form that can be read.")
    if high_bit is None or not stored - 1 <= high_bit < allocated:
        high_bit = stored - 1
    if transfer_syntax_uid not in DECODED:
        raise NotEligible(f"Images in transfer syntax {transfer_syntax_uid} cannot be decoded here.")
    return PixelFormat(
        rows=rows,
        columns=columns,
        frames=max(1, integer(dataset, 0x00280008) or 1),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=integer(dataset, 0x00280103) == 1,
        photometric=photometric,
        transfer_syntax_uid=transfer_syntax_uid,
    )


def _padding_range(dataset: Dataset) -> tuple[int, int] | None:
    """Pixel Padding Value and Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2); without a limit, the value twice."""
    value, limit = number(dataset, 0x00280120), number(dataset, 0x00280121)
    if value is None:
        return None
    return int(value), int(value if limit is None else limit)
