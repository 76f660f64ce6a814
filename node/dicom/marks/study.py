"""All marks of one study: its documents read, their claims resolved, repeats taken out, every refusal kept."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from node.dicom.elements import parse, text
from node.dicom.header import read_header
from node.dicom.marks.gsps import read_presentation
from node.dicom.marks.mark import Document, Refusal
from node.dicom.marks.report import read_report
from node.dicom.marks.resolve import Library, Mark, resolve, without_repeats
from node.dicom.marks.shelf import PRESENTATION_STATES, REPORTS, Shelf
from node.dicom.read.codec import Codec
from node.errors import NotUnderstood


@dataclass(frozen=True, eq=False)
class StudyMarks:
    """What one study yields; `patient_id` as its documents state it."""

    study_uid: str
    patient_id: str
    documents: int
    marks: tuple[Mark, ...]
    refusals: tuple[Refusal, ...]


def marks_of(shelf: Shelf, codec: Codec) -> StudyMarks:
    """raises Transient, Permanent where the files of a peer cannot be had"""
    paths = list(shelf.documents())
    refusals: list[Refusal] = []
    documents: list[Document] = []
    patients: list[str] = []
    for path in paths:
        try:
            dataset = parse(path)
            own = read_header(path).own_result
        except NotUnderstood:
            refusals.append(Refusal("", "the document cannot be read"))
            continue
        patients.append(text(dataset, 0x00100020))
        document = _read(dataset)
        if own:
            refusals += _all_refused(document, "made by this node, not by a reader")
        else:
            documents.append(document)
    superseded = frozenset(uid for document in documents for uid in document.supersedes)
    series_of = {uid: series for document in documents for uid, series in document.series_of.items()}
    library = Library(shelf, codec, series_of)
    marks: list[Mark] = []
    for document in documents:
        if document.instance_uid in superseded:
            refusals += _all_refused(document, "replaced by a later report")
            continue
        refusals += document.refusals
        for outcome in resolve(document, library):
            if isinstance(outcome, Mark):
                marks.append(outcome)
            else:
                refusals.append(outcome)
    kept, repeats = without_repeats(marks)
    patient = next(filter(None, patients), "")
    return StudyMarks(shelf.study_uid, patient, len(paths), tuple(kept), (*refusals, *repeats))


def _read(dataset: Dataset) -> Document:
    kind = text(dataset, 0x00080016)
    if kind in PRESENTATION_STATES:
        return read_presentation(dataset)
    if kind in REPORTS:
        return read_report(dataset)
    return Document(text(dataset, 0x00080018))


def _all_refused(document: Document, reason: str) -> list[Refusal]:
    return [Refusal(document.instance_uid, reason)] * (len(document.claims) + len(document.refusals))
