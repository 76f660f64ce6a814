"""Looking at result objects with pydicom alone: references, places, and what a report says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

IMAGE_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")


MANAGEMENT = ("ReferencedStudySequence", "ReferencedPatientSequence", "ReferencedPerformedProcedureStepSequence")
"""Copied from the source with the rest of the study's attributes: they name no object that an archive stores."""


def referenced_instances(dataset: Dataset) -> set[str]:
    """Every ReferencedSOPInstanceUID at any depth."""
    found = set()
    for element in dataset:
        if element.keyword == "ReferencedSOPInstanceUID" and element.value:
            found.add(str(element.value))
        elif element.VR == "SQ" and element.keyword not in MANAGEMENT:
            for item in element.value:
                found |= referenced_instances(item)
    return found


def unresolved(objects: Iterable[Dataset], present: set[str]) -> dict[str, set[str]]:
    """References of each object to what is not there, by SOP Instance UID; objects without any are left out."""
    missing = {str(dataset.SOPInstanceUID): referenced_instances(dataset) - present for dataset in objects}
    return {uid: uids for uid, uids in missing.items() if uids}


def report_texts(report: Dataset) -> list[str]:
    """Values of all TEXT content items of a report, in reading order."""
    return [item.TextValue for item in content_items(report) if item.get("ValueType") == "TEXT"]


def content_items(node: Dataset) -> Iterator[Dataset]:
    for item in node.get("ContentSequence", []):
        yield item
        yield from content_items(item)


def same_place(derived: Dataset, source: Dataset) -> list[str]:
    """Keywords in which a derived image does not lie where its source lies."""
    differing = []
    if derived.FrameOfReferenceUID != source.FrameOfReferenceUID:
        differing.append("FrameOfReferenceUID")
    for keyword in IMAGE_PLACE:
        if not np.allclose(np.array(derived[keyword].value, float), np.array(source[keyword].value, float), atol=1e-4):
            differing.append(keyword)
    return differing


def source_of(derived: Dataset) -> str:
    """The one image that a single-frame derived image was made from."""
    (item,) = derived.SourceImageSequence
    return str(item.ReferencedSOPInstanceUID)


def timeless_digest(dataset: Dataset, *, renamed: Mapping[str, str]) -> str:
    """SHA-256 of an object without dates and times; `renamed` maps UIDs that carry them to stand-in names.

    Two nodes complete the same study at different times, and every result says when: the rest must not differ.
    """
    digest = hashlib.sha256()

    def add(part: Dataset) -> None:
        for element in part:
            if element.VR in ("DA", "TM", "DT"):
                continue
            digest.update(str(element.tag).encode())
            if element.VR == "SQ":
                for item in element.value:
                    add(item)
            else:
                text = str(element.value) if not isinstance(element.value, bytes) else element.value.hex()
                digest.update(renamed.get(text, text).encode())

    add(dataset)
    return digest.hexdigest()


def read_all(files: Iterable[Path]) -> list[Dataset]:
    return [dcmread(file) for file in files]
