from __future__ import annotations

import pytest

from node.dicom.marks.lesions import is_gross_tumour, is_lesion, named_as_lesion

ABNORMAL, TISSUE, ANATOMY = (
    ("49755003", "SCT", "Morphologically Abnormal Structure"),
    ("85756007", "SCT", "Tissue"),
    ("123037004", "SCT", "Anatomical Structure"),
)
MASS, OEDEMA, LIVER = (
    ("4147007", "SCT", "Mass"),
    ("79654002", "SCT", "Edema"),
    ("10200004", "SCT", "Liver"),
)
NODULE_OF_OLD = ("M-03010", "SRT", "Nodule")


@pytest.mark.parametrize(
    "name",
    [
        *("GTV", "GTV-1", "gtv_2", "GTVp", "GTVn_01", "GTVp1", "GTV PET"),
        *("Tumor", "Tumour 2", "lung_lesion_01", "LiverTumor", "Lesion3", "Metastases", "nodule", "Läsion", "tumeurs"),
    ],
)
def test_names_of_lesions(name: str) -> None:
    assert named_as_lesion(name)


@pytest.mark.parametrize(
    "name",
    [
        *("Lung_L", "BODY", "External", "Liver", "Heart", "SpinalCord", "PTV", "CTVp", "ITV", ""),
        *("Lungs-GTV", "GTV-Lung", "GTV+5mm", "GTV_exp", "iGTV", "zGTV", "GTVsb", "GTV_PTV", "GTV~", "ITV_GTV"),
        *("Liver-Tumor", "Liver minus lesion", "Tumor bed", "Tumorbett", "NonTumor", "no lesion", "Lesion ring"),
        *("Thymus", "Nodes", "Massive", "tumoral"),
    ],
)
def test_names_of_what_is_no_lesion(name: str) -> None:
    assert not named_as_lesion(name)


@pytest.mark.parametrize(
    ("interpreted", "name", "expected"),
    [
        ("GTV", "Target", True),
        ("gtv", "GTV-1", True),
        ("GTV", "GTV+5mm", False),
        ("GTV", "GTVsb", False),
        ("ORGAN", "GTV-1", True),
        ("", "Tumor", True),
        ("ORGAN", "Liver", False),
        ("CTV", "GTV-1", False),
        ("PTV", "Tumor", False),
        ("EXTERNAL", "Tumor", False),
        ("AVOIDANCE", "GTV", False),
    ],
)
def test_a_structure_is_a_tumour_by_its_type_or_else_by_its_name(interpreted: str, name: str, expected: bool) -> None:
    assert is_gross_tumour(interpreted, None, name) is expected


def test_a_structure_is_a_tumour_by_its_code() -> None:
    assert is_gross_tumour("", ("228791009", "SCT", "Gross tumor volume"), "x")
    assert not is_gross_tumour("", ("228792002", "SCT", "Clinical target volume"), "x")


@pytest.mark.parametrize(
    ("category", "kind", "name", "expected"),
    [
        (ABNORMAL, MASS, "", True),
        (ABNORMAL, None, "Segment_1", True),
        (("M-01000", "SRT", ""), NODULE_OF_OLD, "Nodule 1", True),
        (TISSUE, MASS, "1", True),
        (ABNORMAL, OEDEMA, "edema", False),
        (TISSUE, TISSUE, "liver tumor", True),
        (TISSUE, TISSUE, "Segment_1", False),
        (ANATOMY, LIVER, "liver", False),
        (ANATOMY, LIVER, "tumor", False),
        (None, None, "lesion", True),
    ],
)
def test_a_segment_is_a_lesion_by_its_codes_or_where_they_are_silent_by_its_label(
    category: tuple[str, str, str] | None, kind: tuple[str, str, str] | None, name: str, expected: bool
) -> None:
    assert is_lesion(category, kind, name) is expected
