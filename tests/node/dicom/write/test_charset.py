from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from node.dicom.write.charset import UTF8, choose_character_set, plain


@pytest.mark.parametrize(
    ("declared", "name", "chosen"),
    [
        ("ISO_IR 100", "Müller^Jörg", "ISO_IR 100"),
        ("ISO_IR 144", "Иванов", "ISO_IR 144"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", ["", "ISO 2022 IR 87"]),
        (["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东", ["", "ISO 2022 IR 58"]),
        ("GB18030", "王^小东", "GB18030"),
        ("ISO_IR 100", "Иванов", UTF8),
        (None, "Müller", UTF8),
        ("ISO_IR 6", "Müller", UTF8),
        (["", "ISO 2022 IR 87"], "Müller=山田", UTF8),
        (["ISO 2022 IR 6", "ISO 2022 IR 100"], "Müller", ["ISO 2022 IR 6", "ISO 2022 IR 100"]),
        (None, "Miller", None),
    ],
)
def test_the_declared_set_is_kept_where_it_holds_every_text(
    declared: str | list[str] | None, name: str, chosen: str | list[str] | None
) -> None:
    ds = Dataset()
    if declared is not None:
        ds.SpecificCharacterSet = declared
    ds.PatientName = name
    choose_character_set(ds)
    assert ds.get("SpecificCharacterSet") == chosen


def test_text_deep_inside_counts_too() -> None:
    ds, item = Dataset(), Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    item.TextValue = "Грудная клетка"
    ds.ContentSequence = [item]
    choose_character_set(ds)
    assert ds.SpecificCharacterSet == UTF8


def test_signs_of_ours_become_ascii_and_letters_stay() -> None:
    assert plain("17 → 8 HU, ±2σ, 22 × 16 mm, Müller") == "17 -> 8 HU, +/-2sigma, 22 x 16 mm, Müller"
