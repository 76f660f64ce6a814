"""Associations agreed on, from both sides: A-ASSOCIATE PDUs read and written, and what we take.

The bytes come from anybody who can open a connection, so they are read here, strictly and silently: the libraries'
decoders repeat in logs and warnings what they were sent.

source  PS3.8 9.3.2 to 9.3.4, PS3.7 Annex D.3
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, UID_dictionary
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.presentation import AllStoragePresentationContexts

from node.dicom.messages import is_uid
from node.dicom.streaming import ASSOCIATE_AC, ASSOCIATE_RJ, ASSOCIATE_RQ, Malformed

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_STORAGE = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_NO_OBJECT_INSIDE = (
    *("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205"),  # JPIP
    "1.2.840.10008.1.2.6.",  # MIME and XML
    "1.2.840.10008.1.2.7.",  # SMPTE ST 2110 streams
    "1.2.840.10008.1.20",  # Papyrus
)
TRANSFER_SYNTAXES = tuple(
    uid
    for uid, (_, kind, *_) in UID_dictionary.items()
    if kind == "Transfer Syntax" and not uid.startswith(_NO_OBJECT_INSIDE)
)
"""All of PS3.6 Table A-1, retired ones too: what nobody can decode any more can still be kept, and be said so of."""
_EXPLICIT = str(ExplicitVRLittleEndian)
_OF_NO_MEANING = str(ImplicitVRLittleEndian)  # beside a rejection, PS3.8 Table 9-18
_AFTER_EXPLICIT = frozenset({str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian)})

_LONGEST_NAME = 64  # a UID, PS3.5 9.1
_FIXED = struct.Struct(">HH16s16s32x")  # protocol version, reserved, called and calling AE title, reserved
_ITEM = struct.Struct(">BxH")
_APPLICATION, _CONTEXT_RQ, _CONTEXT_AC, _USER = 0x10, 0x20, 0x21, 0x50
_ABSTRACT, _TRANSFER = 0x30, 0x40
_MAX_LENGTH, _IMPLEMENTATION, _ROLE, _VERSION = 0x51, 0x52, 0x54, 0x55
_TAKEN, _REJECTED_BY_USER, _CLASS_UNKNOWN, _SYNTAX_UNKNOWN = 0, 1, 3, 4  # PS3.8 Table 9-18


@dataclass(frozen=True)
class Accepted:
    """A presentation context that both sides have agreed on."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class Proposed:
    """A presentation context that one side offers."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass
class Request:
    """What an A-ASSOCIATE-RQ asks for.

    max_length   longest PDU that the peer takes; 0 means any
    roles        (as SCU, as SCP) that the peer proposes for itself, by SOP class; absent means SCU
    """

    protocol_version: int
    called_aet: str
    calling_aet: str
    application_context: str = ""
    max_length: int = 0
    contexts: list[Proposed] = field(default_factory=list)
    roles: dict[str, tuple[bool, bool]] = field(default_factory=dict)


def is_storage(abstract_syntax: str) -> bool:
    """Whether objects of this class are taken: all standard storage classes, and private ones.

    Classes younger than the library count by their root. A private class is only offered by somebody who stores it.
    """
    return is_uid(abstract_syntax) and (
        abstract_syntax in _STORAGE
        or abstract_syntax.startswith(_STORAGE_ROOT)
        or not abstract_syntax.startswith(_DICOM_ROOT)
    )


def read_request(pdu: bytes) -> Request:
    """Raises Malformed. Source: PS3.8 Table 9-11."""
    version, _, called, calling = _fixed(pdu)
    request = Request(version, _text(called), _text(calling))
    for kind, body in _items(pdu, 6 + _FIXED.size):
        if kind == _APPLICATION:
            request.application_context = _text(body)
        elif kind == _CONTEXT_RQ:
            request.contexts.append(_proposed(body))
        elif kind == _USER:
            request.max_length, request.roles = _user_information(body)
    return request


def accept(request: Request, *, max_pdu: int) -> tuple[bytes, dict[int, Accepted]]:
    """The A-ASSOCIATE-AC PDU, and the accepted contexts by id.

    A context gets the first proposed transfer syntax that we know: the sender's own, nothing is converted. Explicit VR
    Little Endian goes before Implicit VR and Big Endian, since it says its types itself.
    Roles: the peer is SCU, except for storage commitment, where a PACS that reports calls us as SCP.
    """
    accepted: dict[int, Accepted] = {}
    items = _item(_APPLICATION, APPLICATION_CONTEXT.encode())
    for context in request.contexts:
        result, syntax = _settle(context, request.roles)
        if result == _TAKEN:
            accepted[context.context_id] = Accepted(context.context_id, context.abstract_syntax, syntax)
        body = bytes((context.context_id, 0, result, 0)) + _item(_TRANSFER, syntax.encode())
        items += _item(_CONTEXT_AC, body)
    settled = {context.abstract_syntax for context in accepted.values()}
    roles = b"".join(
        _item(_ROLE, struct.pack(">H", len(uid)) + uid.encode() + bytes((as_scu, as_scp and uid == STORAGE_COMMITMENT)))
        for uid, (as_scu, as_scp) in request.roles.items()
        if uid in settled
    )
    items += _our_user_information(max_pdu, roles)
    return _pdu(ASSOCIATE_AC, request.called_aet, request.calling_aet, items), accepted


def write_request(
    calling_aet: str, called_aet: str, *, contexts: Sequence[tuple[str, Sequence[str]]], max_pdu: int
) -> tuple[bytes, list[Proposed]]:
    """The A-ASSOCIATE-RQ PDU for (abstract syntax, transfer syntaxes) pairs, at most 128 (ids 1, 3 … 255)."""
    proposed = [Proposed(2 * index + 1, uid, tuple(syntaxes)) for index, (uid, syntaxes) in enumerate(contexts)]
    items = _item(_APPLICATION, APPLICATION_CONTEXT.encode())
    for context in proposed:
        body = bytes((context.context_id, 0, 0, 0)) + _item(_ABSTRACT, context.abstract_syntax.encode())
        items += _item(
            _CONTEXT_RQ, body + b"".join(_item(_TRANSFER, uid.encode()) for uid in context.transfer_syntaxes)
        )
    items += _our_user_information(max_pdu, b"")
    return _pdu(ASSOCIATE_RQ, called_aet, calling_aet, items), proposed


def read_answer(pdu: bytes, proposed: Sequence[Proposed]) -> tuple[dict[int, Accepted], int]:
    """Accepted contexts by id, and the longest PDU that the peer takes (0: any). Raises Malformed."""
    _fixed(pdu)
    offered = {context.context_id: context for context in proposed}
    accepted: dict[int, Accepted] = {}
    max_length = 0
    for kind, body in _items(pdu, 6 + _FIXED.size):
        if kind == _USER:
            max_length, _ = _user_information(body)
        elif kind == _CONTEXT_AC and len(body) >= 4 and body[2] == _TAKEN:
            syntax = next((_text(inner) for sub, inner in _items(body, 4) if sub == _TRANSFER), "")
            context = offered.get(body[0])
            if context is None or syntax not in context.transfer_syntaxes:
                raise Malformed("accepted what was not proposed")
            accepted[context.context_id] = Accepted(context.context_id, context.abstract_syntax, syntax)
    return accepted, max_length


def rejection(result: int, source: int, reason: int) -> bytes:
    """A-ASSOCIATE-RJ PDU, PS3.8 Table 9-21."""
    return struct.pack(">BBIBBBB", ASSOCIATE_RJ, 0, 4, 0, result, source, reason)


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


def _settle(context: Proposed, roles: Mapping[str, tuple[bool, bool]]) -> tuple[int, str]:
    """(result, transfer syntax) of a proposed context."""
    commitment = context.abstract_syntax == STORAGE_COMMITMENT
    if not (commitment or context.abstract_syntax == VERIFICATION or is_storage(context.abstract_syntax)):
        return _CLASS_UNKNOWN, _OF_NO_MEANING
    as_scu, as_scp = roles.get(context.abstract_syntax, (True, False))
    if not as_scu and not (as_scp and commitment):
        return _REJECTED_BY_USER, _OF_NO_MEANING
    known = [uid for uid in context.transfer_syntaxes if uid in TRANSFER_SYNTAXES]
    if not known:
        return _SYNTAX_UNKNOWN, _OF_NO_MEANING
    return _TAKEN, _EXPLICIT if known[0] in _AFTER_EXPLICIT and _EXPLICIT in known else known[0]


def _fixed(pdu: bytes) -> tuple[int, int, bytes, bytes]:
    if len(pdu) < 6 + _FIXED.size:
        raise Malformed("association PDU too short")
    version, reserved, called, calling = _FIXED.unpack_from(pdu, 6)
    return version, reserved, called, calling


def _items(data: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """(type, body) of the items from there to the end. Raises Malformed."""
    while position < len(data):
        if position + _ITEM.size > len(data):
            raise Malformed("association PDU ends within an item")
        kind, length = _ITEM.unpack_from(data, position)
        position += _ITEM.size
        if position + length > len(data):
            raise Malformed("item longer than the association PDU around it")
        yield kind, data[position : position + length]
        position += length


def _proposed(body: bytes) -> Proposed:
    """PS3.8 Table 9-13."""
    if len(body) < 4 or not body[0] & 1:
        raise Malformed("presentation context without an odd id")
    abstract_syntax, syntaxes = "", []
    for kind, inner in _items(body, 4):
        if kind == _ABSTRACT:
            abstract_syntax = _text(inner)
        elif kind == _TRANSFER:
            syntaxes.append(_text(inner))
    if not abstract_syntax or not syntaxes:
        raise Malformed("presentation context without its syntaxes")
    return Proposed(body[0], abstract_syntax, tuple(syntaxes))


def _user_information(body: bytes) -> tuple[int, dict[str, tuple[bool, bool]]]:
    """(maximum length, roles). Source: PS3.8 Annex D.1, PS3.7 D.3.3.4."""
    max_length, roles = 0, {}
    for kind, inner in _items(body, 0):
        if kind == _MAX_LENGTH:
            if len(inner) != 4:
                raise Malformed("maximum length of a wrong length")
            max_length = int.from_bytes(inner, "big")
        elif kind == _ROLE:
            length = int.from_bytes(inner[:2], "big")
            if len(inner) != length + 4:
                raise Malformed("role selection of a wrong length")
            roles[_text(inner[2:-2])] = (inner[-2] == 1, inner[-1] == 1)
    return max_length, roles


def _text(encoded: bytes) -> str:
    """AE titles and UIDs: printable ASCII without padding. Raises Malformed."""
    value = encoded.strip(b"\0 ").decode("latin1")
    if len(value) > _LONGEST_NAME or not value.isascii() or not value.isprintable():
        raise Malformed("name too long, or with characters that none may have")
    return value


def _our_user_information(max_pdu: int, roles: bytes) -> bytes:
    return _item(
        _USER,
        _item(_MAX_LENGTH, struct.pack(">I", max_pdu))
        + _item(_IMPLEMENTATION, str(PYNETDICOM_IMPLEMENTATION_UID).encode())
        + roles
        + _item(_VERSION, PYNETDICOM_IMPLEMENTATION_VERSION.encode()),
    )


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, len(body)) + body


def _pdu(kind: int, called_aet: str, calling_aet: str, items: bytes) -> bytes:
    body = _FIXED.pack(1, 0, called_aet.encode("ascii").ljust(16), calling_aet.encode("ascii").ljust(16)) + items
    return struct.pack(">BBI", kind, 0, len(body)) + body
