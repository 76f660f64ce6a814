"""What the conformance statement says of the DICOM border (PS3.2), taken from where it is decided.

What the code does not keep as data (attributes of a query, kinds of objects) stands here, and tests hold it to what the
node does: tests/node/dicom/test_conformance.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.charset import python_encoding
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import sop_class

from node.dicom import negotiation, status
from node.dicom.commit import COMMITMENT_INSTANCE
from node.dicom.marks import shelf
from node.dicom.query import CLASSES_OF_KIND, RESULT_CLASSES
from node.dicom.read.pixels import DECODED
from node.dicom.reconcile import ASKED
from node.dicom.select import CHEST_XRAY, CT_CLASSES, LOW_DOSE_CT, RADIOGRAPH_CLASSES
from node.dicom.send import Outgoing, contexts_of
from node.dicom.tls import CIPHER_SUITES
from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.dicom.write import codes, derived, headers
from node.errors import OutOfResources, PeerBusy, Refused, UnknownCaller, WrongCalledTitle


@dataclass(frozen=True)
class Named:
    """A UID of PS3.6, with its name."""

    uid: str
    name: str


@dataclass(frozen=True)
class Proposal:
    """What the node proposes as association requestor.

    contexts    each with its transfer syntaxes, in the order of preference
    """

    purpose: str
    role: str
    contexts: tuple[tuple[Named, tuple[Named, ...]], ...]


@dataclass(frozen=True)
class Answer:
    """A status that the node answers with, or takes from a peer: "A700", "B000 to BFFF"."""

    code: str
    meaning: str


@dataclass(frozen=True)
class Rejection:
    """A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""

    result: int
    source: int
    reason: int
    words: str
    when: str


@dataclass(frozen=True)
class QueryKeys:
    """Attributes of a C-FIND identifier that the node sends, by keyword."""

    level: str
    purpose: str
    keywords: tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """A kind of object that the node makes.

    number      behind the base, after ten times the number of the source series; None: the base itself
    """

    kind: str
    what: str
    classes: tuple[Named, ...]
    modality: str
    number: str | None
    description: str


@dataclass(frozen=True)
class Border:
    """All of it.

    copied      keywords of study attributes that every object has as received; beside them all of group 0010 and 0012
    left_out    keywords of what a derived image does not take over from its source, of what its class may have
    own_codes   "value: meaning" of codes of our own scheme
    """

    application_context: str
    implementation_class_uid: str
    implementation_version_name: str
    accepted_classes: tuple[Named, ...]
    accepted_syntaxes: tuple[Named, ...]
    analysed: Mapping[str, tuple[Named, ...]]
    decoded_syntaxes: tuple[Named, ...]
    proposals: tuple[Proposal, ...]
    query_keys: tuple[QueryKeys, ...]
    answers: Mapping[str, tuple[Answer, ...]]
    taken: tuple[Answer, ...]
    rejections: tuple[Rejection, ...]
    made: tuple[Made, ...]
    templates: Mapping[str, str]
    character_sets: tuple[str, ...]
    copied: tuple[str, ...]
    left_out: tuple[str, ...]
    own_codes: tuple[str, ...]
    cipher_suites: str
    commitment_instance: str


def border() -> Border:
    return Border(
        application_context=negotiation.APPLICATION_CONTEXT,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        accepted_classes=_named(negotiation.STORAGE_CLASSES),
        accepted_syntaxes=_named(negotiation.TRANSFER_SYNTAXES),
        analysed={LOW_DOSE_CT: _named(CT_CLASSES), CHEST_XRAY: _named(RADIOGRAPH_CLASSES)},
        decoded_syntaxes=_named(DECODED),
        proposals=tuple(_proposals()),
        query_keys=QUERY_KEYS,
        answers=_answers(),
        taken=_taken(),
        rejections=tuple(_rejections()),
        made=tuple(_made()),
        templates=TEMPLATES,
        character_sets=tuple(sorted(filter(_DEFINED_TERM.fullmatch, python_encoding), key=_terms_in_order)),
        copied=tuple(sorted(headers.STUDY_KEYWORDS)),
        left_out=tuple(sorted(derived.STALE)),
        own_codes=tuple(sorted(_own_codes())),
        cipher_suites=CIPHER_SUITES,
        commitment_instance=COMMITMENT_INSTANCE,
    )


_DEFINED_TERM = re.compile(r"(ISO_IR |ISO 2022 IR )(\d+)|GB18030|GBK")
"""PS3.3 C.12.1.1.2; pydicom knows misspelt ones too."""

TEMPLATES: Mapping[str, str] = {
    "1500": "Measurement Report: the root of both Comprehensive SR",
    "1501": "Measurement Group: axes and score of a lesion; numbers of a series or of an image",
    "1411": "Volumetric ROI Measurements: the volume of a lesion, by its segment of the SEG",
}
"""Content templates that reports name (PS3.16)."""

QUERY_KEYS = (
    QueryKeys(
        "STUDY",
        "patient and order of results, of a peer with `reconcile`",
        ("QueryRetrieveLevel", "StudyInstanceUID", *ASKED),
    ),
    QueryKeys(
        "IMAGE",
        "proof that a result is stored",
        ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    ),
    QueryKeys(
        "STUDY",
        "harvest",
        ("QueryRetrieveLevel", "StudyInstanceUID", "StudyDate", "PatientID", "ModalitiesInStudy"),
    ),
    QueryKeys(
        "SERIES",
        "harvest",
        ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"),
    ),
    QueryKeys(
        "IMAGE",
        "harvest",
        ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"),
    ),
)


# -- as acceptor

C_STORE, C_STORE_OF_HARVEST = "C-STORE", "C-STORE, sub-operations of a C-GET or C-MOVE of ours"
C_ECHO, EVENT_REPORT, OTHER = "C-ECHO", "N-EVENT-REPORT, storage commitment", "every other operation"

_STORED: Mapping[int, str] = {
    status.SUCCESS: "The object is written and synced, and its row is committed. Also where the same bytes are here"
    " already",
    status.PROCESSING_FAILURE: "A fault of the node; nothing was kept. Send it again",
    status.NOT_AUTHORISED: "The caller is registered and may not send (may_send = false)",
    status.OUT_OF_RESOURCES: "Nothing was kept: no room on the disk, or disk or database do not do their work just now."
    " Send it again later",
    status.CLASS_MISMATCH: "The SOP Class or Instance UID of the data set is not that of the request, or the class is"
    " not that of the presentation context",
    status.CANNOT_UNDERSTAND: "No data set, no UIDs in it, or not to be read as DICOM",
    status.CONFLICTING_INSTANCE: "This SOP Instance UID is here with other bytes, or in another transfer syntax: what"
    " came is kept aside for a person, and never takes the place of the first",
}
_FETCHED: Mapping[int, str] = {
    status.SUCCESS: "Written",
    status.CANNOT_UNDERSTAND: "The SOP Instance UID is none",
    status.CLASS_MISMATCH: "Not of the series that was asked for, or not to be read as DICOM",
    status.OUT_OF_RESOURCES: "The disk did not take it",
}
_REPORTED: Mapping[int, str] = {
    status.SUCCESS: "Taken; also where no such transaction is known any more",
    status.PROCESSING_FAILURE: "The report cannot be read, or the database does not take it just now",
    status.MISTYPED_ARGUMENT: "No event information (on an association that the peer has opened)",
}
_ECHOED: Mapping[int, str] = {status.SUCCESS: "Always"}
_NOT_OURS: Mapping[int, str] = {status.UNRECOGNISED_OPERATION: "Always; its data set is read and dropped"}

_WHO_IS_REJECTED: Mapping[type[Refused], str] = {
    UnknownCaller: "No peer of this AE title is registered, it calls from another host than registered, or that host's"
    " name is not resolved",
    WrongCalledTitle: "The called AE title is not ours",
    OutOfResources: "The database is away",
}
_OTHER_REJECTIONS: Mapping[tuple[int, int, int], str] = {
    status.REJECT_APPLICATION_CONTEXT: "The application context name is not DICOM's",
    status.REJECT_PROTOCOL_VERSION: "The protocol version is not 1",
    status.REJECT_LOCAL_LIMIT: "As many associations as are allowed, in all or from this host",
    status.REJECT_FOR_NOW: "A fault of the node while it looked who calls",
}


def _answers() -> Mapping[str, tuple[Answer, ...]]:
    stored = {status.SUCCESS, status.PROCESSING_FAILURE, *status.STATUS_OF.values()}
    return {
        C_STORE: tuple(Answer(f"{code:04X}", _STORED[code]) for code in sorted(stored)),
        C_ECHO: _in_order(_ECHOED),
        EVENT_REPORT: _in_order(_REPORTED),
        C_STORE_OF_HARVEST: _in_order(_FETCHED),
        OTHER: _in_order(_NOT_OURS),
    }


def _in_order(meanings: Mapping[int, str]) -> tuple[Answer, ...]:
    return tuple(Answer(f"{code:04X}", meaning) for code, meaning in sorted(meanings.items()))


def _rejections() -> Iterable[Rejection]:
    told = {status.REJECTION_OF[kind]: when for kind, when in _WHO_IS_REJECTED.items()}
    for (result, source, reason), when in sorted({**told, **_OTHER_REJECTIONS}.items()):
        words = negotiation.rejection_in_words(result, source, reason)
        yield Rejection(result, source, reason, words, when)


# -- as requestor


def _taken() -> tuple[Answer, ...]:
    """What becomes of an object, or of another request, by the status that a peer answers: all there are."""

    def is_(kind: type[Exception]) -> Callable[[int], bool]:
        return lambda code: isinstance(status.peer_error(code, ""), kind)

    def codes(belongs: Callable[[int], bool]) -> str:
        return _ranges([code for code in range(0x10000) if belongs(code)])

    return (
        Answer(codes(lambda code: code == status.SUCCESS), "Done; of a result, proof that it is stored is asked for"),
        Answer(codes(status.is_warning), "The same, with the warning on record; a duplicate is our own object"),
        Answer(codes(is_(PeerBusy)), "Tried again, each time later; of a result, at most delivery_attempts times"),
        Answer("every other", "Refused for good: of a result a dead letter, which only a person has sent again"),
    )


def _ranges(codes: Sequence[int]) -> str:
    """ "0001, 0107, B000 to BFFF"."""
    told: list[list[int]] = []
    for code in codes:
        if told and code == told[-1][1] + 1:
            told[-1][1] = code
        else:
            told.append([code, code])
    return ", ".join(f"{first:04X}" if first == last else f"{first:04X} to {last:04X}" for first, last in told)


def _proposals() -> Iterable[Proposal]:
    results = [
        Outgoing(Path(), sop_class_uid, "", str(ExplicitVRLittleEndian)) for sop_class_uid in RESULT_CLASSES.values()
    ]
    uncompressed = negotiation.UNCOMPRESSED
    yield _proposal("results to peers, as they are routed", "SCU", contexts_of(results))
    yield _proposal("storage commitment of results", "SCU", [(negotiation.STORAGE_COMMITMENT, uncompressed)])
    yield _proposal(
        "query: proof of storage where there is no commitment; patient and order (reconcile); harvest",
        "SCU",
        [(negotiation.STUDY_ROOT_FIND, uncompressed)],
    )
    tried = [
        negotiation.VERIFICATION,
        *RESULT_CLASSES.values(),
        negotiation.STORAGE_COMMITMENT,
        negotiation.STUDY_ROOT_FIND,
    ]
    yield _proposal("`check` and `peers echo`: C-ECHO alone is sent", "SCU", [(uid, uncompressed) for uid in tried])
    yield _proposal("`harvest` by C-GET", "SCU", [(negotiation.STUDY_ROOT_GET, uncompressed)])
    yield _proposal("`harvest` by C-MOVE", "SCU", [(negotiation.STUDY_ROOT_MOVE, uncompressed)])
    harvested = dict([*shelf.IMAGES, *shelf.DOCUMENTS])
    yield _proposal(
        "`harvest`: what comes by C-GET (SCP role selected) or to our listener for C-MOVE",
        "SCP",
        list(harvested.items()),
    )


def _proposal(purpose: str, role: str, contexts: Iterable[tuple[str, Sequence[str]]]) -> Proposal:
    together: dict[str, dict[str, None]] = {}
    for abstract, syntaxes in contexts:
        together.setdefault(abstract, {}).update(dict.fromkeys(syntaxes))
    told = tuple((name(uid), tuple(name(syntax) for syntax in syntaxes)) for uid, syntaxes in together.items())
    return Proposal(purpose, role, told)


# -- objects


def _made() -> Iterable[Made]:
    report, text = "Report of a study revision", "The same as text, for peers that take no structured report"
    page = "The report as a picture, for peers that take no SR"
    yield Made("sr", report, _of_kind("sr"), "SR", None, "AI report")
    yield Made("sr-text", text, _of_kind("sr-text"), "SR", None, "AI report")
    yield Made("sc", page, _of_kind("sc"), "OT", None, "AI report page")
    yield Made("gsps", "Axes of lesions on the received images", _of_kind("gsps"), "PR", "0", "AI lesion axes")
    yield Made("sc", "Summary of a series; its lesions as pictures", _of_kind("sc"), "OT", "1", "AI summary")
    yield Made("seg", "Lesions, BINARY, one segment each", _of_kind("seg"), "SEG", "2", "AI lesions")
    derived = "Denoised CT, one image for each slice; restored radiograph, in the class of its source"
    yield Made("derived", derived, _of_kind("derived"), "of the source", "3 to 8", "AI denoised, AI restored")
    yield Made("sc", "Maps of a restored radiograph (radiograph_maps)", _of_kind("sc"), "OT", "9", "AI maps")


def _of_kind(kind: str) -> tuple[Named, ...]:
    return tuple(name(RESULT_CLASSES[each]) for each in CLASSES_OF_KIND[kind])


def _own_codes() -> Iterable[str]:
    for code in vars(codes).values():
        if isinstance(code, tuple) and len(code) == 3 and code[1] == codes.PRIVATE_SCHEME:
            yield f"{code[0]}: {code[2]}"


# -- names

_KEYWORDS = {str(value): word for word, value in vars(sop_class).items() if isinstance(value, sop_class.SOPClass)}


def name(uid: str) -> Named:
    """As PS3.6 calls it; classes younger than pydicom's dictionary by pynetdicom's keyword."""
    called = UID(uid).name
    keyword = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _KEYWORDS.get(uid, uid))
    return Named(uid, called if called != uid else keyword)


def _named(uids: Iterable[str]) -> tuple[Named, ...]:
    return tuple(name(uid) for uid in sorted(uids, key=_in_numbers))


def _terms_in_order(term: str) -> tuple[str, int]:
    kind, _, number = term.rpartition(" ")
    return (kind, int(number)) if number.isdigit() else ("~", 0)


def _in_numbers(uid: str) -> list[int]:
    return [int(part) for part in uid.split(".")]
