"""What is agreed to in an association: pynetdicom negotiates (PS3.7 Annex D.3), what we take is said here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, UID_dictionary
from pynetdicom.presentation import AllStoragePresentationContexts, build_context

from node.dicom.messages import is_uid

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
STORAGE_CLASSES = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
"""Standard storage classes that the library knows."""
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
UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
"""What the node proposes for everything but files that are in another syntax."""
_EXPLICIT = UNCOMPRESSED[0]
_AFTER_EXPLICIT = frozenset({str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian)})


@dataclass(frozen=True)
class Accepted:
    """A presentation context that both sides have agreed on."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


def accepted(association: Any) -> dict[int, Accepted]:
    """The contexts of an association by id."""
    return {
        int(context.context_id): Accepted(
            int(context.context_id), str(context.abstract_syntax), str(context.transfer_syntax[0])
        )
        for context in association.accepted_contexts
    }


def is_storage(abstract_syntax: str) -> bool:
    """Whether objects of this class are taken: all standard storage classes, and private ones.

    Classes younger than the library count by their root. A private class is only offered by somebody who stores it.
    """
    return is_uid(abstract_syntax) and (
        abstract_syntax in STORAGE_CLASSES
        or abstract_syntax.startswith(_STORAGE_ROOT)
        or not abstract_syntax.startswith(_DICOM_ROOT)
    )


def settle(proposed: Iterable[Any]) -> list[Any]:
    """What we support of what is proposed, as pynetdicom wants it: each abstract syntax once, with roles.

    In each proposed context only one transfer syntax is left to choose: the first that we know, which is the sender's
    own, so that nothing is converted. Explicit VR Little Endian goes before Implicit VR and Big Endian, since it says
    its types itself.
    Roles: the peer is SCU, except for storage commitment, where a PACS that reports calls us as SCP.
    """
    choices: dict[str, list[str]] = {}
    for context in proposed:
        abstract_syntax = str(context.abstract_syntax)
        proposals = [str(uid) for uid in context.transfer_syntax]
        choice = _choice(proposals)
        context.transfer_syntax = [choice] if choice else proposals[:1]
        if abstract_syntax in (VERIFICATION, STORAGE_COMMITMENT) or is_storage(abstract_syntax):
            # where none is known, one that is not proposed either: then the syntax is refused, not the class
            choices.setdefault(abstract_syntax, []).append(choice or _EXPLICIT)
    return [_supported(abstract_syntax, syntaxes) for abstract_syntax, syntaxes in choices.items()]


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


def _choice(proposed: Sequence[str]) -> str | None:
    known = [uid for uid in proposed if uid in TRANSFER_SYNTAXES]
    if not known:
        return None
    return _EXPLICIT if known[0] in _AFTER_EXPLICIT and _EXPLICIT in known else known[0]


def _supported(abstract_syntax: str, transfer_syntaxes: Sequence[str]) -> Any:
    context = build_context(abstract_syntax, list(dict.fromkeys(transfer_syntaxes)))
    context.scu_role, context.scp_role = True, abstract_syntax == STORAGE_COMMITMENT
    return context
