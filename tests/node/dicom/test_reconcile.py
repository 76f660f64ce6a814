"""Patient and order as a peer has them, and copies of results that have them too."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import evt

from gate import made
from gate.gate import complaints
from network.objects import CT, EXPLICIT, STUDY, ct_image, write
from network.pacs import pynetdicom_scp
from node.dicom.messages import decode_data_set
from node.dicom.reconcile import ASKED, Coercion, Identity, coerce, differences, find_identity
from node.dicom.send import Outgoing, send
from node.errors import NoCommonContext, PeerBusy
from node.settings import Settings

SETTINGS = Settings(aet="NODE", dimse_timeout_s=10)
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT = "1.2.840.10008.1.2"
AT = dt.datetime(2026, 3, 1, 8, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
"""dcmpschk takes no offset of +0000."""
YAMADA = "Yamada^Tarou=山田^太郎=やまだ^たろう"
IVANOV = "Иванов^Иван"


def answer(**values: Any) -> Dataset:
    match = Dataset()
    match.QueryRetrieveLevel = "STUDY"
    match.StudyInstanceUID = STUDY
    with disable_value_validation():
        for keyword, value in values.items():
            setattr(match, keyword, value)
    return match


def asked(*matches: Dataset, status: int = 0x0000) -> Identity:
    def on_find(_: Any) -> Iterator[Any]:
        for match in matches:
            yield 0xFF00, match
        yield status, None

    with pynetdicom_scp([(FIND, [EXPLICIT])], [(evt.EVT_C_FIND, on_find)]) as peer:
        return find_identity(SETTINGS, peer, STUDY)


def coercion(removed: tuple[str, ...] = (), **values: str) -> Coercion:
    return Coercion(values, removed, AT, "NODE", "CT2")


def test_what_a_peer_returns_counts_and_what_it_leaves_empty_does_not() -> None:
    found = asked(answer(PatientID="P-9", PatientName="Doe^Jane^^", AccessionNumber="", StudyTime="0830"))
    assert found == Identity({"PatientName": "Doe^Jane", "PatientID": "P-9", "StudyTime": "0830"})


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["", "ISO 2022 IR 87"], YAMADA),
        ("ISO_IR 192", YAMADA),
        ("ISO_IR 144", IVANOV),
        ("ISO_IR 192", IVANOV),
        ("ISO_IR 100", "Müller^Jürgen"),
    ],
)
def test_names_come_in_the_character_set_of_the_answer(character_set: Any, name: str) -> None:
    found = asked(answer(SpecificCharacterSet=character_set, PatientID="P-9", PatientName=name))
    assert found.values == {"PatientName": name, "PatientID": "P-9"}


def test_half_a_patient_is_none_and_the_order_is_told_all_the_same() -> None:
    lost = asked(answer(PatientID="P-9", PatientName="??????^????", AccessionNumber="A-2"))
    assert lost == Identity({"AccessionNumber": "A-2"}, ("PatientName",))
    nameless = asked(answer(PatientID="P-9", AccessionNumber="A-2"))
    assert nameless == Identity({"AccessionNumber": "A-2"}, ("PatientName",))
    wrong = asked(answer(PatientID="P-9", PatientName="A^B", PatientSex="X", StudyID="longer than a short string"))
    assert (dict(wrong.values), wrong.unusable) == ({}, ("PatientSex", "StudyID"))


def test_letters_of_no_declared_set_are_not_guessed() -> None:
    match = answer(PatientID="P-9", AccessionNumber="A-2")
    for tag in (0x00080090, 0x00100010):
        match[tag] = RawDataElement(Tag(tag), "PN", 22, IVANOV.encode(), 0, False, True)
    assert asked(match) == Identity({"AccessionNumber": "A-2"}, ("PatientName", "ReferringPhysicianName"))


def test_no_study_two_patients_and_nothing_told_are_said_in_words() -> None:
    other = answer(PatientID="P-9", PatientName="A^B")
    other.StudyInstanceUID = "1.2.3"
    assert asked() == asked(other) == Identity(reason="PACS does not know the study")
    one, two = (answer(PatientID=patient, PatientName="A^B") for patient in ("P-1", "P-2"))
    assert asked(one, one).values["PatientID"] == "P-1"
    assert "several times" in asked(one, two).reason
    assert not asked(one, two).values
    assert "tells nothing" in asked(answer()).reason


def test_a_peer_that_cannot_be_asked_is_an_error_in_words() -> None:
    with pytest.raises(PeerBusy):
        asked(status=0xA700)
    with pynetdicom_scp([(CT, [EXPLICIT])], []) as peer, pytest.raises(NoCommonContext, match="C-FIND"):
        find_identity(SETTINGS, peer, STUDY)


def differing(folder: Path, theirs: dict[str, str], **own: Any) -> dict[str, str]:
    image = ct_image()
    for keyword, value in own.items():
        setattr(image, keyword, value)
    return differences(write(image, folder / "own.dcm"), Identity(theirs))[0]


@pytest.mark.parametrize(
    ("keyword", "own", "theirs"),
    [
        ("PatientName", "Doe^Jane^^", "Doe^Jane"),
        ("PatientName", YAMADA, "Yamada^Tarou"),
        ("PatientName", "Łukasz^Żak", "ukasz^ak"),
        ("PatientID", "P-1 ", "P-1"),
        ("StudyTime", "083000.123", "083000"),
        ("StudyTime", "083000", "083000.000000"),
        ("StudyTime", "0830", "083000"),
    ],
)
def test_the_same_said_otherwise_is_no_difference(tmp_path: Path, keyword: str, own: str, theirs: str) -> None:
    assert differing(tmp_path, {keyword: theirs}, SpecificCharacterSet="ISO_IR 192", **{keyword: own}) == {}


@pytest.mark.parametrize(
    ("keyword", "own", "theirs"),
    [
        ("PatientName", "Doe^Jane", "Roe^Jane"),
        ("PatientName", "Müller^A", "Mueller^A"),
        ("PatientName", YAMADA, "Suzuki^Tarou"),
        ("PatientName", "Mueller^A", "Müller^A"),
        ("PatientBirthDate", "", "19600102"),
        ("StudyTime", "", "0830"),
        ("StudyTime", "083000", "0931"),
        ("StudyTime", "083000", "083001"),
        ("AccessionNumber", "A-1", "A-2"),
    ],
)
def test_what_is_another_value_is_one(tmp_path: Path, keyword: str, own: str, theirs: str) -> None:
    given = {"SpecificCharacterSet": "ISO_IR 192", keyword: own}
    assert differing(tmp_path, {keyword: theirs}, **given) == {keyword: theirs}


def test_what_tells_more_of_a_value_goes_with_it(tmp_path: Path) -> None:
    image = ct_image()
    image.IssuerOfPatientID, image.TypeOfPatientID, image.PatientAge = "HERE", "TEXT", "061Y"
    path = write(image, tmp_path / "own.dcm")
    assert differences(path, Identity({"PatientID": "P-9"}))[1] == ("IssuerOfPatientID", "TypeOfPatientID")
    told = Identity({"PatientID": "P-9", "IssuerOfPatientID": "THERE"})
    assert differences(path, told) == (dict(told.values), ("TypeOfPatientID",))
    assert differences(path, Identity({"PatientBirthDate": "19500101"}))[1] == ("PatientAge",)
    assert differences(path, Identity({"PatientID": "TEST"})) == ({}, ())


def sent(*objects: Outgoing, syntax: str = EXPLICIT) -> list[bytes]:
    kept: list[bytes] = []

    def on_store(event: Any) -> int:
        kept.append(event.request.DataSet.getvalue())
        return 0

    with pynetdicom_scp([(CT, [syntax])], [(evt.EVT_C_STORE, on_store)]) as peer:
        assert [one.error for one in send(SETTINGS, peer, objects)] == [None] * len(objects)
    return kept


@pytest.mark.parametrize(
    ("syntax", "character_set", "own", "theirs"),
    [
        (EXPLICIT, ["", "ISO 2022 IR 87"], YAMADA, "Łukasz^Żak"),
        (IMPLICIT, ["", "ISO 2022 IR 87"], YAMADA, "Łukasz^Żak"),
        (EXPLICIT, "ISO_IR 144", IVANOV, YAMADA),
    ],
)
def test_a_copy_has_the_new_values_the_former_ones_and_all_else_as_it_was(
    tmp_path: Path, syntax: str, character_set: Any, own: str, theirs: str
) -> None:
    image = ct_image()
    image.SpecificCharacterSet = character_set
    image.PatientName, image.PatientID, image.IssuerOfPatientID = own, "P-1", "HERE"
    image.InstitutionName = own.replace("^", " ").partition("=")[2] or "Больница"
    with disable_value_validation():
        image.PatientBirthDate = "1960.13.02"
    path = write(image, tmp_path / "one.dcm")
    before = path.read_bytes()
    change = coercion(
        ("IssuerOfPatientID",), PatientName=theirs, PatientID="P-9", PatientBirthDate="19600102", AccessionNumber="A-2"
    )
    one = Outgoing(path, CT, str(image.SOPInstanceUID), EXPLICIT, change)
    first, second = sent(one, one, syntax=syntax)
    assert first == second
    assert path.read_bytes() == before
    got = decode_data_set(first, syntax)
    assert got.SpecificCharacterSet == "ISO_IR 192"
    assert (got.PatientName, got.PatientID, got.PatientBirthDate) == (theirs, "P-9", "19600102")
    assert (got.AccessionNumber, "IssuerOfPatientID" in got) == ("A-2", False)
    assert (got.InstitutionName, got.SOPInstanceUID) == (image.InstitutionName, image.SOPInstanceUID)
    assert got.PixelData == image.PixelData
    (item,) = got.OriginalAttributesSequence
    assert (item.ModifyingSystem, item.SourceOfPreviousValues) == ("NODE", "CT2")
    assert item.ReasonForTheAttributeModification == "COERCE"
    assert item.AttributeModificationDateTime == "20260301083000+0100"
    (former,) = item.ModifiedAttributesSequence
    assert (former.PatientName, former.PatientID, former.IssuerOfPatientID) == (own, "P-1", "HERE")
    assert former["AccessionNumber"].is_empty
    assert former["PatientBirthDate"].is_empty, "it was no date"


def test_a_set_that_holds_the_new_values_stays(tmp_path: Path) -> None:
    image = ct_image()
    image.SpecificCharacterSet, image.PatientName = "ISO_IR 100", "Müller^Jürgen"
    path = write(image, tmp_path / "one.dcm")
    (encoded,) = sent(Outgoing(path, CT, "1.2", EXPLICIT, coercion(PatientName="Möller^Jürgen")))
    got = decode_data_set(encoded, EXPLICIT)
    assert (got.SpecificCharacterSet, got.PatientName) == ("ISO_IR 100", "Möller^Jürgen")
    assert got.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientName == "Müller^Jürgen"


def test_what_was_said_of_earlier_changes_stays(tmp_path: Path) -> None:
    image = ct_image()
    coerce(image, coercion(PatientID="P-2"))
    coerce(image, coercion(PatientID="P-3"))
    former = [item.ModifiedAttributesSequence[0].PatientID for item in image.OriginalAttributesSequence]
    assert (former, image.PatientID) == (["TEST", "P-2"], "P-3")


def test_copies_of_every_kind_pass_the_gate_beside_images_that_changed_likewise(tmp_path: Path) -> None:
    """As in the PACS: the patient of the whole study is another one, and results of all kinds come to it."""
    given = {"PatientAge": "061Y", "IssuerOfPatientID": "HERE", "AccessionNumber": "A-1", "BodyPartExamined": "CHEST"}
    own = {"PatientBirthDate": "19400101", "StudyDate": "20260101", "PatientSex": "M"}
    run = made.process(made.ct_series(tmp_path / "ct", slices=3, **given, **own), lesions=1)
    new = {
        "PatientName": YAMADA, "PatientID": "P-9", "PatientBirthDate": "19500203", "PatientSex": "F",
        "AccessionNumber": "A-2", "StudyID": "S-2", "StudyDate": "20260102", "StudyTime": "0715",
        "ReferringPhysicianName": IVANOV,
    }  # fmt: skip
    assert set(new) == set(ASKED) - {"IssuerOfPatientID"}
    files = [tmp_path / f"{result.kind}-{number}.dcm" for number, result in enumerate(run.results)]
    for file, result in zip(files, run.results, strict=True):
        file.write_bytes(result.data)
    for path in (*files, *run.paths):
        values, removed = differences(path, Identity(new))
        assert set(values) == set(new)
        assert {"IssuerOfPatientID", "PatientAge"} <= set(removed)
        dataset = dcmread(BytesIO(path.read_bytes()))
        coerce(dataset, coercion(removed, **values))
        dataset.save_as(path, enforce_file_format=True)
    assert {str(dcmread(path).PatientName) for path in files} == {YAMADA}
    assert complaints(files, run.paths) == []
