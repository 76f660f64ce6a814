"""Studies, series and their objects from a peer: C-FIND, and C-GET over the same association that asks.

C-GET and not C-MOVE: it needs no entry of ours in the peer's list of destinations, and no second listener.

source  PS3.4 C.4.3 (C-GET), PS3.7 D.3.3.4 (role selection)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt

from node.dicom import status
from node.dicom.association import Broken, associate
from node.dicom.elements import text, texts, valid_uid
from node.dicom.negotiation import STUDY_ROOT_FIND, STUDY_ROOT_GET
from node.dicom.query import find
from node.errors import ConfigurationError, NoCommonContext, Permanent, Transient
from node.settings import Peer, Settings

_UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))

OnObject = Callable[[int], None]
"""Called with the number of objects that have come."""


@dataclass(frozen=True)
class FoundStudy:
    """A study that a peer has; modalities () where it does not say."""

    study_instance_uid: str
    modalities: tuple[str, ...]


@dataclass(frozen=True)
class FoundSeries:
    """A series that a peer has."""

    series_instance_uid: str
    modality: str


@dataclass(frozen=True)
class Fetched:
    """Files that came, and how many objects the peer could not send."""

    paths: tuple[Path, ...]
    failed: int


def find_studies(
    settings: Settings, peer: Peer, *, dates: str = "", patient_ids: Sequence[str] = ("",), study_instance_uid: str = ""
) -> list[FoundStudy]:
    """Studies of these patients ("" any), each once.

    dates   "20250101-20250131", open at either side; "" any
    raises  NoCommonContext where the peer offers no C-FIND; Transient, Permanent
    """
    found: dict[str, FoundStudy] = {}
    with _finding(settings, peer) as association:
        for patient_id in patient_ids:
            keys = Dataset()
            keys.QueryRetrieveLevel = "STUDY"
            keys.StudyInstanceUID = study_instance_uid
            keys.StudyDate = dates
            keys.PatientID = patient_id
            keys.ModalitiesInStudy = ""
            for match in find(association, peer, keys):
                uid = text(match, 0x0020000D)
                if valid_uid(uid):
                    found[uid] = FoundStudy(uid, tuple(word.upper() for word in texts(match, 0x00080061)))
    return list(found.values())


def find_series(settings: Settings, peer: Peer, study_instance_uid: str) -> list[FoundSeries]:
    """raises NoCommonContext where the peer offers no C-FIND; Transient, Permanent"""
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.StudyInstanceUID = study_instance_uid
    keys.SeriesInstanceUID = ""
    keys.Modality = ""
    with _finding(settings, peer) as association:
        matches = [
            FoundSeries(text(match, 0x0020000E), text(match, 0x00080060).upper())
            for match in find(association, peer, keys)
        ]
    return [match for match in matches if valid_uid(match.series_instance_uid)]


def get_series(
    settings: Settings,
    peer: Peer,
    study_instance_uid: str,
    series_instance_uids: Sequence[str],
    folder: Path,
    *,
    contexts: Sequence[tuple[str, Sequence[str]]],
    on_object: OnObject | None = None,
) -> Fetched:
    """All objects of these series as files in `folder`, each in the transfer syntax that it came in.

    contexts   (storage class, transfer syntaxes) that are taken; each syntax is offered by itself, so that the peer
               need not convert
    raises     NoCommonContext where the peer offers no C-GET; Transient, Permanent; ConfigurationError where our own
               disk does not do its work
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    intake = _Intake(folder, on_object)
    offered = [(uid, (syntax,)) for uid, syntaxes in contexts for syntax in syntaxes]
    roles = [uid for uid, _ in contexts]
    failed = 0
    try:
        with associate(
            settings,
            peer,
            [(STUDY_ROOT_GET, _UNCOMPRESSED), *offered],
            handlers=[(evt.EVT_C_STORE, intake.take)],
            stores_here=roles,
        ) as association:
            if not any(context.abstract_syntax == STUDY_ROOT_GET for context in association.accepted_contexts):
                raise NoCommonContext(f"{peer.aet} does not offer C-GET by study root")
            for series_instance_uid in series_instance_uids:
                keys = Dataset()
                keys.QueryRetrieveLevel = "SERIES"
                keys.StudyInstanceUID = study_instance_uid
                keys.SeriesInstanceUID = series_instance_uid
                failed += _get(association, peer, keys)
    except (Transient, Permanent):
        if intake.trouble is None:  # else the peer only repeats what we told it
            raise
    if intake.trouble is not None:
        raise ConfigurationError(f"{folder}: cannot be written ({intake.trouble.strerror})") from intake.trouble
    return Fetched(tuple(intake.paths), failed)


class _Intake:
    """Writes what the peer stores with us. A full disk is ours to tell, so the error is kept for the caller."""

    def __init__(self, folder: Path, on_object: OnObject | None) -> None:
        self.paths: list[Path] = []
        self.trouble: OSError | None = None
        self._folder = folder
        self._on_object = on_object

    def take(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if not valid_uid(uid):
            return status.CANNOT_UNDERSTAND
        path = self._folder / f"{uid}.dcm"
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(event.encoded_dataset())
        except OSError as exc:
            self.trouble = exc
            return status.OUT_OF_RESOURCES
        self.paths.append(path)
        if self._on_object is not None:
            self._on_object(len(self.paths))
        return status.SUCCESS


def _get(association: Any, peer: Peer, keys: Dataset) -> int:
    """One C-GET; the number of objects that could not be sent."""
    for answer, _ in association.send_c_get(keys, STUDY_ROOT_GET):
        if "Status" not in answer:
            raise Broken("no answer to C-GET")
        code = int(answer.Status)
        if code in status.PENDING:
            continue
        error = status.peer_error(code, f"{peer.aet}: C-GET")
        if error is not None:
            raise error
        return int(answer.get("NumberOfFailedSuboperations") or 0)
    raise Broken("no final answer to C-GET")


def _finding(settings: Settings, peer: Peer) -> Any:
    return associate(settings, peer, [(STUDY_ROOT_FIND, _UNCOMPRESSED)])
