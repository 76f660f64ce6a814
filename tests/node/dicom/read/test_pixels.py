from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from images import phantom, shared
from node.dicom.read.codec import Codec
from node.dicom.read.pixels import PixelFile
from node.dicom.write import SeriesSource
from node.errors import NotEligible

SHAPE = (64, 72)  # JPEG 2000 halves it five times
UNSIGNED_12 = phantom.stored_values(1, SHAPE)
SIGNED_16 = (phantom.stored_values(2, SHAPE).astype(np.int16) - 1024).astype(np.int16)
EIGHT = (phantom.stored_values(3, SHAPE) // 8).astype(np.uint8)

HTJ2K_CODESTREAM = bytes.fromhex(
    "ff4fff5100294000000000100000000c0000000000000000000000100000000c000000000000000000010f0101ff50000800020000000aff"
    "52000c00020001000504044001ff5c00132088909090909090909090909090888888ff64001700014f70656e4a50482056657220302e3236"
    "2e332eff90000a0000000000a30001ff93c0002663fd0507740000c00013400012c000128068fe02077400d201877400d401877400c00015"
    "100004d00004a0a762505000c2b4003f1c01817400c601077400c00015300005684849a44108c42566001148494949008406fac8077800c0"
    "002d080005ad00009c3a2684200882205e29e9c105ca0379001112221104411004f97a002103dfb0840f6590017d0025fc7f0a077500ffd9"
)
"""Made with OpenJPH from the ramp of `htj2k_values`: nothing else here can encode it."""


def htj2k_values() -> NDArray[np.uint16]:
    values = (np.add.outer(np.arange(12), np.arange(16)) * 37 % 2000).astype(np.uint16)
    values[0, :2] = 0, 1100
    return values


UNUSED = Codec()
"""For files that are not compressed: its child never starts."""


@pytest.fixture(scope="module")
def codec() -> Iterator[Codec]:
    with Codec() as codec:
        yield codec


def frame(ds: Dataset, folder: Path, syntax: str = ExplicitVRLittleEndian, codec: Codec = UNUSED) -> NDArray[np.int64]:
    return PixelFile(phantom.save(ds, folder / "a.dcm", syntax), codec).frame(0)[0]


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("values", [UNSIGNED_12, SIGNED_16], ids=["unsigned", "signed"])
def test_reads_uncompressed_pixels(tmp_path: Path, syntax: str, values: NDArray[np.uint16]) -> None:
    np.testing.assert_array_equal(frame(phantom.ct(values=values), tmp_path, syntax), values)


@pytest.mark.parametrize("rest", [b"\xff" * 8, b"\xff" * 1000, bytes(512), b"\r\n"], ids=["8", "many", "zeros", "line"])
def test_what_a_file_is_filled_up_with_is_not_read(tmp_path: Path, rest: bytes) -> None:
    path = phantom.save(phantom.ct(values=UNSIGNED_12), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes() + rest)
    np.testing.assert_array_equal(PixelFile(path, UNUSED).frame(0)[0], UNSIGNED_12)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("values", [UNSIGNED_12, SIGNED_16, EIGHT], ids=["unsigned", "signed", "eight"])
def test_reads_lossless_compression_exactly(
    tmp_path: Path, codec: Codec, syntax: str, values: NDArray[np.uint16]
) -> None:
    file = PixelFile(phantom.save_compressed(phantom.ct(values=values), tmp_path / "a.dcm", syntax), codec)
    np.testing.assert_array_equal(file.frame(0)[0], values)
    assert not file.lossy


@pytest.mark.parametrize("offsets", [b"", bytes(4), b"\x99\0\0\0", bytes(4) + b"\x10\0\0\0"])
def test_the_table_of_offsets_of_a_single_frame_may_say_what_it_likes(
    tmp_path: Path, codec: Codec, offsets: bytes
) -> None:
    path = phantom.save_compressed(phantom.ct(values=UNSIGNED_12), tmp_path / "a.dcm", JPEGLSLossless)
    ds = dcmread(path)
    whole = encapsulate([get_frame(ds.PixelData, 0, number_of_frames=1)], has_bot=False, fragments_per_frame=3)
    table = b"\xfe\xff\x00\xe0" + len(offsets).to_bytes(4, "little") + offsets
    ds.PixelData = table + whole[8:]  # behind the empty table
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    np.testing.assert_array_equal(PixelFile(path, codec).frame(0)[0], UNSIGNED_12)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2K])
def test_reads_high_throughput_jpeg_2000(tmp_path: Path, codec: Codec, syntax: str) -> None:
    ds = phantom.ct(values=htj2k_values(), PixelData=encapsulate([HTJ2K_CODESTREAM]))
    ds["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal(frame(ds, tmp_path, syntax, codec), htj2k_values())


def test_reads_near_lossless_within_its_bound_and_says_lossy(tmp_path: Path, codec: Codec) -> None:
    path = phantom.save_compressed(phantom.ct(values=UNSIGNED_12), tmp_path / "a.dcm", JPEGLSNearLossless, jls_error=3)
    file = PixelFile(path, codec)
    assert np.abs(file.frame(0)[0] - UNSIGNED_12).max() <= 3
    assert file.lossy


@pytest.mark.parametrize("syntax", [JPEG2000, HTJ2K])
def test_a_syntax_that_promises_no_lossless_values_is_lossy_whatever_the_header_says(
    tmp_path: Path, syntax: str
) -> None:
    ds = phantom.ct(LossyImageCompression="00", PixelData=encapsulate([HTJ2K_CODESTREAM]))
    ds["PixelData"].is_undefined_length = True
    path = phantom.save(ds, tmp_path / "a.dcm", syntax)
    assert PixelFile(path, UNUSED).lossy
    assert SeriesSource.load([path]).first.LossyImageCompression == "01", "of results, as in the note"


def test_hears_that_an_image_was_once_compressed_with_loss(tmp_path: Path) -> None:
    assert PixelFile(phantom.save(phantom.ct(LossyImageCompression="01"), tmp_path / "a.dcm"), UNUSED).lossy


def test_reads_every_frame_of_several(tmp_path: Path) -> None:
    values = np.stack([UNSIGNED_12, UNSIGNED_12[::-1]])
    file = PixelFile(phantom.save(phantom.enhanced_ct([(0, 0, 0), (0, 0, 1)], values), tmp_path / "a.dcm"), UNUSED)
    np.testing.assert_array_equal(file.frame(1)[0], values[1])


def test_removes_overlay_bits_above_the_stored_ones(tmp_path: Path) -> None:
    ds = phantom.pixels(phantom.ct(), UNSIGNED_12 | 0xA000, stored=12)
    np.testing.assert_array_equal(frame(ds, tmp_path), UNSIGNED_12)


def test_extends_the_sign_of_twelve_stored_bits(tmp_path: Path) -> None:
    ds = phantom.pixels(phantom.ct(), (SIGNED_16.view(np.uint16) & 0x0FFF).view(np.int16), stored=12)
    np.testing.assert_array_equal(frame(ds, tmp_path), SIGNED_16)


def test_finds_stored_bits_that_lie_high_in_their_container(tmp_path: Path) -> None:
    ds = phantom.change(phantom.pixels(phantom.ct(), UNSIGNED_12 << 4, stored=12), HighBit=15)
    np.testing.assert_array_equal(frame(ds, tmp_path), UNSIGNED_12)


def test_reads_bytes_stored_as_words_in_big_endian(tmp_path: Path) -> None:
    ds = phantom.ct(values=EIGHT)
    ds.PixelData = EIGHT.view(np.uint16).byteswap().tobytes()
    ds["PixelData"].VR = "OW"
    np.testing.assert_array_equal(frame(ds, tmp_path, ExplicitVRBigEndian), EIGHT)


def test_reads_past_excess_padding(tmp_path: Path) -> None:
    ds = phantom.ct(values=UNSIGNED_12)
    ds.PixelData = ds.PixelData + b"\0" * 10
    np.testing.assert_array_equal(frame(ds, tmp_path), UNSIGNED_12)


def padding_of(ds: Dataset, folder: Path) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    return PixelFile(phantom.save(ds, folder / "a.dcm"), UNUSED).frame(0)


def test_finds_the_declared_padding(tmp_path: Path) -> None:
    values = SIGNED_16.copy()
    values[:3] = -2000
    _, padding = padding_of(phantom.ct(values=values, PixelPaddingValue=-2000), tmp_path)
    np.testing.assert_array_equal(padding, values == -2000)


@pytest.mark.parametrize(("value", "limit"), [(-2000, -1900), (-1900, -2000)])
def test_finds_a_range_of_padding_in_either_order(tmp_path: Path, value: int, limit: int) -> None:
    values = SIGNED_16.copy()
    values[:3], values[3] = -2000, -1950
    ds = phantom.ct(values=values, PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
    np.testing.assert_array_equal(padding_of(ds, tmp_path)[1], values <= -1900)


def test_understands_padding_written_with_the_wrong_sign(tmp_path: Path) -> None:
    values = SIGNED_16.copy()
    values[:3] = -2000
    ds = phantom.ct(values=values)
    ds.add_new("PixelPaddingValue", "US", 63536)
    np.testing.assert_array_equal(padding_of(ds, tmp_path)[1], values == -2000)


def test_keeps_padding_that_was_written_across_unused_bits(tmp_path: Path) -> None:
    values = UNSIGNED_12.copy()
    values[:3] = 63536  # -2000 in 16 bits, although only 12 are stored
    ds = phantom.pixels(phantom.ct(), values, stored=12)
    ds.add_new("PixelPaddingValue", "US", 63536)
    stored, padding = padding_of(ds, tmp_path)
    np.testing.assert_array_equal(padding, values == 63536)
    assert set(stored[:3].ravel()) == {-2000}
    np.testing.assert_array_equal(stored[3:], UNSIGNED_12[3:])


def test_declared_padding_that_does_not_occur_is_none(tmp_path: Path) -> None:
    assert padding_of(phantom.ct(PixelPaddingValue=4000), tmp_path)[1] is None


def test_refuses_truncated_pixels(tmp_path: Path) -> None:
    path = phantom.save(phantom.ct(), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(NotEligible, match="truncated"):
        PixelFile(path, UNUSED).frame(0)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_refuses_truncated_compressed_pixels(tmp_path: Path, codec: Codec, syntax: str) -> None:
    ds = phantom.ct(values=UNSIGNED_12)
    phantom.save_compressed(ds, tmp_path / "whole.dcm", syntax)
    ds.PixelData = encapsulate([b"\xff\xff\0\0" * 4])
    with pytest.raises(NotEligible, match="cannot be decoded"):
        PixelFile(phantom.save(ds, tmp_path / "a.dcm", syntax), codec).frame(0)


EXTENDED_JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb00430001010101010101010101010101010101010101010101010101010101010101"
    "010101010101010101010101010101010101010101010101010101010101010101ffc1000b0c000c001001011100ffc40016000101010000"
    "00000000000000000000000e0b0dffc400211000000308030000000000000000000000000c29060a0b2839455765476775ffda0008010100"
    "003f00c0cf2aa2554a9c29c38a78abc9d484b005544aa9538538714f15793a912232aa30ee1d624e1911c537563f53d7c12c015518770eb1"
    "270c88e29bab1fa9ebe1ffd9"
)
"""A ramp of 12 bits, made with DCMTK: nothing else here can encode it."""


def extended(stream: bytes = EXTENDED_JPEG, *, stored: int = 12) -> Dataset:
    ds = phantom.pixels(phantom.ct(), np.zeros((12, 16), np.uint16), stored=stored)
    ds.PixelData = encapsulate([stream])
    return ds


@pytest.mark.parametrize("stored", [12, 16])
def test_decodes_extended_jpeg_of_twelve_bits(tmp_path: Path, codec: Codec, stored: int) -> None:
    file = PixelFile(phantom.save(extended(stored=stored), tmp_path / "a.dcm", JPEGExtended12Bit), codec)
    np.testing.assert_array_equal(file.frame(0)[0], np.add.outer(np.arange(12), np.arange(16)) * 150)
    assert file.lossy


@pytest.mark.parametrize("stored", [8, 12])
def test_refuses_extended_jpeg_that_is_cut_or_of_other_bits_than_the_header_says(
    tmp_path: Path, codec: Codec, stored: int
) -> None:
    stream = EXTENDED_JPEG if stored == 8 else EXTENDED_JPEG[:100]
    path = phantom.save(extended(stream, stored=stored), tmp_path / "a.dcm", JPEGExtended12Bit)
    with pytest.raises(NotEligible, match="cannot be decoded"):
        PixelFile(path, codec).frame(0)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"PhotometricInterpretation": phantom.REMOVED}, "what the pixels mean"),
        ({"Rows": 0}, "rows and columns"),
        ({"BitsAllocated": 12}, "Pixels of"),
        ({"BitsStored": 17}, "Pixels of"),
        ({"PixelData": phantom.REMOVED}, "no pixel data"),
    ],
)
def test_refuses_what_is_no_greyscale_image(tmp_path: Path, elements: dict[str, object], words: str) -> None:
    path = phantom.save(phantom.ct(**elements), tmp_path / "a.dcm")
    with pytest.raises(NotEligible, match=words):
        PixelFile(path, UNUSED)


def test_refuses_a_transfer_syntax_without_a_decoder(tmp_path: Path) -> None:
    ds = phantom.ct(PixelData=encapsulate([b"\xff\xd8\xff\xd9"]))
    path = phantom.save(ds, tmp_path / "a.dcm", "1.2.840.10008.1.2.4.55")
    with pytest.raises(NotEligible, match=r"1\.2\.840\.10008\.1\.2\.4\.55 cannot be decoded"):
        PixelFile(path, UNUSED)


def test_refuses_a_file_that_is_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing")
    with pytest.raises(NotEligible):
        PixelFile(tmp_path / "a", UNUSED)


LOSSLESS = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"} | {
    f"1.2.840.10008.1.2.{end}" for end in ("4.57", "4.70", "4.80", "4.90", "5")
}


class TestWithRealFiles:
    pytestmark = shared.needs_shared_data

    def test_one_slice_is_the_same_in_every_lossless_syntax(
        self, tmp_path_factory: pytest.TempPathFactory, codec: Codec
    ) -> None:
        files = shared.unpack("odd-dicom", tmp_path_factory.getbasetemp())
        variants = [path for path in files if path.name.startswith("CTImage.dcm_")]
        reference, _ = PixelFile(next(path for path in files if path.name == "CTImage.dcm"), codec).frame(0)
        seen = set()
        for path in variants:
            syntax = path.stem.rpartition("_")[2]
            if syntax in LOSSLESS:
                np.testing.assert_array_equal(PixelFile(path, codec).frame(0)[0], reference, err_msg=syntax)
                seen.add(syntax)
        assert seen == LOSSLESS
