"""Storage commitment: the promise of a PACS that an object is safe with it. The node is SCU.

source  PS3.4 Annex J
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt

from node.dicom import status
from node.dicom.association import Broken, associate
from node.dicom.fragments import Malformed
from node.dicom.messages import decode_data_set, is_uid
from node.dicom.negotiation import STORAGE_COMMITMENT, UNCOMPRESSED
from node.errors import NoCommonContext
from node.settings import Peer, Settings

LOGGER = logging.getLogger(__name__)

COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Well-known instance of the Storage Commitment Push Model, PS3.4 J.3.5."""
MOST_REPORT = 1 << 25
"""Longest report that is read, in bytes: some 200,000 instances."""
REPORT_WAIT_S = 1.0
"""How long a peer may take to report on the same association. Most wait for its end, and call us."""


@dataclass(frozen=True)
class CommitmentReport:
    """What a PACS says of one request: which instances it answers for, and why it does not for the others."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, str]


def request_commitment(
    settings: Settings, peer: Peer, transaction_uid: str, references: Sequence[tuple[str, str]]
) -> CommitmentReport | None:
    """Ask `peer` to answer for these (SOP class UID, SOP instance UID).

    returns  its report where it came on the same association; None where it will come to our listener
    raises   NoCommonContext where the peer does not offer the service; Transient, Permanent
    source   PS3.4 J.3.2
    """
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(*reference) for reference in references]
    reports = _Reports(transaction_uid)
    handlers = [(evt.EVT_N_EVENT_REPORT, reports.heard)]
    try:
        with associate(settings, peer, [(STORAGE_COMMITMENT, UNCOMPRESSED)], handlers=handlers) as association:
            answer, _ = association.send_n_action(request, 1, STORAGE_COMMITMENT, COMMITMENT_INSTANCE)
            if "Status" not in answer:
                raise Broken("no answer to N-ACTION")
            error = status.peer_error(int(answer.Status), f"{peer.aet}: N-ACTION")
            if error is not None:
                raise error
            return reports.wait()
    except NoCommonContext as exc:
        raise NoCommonContext(f"{peer.aet} does not offer storage commitment") from exc


class _Reports:
    """Reports that come on the association of the request: before the response, shortly after it, or not at all."""

    def __init__(self, transaction_uid: str) -> None:
        self._transaction_uid = transaction_uid
        self._heard: queue.Queue[tuple[CommitmentReport, threading.Thread]] = queue.Queue()

    def heard(self, event: Any) -> tuple[int, None]:
        """Handler of EVT_N_EVENT_REPORT; pynetdicom gives each a thread of its own, which also sends the answer."""
        encoded = event.request.EventInformation
        try:
            report = read_report(encoded.getvalue() if encoded else b"", str(event.context.transfer_syntax))
        except Malformed as exc:
            LOGGER.warning("commitment report not taken: %s", exc)
            return status.PROCESSING_FAILURE, None
        if report.transaction_uid == self._transaction_uid:
            self._heard.put((report, threading.current_thread()))
        return status.SUCCESS, None

    def wait(self) -> CommitmentReport | None:
        try:
            report, thread = self._heard.get(timeout=REPORT_WAIT_S)
        except queue.Empty:
            return None
        thread.join(REPORT_WAIT_S)  # it has to answer before the release is asked for
        return report


def read_report(encoded: bytes, transfer_syntax_uid: str) -> CommitmentReport:
    """The event information of an N-EVENT-REPORT. Raises Malformed. Source: PS3.4 Table J.3-2."""
    report = decode_data_set(encoded, transfer_syntax_uid)
    try:
        transaction_uid = str(report.TransactionUID)
        committed = [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence") or []]
        failed = {
            str(item.ReferencedSOPInstanceUID): status.in_words(int(item.get("FailureReason") or 0))
            for item in report.get("FailedSOPSequence") or []
        }
    except (AttributeError, TypeError, ValueError) as exc:
        raise Malformed("storage commitment report without its mandatory elements") from exc
    if not all(is_uid(uid) for uid in (transaction_uid, *committed, *failed)):
        raise Malformed("storage commitment report with something else in place of a UID")
    return CommitmentReport(transaction_uid, frozenset(committed) - failed.keys(), failed)


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item
