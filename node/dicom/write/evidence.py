"""What a report rests on: the evidence lists of its header, and the image library of its tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from models.contract import Code
from node.dicom.write import codes, content
from node.dicom.write.objects import ResultRef, Stamp, StudyEntry
from node.dicom.write.source import SeriesSource
from node.errors import AnalysisFailed

KnownObjects = Mapping[str, tuple[str, str]]
"""SOP Instance UID → (SOP class UID, Series Instance UID)."""


def known_objects(study: StudyEntry, sources: Mapping[str, SeriesSource]) -> dict[str, tuple[str, str]]:
    """All objects that a report may refer to: received ones and results."""
    known: dict[str, tuple[str, str]] = {}
    for source in sources.values():
        for uid, header in source.headers.items():
            known[uid] = (str(header.SOPClassUID), str(header.SeriesInstanceUID))
    for entry in study.series:
        for ref in entry.results:
            known[ref.sop_instance_uid] = (ref.sop_class_uid, ref.series_instance_uid)
    return known


def analysed_and_made(study: StudyEntry) -> list[str]:
    """SOP Instance UIDs of all images that were analysed and of all results, each once.

    Presentation states are left out: they show what the report says itself, and a peer gets them only if it asks.
    """
    analysed = [ref.instance_uid for entry in study.series for ref in entry.volume_sources]
    made = [ref.sop_instance_uid for entry in study.series for ref in entry.results if ref.kind != "gsps"]
    return list(dict.fromkeys(analysed + made))


def add(ds: Any, study: StudyEntry, known: KnownObjects, stamp: Stamp) -> None:
    """Evidence: what the tree refers to, was analysed or was made (PS3.3 C.17.2); the earlier report that is replaced.

    Raises AnalysisFailed where the tree refers to an object that is not known.
    """
    used = dict.fromkeys([*analysed_and_made(study), *_referenced(ds)])
    missing = [uid for uid in used if uid not in known]
    if missing:
        raise AnalysisFailed(f"the report refers to an object that is not of this study: {missing[0]}")
    if used:
        references = [(uid, *known[uid]) for uid in used]
        ds.CurrentRequestedProcedureEvidenceSequence = [_by_series(references, stamp.study_instance_uid)]
    if stamp.predecessors:
        earlier = [(p.sop_instance_uid, p.sop_class_uid, p.series_instance_uid) for p in stamp.predecessors]
        ds.PredecessorDocumentsSequence = [_by_series(earlier, stamp.study_instance_uid)]


def image_library(study: StudyEntry) -> Any | None:
    """Where to look first (TID 1600): summary pages and the middle image of each derived series; None without any.

    Not every image that was analysed: simple viewers print the whole tree, and the words come after the library.
    The full list is the evidence.
    """
    groups: list[Any] = []
    for entry in study.series:
        results = _unique(entry.results)
        pages = [ref for ref in results if ref.kind == "sc"]
        derived: dict[str, list[ResultRef]] = {}
        for ref in results:
            if ref.kind == "derived":
                derived.setdefault(ref.series_instance_uid, []).append(ref)
        middles = [refs[len(refs) // 2] for refs in derived.values()]
        groups += [_group(pages)] if pages else []
        groups += [_group(middles, modality=codes.MODALITIES.get(entry.modality))] if middles else []
    return content.container(codes.IMAGE_LIBRARY, groups) if groups else None


def _unique(results: Iterable[ResultRef]) -> list[ResultRef]:
    return list({ref.sop_instance_uid: ref for ref in results}.values())


def _group(results: list[ResultRef], *, modality: Code | None = None) -> Any:
    """Pages are of no modality that acquires images (TID 1602)."""
    described = [] if modality is None else [content.code(codes.MODALITY, modality, relationship="HAS ACQ CONTEXT")]
    items = [content.image(ref.sop_class_uid, ref.sop_instance_uid, name=codes.SOURCE) for ref in results]
    return content.container(codes.IMAGE_LIBRARY_GROUP, [*described, *items])


def _referenced(ds: Any) -> Iterable[str]:
    for item in ds.get("ContentSequence") or []:
        for reference in item.get("ReferencedSOPSequence") or []:
            yield str(reference.ReferencedSOPInstanceUID)
        yield from _referenced(item)


def _by_series(references: list[tuple[str, str, str]], study_instance_uid: str) -> Any:
    """A hierarchical reference (PS3.3 C.17.2.1) to (instance, class, series) triples of one study."""
    together: dict[str, list[Any]] = {}
    for instance_uid, class_uid, series_uid in references:
        reference = Dataset()
        reference.ReferencedSOPClassUID = class_uid
        reference.ReferencedSOPInstanceUID = instance_uid
        together.setdefault(series_uid, []).append(reference)
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    study.ReferencedSeriesSequence = []
    for series_uid, items in together.items():
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = items
        study.ReferencedSeriesSequence.append(series)
    return study
