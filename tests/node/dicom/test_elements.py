from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from images import phantom, shared
from network.objects import ct_image, write
from node.dicom.elements import integer, item, items, number, numbers, parse, text, texts, valid_uid
from node.errors import NotUnderstood

SLOPE, ROWS, NAME, SEQUENCE = 0x00281053, 0x00280010, 0x00100010, 0x00400275


def holding(tag: int, vr: str | None, value: bytes, *, little_endian: bool = True) -> Dataset:
    ds = Dataset()
    ds._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, vr is None, little_endian)
    return ds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"001.000000E+00 ", (1.0,)),
        (b" -2.5\\+3\0", (-2.5, 3.0)),
        (b"", ()),
        (b"  ", ()),
        (b"nan", ()),
        (b"1e999", ()),
        (b"1_0", ()),
        (b"1,5", ()),
        (b"1\\two", ()),
    ],
)
def test_reads_decimal_strings_as_writers_write_them(value: bytes, expected: tuple[float, ...]) -> None:
    assert numbers(holding(SLOPE, "DS", value), SLOPE) == expected


@pytest.mark.parametrize(
    ("vr", "value", "little_endian"),
    [
        ("US", b"\x00\x02", True),
        ("US", b"\x02\x00", False),
        (None, b"\x00\x02", True),
        ("UN", b"\x00\x02", True),
        ("UL", b"\x00\x02\x00\x00", True),
        ("IS", b"512 ", True),
        ("LO", b"512 ", True),
    ],
)
def test_reads_a_number_whatever_value_representation_it_was_given(vr: str, value: bytes, little_endian: bool) -> None:
    assert integer(holding(ROWS, vr, value, little_endian=little_endian), ROWS) == 512


def test_takes_no_whole_number_that_a_database_could_not_hold() -> None:
    assert integer(holding(SLOPE, "DS", b"9999999999"), SLOPE) is None


def test_takes_control_characters_and_padding_out_of_text() -> None:
    assert text(holding(NAME, "PN", b"A\x00B\r\nC^D \0\0"), NAME) == "A B C^D"


def test_splits_several_values_of_text() -> None:
    assert texts(holding(0x00080008, "CS", b"ORIGINAL\\PRIMARY \\\\X"), 0x00080008) == ("ORIGINAL", "PRIMARY", "", "X")


def test_absent_elements_are_empty_and_no_error() -> None:
    ds = Dataset()
    assert (text(ds, NAME), texts(ds, NAME), number(ds, SLOPE), items(ds, SEQUENCE)) == ("", (), None, ())
    assert len(item(ds, SEQUENCE)) == 0


def test_a_sequence_that_cannot_be_parsed_counts_as_absent() -> None:
    assert items(holding(SEQUENCE, "SQ", b"\xfe\xff\x00\xe0\xff"), SEQUENCE) == ()
    assert items(holding(SEQUENCE, "LO", b"no sequence "), SEQUENCE) == ()


@pytest.mark.parametrize("uid", ["1.2.3", "0", "1.02.3", "1" * 64])
def test_takes_uids_that_are_safe_to_store(uid: str) -> None:
    assert valid_uid(uid)


@pytest.mark.parametrize("uid", ["", "1..2", ".1", "1.", "1.2a", "1/2", "../1", "1" * 65, "1.2\n", "１.2"])
def test_refuses_uids_that_are_not(uid: str) -> None:
    assert not valid_uid(uid)


def test_stops_where_it_is_told_to(tmp_path: Path) -> None:
    path = phantom.save(phantom.ct(), tmp_path / "a.dcm")
    assert "PixelData" in parse(path)
    assert "PixelData" not in parse(path, stop_at=0x7FE00008)


def test_a_missing_file_is_an_error_of_the_disk_not_of_the_sender(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        parse(tmp_path / "none")


def test_a_damaged_deflated_file_is_not_understood(tmp_path: Path) -> None:
    content = phantom.save(phantom.ct(), tmp_path / "a.dcm", DeflatedExplicitVRLittleEndian).read_bytes()
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content[:400])
    with pytest.raises(NotUnderstood, match="cannot be read as DICOM"):
        parse(path)


@pytest.fixture
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return shared.unpack("odd-dicom", tmp_path_factory.getbasetemp())


def test_a_deflated_data_set_that_grows_beyond_bounds_is_not_understood(tmp_path: Path) -> None:
    ds = phantom.ct(values=np.zeros((1024, 1024), np.uint16))
    path = phantom.save(ds, tmp_path / "bomb.dcm", DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 10_000
    assert "PixelData" in parse(path, most_inflated_bytes=1 << 22)
    with pytest.raises(NotUnderstood, match="too large"):
        parse(path, most_inflated_bytes=1 << 21)


EXAMPLES = [  # PS3.5 Annex H, I and K
    ("ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
    ("ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
    ("ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", "Zhang^XiaoDong=张^小东"),
]


@pytest.mark.parametrize(("term", "value", "expected"), EXAMPLES)
def test_names_with_code_extensions_are_read_as_the_standard_writes_them(
    term: str, value: bytes, expected: str, tmp_path: Path
) -> None:
    ds = ct_image()
    ds.SpecificCharacterSet, ds.PatientName = ["", term], "X" * len(value)
    path = write(ds, tmp_path / "name.dcm")
    path.write_bytes(path.read_bytes().replace(b"X" * len(value), value))
    assert text(parse(path), NAME) == expected
    assert str(dcmread(path).PatientName) == expected, "what results copy"


@pytest.mark.parametrize(("term", "value", "expected"), EXAMPLES)
def test_names_with_code_extensions_are_written_as_the_standard_has_them(
    term: str, value: bytes, expected: str, tmp_path: Path
) -> None:
    ds = ct_image()
    ds.SpecificCharacterSet, ds.PatientName = ["", term], expected
    written = write(ds, tmp_path / "name.dcm").read_bytes()
    assert value.removesuffix(b"\x1b(B") in written


class TestWithRealFiles:
    pytestmark = shared.needs_shared_data

    @pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
    def test_names_in_all_character_sets_are_those_that_pydicom_reads(self, odd_files: list[Path]) -> None:
        names = 0
        for path in odd_files:
            if path.parent.name == "charset_files" and path.suffix == ".dcm":
                expected = str(dcmread(path).get("PatientName", ""))
                if "\ufffd" not in expected:
                    assert text(parse(path), NAME).rstrip("=") == expected.strip()
                    names += bool(expected)
        assert names >= 12
