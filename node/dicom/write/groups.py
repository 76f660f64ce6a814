"""Measurement groups of the report (PS3.16 TID 1501, TID 1411): every number hangs on a place in an image.

A group without coordinates stops some viewers from showing the whole report, so there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.contract import Code, Findings, Lesion, ModelIdentity, Score, SourceRef
from node.dicom import uids
from node.dicom.write import codes, content, sentences
from node.dicom.write.objects import ResultRef, SeriesEntry, Stamp, StudyEntry
from node.dicom.write.source import SeriesSource

BIDIRECTIONAL = "Cornerstone3DTools@^0.1.0:Bidirectional"
"""OHIF makes a measurement of a group only under this tracking identifier; what follows a colon is its name."""


@dataclass(frozen=True)
class Place:
    """An image that numbers are shown on."""

    class_uid: str
    instance_uid: str
    frame: int | None
    rows: int
    columns: int

    def image(self, relationship: str = "SELECTED FROM") -> Any:
        return content.image(
            self.class_uid, self.instance_uid, name=codes.SOURCE, relationship=relationship, frame=self.frame
        )

    def outline(self) -> Any:
        return content.outline(self.rows, self.columns, self.image())


def all_groups(study: StudyEntry, sources: Mapping[str, SeriesSource], stamp: Stamp) -> list[Any]:
    """Groups of all series; where nothing was measured, how many images came. Empty only where no image came."""
    groups: list[Any] = []
    several = sum(bool(entry.findings and entry.findings.lesions) for entry in study.series) > 1
    for entry in study.series:
        source = sources.get(entry.series_instance_uid)
        if entry.findings is not None and source is not None and entry.volume_sources:
            of = f" of {sentences.short_name(entry)}" if several else ""
            groups += _of_series(entry, entry.findings, source, stamp, of=of)
    return groups or _images_received(study, sources, stamp)


def algorithm(models: Sequence[ModelIdentity], name: str, version: str) -> list[Any]:
    """Algorithm identification (TID 4019): the pipeline by name and version, each network with its weights."""
    items = [
        content.text(codes.ALGORITHM_NAME, name, relationship="HAS CONCEPT MOD"),
        content.text(codes.ALGORITHM_VERSION, version, relationship="HAS CONCEPT MOD"),
    ]
    for model in models:
        words = f"network {model.name} {model.version}, weights SHA-256 {model.weights_sha256}"
        items.append(content.text(codes.ALGORITHM_PARAMETERS, words, relationship="HAS CONCEPT MOD"))
    return items


def models_of(findings: Findings) -> list[ModelIdentity]:
    """Each network once, in the order of the analyses."""
    return list(dict.fromkeys(a.model for a in findings.analyses if a.model is not None))


def _of_series(entry: SeriesEntry, findings: Findings, source: SeriesSource, stamp: Stamp, *, of: str) -> list[Any]:
    """With `of` behind the number of each lesion, where other series have a lesion of that number too."""
    groups: list[Any] = []
    segmentation = next((ref for ref in entry.results if ref.kind == "seg"), None)
    for place, lesion in enumerate(findings.lesions, start=1):
        name = f"Lesion {place}{of}"
        groups.append(_lesion(name, lesion, findings, _place(entry, source, lesion.slice_index), stamp))
        if segmentation is not None:
            segment = _segment(segmentation, place)
            groups.append(_lesion_volume(name, lesion, findings, segment, source, stamp))
    groups += [
        _of_slice(s, s.slice_index, entry, findings, source, stamp)
        for s in findings.scores
        if s.slice_index is not None
    ]
    about = dict.fromkeys([*(m.group for m in findings.measurements), *(s.applies_to for s in findings.scores)])
    groups += [_numbers(group, entry, findings, source, stamp) for group in about]
    return groups


def _lesion(name: str, lesion: Lesion, findings: Findings, where: Place, stamp: Stamp) -> Any:
    long_axis = content.polyline(lesion.long_axis_px, where.image())
    short_axis = content.polyline(lesion.short_axis_px, where.image())
    items = _head(name, lesion.tracking_id, lesion, findings, stamp)
    items += [
        content.numeric(codes.LONG_AXIS, _length(lesion.long_axis_mm), codes.MILLIMETRE, [long_axis]),
        content.numeric(codes.SHORT_AXIS, _length(lesion.short_axis_mm), codes.MILLIMETRE, [short_axis]),
        content.numeric(codes.CERTAINTY, round(100 * round(lesion.score, 2)), codes.PERCENT, [long_axis]),
        content.text(codes.COMMENT, name),  # what viewers show in their list
    ]
    return content.container(codes.MEASUREMENT_GROUP, items, template="1501")


def _lesion_volume(
    name: str, lesion: Lesion, findings: Findings, segment: Any, source: SeriesSource, stamp: Stamp
) -> Any:
    items = _head(name, lesion.tracking_id, lesion, findings, stamp)
    items += [
        segment,
        content.uid_reference(codes.SEGMENTATION_SOURCE_SERIES, source.series_instance_uid),
        content.numeric(codes.VOLUME, _rounded(lesion.volume_mm3), codes.CUBIC_MILLIMETRE),
    ]
    return content.container(codes.MEASUREMENT_GROUP, items, template="1411")


def _segment(segmentation: ResultRef, number: int) -> Any:
    return content.image(
        segmentation.sop_class_uid, segmentation.sop_instance_uid, name=codes.REFERENCED_SEGMENT, segment=number
    )


def _head(name: str, tracking_id: str, lesion: Lesion, findings: Findings, stamp: Stamp) -> list[Any]:
    side = [] if lesion.laterality is None else [_modifier(codes.LATERALITY, lesion.laterality)]
    return [
        *_tracking(f"{BIDIRECTIONAL}:{name}", uids.tracking_uid(stamp.study_instance_uid, "", tracking_id)),
        content.code(codes.FINDING, lesion.category),
        *algorithm([lesion.model], findings.pipeline, findings.version),
        content.code(codes.FINDING_SITE, lesion.site, relationship="HAS CONCEPT MOD", items=side),
    ]


def _numbers(group: str, entry: SeriesEntry, findings: Findings, source: SeriesSource, stamp: Stamp) -> Any:
    """What was measured on the whole series, shown on its middle image; or on one image that is told by itself.

    Methods and scales stand in the sentences only: viewers draw every text of a group over the image.
    """
    where = _derived_place(entry, source, group) or _place(entry, source, len(entry.volume_sources) // 2)
    series = "" if entry.number is None else f" {entry.number}"
    of_image = f"/{entry.volume_sources[0].instance_uid}" if entry.image else ""
    tracking = uids.tracking_uid(stamp.study_instance_uid, entry.series_instance_uid, f"numbers/{group}{of_image}")
    what = f"{entry.image} of series" if entry.image else "the whole series"
    images = f", {sentences.images_called(group)}" if group else ""
    items = [
        *_tracking(f"AI measurements of {what}{series}{images}", tracking),
        content.code(codes.FINDING, codes.IMAGE_QUALITY),
        *algorithm(models_of(findings), findings.pipeline, findings.version),
    ]
    for m in (m for m in findings.measurements if m.group == group):
        items.append(content.numeric(m.name, _rounded(m.value), m.unit, [where.outline()]))
    for s in (s for s in findings.scores if s.applies_to == group and s.slice_index is None):
        items.append(content.numeric(s.name, round(s.value, 1), codes.NO_UNITS, [where.outline()]))
    return content.container(codes.MEASUREMENT_GROUP, items, template="1501")


def _of_slice(
    score: Score, slice_index: int, entry: SeriesEntry, findings: Findings, source: SeriesSource, stamp: Stamp
) -> Any:
    """A score of one image, shown on it."""
    where = _place(entry, source, slice_index)
    tracking = uids.tracking_uid(stamp.study_instance_uid, entry.series_instance_uid, f"score/{score.name[0]}")
    items = [
        *_tracking(f"AI {score.name[2]}", tracking),
        content.code(codes.FINDING, codes.IMAGE_QUALITY),
        *algorithm([score.model], findings.pipeline, findings.version),
        content.numeric(score.name, round(score.value, 1), codes.NO_UNITS, [where.outline()]),
    ]
    return content.container(codes.MEASUREMENT_GROUP, items, template="1501")


def _images_received(study: StudyEntry, sources: Mapping[str, SeriesSource], stamp: Stamp) -> list[Any]:
    """One true number on the first image: a report without any measurement group stops some viewers."""
    for entry in study.series:
        source = sources.get(entry.series_instance_uid)
        header = None if source is None else next(source.images(), None)
        if header is not None:
            where = _of_header(header, 1 if int(header.get("NumberOfFrames") or 1) > 1 else None)
            tracking = uids.tracking_uid(stamp.study_instance_uid, "", "images received")
            received = float(sum(each.images for each in study.series))
            items = [
                *_tracking("AI: images received", tracking),
                content.numeric(codes.IMAGES_RECEIVED, received, codes.IMAGES, [where.outline()]),
            ]
            return [content.container(codes.MEASUREMENT_GROUP, items, template="1501")]
    return []


def _tracking(identifier: str, uid: str) -> list[Any]:
    return [
        content.text(codes.TRACKING_IDENTIFIER, identifier, relationship="HAS OBS CONTEXT"),
        content.uid_reference(codes.TRACKING_UID, uid, relationship="HAS OBS CONTEXT"),
    ]


def _modifier(name: Code, value: Code) -> Any:
    return content.code(name, value, relationship="HAS CONCEPT MOD")


def _place(entry: SeriesEntry, source: SeriesSource, slice_index: int) -> Place:
    ref: SourceRef = entry.volume_sources[slice_index]
    return _of_header(source.of(ref), ref.frame)


def _derived_place(entry: SeriesEntry, source: SeriesSource, group: str) -> Place | None:
    """The middle one of the derived images that the numbers are about, if they are about such."""
    derived = [ref for ref in entry.results if ref.kind == "derived" and ref.label.startswith(f"AI {group}")]
    if not derived or not group:
        return None
    middle = derived[len(derived) // 2]
    header = source.of(entry.volume_sources[0])
    return Place(middle.sop_class_uid, middle.sop_instance_uid, None, int(header.Rows), int(header.Columns))


def _of_header(header: Any, frame: int | None) -> Place:
    return Place(str(header.SOPClassUID), str(header.SOPInstanceUID), frame, int(header.Rows), int(header.Columns))


def _rounded(value: float) -> float:
    """Three figures, as the sentences say it: more would claim what no measurement here has."""
    return float(f"{value:.3g}")


def _length(value_mm: float) -> float:
    """To 0.1 mm, as on pages and in presentation states."""
    return round(value_mm, 1) or _rounded(value_mm)
