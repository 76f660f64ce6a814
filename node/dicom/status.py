"""DIMSE status codes by name, and the two tables of this border: error → status (receive), status → error (send)."""

from __future__ import annotations

from collections.abc import Mapping

from node.errors import (
    Conflict,
    NodeError,
    NotUnderstood,
    OutOfResources,
    PeerBusy,
    PeerRefused,
    Refused,
    UnknownCaller,
    WrongCalledTitle,
    WrongClass,
)

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.15
DUPLICATE_INSTANCE = 0x0111  # PS3.7 C.5.6
NO_SUCH_INSTANCE = 0x0112  # PS3.7 C.5.13
INVALID_INSTANCE = 0x0117  # PS3.7 C.5.9
NO_SUCH_CLASS = 0x0118  # PS3.7 C.5.14
CLASS_INSTANCE_CONFLICT = 0x0119  # PS3.7 C.5.4
CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.20
NOT_AUTHORISED = 0x0124  # PS3.7 C.5.18
DUPLICATE_TRANSACTION = 0x0131  # PS3.4 J.3.2.1.4
UNRECOGNISED_OPERATION = 0x0211  # PS3.7 C.5.22
MISTYPED_ARGUMENT = 0x0212  # PS3.7 C.5.10
RESOURCE_LIMITATION = 0x0213  # PS3.7 C.5.19
OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3
MOVE_DESTINATION_UNKNOWN = 0xA801  # PS3.4 C.4.2.1.5
CLASS_MISMATCH = 0xA900  # PS3.4 B.2.3
COERCED = 0xB000  # PS3.4 B.2.3, warning
ELEMENTS_DISCARDED = 0xB006  # PS3.4 B.2.3, warning
CLASS_MISMATCH_WARNING = 0xB007  # PS3.4 B.2.3, warning
CANNOT_UNDERSTAND = 0xC000  # PS3.4 B.2.3
CONFLICTING_INSTANCE = 0xC001  # PS3.4 B.2.3: Cxxx, ours for the same UID with other bytes
CANCELLED = 0xFE00  # PS3.4 C.4.1.1.4
PENDING = frozenset({0xFF00, 0xFF01})  # PS3.4 C.4.1.1.4

STATUS_OF: Mapping[type[Refused], int] = {
    UnknownCaller: NOT_AUTHORISED,
    WrongCalledTitle: NOT_AUTHORISED,
    OutOfResources: OUT_OF_RESOURCES,
    NotUnderstood: CANNOT_UNDERSTAND,
    WrongClass: CLASS_MISMATCH,
    Conflict: CONFLICTING_INSTANCE,
}
"""C-STORE response for every leaf of `Refused`; a test holds the table complete."""

REJECTION_OF: Mapping[type[Refused], tuple[int, int, int]] = {
    UnknownCaller: (1, 1, 3),  # rejected-permanent, service-user, calling-AE-title-not-recognized
    WrongCalledTitle: (1, 1, 7),  # rejected-permanent, service-user, called-AE-title-not-recognized
    OutOfResources: (2, 3, 1),  # rejected-transient, presentation provider, temporary-congestion
}
"""A-ASSOCIATE-RJ (result, source, reason), PS3.8 Table 9-21."""
REJECT_NO_REASON = (1, 1, 1)
REJECT_APPLICATION_CONTEXT = (1, 1, 2)
REJECT_PROTOCOL_VERSION = (1, 2, 2)
REJECT_LOCAL_LIMIT = (2, 3, 2)
REJECT_FOR_NOW = (2, 2, 1)

_MEANINGS: Mapping[int, str] = {
    PROCESSING_FAILURE: "processing failure",
    DUPLICATE_INSTANCE: "duplicate SOP instance",
    NO_SUCH_INSTANCE: "no such object instance",
    INVALID_INSTANCE: "invalid object instance",
    NO_SUCH_CLASS: "no such SOP class",
    CLASS_INSTANCE_CONFLICT: "class and instance conflict",
    CLASS_NOT_SUPPORTED: "SOP class not supported",
    NOT_AUTHORISED: "not authorised",
    DUPLICATE_TRANSACTION: "duplicate transaction UID",
    UNRECOGNISED_OPERATION: "unrecognised operation",
    MISTYPED_ARGUMENT: "mistyped argument",
    RESOURCE_LIMITATION: "resource limitation",
    CANCELLED: "cancelled",
}
_FAMILIES: Mapping[int, str] = {
    0xA700: "out of resources",
    0xA900: "data set does not match SOP class",
    0xB000: "warning",
    0xC000: "cannot understand",
}
_FOR_NOW = frozenset({PROCESSING_FAILURE, RESOURCE_LIMITATION})


def status_of(error: NodeError) -> int:
    """The C-STORE status that tells a sender of this error; anything that is not `Refused` is a processing failure."""
    for kind in type(error).__mro__:
        if kind in STATUS_OF:
            return STATUS_OF[kind]
    return PROCESSING_FAILURE


def rejection_of(error: Refused) -> tuple[int, int, int]:
    """A-ASSOCIATE-RJ (result, source, reason) for a caller who was not admitted."""
    for kind in type(error).__mro__:
        if kind in REJECTION_OF:
            return REJECTION_OF[kind]
    return REJECT_NO_REASON


def is_warning(status: int) -> bool:
    """Stored, with a remark (PS3.7 Annex C.4). A duplicate counts: a retry after a lost answer meets its own object."""
    return status in (0x0001, 0x0107, 0x0116, DUPLICATE_INSTANCE) or status & 0xF000 == 0xB000


def in_words(status: int) -> str:
    """ "0xA700 (out of resources)"."""
    family = 0xC000 if status & 0xF000 == 0xC000 else 0xB000 if status & 0xF000 == 0xB000 else status & 0xFF00
    meaning = _MEANINGS.get(status) or _FAMILIES.get(family, "no meaning known")
    return f"0x{status:04X} ({meaning})"


def peer_error(status: int, operation: str) -> NodeError | None:
    """What a peer's final status means to us.

    returns  None: done, perhaps with a warning. PeerBusy: try again later (0xA7xx, processing failure, resource
             limitation). PeerRefused: never will be taken as it is (0xA9xx, 0xCxxx, class, authorisation, unknown)
    source   PS3.4 B.2.3, PS3.7 Annex C
    """
    if status == SUCCESS or is_warning(status):
        return None
    words = f"{operation} answered {in_words(status)}"
    if status & 0xFF00 == OUT_OF_RESOURCES or status in _FOR_NOW:
        return PeerBusy(words)
    return PeerRefused(words)
