from __future__ import annotations

import pytest
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import Code, codes

from node.dicom.view import View, names_no_view, view_in, view_of_code


@pytest.mark.parametrize(
    ("text", "frontal"),
    [
        ("PA", "PA"),
        ("AP SUPINE", "AP"),
        ("PA ERECT", "PA"),
        ("PORTABLE AP", "AP"),
        ("AP_PORTABLE", "AP"),
        ("AP-SITTING", "AP"),
        ("APSUPINE", "AP"),
        ("A.P.", "AP"),
        ("p.-a.", "PA"),
        ("A/P semi-erect", "AP"),
        ("Chest P A upright", "PA"),
        ("THORAX AP LIEGEND", "AP"),
        ("Thorax d.v. stehend", "PA"),
        ("THORAX P.A. IM STEHEN", "PA"),
        ("Thorax de face debout", "FRONTAL"),
        ("RX TORAX PA DE PIE", "PA"),
        ("Torax AP decúbito supino", "AP"),
        ("Torace AP a letto", "AP"),
        ("Thorax AP liggend", "AP"),
        ("antero-posterior", "AP"),
        ("Posteroanterior projection", "PA"),
        ("anterior to posterior", "AP"),
        ("FRONTAL", "FRONTAL"),
        ("PA/AP", "FRONTAL"),
        ("胸部P→A", "PA"),
        ("A -> P", "AP"),
        ("胸部正面", "FRONTAL"),
        ("Грудная клетка прямая", "FRONTAL"),
        ("AP_L", "AP"),
        ("PA LEFT", "PA"),
    ],
)
def test_a_frontal_view_is_known_in_any_words(text: str, frontal: str) -> None:
    assert view_in(text) == View(frontal)


@pytest.mark.parametrize(
    "text",
    [
        *("LAT", "LAT ERECT", "LL_STANDING", "LATSUPINE", "L LAT", "left lateral sitting", "RLAT"),
        *("Thorax seitlich im Stehen", "Thorax links anliegend", "thorax de profil debout", "TORAX PERFIL SENTADO"),
        *("latero-laterale", "Thorax dwars staand", "Torace L-L", "THORAX L.L.", "CHESTLAT", "ThoraxLL", "Chest LATL"),
        *("LLATERAL", "Thorax seit.", "Thorax prof", "Lungor sida", "胸部側面", "胸部R→L", "L->R", "боковая"),
    ],
)
def test_a_lateral_view_is_known_in_any_words(text: str) -> None:
    assert view_in(text) == View(lateral=True)


BY_INITIALS = ("TORAX PA/L", "Torax PA y L", "THORAX AP + L", "RP THORAX F+P", "Thorax F/P", "胸部正侧位")


@pytest.mark.parametrize(
    "text", ["AP LAT", "PA AND LATERAL", "Thorax p.a./seitl.", "AP_LL", "face et profil", *BY_INITIALS]
)
def test_frontal_and_lateral_at_once_is_a_contradiction(text: str) -> None:
    assert view_in(text).contradictory


@pytest.mark.parametrize(
    "text",
    [
        *("AP LORDOTIC", "AP AXIAL", "PA OBLIQUE", "AP LLD", "AP DECUB", "Thorax schräg", "AP X-TABLE"),
        *("dorsal decubitus", "TORAX DECUBITO SUPINO", "AP DECUBITO SUPINO RAYO HORIZONTAL"),
    ],
)
def test_what_is_no_plain_view_is_known_whatever_else_is_said(text: str) -> None:
    assert view_in(text).unusual


@pytest.mark.parametrize("text", ["", " ", "PORTABLE", "ERECT", "SUPINE PORTABLE", "im Liegen", "Bed 3", "DE PIE"])
def test_how_the_patient_was_names_no_view(text: str) -> None:
    assert names_no_view(text)
    assert view_in(text) == View()


@pytest.mark.parametrize("text", ["AP SUPINE", "LAT", "XYZ", "PORTABLE XYZ", "LL"])
def test_a_view_or_an_unknown_word_is_no_manner_alone(text: str) -> None:
    assert not names_no_view(text)


@pytest.mark.parametrize("text", ["CHEST", "PAIN", "APEX", "PATIENT APPLE", "BILATERAL", "PLAT", "Thorax liegend"])
def test_words_that_only_look_like_views_are_none(text: str) -> None:
    assert view_in(text) == View()


CID_4010: list[Code] = [getattr(codes.CID4010, name) for name in codes.CID4010.dir()]


@pytest.mark.parametrize("code", CID_4010, ids=lambda code: code.meaning)
def test_knows_every_view_code_of_the_standard_old_and_new(code: Code) -> None:
    words, meant = view_of_code(code.value, ""), view_in(code.meaning)
    assert words
    assert view_of_code(mapping["SCT"][code.value], "") == words
    named = view_in(words)
    assert (named.frontal, named.unusual) == ("" if meant.unusual else meant.frontal, meant.unusual)
    assert named.lateral == (not meant.unusual and (meant.lateral or code.meaning == "Sagittal"))


def test_a_code_that_is_not_known_speaks_by_its_meaning_or_not_at_all() -> None:
    assert view_of_code("X1", "Lateral projection") == "LATERAL PROJECTION"
    assert view_of_code("X1", "standard") == ""
    assert view_of_code("", "") == ""
