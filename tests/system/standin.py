"""A PACS that misbehaves on demand, on pynetdicom: refuses a class, is full, aborts, or denies what it stored."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, StoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from system.dcmtk import Address
from system.processes import free_port, listens

COMMITMENT_INSTANCE = UID("1.2.840.10008.1.20.1.1")
REPORT_TRIES = 5
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]


@dataclass
class Manners:
    """What the PACS does. Changed between steps of a test, from the test's thread."""

    refuses: Collection[str] = ()
    """SOP classes without a presentation context; read when the PACS starts."""
    offers_commitment: bool = True
    offers_find: bool = True
    store_status: int = 0x0000
    """Answer to each C-STORE; 0x0000 stores."""
    find_status: int = 0x0000
    """Answer to each C-FIND instead of its matches, where it is not 0x0000."""
    find_delay_s: float = 0.0
    """Waits so long before it answers a C-FIND at STUDY level."""
    studies: Sequence[Dataset] = ()
    """Matches of each C-FIND at STUDY level."""
    aborts_after: int | None = None
    """Aborts the association after so many objects of it."""
    aborts_on: str = ""
    """Aborts whenever this SOP Instance UID is sent."""
    denies: bool = False
    """Storage commitment reports every object as failed (0x0112, no such object)."""
    denies_only: str = ""
    """Storage commitment reports this SOP Instance UID as failed."""
    delay_s: float = 0.0
    """Waits so long before it answers each C-STORE."""
    silent: bool = False
    """Accepts the commitment request and never reports."""


@dataclass
class StandIn:
    """One PACS on a free loopback port; `reports_to` is where commitment reports go on their own association."""

    folder: Path
    reports_to: Address
    aet: str = "STANDIN"
    manners: Manners = field(default_factory=Manners)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.stored: dict[str, Path] = {}
        self.offered: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.commitments: list[list[str]] = []
        self.lock = threading.Lock()
        self.server: Any = None
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> Address:
        return Address(self.aet, self.port)

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        ae = AE(ae_title=self.aet)
        ae.add_supported_context(Verification)
        for context in StoragePresentationContexts:
            if context.abstract_syntax not in self.manners.refuses:
                ae.add_supported_context(str(context.abstract_syntax), SYNTAXES)
        if self.manners.offers_find:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if self.manners.offers_commitment:
            ae.add_supported_context(StorageCommitmentPushModel)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_N_ACTION, self._on_commitment_request),
        ]
        self.server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server = None

    def datasets(self) -> list[Dataset]:
        """What it holds now."""
        return [dcmread(path) for path in sorted(self.stored.values())]

    def _on_store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self.lock:
            self.offered[uid] += 1
            self.classes[str(event.request.AffectedSOPClassUID)] += 1
            seen = event.assoc.__dict__.setdefault("objects_seen", 0) + 1
            event.assoc.objects_seen = seen
        time.sleep(self.manners.delay_s)
        too_many = self.manners.aborts_after is not None and seen > self.manners.aborts_after
        if too_many or uid == self.manners.aborts_on:
            event.assoc.abort()
            return 0xA700
        if self.manners.store_status == 0x0000:
            path = self.folder / f"{uid}.dcm"
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            dcmwrite(path, dataset, enforce_file_format=True)
            with self.lock:
                self.stored[uid] = path
        return self.manners.store_status

    def _on_find(self, event: Any) -> Any:
        if self.manners.find_status:
            yield self.manners.find_status, None
            return
        wanted = event.identifier
        if wanted.QueryRetrieveLevel == "STUDY":
            time.sleep(self.manners.find_delay_s)
            yield from ((0xFF00, match) for match in self.manners.studies)
            return
        uids = [str(uid) for uid in _listed(wanted.get("SOPInstanceUID"))] or list(self.stored)
        for uid in uids:
            if uid in self.stored:
                answer = Dataset()
                answer.QueryRetrieveLevel = "IMAGE"
                answer.SOPInstanceUID = uid
                for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
                    if keyword in wanted:
                        setattr(answer, keyword, wanted[keyword].value)
                yield 0xFF00, answer

    def _on_commitment_request(self, event: Any) -> tuple[int, None]:
        request = event.action_information
        uids = [str(item.ReferencedSOPInstanceUID) for item in request.ReferencedSOPSequence]
        self.commitments.append(uids)
        if not self.manners.silent:
            threading.Thread(target=self._report, args=(request,), daemon=True).start()
        return 0x0000, None

    def _report(self, request: Dataset) -> None:
        """N-EVENT-REPORT on an association of its own, as Orthanc does (PS3.4 J.3.3)."""
        good, bad = [], []
        for item in request.ReferencedSOPSequence:
            uid = str(item.ReferencedSOPInstanceUID)
            stored = uid in self.stored and not self.manners.denies and uid != self.manners.denies_only
            reference = Dataset()
            reference.ReferencedSOPClassUID = item.ReferencedSOPClassUID
            reference.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
            if not stored:
                reference.FailureReason = 0x0112
            (good if stored else bad).append(reference)
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        report.ReferencedSOPSequence = good
        if bad:
            report.FailedSOPSequence = bad
        self._send_report(report, event_type=2 if bad else 1)

    def _send_report(self, report: Dataset, *, event_type: int) -> None:
        """Tries for a while: the node may be away just now."""
        ae = AE(ae_title=self.aet)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        to = self.reports_to
        for _ in range(REPORT_TRIES):
            if listens(to.port):
                association = ae.associate(to.host, to.port, ae_title=to.aet, ext_neg=[role])
                if association.is_established:
                    association.send_n_event_report(report, event_type, StorageCommitmentPushModel, COMMITMENT_INSTANCE)
                    association.release()
                    return
            time.sleep(1)


def _listed(element: Any) -> list[Any]:
    if element is None or element in ("", None):
        return []
    return [element] if isinstance(element, (str, UID)) else list(element)
