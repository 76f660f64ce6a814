"""The report of one study revision: one tree, written for peers that take more or less of SR (PS3.16 TID 1500)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage

from models.contract import Code
from node.dicom import uids
from node.dicom.write import capture, codes, content, evidence, groups, headers, page, sentences
from node.dicom.write.charset import plain
from node.dicom.write.objects import Produced, Stamp, StudyEntry
from node.dicom.write.source import SeriesSource
from node.errors import AnalysisFailed
from node.settings import MANUFACTURER, MODEL_NAME, VERSION

GROUP = "report"
_LONGEST_DESCRIPTION = 64


def write_report(study: StudyEntry, sources: Mapping[str, SeriesSource], stamp: Stamp) -> list[Produced]:
    """Comprehensive 3D SR, and what a peer gets that lacks it: Comprehensive SR, Basic Text SR, a page as an image.

    sources         by Series Instance UID: every series of `study` of which headers can be read; at least one
    raises          AnalysisFailed where there is none, or one is of another study
    """
    known = [sources[entry.series_instance_uid] for entry in study.series if entry.series_instance_uid in sources]
    if not known:
        raise AnalysisFailed("a report needs the headers of one received image at least")
    header = known[0].first
    if str(header.StudyInstanceUID) != stamp.study_instance_uid:
        raise AnalysisFailed("the stamp is of another study than the images")
    said = _said(study, sources, stamp)
    tree = _measurement_report(study, sources, stamp, said)
    # Content decides the UID: when a failed analysis is run again, the new report is another document.
    digest = hashlib.sha256(headers.content_bytes(tree) + stamp.made_at.isoformat().encode()).hexdigest()
    origin = uids.Origin(stamp.study_instance_uid, "", stamp.revision, GROUP, VERSION, digest)
    known_objects = evidence.known_objects(study, sources)
    documents = [
        (tree, str(Comprehensive3DSRStorage), "sr"),
        (deepcopy(tree), str(ComprehensiveSRStorage), "sr"),
        (_text_report(stamp, study, said), str(BasicTextSRStorage), "sr-text"),
    ]
    produced = []
    for fallback, (root, class_uid, kind) in enumerate(documents):
        ds = headers.start(header, class_uid, uids.instance_uid(origin, class_uid), stamp)
        _add_document_modules(ds, study, stamp, series_uid=uids.series_uid(origin, class_uid))
        ds.update(root)
        evidence.add(ds, study, known_objects, stamp)
        produced.append(_produced(ds, kind, fallback))
    produced.append(_text_page(said, header, origin, stamp))
    return produced


def completion(study: StudyEntry) -> str:
    """COMPLETE only where every analysis that was begun came to its end, and nothing is missing."""
    failed = bool(study.missing) or any(entry.outcome == "failed" for entry in study.series)
    analyses = [analysis for entry in study.series if entry.findings for analysis in entry.findings.analyses]
    return "PARTIAL" if failed or any(analysis.outcome != "done" for analysis in analyses) else "COMPLETE"


def incomplete(study: StudyEntry) -> str:
    """Why a report is PARTIAL, as far as 64 characters reach; "" where it is complete."""
    if completion(study) == "COMPLETE":
        return ""
    analyses = [analysis for entry in study.series if entry.findings for analysis in entry.findings.analyses]
    undone = [f"{analysis.name} {analysis.outcome}" for analysis in analyses if analysis.outcome != "done"]
    failed = ["analysis of a series failed"] if any(entry.outcome == "failed" for entry in study.series) else []
    missing = ["images are no longer held"] if study.missing else []
    return plain(", ".join(dict.fromkeys([*missing, *failed, *undone])))[:_LONGEST_DESCRIPTION]


def outcome(study: StudyEntry) -> Code | None:
    """The summary code (PS3.16 CID 6047), which others read as "negative" or "positive".

    None where nothing was looked for: improving or grading images says nothing about findings.
    """
    analyses = [analysis for entry in study.series if entry.findings for analysis in entry.findings.analyses]
    failed = any(entry.outcome == "failed" for entry in study.series)
    failed = failed or any(analysis.outcome in ("failed", "withheld") for analysis in analyses)
    if not any(analysis.looks_for and analysis.outcome == "done" for analysis in analyses):
        nothing_done = not any(analysis.outcome == "done" for analysis in analyses)
        search_failed = any(analysis.looks_for and analysis.outcome == "failed" for analysis in analyses)
        return codes.NONE_DONE if failed and (nothing_done or search_failed) else None
    lesions = any(entry.findings.lesions for entry in study.series if entry.findings)
    if failed or study.missing:
        return codes.SOME_DONE_FINDINGS if lesions else codes.SOME_DONE_NOTHING
    return codes.ALL_DONE_FINDINGS if lesions else codes.ALL_DONE_NOTHING


def _said(study: StudyEntry, sources: Mapping[str, SeriesSource], stamp: Stamp) -> list[tuple[Code, str]]:
    """Every sentence of the report with the name of its item."""
    said = [(codes.INTENDED_USE, stamp.note)]
    said += [(codes.CONCLUSION, sentence) for sentence in sentences.conclusion(study)]
    said += [(codes.REVISION, sentence) for sentence in sentences.of_study(study, stamp)]
    for entry in study.series:
        source = sources.get(entry.series_instance_uid)
        numbers = source.image_numbers(entry.volume_sources) if source is not None else []
        lines = sentences.of_series(entry, numbers)
        said += [(codes.SERIES_OUTCOME if number == 0 else codes.COMMENT, line) for number, line in enumerate(lines)]
    return said


def _measurement_report(
    study: StudyEntry, sources: Mapping[str, SeriesSource], stamp: Stamp, said: list[tuple[Code, str]]
) -> Any:
    measured = groups.all_groups(study, sources, stamp)
    library = evidence.image_library(study)
    items = [*_context(study, sources, stamp)]
    if library is not None:
        items.append(library)
    if measured:
        items.append(content.container(codes.IMAGING_MEASUREMENTS, measured))
    # TID 1500 row 12: what is said of the study and has no place in an image.
    items.append(content.container(codes.QUALITATIVE_EVALUATIONS, [*_outcome_items(study), *_text_items(said)]))
    return _root(content.container(codes.MEASUREMENT_REPORT, items, template="1500"))


def _text_report(stamp: Stamp, study: StudyEntry, said: list[tuple[Code, str]]) -> Any:
    items = [*_observer(stamp), *_outcome_items(study), *_text_items(said)]
    return _root(content.container(codes.TEXT_REPORT, items))


def _context(study: StudyEntry, sources: Mapping[str, SeriesSource], stamp: Stamp) -> Iterable[Any]:
    yield from _observer(stamp)
    yield content.code(codes.PROCEDURE_REPORTED, _procedure(study, sources), relationship="HAS CONCEPT MOD")


def _observer(stamp: Stamp) -> Iterable[Any]:
    """English, and a device as the only observer (TID 1204, TID 1001, TID 1004)."""
    context = "HAS OBS CONTEXT"
    yield content.code(codes.LANGUAGE, codes.ENGLISH, relationship="HAS CONCEPT MOD")
    yield content.code(codes.OBSERVER_TYPE, codes.DEVICE, relationship=context)
    yield content.uid_reference(codes.DEVICE_UID, uids.device_uid(stamp.station_name), relationship=context)
    yield content.text(codes.DEVICE_NAME, stamp.aet, relationship=context)
    yield content.text(codes.DEVICE_MANUFACTURER, MANUFACTURER, relationship=context)
    yield content.text(codes.DEVICE_MODEL, f"{MODEL_NAME} {VERSION}", relationship=context)
    yield content.text(codes.DEVICE_SERIAL, stamp.station_name, relationship=context)


def _procedure(study: StudyEntry, sources: Mapping[str, SeriesSource]) -> Code:
    """As the order coded it, else just an imaging procedure."""
    for entry in study.series:
        source = sources.get(entry.series_instance_uid)
        for coded in (source.first.get("ProcedureCodeSequence") or []) if source is not None else []:
            triple = tuple(str(coded.get(k, "")) for k in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
            if all(triple):
                return triple[0], triple[1], triple[2]
    return codes.IMAGING_PROCEDURE


def _outcome_items(study: StudyEntry) -> list[Any]:
    code = outcome(study)
    return [] if code is None else [content.code(codes.OUTCOME, code)]


def _text_items(said: list[tuple[Code, str]]) -> list[Any]:
    return [content.text(name, sentence) for name, sentence in said if sentence]


def _root(container: Any) -> Any:
    del container.RelationshipType
    return container


def _add_document_modules(ds: Any, study: StudyEntry, stamp: Stamp, *, series_uid: str) -> None:
    again = f" (rev {stamp.revision})" if stamp.revision > 1 else ""
    headers.add_series(
        ds,
        uid=series_uid,
        number=stamp.series_number_base,
        modality="SR",
        description=f"AI report{again}, research use only",
    )
    headers.add_equipment(ds, stamp)
    headers.add_contribution(ds, stamp, None, "Report")
    ds.InstanceNumber = stamp.revision
    ds.CompletionFlag = completion(study)
    if why := incomplete(study):
        ds.CompletionFlagDescription = why
    ds.VerificationFlag = "UNVERIFIED"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    scheme = Dataset()
    scheme.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    scheme.CodingSchemeName = codes.PRIVATE_SCHEME_NAME
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    ds.CodingSchemeIdentificationSequence = [scheme]


def _produced(ds: Any, kind: str, fallback: int) -> Produced:
    return headers.produced(
        ds, kind, label="AI report" if kind == "sr" else "AI report (text)", group=GROUP, fallback=fallback
    )


def _text_page(said: list[tuple[Code, str]], header: Any, origin: uids.Origin, stamp: Stamp) -> Produced:
    made_at = headers.local_time(header, stamp)
    subtitle = f"Report of the study, revision {stamp.revision}, {made_at:%Y-%m-%d %H:%M} {made_at:%z}, {MODEL_NAME}"
    lines = [
        page.Line(sentence, "warning" if name == codes.INTENDED_USE or sentences.is_warning(sentence) else "")
        for name, sentence in said
    ]
    again = f" (rev {stamp.revision})" if stamp.revision > 1 else ""
    which = capture.Page(
        sop_instance_uid=uids.instance_uid(origin, "page"),
        series_instance_uid=uids.series_uid(origin, "page"),
        series_number=stamp.series_number_base,
        series_description=f"AI report page{again}",
        label="AI report (page)",
        group=GROUP,
        fallback=3,
    )
    return capture.capture(page.text_page(capture.TITLE, subtitle, lines), which, header, stamp)
