from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import shared
from node.dicom.header import InstanceHeader, read_header
from node.dicom.select import CHEST_XRAY, LOW_DOSE_CT, Choice, Role, choose, judge
from node.errors import NotUnderstood

CT, ENHANCED = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
CR, DX, DX_RAW = (
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1.1",
)
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"

SLICE = InstanceHeader(
    sop_class_uid=CT,
    sop_instance_uid="1.2.1.1",
    study_instance_uid="1.2",
    series_instance_uid="1.2.1",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    modality="CT",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    series_number=2,
    instance_number=1,
    rows=512,
    columns=512,
    frames=1,
)
CHEST = replace(
    SLICE,
    sop_class_uid=DX,
    modality="DX",
    image_type=("ORIGINAL", "PRIMARY", ""),
    body_part="CHEST",
    view_position="PA",
)


def fate(header: InstanceHeader, **values: Any) -> tuple[Role, str | None]:
    role, pipeline, reason = judge(replace(header, **values))
    assert reason.endswith("."), "every fate has a reason, which is a sentence"
    assert len(reason) > 20
    return role, pipeline


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"image_type": ()},
        {"image_type": ("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI")},
        {"image_type": ("DERIVED", "PRIMARY", "AXIAL")},
        {"sop_class_uid": ENHANCED, "image_type": ("ORIGINAL", "PRIMARY", "VOLUME", "NONE"), "frames": 300},
        {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2.2", "image_type": ("ORIGINAL", "PRIMARY", "AXIAL", "NONE")},
        {"series_description": "Smart Prep Scout range", "image_type": ("ORIGINAL", "PRIMARY", "AXIAL")},
        {"body_part": "OVARY", "series_description": "THINS FOR CORONAL MPR"},
        {"series_description": "1.25 FOR 3D MIPS/MPRS"},
        {"series_description": "CHEST W MIP"},
        {"series_description": "Thin for reformats"},
        {"series_description": "AX 3D LUNG"},
        {"series_description": "LIVER PERFUSION 5.0"},
        {"series_description": "WITH IODINE 370"},
        {"series_description": "Chest 80 kV"},
        {"protocol_name": "CT CHEST W MIP", "series_description": "AXIAL 5MM"},
        {"image_type": ("ORIGINAL", "PRIMARY", "AXIAL", "AIDR_3D")},
    ],
)
def test_takes_axial_ct(values: dict[str, Any]) -> None:
    assert fate(SLICE, **values) == (Role.CT, LOW_DOSE_CT)


@pytest.mark.parametrize(
    "values",
    [
        {"series_description": "CBCT Thorax"},
        {"protocol_name": "Cone-Beam Pelvis"},
        {"image_type": ("ORIGINAL", "PRIMARY", "AXIAL", "CBCT")},
        {"series_description": "DynaCT Body"},
        {"manufacturer_model_name": "On-Board Imager"},
        {"manufacturer_model_name": "XVI"},
    ],
)
def test_leaves_cone_beam_ct_whose_values_are_not_calibrated(values: dict[str, Any]) -> None:
    assert fate(SLICE, **values) == (Role.CT, None)
    assert "cone-beam" in judge(replace(SLICE, **values))[2]


@pytest.mark.parametrize(
    ("values", "role"),
    [
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, Role.LOCALISER),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP")}, Role.LOCALISER),
        ({"image_type": (), "series_description": "Topogram 0.6 T20s"}, Role.LOCALISER),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL")}, Role.DERIVED),
        ({"image_type": ("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE")}, Role.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "MPR")}, Role.DERIVED),
        ({"image_type": ("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 MPR")}, Role.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "OTHER")}, Role.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL", "DE_IODINE_MAP")}, Role.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL", "MIP_THICK")}, Role.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL", "VIRTUAL_NONCONTRAST")}, Role.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL", "CT_SOM7 SPI", "DUAL", "MONO_E_70")}, Role.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL", "MAX_IP")}, Role.DERIVED),
        ({"series_description": "THICK MIP 10/3"}, Role.DERIVED),
        ({"series_description": "LUNG_MINIP_AX"}, Role.DERIVED),
        ({"image_type": (), "series_description": "COR MPR"}, Role.DERIVED),
        ({"series_description": "Iodine Map W Contrast"}, Role.DERIVED),
        ({"series_description": "Monoenergetic Plus 55 keV"}, Role.DERIVED),
        ({"series_description": "VMI 70 keV"}, Role.DERIVED),
        ({"series_description": "VNC 3.0"}, Role.DERIVED),
        ({"series_description": "Average CT"}, Role.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "PERFUSION", "RCBF"), "sop_class_uid": ENHANCED}, Role.DERIVED),
        ({"image_type": ("DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT")}, Role.DOSE_REPORT),
        ({"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, Role.SCREEN_SAVE),
        ({"image_type": ("DERIVED", "SECONDARY"), "series_description": "Dose Report"}, Role.DOSE_REPORT),
        ({"sop_class_uid": SECONDARY, "series_description": "Dose Report"}, Role.DOSE_REPORT),
        ({"sop_class_uid": SECONDARY}, Role.SCREEN_SAVE),
        ({"sop_class_uid": SECONDARY + ".4"}, Role.SCREEN_SAVE),
        ({"modality": "SEG"}, Role.SEGMENTATION),
        ({"modality": "PT"}, Role.OTHER),
        ({"modality": ""}, Role.OTHER),
        ({"rows": None, "frames": 0}, Role.OTHER),
        ({"own_result": True}, Role.OWN_RESULT),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.4", "modality": "SEG"}, Role.SEGMENTATION),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.481.3", "modality": "RTSTRUCT"}, Role.SEGMENTATION),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.67", "modality": "SR"}, Role.DOSE_REPORT),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.33", "modality": "SR"}, Role.REPORT),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.104.1", "modality": "DOC"}, Role.REPORT),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4", "modality": "MR"}, Role.OTHER),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.6.1", "modality": "US"}, Role.OTHER),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.128", "modality": "PT"}, Role.OTHER),
        ({"sop_class_uid": "1.2.3.4.5"}, Role.OTHER),
    ],
)
def test_leaves_what_is_no_axial_ct(values: dict[str, Any], role: Role) -> None:
    assert fate(SLICE, **values) == (role, None)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sop_class_uid": CR, "modality": "CR", "view_position": "AP"},
        {"sop_class_uid": DX_RAW, "presentation_intent": "FOR PROCESSING"},
        {"body_part": "THORAX"},
        {"body_part": "LUNG"},
        {"view_position": ""},
        {"image_type": ("DERIVED", "PRIMARY", "POST_PROCESSED")},
        {"body_part": "", "series_description": "Chest PA"},
        {"body_part": "UNKNOWN", "protocol_name": "W034 Thorax ap"},
        {"series_description": "Chest bedside Prot 3"},
        {"patient_orientation": ("A", "F"), "study_description": "XR CHEST PA AND LATERAL"},
        {"view_position": "", "patient_orientation": ("L", "F"), "study_description": "XR CHEST PA AND LATERAL"},
        {"view_position": "", "patient_orientation": ("R", "F"), "series_description": "Chest pa/lat"},
        {"view_position": "", "series_description": "Chest PA", "study_description": "CHEST 2 VIEWS"},
        {"view_position": "", "study_description": "CHEST 1 VIEW"},
        {"view_position": "", "patient_orientation": ("F", "L")},
        {"view_position": "AP SUPINE"},
        {"view_position": "PA_ERECT", "series_description": "Chest PA/lat"},
        {"view_position": "AP PORTABLE", "study_description": "CHEST PA AND LATERAL"},
        {"view_position": "FRONTAL"},
        {"view_position": "PORTABLE"},
        {"view_position": "", "series_description": "THORAX AP LIEGEND"},
        {"view_position": "SITTING", "protocol_name": "Thorax a.p. im Sitzen"},
        {"view_position": "", "body_part": "", "series_description": "TORAX AP DECUBITO SUPINO"},
        {"view_position": "", "body_part": "", "series_description": "THORAX DE FACE"},
        {"view_position": "", "body_part": "", "series_description": "TORACE AP A LETTO"},
        {"view_code": "PA"},
        {"view_code": "AP"},
        {"view_code": "FRONTAL", "series_description": "Chest pa/lat"},
    ],
)
def test_takes_frontal_chest_radiographs(values: dict[str, Any]) -> None:
    assert fate(CHEST, **values) == (Role.RADIOGRAPH, CHEST_XRAY)


@pytest.mark.parametrize(
    "values",
    [
        {"body_part": "HAND"},
        {"body_part": "HAND", "study_description": "CHEST AND HAND"},
        {"body_part": "THORACIC SPINE"},
        {"body_part": "TSPINE"},
        {"body_part": "RIB"},
        {"body_part": "CHESTABDOMEN"},
        {"body_part": "", "series_description": ""},
        {"body_part": "", "series_description": "AP"},
        {"body_part": "", "study_description": "Chest and left hand"},
        {"body_part": "", "series_description": "T-Spine ap", "study_description": "Chest"},
        {"view_position": "LL"},
        {"view_position": "LATERAL"},
        {"view_position": "RLD"},
        {"view_position": "LAO"},
        {"view_position": "", "series_description": "Chest lat"},
        {"view_position": "", "series_description": "Chest pa/lat"},
        {"view_position": "", "series_description": "Chest decub left"},
        {"view_position": "", "patient_orientation": ("A", "F")},
        {"view_position": "", "patient_orientation": ("P", "F"), "series_description": "Chest PA"},
        {"view_position": "", "patient_orientation": ("L", "F"), "series_description": "Chest lateral"},
        {"view_position": "", "study_description": "XR CHEST PA AND LATERAL"},
        {"view_position": "", "study_description": "CHEST 2 VIEWS"},
        {"view_position": "", "study_description": "Thorax in zwei Ebenen"},
        {"view_position": "", "series_description": "Thorax 2 vues"},
        {"view_position": "", "series_description": "TORAX PERFIL"},
        {"view_position": "", "series_description": "TORACE LATERALE"},
        {"view_position": "", "series_description": "Thorax dwars"},
        {"view_position": "", "series_description": "Thorax links anliegend"},
        {"view_position": "", "series_description": "Thorax latéral"},
        {"view_position": "LAT ERECT"},
        {"view_position": "LL SUPINE"},
        {"view_position": "AP LAT"},
        {"view_position": "AP LORDOTIC"},
        {"view_position": "AP", "series_description": "Thorax seitlich liegend"},
        {"view_position": "PORTABLE", "series_description": "CHEST LATERAL"},
        {"view_position": "XYZ"},
        {"view_code": "LL"},
        {"view_code": "LATERAL"},
        {"view_code": "OBLIQUE"},
        {"view_code": "PA OBLIQUE"},
        {"view_code": "SKULL"},
        {"view_position": "LL", "view_code": "PA"},
        {"view_position": "", "series_description": "Torace L-L"},
        {"view_position": "", "series_description": "TORAX PA/L"},
        {"view_position": "", "study_description": "RP THORAX F+P"},
        {"view_position": "", "study_description": "XR CHEST 2-VIEWS"},
        {"view_position": "", "study_description": "RX TORAX 2 PROY"},
        {"body_part": "", "series_description": "SCHÄDEL AP", "study_description": "Thorax, Schädel"},
        {"body_part": "", "series_description": "Becken AP", "study_description": "RX Thorax + Becken"},
        {"body_part": "", "series_description": "BACINO AP", "study_description": "TORACE E BACINO"},
    ],
)
def test_leaves_other_radiographs(values: dict[str, Any]) -> None:
    assert fate(CHEST, **values) == (Role.RADIOGRAPH, None)


@pytest.mark.parametrize(
    "values",
    [
        {"image_type": ("DERIVED", "SECONDARY")},
        {"image_type": ("DERIVED", "PRIMARY"), "series_description": "Chest PA bone suppressed"},
    ],
)
def test_leaves_computed_radiographs(values: dict[str, Any]) -> None:
    assert fate(CHEST, **values) == (Role.DERIVED, None)


def test_leaves_its_own_radiographs() -> None:
    assert fate(CHEST, own_result=True) == (Role.OWN_RESULT, None)


def test_says_lateral_when_it_leaves_a_lateral() -> None:
    assert "lateral" in judge(replace(CHEST, view_position="LL"))[2]


def test_says_what_told_it_that_a_view_is_lateral() -> None:
    unstated = replace(CHEST, view_position="")
    assert "patient orientation (A)" in judge(replace(unstated, patient_orientation=("A", "F")))[2]
    assert "study description" in judge(replace(unstated, study_description="CHEST PA LAT"))[2]


def test_says_which_words_contradict_each_other() -> None:
    assert '"AP LAT" names a frontal and a lateral view' in judge(replace(CHEST, view_position="AP LAT"))[2]
    both = replace(CHEST, view_position="AP SUPINE", series_description="CHEST LAT")
    assert "says AP SUPINE, the description names a lateral view" in judge(both)[2]
    assert "view position says PA, the view code says RL;" in judge(replace(CHEST, view_code="RL"))[2]
    turned = replace(CHEST, view_position="LL", view_code="PA")
    assert "view position says LL, the view code says PA;" in judge(turned)[2]
    assert judge(replace(CHEST, view_position="RL", view_code="RL"))[2].startswith("A lateral view")


def test_says_that_the_patient_orientation_decided() -> None:
    frontal = replace(CHEST, view_position="", patient_orientation=("L", "F"))
    assert "by the patient orientation" in judge(frontal)[2]


def test_says_which_word_made_it_a_reformat() -> None:
    assert 'description says "MIP"' in judge(replace(SLICE, series_description="thick mip 10/3"))[2]


def test_says_that_the_view_was_assumed() -> None:
    assert "taken as frontal" in judge(replace(CHEST, view_position=""))[2]


def slices(uid: str, count: int, **values: Any) -> list[InstanceHeader]:
    return [
        replace(SLICE, series_instance_uid=uid, sop_instance_uid=f"{uid}.{n}", instance_number=n, **values)
        for n in range(1, count + 1)
    ]


def test_a_series_with_a_localiser_in_front_becomes_two_choices() -> None:
    series = slices("1.9", 3)
    series[0] = replace(series[0], image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    kept, left = choose({"1.9": series})
    assert (kept.role, kept.eligible_for, kept.sop_instance_uids) == (Role.CT, LOW_DOSE_CT, ("1.9.2", "1.9.3"))
    assert (left.role, left.eligible_for, left.sop_instance_uids) == (Role.LOCALISER, None, ("1.9.1",))


def test_slices_whose_headers_use_different_words_are_one_choice() -> None:
    series = slices("1.9", 4)
    series[1] = replace(series[1], image_type=("DERIVED", "PRIMARY", "AXIAL"))
    series[2] = replace(series[2], image_type=("ORIGINAL", "PRIMARY", "HELICAL"))
    (choice,) = choose({"1.9": series})
    assert (choice.eligible_for, len(choice.sop_instance_uids)) == (LOW_DOSE_CT, 4)
    assert "helical" in choice.reason
    assert "marked derived" in choice.reason


def test_keeps_every_eligible_series_in_order_of_series_number() -> None:
    chosen = choose(
        {
            "1.3": slices("1.3", 1, series_number=None),
            "1.2": slices("1.2", 2, series_number=5),
            "1.4": slices("1.4", 2, series_number=4),
            "1.1": slices("1.1", 2, series_number=5),
        }
    )
    assert [choice.series_instance_uid for choice in chosen] == ["1.4", "1.1", "1.2", "1.3"]
    assert {choice.eligible_for for choice in chosen} == {LOW_DOSE_CT}


def test_lists_images_in_order_of_instance_number_those_without_last() -> None:
    series = slices("1.9", 11)
    series[0] = replace(series[0], instance_number=None)
    (choice,) = choose({"1.9": series})
    assert choice.sop_instance_uids == (*(f"1.9.{n}" for n in range(2, 12)), "1.9.1")


def test_nothing_in_nothing_out() -> None:
    assert choose({}) == []


@given(seed=st.integers(0, 2**32))
def test_the_order_of_arrival_does_not_matter(seed: int) -> None:
    lateral = replace(CHEST, sop_instance_uid="1.7.2", view_position="LL", instance_number=2)
    series = {"1.9": slices("1.9", 6), "1.8": slices("1.8", 3), "1.7": [CHEST, lateral]}
    shuffler = random.Random(seed)
    shuffled = {uid: shuffler.sample(series[uid], len(series[uid])) for uid in shuffler.sample(sorted(series), 3)}
    assert choose(shuffled) == choose(series)


RAW = replace(
    CHEST, sop_class_uid=DX_RAW, sop_instance_uid="1.6.1", series_instance_uid="1.6", series_number=1, rows=3000
)
SHOWN = replace(CHEST, sop_instance_uid="1.7.1", series_instance_uid="1.7", series_number=4, rows=3000)
AT, LATER = "20260102091531.25", "20260102091533.5"


def fates(*headers: InstanceHeader) -> dict[str, str | None]:
    """{SOP Instance UID: pipeline}."""
    series: dict[str, list[InstanceHeader]] = defaultdict(list)
    for header in headers:
        series[header.series_instance_uid].append(header)
    return {uid: choice.eligible_for for choice in choose(series) for uid in choice.sop_instance_uids}


@pytest.mark.parametrize(
    ("raw", "shown", "how"),
    [
        ({"irradiation_events": ("1.5.1",)}, {"irradiation_events": ("1.5.2", "1.5.1")}, "irradiation event"),
        ({}, {"source_images": ("1.6.1",)}, "named as its source"),
        ({"acquired_at": AT}, {"acquired_at": AT}, "time of acquisition"),
        ({"acquired_at": AT, "view_position": "PA ERECT"}, {"acquired_at": AT}, "time of acquisition"),
        (
            {"sop_class_uid": CR, "presentation_intent": "FOR PROCESSING", "acquired_at": AT},
            {"sop_class_uid": CR, "presentation_intent": "FOR PRESENTATION", "acquired_at": AT},
            "time of acquisition",
        ),
    ],
)
def test_of_one_exposure_the_image_for_presentation_is_taken(
    raw: dict[str, Any], shown: dict[str, Any], how: str
) -> None:
    before, after = replace(RAW, **raw), replace(SHOWN, **shown)
    assert fates(before, after) == {"1.6.1": None, "1.7.1": CHEST_XRAY}
    left, _ = choose({"1.6": [before], "1.7": [after]})
    assert left.role == Role.RADIOGRAPH
    assert "the image for presentation of the same exposure is in series 4" in left.reason
    assert how in left.reason


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ({}, {}),
        ({"acquired_at": AT}, {"acquired_at": LATER}),
        ({"acquired_at": AT[:14]}, {"acquired_at": AT[:14]}),
        ({"acquired_at": AT}, {"acquired_at": AT, "rows": 2000}),
        ({"acquired_at": AT}, {"acquired_at": AT, "view_position": "AP"}),
        (
            {"acquired_at": AT, "irradiation_events": ("1.5.1",)},
            {"acquired_at": AT, "irradiation_events": ("1.5.2",), "source_images": ("1.6.1",)},
        ),
        ({}, {"source_images": ("1.6.2",)}),
        ({"acquired_at": AT}, {"acquired_at": AT, "sop_class_uid": CR}),
    ],
)
def test_what_no_header_calls_one_exposure_is_two(raw: dict[str, Any], shown: dict[str, Any]) -> None:
    assert set(fates(replace(RAW, **raw), replace(SHOWN, **shown)).values()) == {CHEST_XRAY}


def test_an_image_for_processing_is_taken_where_its_presentation_may_not_be() -> None:
    companion = replace(SHOWN, source_images=("1.6.1",), image_type=("DERIVED", "PRIMARY"), series_description="BONE")
    assert fates(RAW, companion) == {"1.6.1": CHEST_XRAY, "1.7.1": None}
    assert fates(RAW) == {"1.6.1": CHEST_XRAY}


def test_a_repeat_of_which_only_the_raw_image_came_is_not_lost_with_the_first() -> None:
    repeat = replace(RAW, sop_instance_uid="1.6.2", instance_number=2, acquired_at=LATER)
    assert fates(replace(RAW, acquired_at=AT), repeat, replace(SHOWN, acquired_at=AT)) == {
        "1.6.1": None,
        "1.6.2": CHEST_XRAY,
        "1.7.1": CHEST_XRAY,
    }


def test_both_may_stand_in_one_series() -> None:
    left = replace(RAW, series_instance_uid="1.7", acquired_at=AT)
    taken, aside = choose({"1.7": [left, replace(SHOWN, acquired_at=AT)]})
    assert (taken.sop_instance_uids, aside.sop_instance_uids) == (("1.7.1",), ("1.6.1",))
    assert "in this series, too" in aside.reason


TEXT = st.text(max_size=12)


@given(
    sop_class=st.sampled_from([CT, ENHANCED, CR, DX, DX_RAW, SECONDARY, "1.2.3"]),
    modality=st.sampled_from(["CT", "CR", "DX", "SEG", ""]),
    image_type=st.lists(TEXT, max_size=4).map(tuple),
    description=TEXT,
    body_part=TEXT,
    view=TEXT,
)
def test_every_image_has_one_fate_and_a_reason(
    sop_class: str, modality: str, image_type: tuple[str, ...], description: str, body_part: str, view: str
) -> None:
    header = replace(
        SLICE,
        sop_class_uid=sop_class,
        modality=modality,
        image_type=image_type,
        series_description=description,
        body_part=body_part,
        view_position=view,
    )
    (choice,) = choose({"1.2.1": [header]})
    assert choice.reason
    assert choice.eligible_for in {None, LOW_DOSE_CT, CHEST_XRAY}
    assert choice.eligible_for is None or modality in {"CT", "CR", "DX"}


def choices_of(name: str, folder: Path) -> list[Choice]:
    series: dict[str, list[InstanceHeader]] = defaultdict(list)
    for path in shared.unpack(name, folder):
        try:
            found = read_header(path)
        except NotUnderstood:
            continue
        series[found.series_instance_uid].append(found)
    return choose(series)


class TestWithRealFiles:
    pytestmark = shared.needs_shared_data

    @pytest.mark.parametrize(
        ("name", "images"), [("ct-tcga-lihc-a10x", 34), ("ct-phantom-philips", 12), ("ct-ny-sbu", 16)]
    )
    def test_real_ct_is_eligible(self, name: str, images: int, tmp_path_factory: pytest.TempPathFactory) -> None:
        chosen = choices_of(name, tmp_path_factory.getbasetemp())
        assert {choice.eligible_for for choice in chosen} == {LOW_DOSE_CT}
        assert sum(len(choice.sop_instance_uids) for choice in chosen) == images

    def test_a_segmentation_stored_as_ct_is_not(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        (choice,) = choices_of("ct-lungfcp-0001-seg", tmp_path_factory.getbasetemp())
        assert (choice.role, choice.eligible_for, len(choice.sop_instance_uids)) == (Role.SEGMENTATION, None, 100)
        assert "modality says SEG" in choice.reason

    @pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
    def test_odd_files_meet_these_fates(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        fates: Counter[str] = Counter()
        for choice in choices_of("odd-dicom", tmp_path_factory.getbasetemp()):
            fates[choice.eligible_for or choice.role] += len(choice.sop_instance_uids)
        assert fates == {
            LOW_DOSE_CT: 41,
            CHEST_XRAY: 5,
            "radiograph": 4,
            "derived": 3,
            "localiser": 2,
            "report": 7,
            "screen save": 68,
            "segmentation": 31,
            "other": 126,
        }
