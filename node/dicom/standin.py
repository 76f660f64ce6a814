"""A small PACS for the demonstration: stores, answers queries, and reports storage commitment. Loopback only.

It keeps what it gets in a folder and believes nobody; it is no archive for anything that matters.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node.dicom import status
from node.dicom.negotiation import TRANSFER_SYNTAXES

LOOPBACK = "127.0.0.1"
_PENDING = 0xFF00


@dataclass(frozen=True)
class Kept:
    """One object as it was stored.

    made_of     SOP Instance UID of its first source image; "" where it names none
    """

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    series_number: int | None
    series_description: str
    made_of: str

    @property
    def class_name(self) -> str:
        return UID(self.sop_class_uid).name.removesuffix(" Storage")


class StandInPacs:
    """`start`, then it answers until `stop`. Thread safe."""

    def __init__(self, folder: Path, *, aet: str = "DEMOPACS") -> None:
        self.aet = aet
        self.port = 0
        self._folder = folder
        self._kept: dict[str, Kept] = {}
        self._lock = threading.Lock()
        self._reports_to: tuple[str, str, int] | None = None
        self._reporters: list[threading.Thread] = []
        self._server: Any = None

    def start(self) -> int:
        """The port, on loopback, that it listens on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        ae = AE(ae_title=self.aet)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, list(TRANSFER_SYNTAXES))
        ae.add_supported_context(Verification)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._commitment),
        ]
        self._server = ae.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])
        return self.port

    def stop(self) -> None:
        for reporter in self._reporters:
            reporter.join(timeout=10)
        if self._server is not None:
            self._server.shutdown()

    def report_to(self, aet: str, host: str, port: int) -> None:
        """Where storage commitment reports go, each on an association of its own (PS3.4 J.3.3)."""
        self._reports_to = (aet, host, port)

    def kept(self) -> list[Kept]:
        """All that is stored, by study, series number and instance."""
        with self._lock:
            found = list(self._kept.values())
        return sorted(found, key=lambda k: (k.study_instance_uid, k.series_number or 0, k.sop_instance_uid))

    def _store(self, event: Any) -> int:
        encoded: bytes = event.encoded_dataset()
        header = pydicom.dcmread(BytesIO(encoded), stop_before_pixels=True)
        path = self._folder / str(header.StudyInstanceUID) / f"{header.SOPInstanceUID}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
        number = header.get("SeriesNumber")
        kept = Kept(
            path=path,
            sop_instance_uid=str(header.SOPInstanceUID),
            sop_class_uid=str(header.SOPClassUID),
            study_instance_uid=str(header.StudyInstanceUID),
            series_instance_uid=str(header.SeriesInstanceUID),
            modality=str(header.get("Modality", "")),
            series_number=int(number) if number is not None else None,
            series_description=str(header.get("SeriesDescription", "")),
            made_of=next((str(s.ReferencedSOPInstanceUID) for s in header.get("SourceImageSequence") or ()), ""),
        )
        with self._lock:
            self._kept[kept.sop_instance_uid] = kept
        return status.SUCCESS

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        """Instances by their UIDs: what a sender needs to see whether all has arrived."""
        asked: Dataset = event.identifier
        if asked.get("QueryRetrieveLevel") != "IMAGE":
            yield status.CLASS_MISMATCH, None
            return
        for kept in self.kept():
            if all(_fits(asked.get(name), value) for name, value in _identity(kept).items()):
                answer = Dataset()
                answer.QueryRetrieveLevel = "IMAGE"
                for name, value in _identity(kept).items():
                    setattr(answer, name, value)
                yield _PENDING, answer

    def _commitment(self, event: Any) -> tuple[int, None]:
        request: Dataset = event.action_information
        if self._reports_to is not None:
            reporter = threading.Thread(target=self._report, args=(request, self._reports_to), name="commitment-report")
            self._reporters.append(reporter)
            reporter.start()
        return status.SUCCESS, None

    def _report(self, request: Dataset, receiver: tuple[str, str, int]) -> None:
        report, kind = self._judged(request)
        aet, host, port = receiver
        ae = AE(ae_title=self.aet)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate(host, port, ae_title=aet, ext_neg=[role])
        if not association.is_established:
            return  # the other side asks by query when its patience ends
        association.send_n_event_report(report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        association.release()

    def _judged(self, request: Dataset) -> tuple[Dataset, int]:
        """(event information, event type) of PS3.4 Table J.3-2: 1 all is safe, 2 some is not."""
        with self._lock:
            known = set(self._kept)
        safe = [item for item in request.ReferencedSOPSequence if item.ReferencedSOPInstanceUID in known]
        lost = [item for item in request.ReferencedSOPSequence if item.ReferencedSOPInstanceUID not in known]
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        if safe:
            report.ReferencedSOPSequence = [_reference(item) for item in safe]
        if lost:
            report.FailedSOPSequence = [_reference(item) for item in lost]
            for item in report.FailedSOPSequence:
                item.FailureReason = status.NO_SUCH_INSTANCE
        return report, 2 if lost else 1


def _reference(item: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = item.ReferencedSOPClassUID
    reference.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
    return reference


def _identity(kept: Kept) -> dict[str, str]:
    return {
        "StudyInstanceUID": kept.study_instance_uid,
        "SeriesInstanceUID": kept.series_instance_uid,
        "SOPInstanceUID": kept.sop_instance_uid,
        "SOPClassUID": kept.sop_class_uid,
    }


def _fits(asked: Any, value: str) -> bool:
    """UID matching of PS3.4 C.2.2.2.2: empty fits all, a list fits its members."""
    if not asked:
        return True
    return value in ([asked] if isinstance(asked, str) else [str(one) for one in asked])


def sentences_of(report: Path) -> list[str]:
    """What an SR says, in reading order: its texts and numbers, each as "name: value"; no observers, no codes."""
    return list(_sentences(pydicom.dcmread(report)))


def _sentences(parent: Dataset) -> Iterator[str]:
    for item in parent.get("ContentSequence") or []:
        if item.get("RelationshipType") != "CONTAINS":
            continue
        name = item.ConceptNameCodeSequence[0].CodeMeaning if item.get("ConceptNameCodeSequence") else ""
        if item.ValueType == "TEXT":
            yield f"{name}: {item.TextValue}"
        elif item.ValueType == "NUM" and item.get("MeasuredValueSequence"):
            measured = item.MeasuredValueSequence[0]
            unit = measured.MeasurementUnitsCodeSequence[0].CodeMeaning
            yield f"{name}: {float(measured.NumericValue):g} {unit}"
        yield from _sentences(item)
