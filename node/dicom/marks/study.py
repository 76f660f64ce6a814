"""All marks of one study: its documents read, their claims resolved, repeats taken out, every refusal kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset

from node.dicom.elements import parse, text
from node.dicom.header import read_header
from node.dicom.marks.gsps import read_presentation
from node.dicom.marks.mark import Claim, Document, Origin, Refusal, Segment
from node.dicom.marks.masks import SEGMENTATIONS, read_segments
from node.dicom.marks.rejections import KEY_OBJECTS, read_rejections
from node.dicom.marks.report import read_report
from node.dicom.marks.resolve import Library, Mark, resolve, without_repeats
from node.dicom.marks.shelf import PRESENTATION_STATES, REPORTS, Shelf
from node.dicom.marks.structures import STRUCTURE_SETS, read_structures
from node.dicom.read.codec import Codec
from node.errors import NotUnderstood

_PIXEL_DATA = 0x7FE00008


@dataclass(frozen=True, eq=False)
class StudyMarks:
    """What one study yields.

    patient_id      as its marked images state it, or else its documents
    documents       SOP Instance UIDs of those that may hold marks, as far as they can be read
    rejections      objects that notes in the study take out of use
    """

    study_uid: str
    patient_id: str
    documents: tuple[str, ...]
    marks: tuple[Mark, ...]
    refusals: tuple[Refusal, ...]
    rejections: int = 0


def marks_of(shelf: Shelf, codec: Codec) -> StudyMarks:
    """raises Transient, Permanent where the files of a peer cannot be had"""
    refusals: list[Refusal] = []
    documents: list[Document] = []
    patients: dict[str, str] = {}
    rejected: dict[str, str] = {}
    for path in shelf.documents():
        try:
            dataset = parse(path, stop_at=_PIXEL_DATA)
            own = read_header(path).own_result
        except NotUnderstood:
            refusals.append(Refusal("", "the document cannot be read"))
            continue
        document = _read(dataset)
        rejected |= document.rejects
        if text(dataset, 0x00080016) == KEY_OBJECTS:
            continue
        patients[document.instance_uid] = text(dataset, 0x00100020)
        if own:
            refusals += _all_refused(document, "made by this node, not by a reader")
        else:
            documents.append(document)
    documents = _without_measured(documents)
    library = Library(shelf, codec, documents, rejected)
    marks: list[Mark] = []
    for document in documents:
        if document.instance_uid in rejected:
            refusals += _all_refused(document, f"rejected in the PACS: {rejected[document.instance_uid]}")
            continue
        if _replaced(document, documents):
            refusals += _all_refused(document, "replaced by a later report")
            continue
        refusals += document.refusals
        for outcome in resolve(document, library):
            if isinstance(outcome, Refusal):
                refusals.append(outcome)
            elif len({patients[document.instance_uid], outcome.series.patient_id} - {""}) > 1:
                refusals.append(_refused(outcome, "the document and its image bear different patient IDs"))
            else:
                marks.append(outcome)
    kept, repeats = without_repeats(marks)
    on_images = dict.fromkeys(filter(None, (mark.series.patient_id for mark in kept)))
    if len(on_images) > 1:
        repeats += [_refused(mark, "images with more than one patient ID in one study") for mark in kept]
        kept = []
    patient = next(filter(None, (*on_images, *patients.values())), "")
    return StudyMarks(shelf.study_uid, patient, tuple(patients), tuple(kept), (*refusals, *repeats), len(rejected))


def _without_measured(documents: Sequence[Document]) -> list[Document]:
    """Segmentations without the segments that a report speaks of, also one that was replaced: that had its say."""
    measured = frozenset[tuple[str, int]]().union(*(document.measures for document in documents))

    def is_unsaid(claim: Claim) -> bool:
        return (
            not isinstance(claim, Segment)
            or claim.about.origin != Origin.SEGMENTATION
            or measured.isdisjoint({(claim.segmentation_uid, claim.number), (claim.segmentation_uid, 0)})
        )

    return [replace(document, claims=tuple(filter(is_unsaid, document.claims))) for document in documents]


def _replaced(document: Document, documents: Sequence[Document]) -> bool:
    """By another one that names it; two that name each other, as copies do, replace neither.

    Also by one that is rejected: what somebody held to be out of date is none to learn from.
    """
    return any(
        document.instance_uid in other.supersedes and other.instance_uid not in document.supersedes
        for other in documents
    )


def _refused(mark: Mark, reason: str) -> Refusal:
    return Refusal(mark.about.document_uid, reason, "", mark.image.instance_uid)


def _read(dataset: Dataset) -> Document:
    kind = text(dataset, 0x00080016)
    if kind in PRESENTATION_STATES:
        return read_presentation(dataset)
    if kind in REPORTS:
        return read_report(dataset)
    if kind in SEGMENTATIONS:
        return read_segments(dataset)
    if kind == STRUCTURE_SETS:
        return read_structures(dataset)
    if kind == KEY_OBJECTS:
        return read_rejections(dataset)
    return Document(text(dataset, 0x00080018))


def _all_refused(document: Document, reason: str) -> list[Refusal]:
    return [Refusal(document.instance_uid, reason)] * (len(document.claims) + len(document.refusals))
