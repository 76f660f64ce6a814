"""Own checks of reports: layout that no viewer chokes on, numbers that agree with images and segmentations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gate.files import Case, Complaint, groups, items, name

LENGTH_TOLERANCE = 0.1
VOLUME_TOLERANCE = 0.05


def layout(case: Case) -> Iterator[Complaint]:
    """What viewers need (no group without coordinates, no report without a group where there are images)."""
    for path, ds in case.of_modality("SR"):
        if ds.VerificationFlag != "UNVERIFIED":
            yield Complaint("layout", path.name, "says that somebody verified it")
        if not any(name(item) == "Intended use" for item in items(ds)):
            yield Complaint("layout", path.name, "does not say what it may be used for")
        if ds.ConceptNameCodeSequence[0].CodeValue != "126000":
            continue
        measured = list(groups(ds))
        if not measured and any("Rows" in source for source in case.sources.values()):
            yield Complaint("layout", path.name, "no measurement group although there are images")
        with_coordinates = {_tracking(group)[1] for group in measured if _has(group, "SCOORD")}
        for group in measured:
            identifier, uid = _tracking(group)
            if not identifier or not uid:
                yield Complaint("layout", path.name, "a measurement group without tracking identifier and UID")
            if uid not in with_coordinates:
                yield Complaint("layout", path.name, f"no coordinates in any group of {identifier}")
            if "Bidirectional" in identifier and not identifier.startswith("Cornerstone3DTools@^0.1.0:Bidirectional"):
                yield Complaint("layout", path.name, f"viewers do not know the tracking identifier {identifier}")
        if not any(name(item) == "Qualitative Evaluations" for item in items(ds)):
            yield Complaint("layout", path.name, "nothing is said of the study as a whole")


def values(case: Case) -> Iterator[Complaint]:
    """Coordinates inside their image and on the lesion; lengths, volumes and shares that can be."""
    for path, ds in case.of_modality("SR"):
        for item in items(ds):
            if item.get("ValueType") == "SCOORD":
                yield from _inside(case, path, item)
            if item.get("ValueType") == "NUM":
                yield from _number(path, item)
        for group in groups(ds):
            yield from _axes(case, path, group)
            yield from _volume(case, path, group)


def _inside(case: Case, path: Path, item: Any) -> Iterator[Complaint]:
    image = _image_of(case, item)
    if image is None:
        yield Complaint("values", path.name, "coordinates on no image")
        return
    points = np.array(item.GraphicData, float).reshape(-1, 2)
    if points.min() < 0 or (points > (image.Columns, image.Rows)).any():
        yield Complaint("values", path.name, "coordinates outside of the image")


def _number(path: Path, item: Any) -> Iterator[Complaint]:
    measured = item.MeasuredValueSequence[0]
    value = float(measured.NumericValue)
    unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
    if not np.isfinite(value):
        yield Complaint("values", path.name, f"{name(item)} is not finite")
    if unit == "%" and not 0 <= value <= 100:
        yield Complaint("values", path.name, f"{name(item)} is {value} %")
    if unit in ("mm", "mm3") and value <= 0:
        yield Complaint("values", path.name, f"{name(item)} is {value} {unit}")
    if "FloatingPointValue" in measured and not np.isclose(value, measured.FloatingPointValue, rtol=1e-6):
        yield Complaint("values", path.name, f"{name(item)} has two different values")
    expected = {"118565006": "mm3", "103339001": "mm", "103340004": "mm", "111012": "%"}
    wanted = expected.get(item.ConceptNameCodeSequence[0].CodeValue, unit)
    if unit != wanted:
        yield Complaint("values", path.name, f"{name(item)} in {unit}")


def _axes(case: Case, path: Path, group: Any) -> Iterator[Complaint]:
    found = {}
    for item in group.ContentSequence:
        if name(item) not in ("Long Axis", "Short Axis"):
            continue
        line = next(child for child in item.ContentSequence if child.ValueType == "SCOORD")
        image = _image_of(case, line)
        found[name(item)] = float(item.MeasuredValueSequence[0].NumericValue)
        spacing = None if image is None else _spacing(image)
        if spacing is not None:
            (x0, y0), (x1, y1) = np.array(line.GraphicData, float).reshape(-1, 2)[:2]
            length = float(np.hypot((x1 - x0) * spacing[1], (y1 - y0) * spacing[0]))
            if abs(length - found[name(item)]) > LENGTH_TOLERANCE * max(length, 1.0) + max(spacing):
                yield Complaint("values", path.name, f"{name(item)} is drawn {length:.1f} mm long")
        yield from _on_lesion(case, path, group, line, image)
    if len(found) == 2 and found["Long Axis"] < found["Short Axis"]:
        yield Complaint("values", path.name, "the long axis is shorter than the short axis")


def _on_lesion(case: Case, path: Path, group: Any, line: Any, image: Any) -> Iterator[Complaint]:
    """The middle of an axis lies in (or within two pixels of) the segment of the same tracking UID."""
    mask = None if image is None else _mask_on(case, _tracking(group)[1], image)
    if mask is None:
        return
    x, y = np.array(line.GraphicData, float).reshape(-1, 2).mean(axis=0)
    row, column = int(y), int(x)
    if not mask[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].any():
        yield Complaint("values", path.name, "an axis does not lie on its segment")


def _volume(case: Case, path: Path, group: Any) -> Iterator[Complaint]:
    stated = next((item for item in group.ContentSequence if name(item) == "Volume"), None)
    segment = next((item for item in group.ContentSequence if name(item) == "Referenced Segment"), None)
    if stated is None or segment is None:
        return
    reference = segment.ReferencedSOPSequence[0]
    seg = case.by_uid.get(str(reference.ReferencedSOPInstanceUID))
    if seg is None:
        return
    counted = _segment_volume(seg, int(reference.ReferencedSegmentNumber))
    value = float(stated.MeasuredValueSequence[0].NumericValue)
    if counted is not None and abs(value - counted) > VOLUME_TOLERANCE * counted:
        yield Complaint("values", path.name, f"volume {value} mm3, {counted:.0f} mm3 in the segmentation")


def _segment_volume(seg: Any, number: int) -> float | None:
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "PixelMeasuresSequence" not in shared:
        return None
    measures = shared.PixelMeasuresSequence[0]
    step = measures.get("SpacingBetweenSlices")  # absent where steps are uneven: then a count of voxels is no volume
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    voxels = sum(int(frames[index].sum()) for index in _frames_of(seg, number))
    return voxels * float(step) * float(measures.PixelSpacing[0]) * float(measures.PixelSpacing[1]) if step else None


def _frames_of(seg: Any, number: int) -> Iterator[int]:
    shared = seg.SharedFunctionalGroupsSequence[0]
    for index, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        named = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        if int(named[0].ReferencedSegmentNumber) == number:
            yield index


def _mask_on(case: Case, tracking_uid: str, image: Any) -> Any:
    for _, seg in case.of_modality("SEG"):
        for segment in seg.SegmentSequence:
            if segment.get("TrackingUID") != tracking_uid:
                continue
            frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
            for index in _frames_of(seg, int(segment.SegmentNumber)):
                group = seg.PerFrameFunctionalGroupsSequence[index]
                for derivation in group.get("DerivationImageSequence") or []:
                    for source in derivation.get("SourceImageSequence") or []:
                        if source.ReferencedSOPInstanceUID == image.SOPInstanceUID:
                            return frames[index]
    return None


def _image_of(case: Case, item: Any) -> Any:
    for child in item.get("ContentSequence") or []:
        for reference in child.get("ReferencedSOPSequence") or []:
            return case.by_uid.get(str(reference.ReferencedSOPInstanceUID))
    return None


def _spacing(image: Any) -> tuple[float, float] | None:
    spacing = image.get("PixelSpacing") or image.get("ImagerPixelSpacing")
    return None if not spacing or min(spacing) <= 0 else (float(spacing[0]), float(spacing[1]))


def _tracking(group: Any) -> tuple[str, str]:
    found = {name(item): item for item in group.ContentSequence}
    identifier, uid = found.get("Tracking Identifier"), found.get("Tracking Unique Identifier")
    return str(identifier.TextValue) if identifier else "", str(uid.UID) if uid else ""


def _has(group: Any, value_type: str) -> bool:
    return any(item.get("ValueType") == value_type for item in items(group))
