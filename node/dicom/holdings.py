"""What a peer has: studies, series and their objects, by C-FIND. source: PS3.4 C.4.1"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from node.dicom.elements import integer, text, texts, valid_uid
from node.dicom.query import find, finding, objects_of
from node.errors import NodeError, PeerBusy, PeerRefused
from node.settings import Peer, Settings

PATIENCE_S = 600.0
"""Large archives take their time over years of studies."""
_UNLIMITED = 100
"""Fewer matches than this are all that there are, if the peer says so."""
_DAY = "%Y%m%d"
_FIRST_CT = dt.date(1971, 1, 1)
_OBJECTS_OF_SERIES = 0x00201209


@dataclass(frozen=True)
class FoundStudy:
    """A study that a peer has; modalities () where it does not say."""

    study_instance_uid: str
    modalities: tuple[str, ...]


Studies = dict[str, FoundStudy]
Answer = tuple[Studies, NodeError | None]
"""Studies that were given, and what the peer said where it gave no more."""


@dataclass(frozen=True)
class FoundSeries:
    """A series that a peer has; objects 0 where it does not say how many."""

    series_instance_uid: str
    modality: str
    objects: int = 0


def find_studies(
    settings: Settings,
    peer: Peer,
    *,
    dates: str = "",
    patient_ids: Sequence[str] = ("",),
    study_instance_uid: str = "",
    on_cut: Callable[[str], None] | None = None,
) -> list[FoundStudy]:
    """Studies of these patients ("" any), each once; what a peer brings beyond what was asked for is left out.

    Many a peer gives no more than so many matches, and says so by an error, or not at all: then by halves of the time.

    dates   "20250101-20250131", open at either side; "" any
    on_cut  called in words for what cannot be asked for in smaller parts
    raises  NoCommonContext where the peer offers no C-FIND; Transient, Permanent
    """
    found: Studies = {}
    with finding(settings, peer, patience_s=PATIENCE_S) as association:
        for patient_id in patient_ids:

            def ask(dates: str, patient_id: str = patient_id) -> Answer:
                keys = Dataset()
                keys.QueryRetrieveLevel = "STUDY"
                keys.StudyInstanceUID = study_instance_uid
                keys.StudyDate = dates
                keys.PatientID = patient_id
                keys.ModalitiesInStudy = ""
                return _asked(association, peer, keys)

            found |= _search(ask, dates, ask(dates), on_cut or (lambda _: None))
    return list(found.values())


def _asked(association: Any, peer: Peer, keys: Dataset) -> Answer:
    """raises Transient, Permanent where it answers nothing, unless it is because there would be too much"""
    found: Studies = {}
    wanted_uid, wanted_patient = str(keys.StudyInstanceUID), str(keys.PatientID)
    try:
        for match in find(association, peer, keys):
            uid, patient = text(match, 0x0020000D), text(match, 0x00100020)
            asked_for = wanted_uid in ("", uid) and (not wanted_patient or patient in ("", wanted_patient))
            if valid_uid(uid) and asked_for:
                found[uid] = FoundStudy(uid, tuple(word.upper() for word in texts(match, 0x00080061)))
    except (PeerBusy, PeerRefused) as exc:
        if not found and isinstance(exc, PeerRefused):
            raise
        return found, exc
    return found, None


def _search(ask: Callable[[str], Answer], dates: str, answer: Answer, on_cut: Callable[[str], None]) -> Studies:
    """All studies of a time, of which the peer has given `answer`. raises Transient where it gives nothing of a day"""
    found, error = answer
    halves = _halves(dates)
    if error is None and (len(found) < _UNLIMITED or not halves):
        return found
    answers = [ask(half) for half in halves]
    if not halves or all(part.keys() == found.keys() for part, _ in answers):  # a day, or a peer that knows no dates
        if not found and error is not None:
            raise error
        on_cut(f"the peer gave {len(found)} studies of {dates or 'all times'}, and no more")
        return found
    counts = [len(part) for part, _ in answers]
    trusted = sum(counts) <= len(found) and max(counts) < len(found)
    if error is None and trusted and all(why is None for _, why in answers):
        return found
    for half, part in zip(halves, answers, strict=True):
        found = found | _search(ask, half, part, on_cut)
    return found


def _halves(dates: str) -> tuple[str, ...]:
    """Of a range of days; () of one day."""
    first, _, last = dates.partition("-") if "-" in dates or not dates else (dates, "", dates)
    start = dt.datetime.strptime(first, _DAY).date() if first else _FIRST_CT
    end = dt.datetime.strptime(last, _DAY).date() if last else dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    if start >= end:
        return ()
    middle = start + (end - start) // 2
    after = middle + dt.timedelta(days=1)
    return f"{start:{_DAY}}-{middle:{_DAY}}", f"{after:{_DAY}}-{end:{_DAY}}"


def find_series(
    settings: Settings, peer: Peer, study_instance_uid: str, *, in_parts: Sequence[str] = ()
) -> list[FoundSeries]:
    """Series of a study, each once.

    in_parts    modalities to ask for one by one where the peer does not give all series at once
    raises      NoCommonContext where the peer offers no C-FIND; Transient, Permanent
    """
    with finding(settings, peer, patience_s=PATIENCE_S) as association:
        try:
            found = _series_of(association, peer, study_instance_uid, "")
        except (PeerBusy, PeerRefused):
            if not in_parts:
                raise
            found = {}
            for modality in in_parts:
                found |= _series_of(association, peer, study_instance_uid, modality)
    return list(found.values())


def _series_of(association: Any, peer: Peer, study_instance_uid: str, modality: str) -> dict[str, FoundSeries]:
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.StudyInstanceUID = study_instance_uid
    keys.SeriesInstanceUID = ""
    keys.Modality = modality
    keys.NumberOfSeriesRelatedInstances = ""
    found = {}
    for match in find(association, peer, keys):
        uid, objects = text(match, 0x0020000E), integer(match, _OBJECTS_OF_SERIES) or 0
        if valid_uid(uid) and text(match, 0x0020000D) in ("", study_instance_uid):
            found[uid] = FoundSeries(uid, text(match, 0x00080060).upper(), objects)
    return found


def find_objects(settings: Settings, peer: Peer, study_instance_uid: str, series_instance_uid: str) -> dict[str, str]:
    """SOP Instance UID → SOP Class UID of a series' objects; "" where the peer does not tell the class.

    raises   NoCommonContext where the peer offers no C-FIND; Transient, Permanent
    """
    with finding(settings, peer, patience_s=PATIENCE_S) as association:
        return objects_of(association, peer, study_instance_uid, series_instance_uid, with_class=True)
