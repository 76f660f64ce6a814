"""Key object notes that take images and documents out of use (IHE RAD TF-3 4.66: Imaging Object Change Management)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from node.dicom.elements import item, items, text
from node.dicom.marks.content_tree import Node, code_of
from node.dicom.marks.mark import Document

KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
_REJECTIONS = {
    "113001": "for quality reasons",
    "113037": "for patient safety reasons",
    "113038": "incorrect modality worklist entry",
    "113039": "data retention policy expired",
}
"""Document titles (PS3.16 CID 7010, DCM) that reject, and not only point out."""
_REFERENCES = ("IMAGE", "COMPOSITE", "WAVEFORM")


def read_rejections(dataset: Dataset) -> Document:
    """What it rejects, whole instances also where it names frames; nothing for a note with another title."""
    title = code_of(item(dataset, 0x0040A043))
    why = _REJECTIONS.get(title[0]) if title and title[1] == "DCM" else None
    uid = text(dataset, 0x00080018)
    if why is None:
        return Document(uid)
    named = _named(dataset) or frozenset(_evidence(dataset))
    return Document(uid, rejects=dict.fromkeys(named, why))


def _named(dataset: Dataset) -> frozenset[str]:
    nodes = Node(dataset, dataset).within()
    return frozenset(text(node.reference, 0x00081155) for node in nodes if node.kind in _REFERENCES) - {""}


def _evidence(dataset: Dataset) -> Iterator[str]:
    """Of notes whose content names nothing."""
    for study in items(dataset, 0x0040A375):
        for series in items(study, 0x00081115):
            yield from (text(reference, 0x00081155) for reference in items(series, 0x00081199))
