"""Associations agreed on, from both sides. pynetdicom encodes, decodes and settles roles; what we take is said here.

source  PS3.8 9.3.2 to 9.3.4, PS3.7 Annex D.3
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.uid import (
    AllTransferSyntaxes,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import (
    AllStoragePresentationContexts,
    PresentationContext,
    build_context,
    negotiate_as_acceptor,
    negotiate_as_requestor,
)

from node.dicom.streaming import Malformed

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_STORAGE = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_NO_PIXELS_INSIDE = ("1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.7.")
"""JPIP refers to pixels elsewhere, SMPTE ST 2110 streams them: neither can be kept."""
TRANSFER_SYNTAXES = tuple(str(uid) for uid in AllTransferSyntaxes if not str(uid).startswith(_NO_PIXELS_INSIDE))
_UNCOMPRESSED_SECOND = frozenset({str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian)})


@dataclass(frozen=True)
class Accepted:
    """A presentation context that both sides have agreed on."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class Request:
    """What an A-ASSOCIATE-RQ asks for. `max_length` 0 means no limit."""

    calling_aet: str
    called_aet: str
    protocol_version: int
    application_context: str
    max_length: int
    contexts: tuple[Any, ...]
    roles: Mapping[str, tuple[bool, bool]]


def is_storage(abstract_syntax: str) -> bool:
    """Whether objects of this class are taken: all standard storage classes, and private ones.

    Classes younger than the library count by their root. A private class is only offered by somebody who stores it.
    """
    return (
        abstract_syntax in _STORAGE
        or abstract_syntax.startswith(_STORAGE_ROOT)
        or not abstract_syntax.startswith(_DICOM_ROOT)
    )


def read_request(pdu: bytes) -> Request:
    """Raises Malformed."""
    try:
        decoded = A_ASSOCIATE_RQ()
        decoded.decode(pdu)
        primitive = decoded.to_primitive()
        return Request(
            calling_aet=str(primitive.calling_ae_title).strip(),
            called_aet=str(primitive.called_ae_title).strip(),
            protocol_version=int(decoded.protocol_version),
            application_context=str(primitive.application_context_name or ""),
            max_length=int(primitive.maximum_length_received or 0),
            contexts=tuple(primitive.presentation_context_definition_list),
            roles=_roles(primitive),
        )
    except Exception as exc:  # the library has no error of its own for bytes that it cannot decode
        raise Malformed(f"A-ASSOCIATE-RQ cannot be decoded ({type(exc).__name__})") from exc


def accept(request: Request, *, max_pdu: int) -> tuple[bytes, dict[int, Accepted]]:
    """Settle each proposed context.

    A context gets the first proposed transfer syntax that we know: the sender's own, nothing is converted. Explicit VR
    Little Endian goes before Implicit VR and Big Endian, since it says its types itself.
    returns  the A-ASSOCIATE-AC PDU, and the accepted contexts by id
    """
    ours = []
    for proposed in request.contexts:
        proposed.transfer_syntax = [_choose([str(uid) for uid in proposed.transfer_syntax])]
    for abstract_syntax in {str(context.abstract_syntax) for context in request.contexts}:
        commitment = abstract_syntax == STORAGE_COMMITMENT
        if commitment or abstract_syntax == VERIFICATION or is_storage(abstract_syntax):
            context = build_context(abstract_syntax, list(TRANSFER_SYNTAXES))
            context.scu_role, context.scp_role = True, commitment  # a PACS calls back as SCP of commitment
            ours.append(context)
    settled, roles = negotiate_as_acceptor(list(request.contexts), ours, dict(request.roles))
    answer = _primitive(request.calling_aet, request.called_aet, max_pdu, roles)
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = settled
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    return bytes(pdu.encode()), _accepted(settled)


def write_request(
    calling_aet: str,
    called_aet: str,
    *,
    contexts: Sequence[tuple[str, Sequence[str]]],
    max_pdu: int,
) -> tuple[bytes, list[Any]]:
    """The A-ASSOCIATE-RQ PDU for (abstract syntax, transfer syntaxes) pairs, at most 128 (ids 1, 3 … 255)."""
    proposed = []
    for index, (abstract_syntax, transfer_syntaxes) in enumerate(contexts):
        context = build_context(abstract_syntax, list(transfer_syntaxes))
        context.context_id = 2 * index + 1
        proposed.append(context)
    primitive = _primitive(calling_aet, called_aet, max_pdu, [])
    primitive.presentation_context_definition_list = proposed
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode()), proposed


def read_answer(pdu: bytes, proposed: Sequence[Any]) -> tuple[dict[int, Accepted], int]:
    """Accepted contexts by id, and the peer's maximum PDU length (0: no limit). Raises Malformed."""
    try:
        decoded = A_ASSOCIATE_AC()
        decoded.decode(pdu)
        primitive = decoded.to_primitive()
        settled = negotiate_as_requestor(
            list(proposed), primitive.presentation_context_definition_results_list, _roles(primitive)
        )
        return _accepted(settled), int(primitive.maximum_length_received or 0)
    except Exception as exc:  # as in read_request
        raise Malformed(f"A-ASSOCIATE-AC cannot be decoded ({type(exc).__name__})") from exc


def rejection(result: int, source: int, reason: int) -> bytes:
    """A-ASSOCIATE-RJ PDU, PS3.8 Table 9-21."""
    return struct.pack(">BBIBBBB", 3, 0, 4, 0, result, source, reason)


def rejection_in_words(result: int, source: int, reason: int) -> str:
    """PS3.8 Table 9-21."""
    reasons = {
        (1, 2): "application context name not supported",
        (1, 3): "calling AE title not recognised",
        (1, 7): "called AE title not recognised",
        (2, 2): "protocol version not supported",
        (3, 1): "temporary congestion",
        (3, 2): "local limit exceeded",
    }
    return f"{reasons.get((source, reason), 'no reason given')} ({'permanent' if result == 1 else 'transient'})"


def _choose(proposed: Sequence[str]) -> str:
    known = [uid for uid in proposed if uid in TRANSFER_SYNTAXES]
    if not known:
        return proposed[0]
    explicit = str(ExplicitVRLittleEndian)
    return explicit if known[0] in _UNCOMPRESSED_SECOND and explicit in known else known[0]


def _primitive(calling_aet: str, called_aet: str, max_pdu: int, roles: Sequence[Any]) -> Any:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title, primitive.called_ae_title = calling_aet, called_aet
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = max_pdu
    implementation.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    version.implementation_version_name = PYNETDICOM_IMPLEMENTATION_VERSION
    primitive.user_information = [length, implementation, version, *roles]
    return primitive


def _roles(primitive: Any) -> dict[str, tuple[bool, bool]]:
    return {
        str(item.sop_class_uid): (bool(item.scu_role), bool(item.scp_role))
        for item in primitive.user_information
        if hasattr(item, "scp_role")
    }


def _accepted(contexts: Sequence[PresentationContext]) -> dict[int, Accepted]:
    return {
        int(context.context_id): Accepted(
            int(context.context_id), str(context.abstract_syntax), str(context.transfer_syntax[0])
        )
        for context in contexts
        if context.result == 0
    }
