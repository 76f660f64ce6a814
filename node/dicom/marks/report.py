"""Measurement groups of a report by TID 1500, and of what other writers take for it (PS3.16 TID 1501, 1410, 1411)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydicom.dataset import Dataset

from models.contract import SourceRef
from node.dicom.elements import integer, items, numbers, text
from node.dicom.marks.content_tree import Node, named
from node.dicom.marks.mark import About, Claim, Contour, Document, Origin, Outline, Pair, Refusal, Segment

_GROUP = "125007"
_PERPENDICULAR = ("131189007", "G-A195")
_AXES = (
    (("103339001", "G-A185"), ("103340004", "G-A186")),  # long and short axis
    (("131187009", "G-A193"), ("131188004", "G-A194")),  # major and minor axis
)
"""Names of a long axis, and of the short one that goes with it, unless that is called the perpendicular axis (CID 7470;
SNOMED CT, and RT of older reports)."""
_TRACKING_UID, _FINDING = "112040", "121071"
_FINDING_SITE = ("363698007", "G-C0E3")
_VOLUME_SURFACE = "121231"
_COORDINATES = ("SCOORD", "SCOORD3D")
_SEGMENT, _SEGMENT_FRAME = "121191", "121214"
_OBSERVER_TYPE, _ORGANISATION, _PERSON, _DEVICE = "121005", "121009", "121006", "121007"


class _NotAMark(Exception):
    """Why a group holds no lesion with two axes."""


def read_report(dataset: Dataset) -> Document:
    """Every measurement group as a claim, or refused with the reason."""
    uid = text(dataset, 0x00080018)
    root = Node(dataset, dataset)
    observer = _observer(root, uid)
    claims: list[Claim] = []
    refusals: list[Refusal] = []
    for group in (node for node in root.within() if node.kind == "CONTAINER" and node.name == _GROUP):
        try:
            claims += _claims(group, observer)
        except _NotAMark as exc:
            refusals.append(Refusal(uid, str(exc)))
    evidence = list(_evidence(dataset))
    return Document(
        uid,
        tuple(claims),
        tuple(refusals),
        series_of={image: series for _, series, image in evidence},
        elsewhere=frozenset(image for study, _, image in evidence if study != text(dataset, 0x0020000D)),
        supersedes=_predecessors(dataset),
        measures=frozenset(_measured(root)),
    )


def _measured(root: Node) -> Iterator[tuple[str, int]]:
    for node in root.within():
        if node.kind in ("IMAGE", "COMPOSITE"):
            uid = text(node.reference, 0x00081155)
            yield from ((uid, int(number)) for number in numbers(node.reference, 0x0062000B) or (0,))


def _observer(root: Node, uid: str) -> About:
    said = list(root.children())
    kind = next((node.code for node in named(said, _OBSERVER_TYPE)), None)
    organisation = next((node.value for node in named(said, _ORGANISATION)), "")
    observer = {_PERSON: "person", _DEVICE: "device"}.get(kind[0] if kind else "", "")
    return About(Origin.BIDIRECTIONAL, uid, observer=observer, institution=organisation or text(root.item, 0x00080080))


def _claims(group: Node, observer: About) -> list[Claim]:
    inside = list(group.within())
    about = replace(
        observer,
        tracking_uid=next((node.value for node in named(inside, _TRACKING_UID)), ""),
        finding=next((node.code for node in named(inside, _FINDING) if node.code), None),
        site=next((node.code for node in named(inside, *_FINDING_SITE) if node.code), None),
    )
    images = tuple(dict.fromkeys(image for node in inside for image in node.images))
    regions = [node for node in group.children() if node.kind in _COORDINATES]
    segments = list(named(inside, _SEGMENT, _SEGMENT_FRAME))
    for names in _AXES:
        long, short = (_numbers(inside, *of) for of in names)
        short = short or (_numbers(inside, *_PERPENDICULAR) if long else [])
        if not (long or short) or ((regions or segments) and not any(map(_lines, (*long, *short)))):
            continue  # of axes without coordinates the region shows where they are
        if len(long) != len(short):
            raise _NotAMark("a long axis without its short axis, or the other way round")
        return [_pair(a, b, about, images) for a, b in zip(long, short, strict=True)]
    if segments:
        return [_segment(segments, about)]
    outline = _outline(regions or [node for node in inside if node.kind in _COORDINATES], about, group.template)
    stated = (node.millimetres for node in named(inside, *(name for long, _ in _AXES for name in long)))
    return [replace(outline, images=images, long_mm=next(stated, None))]


def _numbers(inside: list[Node], *names: str) -> list[Node]:
    return [node for node in named(inside, *names) if node.kind == "NUM"]


def _pair(long: Node, short: Node, about: About, images: tuple[SourceRef, ...]) -> Pair:
    lines = [_line(node) for node in (long, short)]
    kinds = {line.kind for line in lines}
    if len(kinds) > 1:
        raise _NotAMark("one axis in an image and the other in the patient")
    ends = []
    for line in lines:
        kind, points = line.graphic
        if kind not in ("POLYLINE", "MULTIPOINT") or len(points) != 2:
            raise _NotAMark("an axis that is no line of two points")
        ends.append((points[0], points[1]))
    on = {_image(line) for line in lines} if kinds == {"SCOORD"} else {None}
    if len(on) > 1:
        raise _NotAMark("the two axes lie on different images")
    return Pair(
        about,
        on.pop(),
        ends[0],
        ends[1],
        long.millimetres,
        short.millimetres,
        frame_of_reference_uid=lines[0].frame_of_reference_uid,
        images=images,
    )


def _lines(number: Node) -> list[Node]:
    """The coordinates that a number was inferred from."""
    return [node for node in number.within() if node.kind in _COORDINATES]


def _line(number: Node) -> Node:
    lines = _lines(number)
    if not lines:
        raise _NotAMark("an axis without coordinates")
    if len(lines) > 1:
        raise _NotAMark("an axis with several coordinates")
    return lines[0]


def _image(line: Node) -> SourceRef:
    """The image that coordinates were selected from."""
    found = [image for node in line.children() for image in node.images]
    if not found:
        raise _NotAMark("coordinates that name no image")
    if len(found) > 1:
        raise _NotAMark("coordinates on several images at once")
    return found[0]


def _outline(contours: list[Node], about: About, template: str) -> Outline:
    """A region of interest. By its content, since many writers name no template."""
    if not contours:
        raise _NotAMark("a group without coordinates")
    if any(node.name == _VOLUME_SURFACE for node in contours):
        raise _NotAMark("a volume by its surface")
    origin = Origin.VOLUMETRIC if len(contours) > 1 or template == "1411" else Origin.PLANAR
    return Outline(replace(about, origin=origin), tuple(_contour(node) for node in contours))


def _contour(node: Node) -> Contour:
    kind, points = node.graphic
    closed = kind == "POLYGON" or (kind == "POLYLINE" and len(points) > 3 and points[0] == points[-1])
    if kind in ("POLYLINE", "MULTIPOINT") and len(points) == 2:
        raise _NotAMark("one length, without a second axis")
    if not closed or len(set(points)) < 3:
        raise _NotAMark(f"a region that is no closed polygon ({kind.lower() or 'no type'})")
    return Contour(_image(node) if node.kind == "SCOORD" else None, points, node.frame_of_reference_uid)


def _segment(segments: list[Node], about: About) -> Segment:
    named_frames = [image.frame for node in segments for image in node.images if image.frame is not None]
    reference = segments[0].reference
    uid, number = text(reference, 0x00081155), integer(reference, 0x0062000B)
    if len({text(node.reference, 0x00081155) for node in segments}) > 1:
        raise _NotAMark("a region in several segmentations")
    if not uid or number is None:
        raise _NotAMark("a segmentation is named, but not which segment of it")
    planar = segments[0].name == _SEGMENT_FRAME
    origin = Origin.PLANAR if planar else Origin.VOLUMETRIC
    return Segment(replace(about, origin=origin), uid, number, tuple(named_frames) if planar else ())


def _evidence(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    """Study, series and instance of each object that it refers to."""
    for tag in (0x0040A385, 0x0040A375):
        for study in items(dataset, tag):
            for series in items(study, 0x00081115):
                for reference in items(series, 0x00081199):
                    yield text(study, 0x0020000D), text(series, 0x0020000E), text(reference, 0x00081155)


def _predecessors(dataset: Dataset) -> frozenset[str]:
    return frozenset(
        text(reference, 0x00081155)
        for study in items(dataset, 0x0040A360)
        for series in items(study, 0x00081115)
        for reference in items(series, 0x00081199)
    )
