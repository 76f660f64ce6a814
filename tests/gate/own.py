"""Checks that no outside tool makes: references, patient, geometry, values, codes (what only we can know)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.sr._concepts_dict import concepts

from gate.files import Case, Complaint, items

OF_PATIENT_AND_STUDY = """
    PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientAge StudyInstanceUID StudyDate StudyTime
    StudyID AccessionNumber StudyDescription ReferringPhysicianName
"""
KEPT_BY_DERIVED = """
    ImagePositionPatient ImageOrientationPatient PixelSpacing ImagerPixelSpacing Rows Columns RescaleSlope
    RescaleIntercept RescaleType PhotometricInterpretation PresentationLUTShape SliceThickness
    Manufacturer ManufacturerModelName KVP ConvolutionKernel BodyPartExamined ViewPosition Laterality
    PatientOrientation PresentationIntentType PixelIntensityRelationship PixelIntensityRelationshipSign
"""
MEANINGS_SPELT_OTHERWISE = {"103339001": "Long Axis", "103340004": "Short Axis", "260753009": "Source"}
"""Spelt as PS3.16 and the viewers have it; pydicom's dictionary differs."""
NOT_FOLLOWED = {"ReferencedStudySequence", "PredecessorDocumentsSequence", "ReferencedPerformedProcedureStepSequence"}
NOT_IN_DICTIONARY = {"RFC5646", "UMLS", "LN", "99PACSNODE"}
LEAST_LIKENESS = 0.8


def identity(case: Case) -> Iterator[Complaint]:
    """Same patient and study; fresh UIDs; marked as AI; our equipment named."""
    first = next(iter(case.sources.values()))
    series: dict[str, Any] = {}
    if len(case.by_uid) != len(case.sources) + len(case.produced):
        yield Complaint("identity", "study", "two objects have the same SOP Instance UID")
    for path, ds in case.produced.items():
        for keyword in OF_PATIENT_AND_STUDY.split():
            if str(ds.get(keyword) or "") != str(first.get(keyword) or ""):
                yield Complaint("identity", path.name, f"{keyword} differs from the source")
        if str(ds.SOPInstanceUID) in case.source_uids or str(ds.SeriesInstanceUID) in case.source_series:
            yield Complaint("identity", path.name, "a UID of the source is used again")
        if not str(ds.SOPInstanceUID).startswith("2.25.") or not str(ds.SeriesInstanceUID).startswith("2.25."):
            yield Complaint("identity", path.name, "a UID under a root that is not ours")
        if not str(ds.get("SeriesDescription", "")).startswith("AI ") or int(ds.SeriesNumber) < 1000:
            yield Complaint("identity", path.name, "series description or number could be one of the scanner")
        if not _names_our_equipment(ds):
            yield Complaint("identity", path.name, "nobody says that this node processed it")
        if ds.get("TimezoneOffsetFromUTC") != first.get("TimezoneOffsetFromUTC"):
            yield Complaint("identity", path.name, "another time zone than the source")
        if any(element.tag.is_private for element in ds.iterall()):
            yield Complaint("identity", path.name, "private elements of the source were carried along")
        series_of = (ds.Modality, ds.SeriesNumber, ds.get("SeriesDate"), ds.get("SeriesTime"), ds.SeriesDescription)
        if series.setdefault(str(ds.SeriesInstanceUID), series_of) != series_of:
            yield Complaint("identity", path.name, "objects of one series disagree about it")


def refs(case: Case) -> Iterator[Complaint]:
    """Every reference resolves, with the right class, frame and segment; evidence is complete and right."""
    for path, ds in case.produced.items():
        for reference in _references(ds):
            uid = str(reference.ReferencedSOPInstanceUID)
            target = case.by_uid.get(uid)
            if target is None:
                yield Complaint("refs", path.name, f"refers to {uid}, which is not there")
            else:
                yield from _resolved(path, reference, target)
        if ds.get("Modality") == "SR":
            yield from _evidence(case, path, ds)


def derived(case: Case) -> Iterator[Complaint]:
    """A derived image says so, lies exactly where its source lies, and shows the same anatomy."""
    for path, ds in case.derived():
        if list(ds.ImageType)[:2] != ["DERIVED", "SECONDARY"]:
            yield Complaint("derived", path.name, "image type does not begin with DERIVED, SECONDARY")
        if not ds.get("DerivationDescription") or not ds.get("DerivationCodeSequence"):
            yield Complaint("derived", path.name, "no derivation description or code")
        if ds.get("LossyImageCompression") not in ("00", "01"):
            yield Complaint("derived", path.name, "does not say whether it was compressed with loss")
        named = ds.get("SourceImageSequence") or []
        source = case.by_uid.get(str(named[0].ReferencedSOPInstanceUID)) if len(named) == 1 else None
        if source is None:
            yield Complaint("derived", path.name, "no source image")
            continue
        frame = named[0].get("ReferencedFrameNumber")
        yield from _same_place(path, ds, source if frame is None else _flat(source, int(frame)))
        yield from _same_anatomy(path, ds, source, None if frame is None else int(frame))


def segmentation(case: Case) -> Iterator[Complaint]:
    """Never empty; every frame lies on the slice that it names, in its frame of reference."""
    for path, ds in case.of_modality("SEG"):
        if not ds.pixel_array.any():
            yield Complaint("segmentation", path.name, "empty")
        if ds.SegmentationType != "BINARY":
            yield Complaint("segmentation", path.name, "not binary")
        for segment in ds.SegmentSequence:
            if not segment.get("TrackingUID"):
                yield Complaint("segmentation", path.name, f"segment {segment.SegmentNumber} has no tracking UID")
        for group in ds.PerFrameFunctionalGroupsSequence:
            source = case.by_uid.get(_source_of_frame(group))
            if source is None or "PlanePositionSequence" not in group:
                continue
            position = group.PlanePositionSequence[0].ImagePositionPatient
            where = source.get("ImagePositionPatient")
            if where is not None and not np.allclose(np.array(position, float), np.array(where, float), atol=1e-3):
                yield Complaint("segmentation", path.name, "a frame lies elsewhere than its source slice")
            stated = source.get("FrameOfReferenceUID")
            if stated and ds.get("FrameOfReferenceUID") != stated:
                yield Complaint("segmentation", path.name, "another frame of reference than the source")


def codes(case: Case) -> Iterator[Complaint]:
    """Value and meaning of each code of ours agree with the dictionary; no retired scheme."""
    received = {triple for ds in case.sources.values() for triple in _codes(ds)}
    for path, ds in case.produced.items():
        declared = {str(item.CodingSchemeDesignator) for item in ds.get("CodingSchemeIdentificationSequence") or []}
        for value, scheme, meaning in sorted(set(_codes(ds)) - received):
            if scheme == "SRT":
                yield Complaint("codes", path.name, f"{value}: retired scheme SRT")
            elif scheme.startswith("99") and scheme not in declared:
                yield Complaint("codes", path.name, f"{value}: private scheme {scheme} is not identified")
            elif MEANINGS_SPELT_OTHERWISE.get(value) == meaning or scheme in NOT_IN_DICTIONARY:
                continue
            elif scheme != "UCUM" or not value.startswith("{"):
                known = _meanings(scheme, value)
                if not known and scheme in ("DCM", "SCT"):
                    yield Complaint("codes", path.name, f"({value}, {scheme}) is in no dictionary")
                if known and meaning.lower() not in {each.lower() for each in known}:
                    yield Complaint("codes", path.name, f"({value}, {scheme}) means {sorted(known)}, not {meaning}")


def _meanings(scheme: str, value: str) -> set[str]:
    return {name for row in concepts.get(scheme, {}).values() for code, (name, _) in row.items() if code == value}


def _codes(ds: Any) -> Iterator[tuple[str, str, str]]:
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                if "CodeMeaning" in item and ("CodeValue" in item or "LongCodeValue" in item):
                    value = item.get("CodeValue") or item.get("LongCodeValue")
                    yield str(value), str(item.get("CodingSchemeDesignator", "")), str(item.CodeMeaning)
                yield from _codes(item)


def _names_our_equipment(ds: Any) -> bool:
    for item in ds.get("ContributingEquipmentSequence") or []:
        purpose = item.get("PurposeOfReferenceCodeSequence") or []
        if item.get("Manufacturer") == "pacsnode" and purpose and purpose[0].CodeValue == "109102":
            return bool(item.get("SoftwareVersions")) and bool(item.get("ContributionDateTime"))
    return False


def _references(ds: Any) -> Iterator[Any]:
    """Items that name an instance, wherever they are."""
    if "ReferencedSOPInstanceUID" in ds:
        yield ds
    for element in ds:
        if element.VR == "SQ" and keyword_for_tag(element.tag) not in NOT_FOLLOWED:
            for item in element.value:
                yield from _references(item)


def _resolved(path: Path, reference: Any, target: Any) -> Iterator[Complaint]:
    uid = target.SOPInstanceUID
    if reference.ReferencedSOPClassUID != target.SOPClassUID:
        yield Complaint("refs", path.name, f"wrong class for {uid}")
    frames = [int(frame) for frame in np.atleast_1d(reference.get("ReferencedFrameNumber") or [])]
    for frame in frames:
        if not 1 <= frame <= int(target.get("NumberOfFrames") or 1):
            yield Complaint("refs", path.name, f"{uid} has no frame {frame}")
    segment = reference.get("ReferencedSegmentNumber")
    if segment is not None:
        known = {int(item.SegmentNumber) for item in target.get("SegmentSequence") or []}
        if int(segment) not in known:
            yield Complaint("refs", path.name, f"{uid} has no segment {segment}")


def _evidence(case: Case, path: Path, ds: Any) -> Iterator[Complaint]:
    listed: set[str] = set()
    for study in ds.get("CurrentRequestedProcedureEvidenceSequence") or []:
        if study.StudyInstanceUID != ds.StudyInstanceUID:
            yield Complaint("refs", path.name, "evidence of another study")
        for series in study.ReferencedSeriesSequence:
            for reference in series.ReferencedSOPSequence:
                listed.add(str(reference.ReferencedSOPInstanceUID))
                target = case.by_uid.get(str(reference.ReferencedSOPInstanceUID))
                if target is not None and target.SeriesInstanceUID != series.SeriesInstanceUID:
                    yield Complaint("refs", path.name, "evidence puts an instance into another series")
    for item in items(ds):
        for reference in item.get("ReferencedSOPSequence") or []:
            if str(reference.ReferencedSOPInstanceUID) not in listed:
                yield Complaint("refs", path.name, f"{reference.ReferencedSOPInstanceUID} is not in the evidence")


def _same_place(path: Path, ds: Any, source: Any) -> Iterator[Complaint]:
    for keyword in KEPT_BY_DERIVED.split():
        if (
            keyword in source
            and str(source[keyword].value or "") not in ("", "[0, 0]", "[0.000, 0.000]")
            and not _equal(ds.get(keyword), source[keyword].value)
        ):
            yield Complaint("derived", path.name, f"{keyword} differs from the source")
    stated, shown = _windows(source), _windows(ds)
    if any(usable for _, _, usable in stated):
        if shown != [window for window in stated if window[2]]:
            yield Complaint("derived", path.name, "another window than the source")
    elif not all(usable for _, _, usable in shown) or not (shown or _needs_no_window(ds)):
        yield Complaint("derived", path.name, "no window that a viewer can use")
    if [_curve(table) for table in source.get("VOILUTSequence") or []] != [
        _curve(table) for table in ds.get("VOILUTSequence") or []
    ]:
        yield Complaint("derived", path.name, "another look-up table for display than the source")
    if source.get("FrameOfReferenceUID") and ds.get("FrameOfReferenceUID") != source.FrameOfReferenceUID:
        yield Complaint("derived", path.name, "another frame of reference than the source")
    if source.get("LossyImageCompression") == "01" and ds.get("LossyImageCompression") != "01":
        yield Complaint("derived", path.name, "the source was compressed with loss, and this is kept silent")
    if len(source.get("ImageType") or []) > 2 and list(ds.ImageType)[2] != list(source.ImageType)[2]:
        yield Complaint("derived", path.name, "third value of the image type was not kept")


def _needs_no_window(ds: Any) -> bool:
    return bool(ds.get("VOILUTSequence")) or ds.get("PresentationIntentType") == "FOR PROCESSING"


def _windows(ds: Any) -> list[tuple[float, float, bool]]:
    """(centre, width, whether a viewer can use it), as far as there is one of each."""
    values = [np.atleast_1d(np.array(ds.get(keyword), object)) for keyword in ("WindowCenter", "WindowWidth")]
    least = {"": 1.0, "LINEAR": 1.0}.get(ds.get("VOILUTFunction") or "", 1e-9)
    known = (ds.get("VOILUTFunction") or "") in ("", "LINEAR", "LINEAR_EXACT", "SIGMOID")
    found = []
    for centre, width in zip(*values, strict=False):
        try:
            found.append((float(centre), float(width), known and float(width) >= least))
        except (TypeError, ValueError):
            continue
    return found


def _curve(table: Any) -> tuple[list[int], Any]:
    """A look-up table by its descriptor and entries."""
    return [int(value) for value in table.LUTDescriptor], table.LUTData


def _same_anatomy(path: Path, ds: Any, source: Any, frame: int | None) -> Iterator[Complaint]:
    after, before = ds.pixel_array.astype(float), source.pixel_array.astype(float)
    if frame is not None and before.ndim == 3:
        before = before[frame - 1]
    padding = ds.get("PixelPaddingValue")
    if padding is not None and source.get("PixelPaddingRangeLimit") is None:
        if not np.array_equal(before == padding, after == padding):
            yield Complaint("derived", path.name, "padded pixels are not those of the source")
        inside = before != padding
        after, before = after[inside], before[inside]
    if before.size > 1 and before.std() > 0 and after.std() > 0:
        likeness = float(np.corrcoef(before.ravel(), after.ravel())[0, 1])
        if likeness < LEAST_LIKENESS:
            yield Complaint("derived", path.name, f"does not look like its source (correlation {likeness:.2f})")


def _source_of_frame(group: Any) -> str:
    for derivation in group.get("DerivationImageSequence") or []:
        for source in derivation.get("SourceImageSequence") or []:
            return str(source.ReferencedSOPInstanceUID)
    return ""


def _flat(source: Any, frame: int) -> Any:
    """The attributes of one frame of a multi-frame image, without the code under test."""
    flat: dict[str, Any] = {}
    for group in (source.SharedFunctionalGroupsSequence[0], source.PerFrameFunctionalGroupsSequence[frame - 1]):
        for macro in group:
            for item in macro.value if macro.VR == "SQ" else []:
                flat.update({element.keyword: element for element in item})
    return _Flat(source, flat)


class _Flat:
    """Looks like a data set: the frame's attributes first, then those of the whole image."""

    def __init__(self, source: Any, own: dict[str, Any]) -> None:
        self._source, self._own = source, own

    def __contains__(self, keyword: str) -> bool:
        return keyword in self._own or keyword in self._source

    def __getitem__(self, keyword: str) -> Any:
        return self._own[keyword] if keyword in self._own else self._source[keyword]

    def get(self, keyword: str, default: Any = None) -> Any:
        return self[keyword].value if keyword in self else default

    @property
    def ImageType(self) -> Any:
        return self.get("FrameType") or self._source.ImageType

    @property
    def FrameOfReferenceUID(self) -> Any:
        return self.get("FrameOfReferenceUID")


def _equal(one: Any, other: Any) -> bool:
    if one is None:
        return False
    try:
        return bool(np.allclose(np.atleast_1d(np.array(one, float)), np.atleast_1d(np.array(other, float)), atol=1e-6))
    except (ValueError, TypeError):
        return str(one) == str(other)
