"""What a peer says that it has: C-FIND with another make, and with one that does not tell all."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt

from network.objects import CT, EXPLICIT
from network.pacs import pynetdicom_scp
from node.dicom.holdings import FoundSeries, FoundStudy, find_objects, find_series, find_studies
from node.errors import PeerBusy, PeerRefused
from node.settings import Peer, Settings

SETTINGS = Settings(aet="NODE", dimse_timeout_s=10)
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def matches(**found: Any) -> Any:
    def on_find(event: Any) -> Iterator[Any]:
        keys = event.identifier
        for uid, value in found.get(keys.QueryRetrieveLevel, {}).get(keys.get("PatientID") or "", []):
            match = Dataset()
            if keys.QueryRetrieveLevel == "STUDY":
                assert keys.StudyDate == "20250101-"
                match.StudyInstanceUID, match.ModalitiesInStudy = uid, value
            else:
                match.SeriesInstanceUID, match.Modality = uid, value
            yield 0xFF00, match
        yield 0x0000, None

    return on_find


def test_studies_of_several_patients_each_once() -> None:
    there = {"A": [("1.1", ["CT", "SR"]), ("1.2", "CT")], "B": [("1.2", "CT"), ("1.3", "")]}
    handlers = [(evt.EVT_C_FIND, matches(STUDY=there))]
    with pynetdicom_scp([(FIND, [EXPLICIT])], handlers) as peer:
        found = find_studies(SETTINGS, peer, dates="20250101-", patient_ids=["A", "B", "C"])
    assert found == [FoundStudy("1.1", ("CT", "SR")), FoundStudy("1.2", ("CT",)), FoundStudy("1.3", ())]


def test_what_a_peer_brings_beyond_what_was_asked_for_is_left_out() -> None:
    """Some answer with all that they have; the list of patients may be that of those who agreed."""

    def on_find(_: Any) -> Iterator[Any]:
        for uid, patient in (("1.1", "A"), ("1.2", "B"), ("1.3", "")):
            match = Dataset()
            match.StudyInstanceUID, match.PatientID = uid, patient
            yield 0xFF00, match
        yield 0x0000, None

    with pynetdicom_scp([(FIND, [EXPLICIT])], [(evt.EVT_C_FIND, on_find)]) as peer:
        of_patient = find_studies(SETTINGS, peer, patient_ids=["A"])
        of_uid = find_studies(SETTINGS, peer, study_instance_uid="1.2")
    assert [study.study_instance_uid for study in of_patient] == ["1.1", "1.3"]
    assert [study.study_instance_uid for study in of_uid] == ["1.2"]


def test_objects_of_a_series_with_their_classes() -> None:
    def on_find(event: Any) -> Iterator[Any]:
        keys = event.identifier
        assert (keys.QueryRetrieveLevel, keys.StudyInstanceUID, keys.SeriesInstanceUID) == ("IMAGE", "1.1", "1.1.1")
        for uid, kind in (("1.1.1.1", CT), ("1.1.1.2", None), ("", CT)):
            match = Dataset()
            match.SOPInstanceUID = uid
            if kind is not None:
                match.SOPClassUID = kind
            yield 0xFF00, match
        yield 0x0000, None

    with pynetdicom_scp([(FIND, [EXPLICIT])], [(evt.EVT_C_FIND, on_find)]) as peer:
        assert find_objects(SETTINGS, peer, "1.1", "1.1.1") == {"1.1.1.1": CT, "1.1.1.2": ""}


def test_series_of_a_study() -> None:
    handlers = [(evt.EVT_C_FIND, matches(SERIES={"": [("1.1.1", "PR"), ("", "CT"), ("1.1.2", "CT")]}))]
    with pynetdicom_scp([(FIND, [EXPLICIT])], handlers) as peer:
        found = find_series(SETTINGS, peer, "1.1")
    assert found == [FoundSeries("1.1.1", "PR"), FoundSeries("1.1.2", "CT")]


def test_series_of_other_studies_are_left_out() -> None:
    """Some do not look at the key."""

    def on_find(_: Any) -> Iterator[Any]:
        for study, series in (("1.1", "1.1.1"), ("1.9", "1.9.1")):
            match = Dataset()
            match.StudyInstanceUID, match.SeriesInstanceUID, match.Modality = study, series, "CT"
            match.NumberOfSeriesRelatedInstances = 7
            yield 0xFF00, match
        yield 0x0000, None

    with pynetdicom_scp([(FIND, [EXPLICIT])], [(evt.EVT_C_FIND, on_find)]) as peer:
        assert find_series(SETTINGS, peer, "1.1") == [FoundSeries("1.1.1", "CT", 7)]


@pytest.mark.parametrize("ended", [0xFE00, 0xA700])
def test_series_beyond_a_limit_are_asked_for_by_their_modality(ended: int) -> None:
    there = [(f"1.1.{number}", "CT" if number < 5 else "SR") for number in range(1, 7)]

    def on_find(event: Any) -> Iterator[Any]:
        wanted = str(event.identifier.Modality or "")
        found = [(uid, modality) for uid, modality in there if wanted in ("", modality)]
        for uid, modality in found[:4]:
            match = Dataset()
            match.SeriesInstanceUID, match.Modality = uid, modality
            yield 0xFF00, match
        yield ended if len(found) > 4 else 0x0000, None

    with pynetdicom_scp([(FIND, [EXPLICIT])], [(evt.EVT_C_FIND, on_find)]) as peer:
        found = find_series(SETTINGS, peer, "1.1", in_parts=("SR", "CT", "KO"))
        assert {series.series_instance_uid for series in found} == {uid for uid, _ in there}
        with pytest.raises((PeerBusy, PeerRefused)):
            find_series(SETTINGS, peer, "1.1")


class Archive:
    """Studies by day, of which it gives no more than `most` at a time, and then ends with `status`."""

    def __init__(self, days: dict[str, int], *, most: int, status: int, knows_dates: bool = True) -> None:
        self.studies = [(f"1.2.{day}.{number}", day) for day, count in days.items() for number in range(1, count + 1)]
        self.most, self.status, self.knows_dates = most, status, knows_dates
        self.asked: list[str] = []

    def on_find(self, event: Any) -> Iterator[Any]:
        dates = str(event.identifier.StudyDate or "")
        self.asked.append(dates)
        first, _, last = dates.partition("-") if "-" in dates else (dates, "", dates)
        there = [
            uid for uid, day in self.studies if not self.knows_dates or (first or "0") <= day <= (last or "99991231")
        ]
        for uid in there[: self.most]:
            match = Dataset()
            match.StudyInstanceUID = uid
            yield 0xFF01, match
        yield self.status if len(there) > self.most else 0x0000, None

    @contextmanager
    def listening(self) -> Iterator[Peer]:
        with pynetdicom_scp([(FIND, [EXPLICIT])], [(evt.EVT_C_FIND, self.on_find)]) as peer:
            yield peer


def days(first: str, *counts: int) -> dict[str, int]:
    start = dt.date.fromisoformat(first)
    return {f"{start + dt.timedelta(days=after):%Y%m%d}": count for after, count in enumerate(counts)}


@pytest.mark.parametrize(
    ("dates", "status"),
    [("20250101-20250131", 0xFE00), ("20250101-", 0xFE00), ("", 0xFE00), ("20250101-", 0xA700), ("20250101-", 0xC001)],
)
def test_a_peer_that_limits_its_matches_is_asked_for_parts_of_the_time(dates: str, status: int) -> None:
    archive = Archive(days("2025-01-03", 9, 10, 0, 9, 7, 1), most=12, status=status)
    cut: list[str] = []
    with archive.listening() as peer:
        found = find_studies(SETTINGS, peer, dates=dates, on_cut=cut.append)
    assert {study.study_instance_uid for study in found} == {uid for uid, _ in archive.studies}
    assert cut == []
    assert len(archive.asked) < 120


def test_a_peer_that_limits_its_matches_without_a_word_is_found_out() -> None:
    archive = Archive(days("2025-01-03", 90, 100, 0, 10), most=120, status=0x0000)
    with archive.listening() as peer:
        found = find_studies(SETTINGS, peer, dates="20250101-20250108")
    assert {study.study_instance_uid for study in found} == {uid for uid, _ in archive.studies}


def test_a_peer_that_tells_all_is_not_asked_for_every_day() -> None:
    archive = Archive(days("2025-01-01", *[10] * 12), most=10_000, status=0xA700)
    with archive.listening() as peer:
        assert len(find_studies(SETTINGS, peer, dates="20250101-20250112")) == 120
    assert archive.asked == ["20250101-20250112", "20250101-20250106", "20250107-20250112"]


def test_a_few_studies_are_asked_for_once() -> None:
    archive = Archive(days("2025-01-01", 20, 20), most=10_000, status=0xA700)
    with archive.listening() as peer:
        assert len(find_studies(SETTINGS, peer)) == 40
    assert archive.asked == [""]


@pytest.mark.parametrize(
    ("counts", "knows_dates", "words"),
    [((15,), True, "20250101-20250101"), ((5, 10), False, "all times")],
)
def test_what_a_peer_would_not_tell_in_parts_either_is_said(
    counts: tuple[int, ...], knows_dates: bool, words: str
) -> None:
    """A day with more studies than it gives at once; a peer that knows no dates."""
    archive = Archive(days("2025-01-01", *counts), most=12, status=0xA700, knows_dates=knows_dates)
    cut: list[str] = []
    with archive.listening() as peer:
        assert len(find_studies(SETTINGS, peer, on_cut=cut.append)) == 12
    assert cut == [f"the peer gave 12 studies of {words}, and no more"]


@pytest.mark.parametrize(("status", "kind", "most_asked"), [(0xA900, PeerRefused, 1), (0xA700, PeerBusy, 40)])
def test_a_peer_that_gives_nothing_at_all_is_an_error(status: int, kind: type[Exception], most_asked: int) -> None:
    archive = Archive(days("2025-01-01", 1), most=0, status=status)
    archive.knows_dates = False
    with archive.listening() as peer, pytest.raises(kind, match="C-FIND"):
        find_studies(SETTINGS, peer)
    assert len(archive.asked) <= most_asked
