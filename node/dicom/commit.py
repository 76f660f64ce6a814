"""Storage commitment: the promise of a PACS that an object is safe with it. The node is SCU.

source  PS3.4 Annex J
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.dicom import messages, status
from node.dicom.association import Association, associate
from node.dicom.messages import decode_data_set, encode_data_set
from node.dicom.negotiation import STORAGE_COMMITMENT
from node.dicom.streaming import Malformed, WireError
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
    syntaxes = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
    with associate(settings, peer, [(STORAGE_COMMITMENT, syntaxes)]) as association:
        context = association.context(STORAGE_COMMITMENT)
        if context is None:
            raise NoCommonContext(f"{peer.aet} does not offer storage commitment")
        elements = {
            messages.REQUESTED_CLASS: messages.uid(STORAGE_COMMITMENT),
            messages.COMMAND_FIELD: messages.short(messages.N_ACTION_RQ),
            messages.REQUESTED_INSTANCE: messages.uid(COMMITMENT_INSTANCE),
            messages.ACTION_TYPE: messages.short(1),
        }
        message_id = association.request(context, elements, encode_data_set(request, context.transfer_syntax))
        return _await_report(association, peer, message_id, transaction_uid)


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
    if not all(messages.is_uid(uid) for uid in (transaction_uid, *committed, *failed)):
        raise Malformed("storage commitment report with something else in place of a UID")
    return CommitmentReport(transaction_uid, frozenset(committed) - failed.keys(), failed)


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def _await_report(
    association: Association, peer: Peer, message_id: int, transaction_uid: str
) -> CommitmentReport | None:
    """The report may come before the response, shortly after it, or not here at all."""
    report: CommitmentReport | None = None
    accepted = False
    while report is None or not accepted:
        try:
            message = association.receive(patience_s=REPORT_WAIT_S if accepted else None)
        except WireError as exc:
            if not accepted:
                raise
            LOGGER.debug("%s: no report on the association of the request: %s", peer.aet, exc)
            return None
        operation = message.command.need(messages.COMMAND_FIELD)
        if operation == messages.N_EVENT_REPORT_RQ:
            found = read_report(message.data, message.context.transfer_syntax)
            association.respond(message, status.SUCCESS)
            report = found if found.transaction_uid == transaction_uid else report
        elif message.command.number(messages.RESPONDED_ID) == message_id:
            error = status.peer_error(message.command.need(messages.STATUS), f"{peer.aet}: N-ACTION")
            if error is not None:
                raise error
            accepted = True
        else:
            raise Malformed("message out of place")
    return report
