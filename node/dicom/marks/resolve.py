"""Claims laid on their images and held to the rules: each becomes a mark, or is refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.contract import SourceRef
from node.dicom.marks.diameters import axes_of_mask, axes_of_polygon, longest_mm, span_mm
from node.dicom.marks.mark import (
    About,
    Axis,
    Caption,
    Document,
    Lines,
    Origin,
    Outline,
    Pair,
    Point,
    Refusal,
    Segment,
)
from node.dicom.marks.masks import Segmentation
from node.dicom.marks.pairing import LEAST_ANGLE_DEG, Crossing, angle_deg, pair
from node.dicom.marks.plane import length_mm
from node.dicom.marks.series import CtSeries
from node.dicom.marks.shelf import Shelf
from node.dicom.read.codec import Codec
from node.errors import NotEligible, PeerRefused

LENGTH_TOLERANCE = 0.1
"""Share by which a stated length may differ from the one between the ends."""
EDGE_SLACK_PX = 1.0

NO_IMAGE = "the key image is not there"
_ELSEWHERE = "the key image is of another study"
_OF_VOLUMES = (Origin.VOLUMETRIC, Origin.CONTOUR, Origin.SEGMENTATION)


@dataclass(frozen=True, eq=False)
class Mark:
    """Two axes of one lesion on slice `index` (0-based from the head) of a series; pixel centres at whole numbers."""

    about: About
    series: CtSeries
    index: int
    long_px: Axis
    short_px: Axis
    long_mm: float
    short_mm: float

    @property
    def image(self) -> SourceRef:
        return self.series.frames[self.index].source


class Refused(Exception):
    """A claim that does not become a mark."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class Library:
    """Series and segmentations of one study, each fetched and read once."""

    def __init__(
        self, shelf: Shelf, codec: Codec, documents: Sequence[Document], rejected: Mapping[str, str] | None = None
    ) -> None:
        """rejected   SOP Instance UID → why it is not to be used"""
        self._rejected = rejected or {}
        self._shelf = shelf
        self._codec = codec
        self._series_of = {uid: series for document in documents for uid, series in document.series_of.items()}
        self._elsewhere = frozenset[str]().union(*(document.elsewhere for document in documents))
        self._series: dict[str, CtSeries | Refused] = {}
        self._segmentation: Segmentation | None = None

    def series_of(self, instance_uid: str) -> str:
        return self._shelf.series_of(instance_uid, self._series_of.get(instance_uid, ""))

    def series(self, uid: str) -> CtSeries:
        """raises Refused"""
        if uid not in self._series:
            self._series[uid] = self._loaded(uid)
        found = self._series[uid]
        if isinstance(found, Refused):
            raise Refused(found.reason, found.detail)
        return found

    def _loaded(self, uid: str) -> CtSeries | Refused:
        try:
            paths = self._paths(uid)
            return CtSeries.load(paths, self._codec, without=self._rejected) if paths else Refused(NO_IMAGE)
        except NotEligible as exc:
            return Refused(f"the marked series is not usable: {exc.reason}")
        except Refused as exc:
            return exc

    def _paths(self, uid: str) -> Sequence[Path]:
        """raises Refused, NotEligible"""
        try:
            return self._shelf.series(uid, without=self._rejected) if uid else ()
        except PeerRefused as exc:
            raise Refused("the peer does not send the marked series", exc.reason) from exc

    def place(self, image: SourceRef) -> tuple[CtSeries, int]:
        """The slice that an image is. raises Refused"""
        self._demand_in_use(image.instance_uid)
        uid = self.series_of(image.instance_uid)
        if not uid and image.instance_uid in self._elsewhere:
            raise Refused(_ELSEWHERE)
        series = self.series(uid)
        index = series.index_of(image)
        if index is None:
            if image.instance_uid in series.left_out:
                raise Refused("the key image is beside the stack that is read: another phase, a copy or a localiser")
            among = any(frame.source.instance_uid == image.instance_uid for frame in series.frames)
            raise Refused("no frame of the key image is named, or one that it has not" if among else NO_IMAGE)
        return series, index

    def _demand_in_use(self, instance_uid: str) -> None:
        if instance_uid in self._rejected:
            raise Refused(f"rejected in the PACS: {self._rejected[instance_uid]}")

    def segmentation(self, uid: str) -> Segmentation:
        """raises Refused"""
        self._demand_in_use(uid)
        if self._segmentation is not None and self._segmentation.uid == uid:
            return self._segmentation  # of many segments; of several segmentations one at a time, as they are large
        try:
            for path in self._paths(self.series_of(uid)):
                found = Segmentation(path, self._codec)
                if found.uid == uid:
                    self._segmentation = found
                    return found
        except NotEligible as exc:
            raise Refused(f"the segmentation is not usable: {exc.reason}") from exc
        raise Refused("the segmentation that is named is not there")

    def around(self, points_mm: Sequence[Point], for_uid: str, images: Sequence[SourceRef]) -> tuple[CtSeries, int]:
        """The slice that points in the patient lie on: of the named images' series, else of any that is referred to.

        raises   Refused
        """
        uids = [self.series_of(image.instance_uid) for image in images] or list(self._series_of.values())
        found = []
        for uid in dict.fromkeys(filter(None, uids)):
            try:
                series = self.series(uid)
            except Refused:
                continue
            if series.frame_of_reference_uid == for_uid and for_uid:
                index = series.nearest(np.mean(points_mm, axis=0).tolist())
                reach = series.half_step_mm(index)
                if all(series.planes[index].distance_mm(point) < reach for point in points_mm):
                    found.append((series, index))
        if not found:
            for image in images:
                self._demand_in_use(image.instance_uid)
            if images and all(image.instance_uid in self._elsewhere for image in images):
                raise Refused(_ELSEWHERE)
            raise Refused("no image lies where the mark is in the patient")
        if len(found) > 1:
            raise Refused("several series have an image where the mark is in the patient")
        return found[0]


def resolve(document: Document, library: Library) -> Iterator[Mark | Refusal]:
    """What becomes of each claim of a document."""
    for claim in document.claims:
        image = claim.image if not isinstance(claim, Segment) else None
        try:
            if isinstance(claim, Lines):
                yield from _of_lines(claim, library)
            elif isinstance(claim, Pair):
                yield _of_pair(claim, library)
            elif isinstance(claim, Outline):
                yield _of_outline(claim, library)
            else:
                yield _of_segment(claim, library)
        except Refused as exc:
            lost = len(claim.lines) if isinstance(claim, Lines) else 1
            refusal = _refusal(claim.about, exc, image)
            yield from [refusal] * max(1, lost // 2)


def _of_lines(claim: Lines, library: Library) -> Iterator[Mark | Refusal]:
    series, index = library.place(claim.image)
    pairs, left = pair(claim.lines, series.planes[index].spacing_yx_mm)
    for crossing in pairs:
        long, short = claim.lines[crossing.long], claim.lines[crossing.short]
        about = replace(claim.about, tracking_uid=long.tracking_uid or short.tracking_uid)
        try:
            mark = _mark(about, series, index, long.ends, short.ends)
            _check_captions(mark, _attached(claim, crossing, alone=len(pairs) == 1))
            yield mark
        except Refused as exc:
            yield _refusal(about, exc, claim.image)
    for _ in left:
        yield _refusal(claim.about, Refused("a single line: no second axis crosses it at a right angle"), claim.image)


def _attached(claim: Lines, crossing: Crossing, *, alone: bool) -> list[Caption]:
    """Texts that belong to a pair: tied to one of its lines, or, beside a single pair, tied to nothing."""
    lines = (claim.lines[crossing.long], claim.lines[crossing.short])
    groups = {line.group for line in lines} - {0}
    uids = {line.tracking_uid for line in lines} - {""}
    return [
        caption
        for caption in claim.captions
        if caption.group in groups
        or caption.tracking_uid in uids
        or (alone and not caption.group and not caption.tracking_uid)
    ]


def _check_captions(mark: Mark, captions: Sequence[Caption]) -> None:
    stated = [length for caption in captions for length in caption.lengths_mm]
    if stated and not any(_agree(length, mark.long_mm) for length in stated):
        raise Refused("the text beside it states another length", f"{mark.long_mm:.1f} mm between the ends")
    if len(stated) > 1 and not any(_agree(length, mark.short_mm) for length in stated):
        raise Refused("the text beside it states another length", f"{mark.short_mm:.1f} mm between the ends")


def _of_pair(claim: Pair, library: Library) -> Mark:
    if claim.image is not None:
        series, index = library.place(claim.image)
        long, short = claim.long, claim.short
    else:
        points = (*claim.long, *claim.short)
        series, index = library.around(points, claim.frame_of_reference_uid, claim.images)
        plane = series.planes[index]
        long, short = ((plane.to_pixel(a), plane.to_pixel(b)) for a, b in (claim.long, claim.short))
    spacing = series.planes[index].spacing_yx_mm
    for axis, stated, what in ((long, claim.long_mm, "long"), (short, claim.short_mm, "short")):
        measured = length_mm(axis, spacing)
        if stated is None:
            raise Refused("an axis without a length in millimetres")
        _demand_agreement(stated, measured, what)
    return _mark(claim.about, series, index, long, short)


def _of_outline(claim: Outline, library: Library) -> Mark:
    """By the contour with the longest diameter."""
    found: list[tuple[float, CtSeries, int, Sequence[Point]]] = []
    for contour in claim.contours:
        points: Sequence[Point] = contour.points
        if contour.image is not None:
            series, index = library.place(contour.image)
        else:
            series, index = library.around(points, contour.frame_of_reference_uid, claim.images)
            points = [series.planes[index].to_pixel(point) for point in points]
        found.append((span_mm(points, series.planes[index].spacing_yx_mm), series, index, points))
    long_mm, series, index, points = max(found, key=lambda it: it[0])
    axes = axes_of_polygon(points, series.planes[index].spacing_yx_mm)
    if axes is None:
        raise Refused("a region without area")
    if claim.long_mm is not None:
        _demand_agreement(claim.long_mm, long_mm, "long")
    return _mark(claim.about, series, index, *axes)


def _of_segment(claim: Segment, library: Library) -> Mark:
    segmentation = library.segmentation(claim.segmentation_uid)
    series = library.series(segmentation.series_uid)
    try:
        part = segmentation.largest_part(claim.number, claim.frames, series)
    except NotEligible as exc:
        raise Refused(f"the segmentation is not usable: {exc.reason}") from exc
    drawn = np.flatnonzero(part.any(axis=(1, 2))).tolist()
    index = max(drawn, key=lambda it: longest_mm(part[it], series.planes[it].spacing_yx_mm))
    axes = axes_of_mask(part[index], series.planes[index].spacing_yx_mm)
    if axes is None:
        raise Refused("a region without area")
    return _mark(claim.about, series, index, *axes)


def _mark(about: About, series: CtSeries, index: int, long: Axis, short: Axis) -> Mark:
    """raises Refused where the axes cannot be those of a lesion on an axial slice"""
    plane, frame = series.planes[index], series.frames[index]
    if not plane.axial:
        raise Refused("not an axial image")
    for x, y in (*long, *short):
        inside_x = -0.5 - EDGE_SLACK_PX <= x <= frame.columns - 0.5 + EDGE_SLACK_PX
        if not (inside_x and -0.5 - EDGE_SLACK_PX <= y <= frame.rows - 0.5 + EDGE_SLACK_PX):
            raise Refused("it reaches outside of the image")
    long_mm, short_mm = (length_mm(axis, plane.spacing_yx_mm) for axis in (long, short))
    if min(long_mm, short_mm) <= 0:
        raise Refused("an axis without length")
    angle = angle_deg(long, short, plane.spacing_yx_mm)
    if angle is None or angle < LEAST_ANGLE_DEG:
        detail = "" if angle is None else f"{angle:.0f}°"
        raise Refused("its axes do not cross at a right angle", detail)
    if short_mm > long_mm:
        long, short, long_mm, short_mm = short, long, short_mm, long_mm
    return Mark(about, series, index, long, short, long_mm, short_mm)


def without_repeats(marks: Sequence[Mark]) -> tuple[list[Mark], list[Refusal]]:
    """Marks of one study, each lesion once per image: by tracking UID. A person's mark counts before a device's.

    A volume has no image of its own: it repeats what bears its tracking UID anywhere in the series.
    """
    ranks = list(Origin)
    order = sorted(marks, key=lambda it: (it.about.observer == "device", ranks.index(it.about.origin)))
    kept: list[Mark] = []
    refusals = []
    for mark in order:
        same = [
            other
            for other in kept
            if other.series is mark.series
            and mark.about.tracking_uid
            and other.about.tracking_uid == mark.about.tracking_uid
            and (other.index == mark.index or mark.about.origin in _OF_VOLUMES)
        ]
        if same:
            refusals.append(
                _refusal(mark.about, Refused("the same lesion is marked already (tracking UID)"), mark.image)
            )
        else:
            kept.append(mark)
    return kept, refusals


def _demand_agreement(stated_mm: float, measured_mm: float, what: str) -> None:
    if not _agree(stated_mm, measured_mm):
        raise Refused(
            "stated and measured length differ by more than 10 %",
            f"{what} axis: {stated_mm:.2f} mm stated, {measured_mm:.2f} mm measured",
        )


def _agree(stated: float, measured: float) -> bool:
    return abs(stated - measured) <= LENGTH_TOLERANCE * measured


def _refusal(about: About, why: Refused, image: SourceRef | None) -> Refusal:
    return Refusal(about.document_uid, why.reason, why.detail, "" if image is None else image.instance_uid)
