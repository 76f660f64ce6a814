"""Lines drawn on images, from a softcopy presentation state (PS3.3 C.10.4 to C.10.6, Annex A.33)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from models.contract import SourceRef
from node.dicom.elements import integer, item, items, number, numbers, text
from node.dicom.marks.mark import About, Caption, Claim, Document, Line, Lines, Origin, Point, Refusal

_REFERENCED_IMAGES, _REFERENCED_SERIES = 0x00081140, 0x00081115
_GRAPHIC_DATA, _GRAPHIC_TYPE = 0x00700022, 0x00700023
_TRACKING_UID = 0x00620021
_GROUP_ID, _COMPOUND_INSTANCE_ID, _ROTATION_ANGLE = 0x00700295, 0x00700226, 0x00700230

_NUMBER = r"(?:\d+(?:[.,]\d+)?|[.,]\d+)"
_LENGTHS = re.compile(
    rf"(?<![\d.,])({_NUMBER}(?:\s*[x×*]\s*{_NUMBER})*)\s*(mm|cm)(?![\w²³^/])", re.IGNORECASE
)  # not of an area, a volume or a rate

_OTHER_KINDS = {"POINT", "CIRCLE", "INTERPOLATED", "ARROW", "MULTILINE", "RECTANGLE", "RULER", "CUTLINE", "CROSSHAIR"}
_ALONG = {0: ((1, 0), (0, 1)), 90: ((0, -1), (1, 0)), 180: ((-1, 0), (0, -1)), 270: ((0, 1), (-1, 0))}
"""Image rotation → directions in the image (x, y) of the displayed area's right and down."""


class _NotHere(Exception):
    """A mark of the presentation state that says nothing of a place on an image; the text is the reason."""


def read_presentation(dataset: Dataset) -> Document:
    """Its lines per image, in pixels; what else is drawn is refused, with the reason."""
    return _Presentation(dataset).read()


def lengths_in(words: str) -> tuple[float, ...]:
    """Millimetres that a text states: "12.3 mm", "1.2 cm", "12.3 x 8.1 mm"."""
    return tuple(
        (10.0 if unit.lower() == "cm" else 1.0) * float(each.replace(",", "."))
        for several, unit in _LENGTHS.findall(words)
        for each in re.findall(_NUMBER, several)
    )


@dataclass(frozen=True)
class _Area:
    """Displayed area in px from the outer corner of the first pixel: its top left and bottom right as displayed."""

    top_left: tuple[float, float]
    bottom_right: tuple[float, float]
    swapped: bool

    def place(self, u: float, v: float) -> Point:
        """Image coordinates of a point at share u of the way right and v of the way down."""
        if self.swapped:
            u, v = v, u
        (x0, y0), (x1, y1) = self.top_left, self.bottom_right
        return x0 + u * (x1 - x0), y0 + v * (y1 - y0)


class _Presentation:
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.uid = text(dataset, 0x00080018)
        creator = item(dataset, 0x00700086)
        institution = text(creator, 0x00080080) or text(dataset, 0x00080080)
        self.about = About(Origin.GSPS, self.uid, institution=institution)
        self.refusals: list[Refusal] = []
        self.lines: dict[SourceRef, list[Line]] = defaultdict(list)
        self.captions: dict[SourceRef, list[Caption]] = defaultdict(list)

    def read(self) -> Document:
        for annotation in items(self.dataset, 0x00700001):
            try:
                image = self._image(annotation)
            except _NotHere as exc:
                self._refuse(str(exc), count=len(items(annotation, 0x00700009)))
                continue
            self._read_annotation(annotation, image)
        claims: list[Claim] = [
            Lines(self.about, image, tuple(lines), tuple(self.captions[image])) for image, lines in self.lines.items()
        ]
        return Document(self.uid, tuple(claims), tuple(self.refusals), dict(self._series()))

    def _series(self) -> Iterator[tuple[str, str]]:
        for series in items(self.dataset, _REFERENCED_SERIES):
            for reference in items(series, _REFERENCED_IMAGES):
                yield text(reference, 0x00081155), text(series, 0x0020000E)

    def _image(self, annotation: Dataset) -> SourceRef:
        """The one image, or frame of it, that an annotation is drawn on."""
        named = items(annotation, _REFERENCED_IMAGES)
        if not named:
            named = tuple(
                image
                for series in items(self.dataset, _REFERENCED_SERIES)
                for image in items(series, _REFERENCED_IMAGES)
            )
        if not named:
            raise _NotHere("drawn on no image that is named")
        if len(named) > 1:
            raise _NotHere("drawn on several images at once")
        frames = numbers(named[0], 0x00081160)
        if len(frames) > 1:
            raise _NotHere("drawn on several images at once")
        return SourceRef(text(named[0], 0x00081155), int(frames[0]) if frames else None)

    def _read_annotation(self, annotation: Dataset, image: SourceRef) -> None:
        compounds = items(annotation, 0x00700209)
        shown_by = {instance for it in compounds if (instance := integer(it, _COMPOUND_INSTANCE_ID)) is not None}
        for compound in compounds:
            kind = text(compound, 0x00700294).upper()
            if number(compound, _ROTATION_ANGLE):
                self._refuse(f"a {_word(kind)} turned about a point", image)
            elif kind == "RULER":
                self._take(compound, image, text(compound, 0x00700282))
            else:
                self._refuse(f"a {_word(kind)}, not an axis", image)
        for graphic in items(annotation, 0x00700009):
            # how a simple viewer is to draw a compound graphic: the same mark once more
            if integer(graphic, _COMPOUND_INSTANCE_ID) in shown_by:
                continue
            kind = text(graphic, _GRAPHIC_TYPE).upper()
            if kind == "POLYLINE":
                self._take(graphic, image, text(graphic, 0x00700005))
            elif kind == "ELLIPSE":
                self._refuse("an ellipse: its axes were drawn round the lesion, not measured on it", image)
            else:
                self._refuse(f"a {_word(kind)}, not an axis", image)
        for caption in items(annotation, 0x00700008):
            lengths = lengths_in(text(caption, 0x00700006))
            if lengths:
                self.captions[image].append(Caption(lengths, *_ties(caption)))

    def _take(self, graphic: Dataset, image: SourceRef, units: str) -> None:
        data = numbers(graphic, _GRAPHIC_DATA)
        closed = len(data) == 8 and data[:2] == data[-2:]
        if len(data) not in (4, 8) or closed:
            many = len(data) // 2
            what = "a closed or freehand line, not two axes" if many > 2 else "a line without two ends"
            self._refuse(what, image, f"{many} points")
            return
        try:
            points = [self._point(x, y, units.upper(), image) for x, y in zip(data[::2], data[1::2], strict=True)]
        except _NotHere as exc:
            self._refuse(str(exc), image)
            return
        group, tracking = _ties(graphic)
        ends = [(points[i], points[i + 1]) for i in range(0, len(points), 2)]
        if len(ends) == 2 and not (group or tracking):
            group = -1 - len(self.lines[image])  # both axes in one object: tied, if by nothing else
        self.lines[image] += [Line(axis, group, tracking) for axis in ends]

    def _point(self, x: float, y: float, units: str, image: SourceRef) -> Point:
        """Pixel centres at whole numbers; PIXEL and MATRIX count from the outer corner of the first pixel.

        They differ for tiled images only, and no CT image is tiled.
        """
        if units == "DISPLAY":
            x, y = self._area(image).place(x, y)
        elif units not in ("PIXEL", "MATRIX"):
            raise _NotHere("in no units that the standard knows")
        return x - 0.5, y - 0.5

    def _area(self, image: SourceRef) -> _Area:
        """raises _NotHere where there is none for this image, or where it contradicts rotation and flip"""
        chosen = next(
            (
                area
                for named in (True, False)
                for area in items(self.dataset, 0x0070005A)
                if _covers(area, image, named)
            ),
            None,
        )
        corners = [] if chosen is None else [numbers(chosen, tag) for tag in (0x00700052, 0x00700053)]
        if [len(corner) for corner in corners] != [2, 2]:
            raise _NotHere("in display units, and no displayed area is given for the image")
        rotation, flipped = integer(self.dataset, 0x00700042) or 0, text(self.dataset, 0x00700041).upper() == "Y"
        if rotation not in _ALONG:
            raise _NotHere("in display units, rotated by no multiple of 90°")
        (right_x, right_y), (down_x, down_y) = _ALONG[rotation]
        if flipped:
            right_x, right_y = -right_x, -right_y
        top_left, bottom_right = [0.0, 0.0], [0.0, 0.0]
        for k, along in enumerate((right_x + down_x, right_y + down_y)):  # +1 or -1: where columns, rows are going
            first, last = corners[0][k], corners[1][k]
            if (last - first) * along < 0:
                raise _NotHere("in display units, and the displayed area contradicts rotation or flip")
            top_left[k], bottom_right[k] = (first - 1, last) if along > 0 else (first, last - 1)
        return _Area((top_left[0], top_left[1]), (bottom_right[0], bottom_right[1]), rotation in (90, 270))

    def _refuse(self, reason: str, image: SourceRef | None = None, detail: str = "", *, count: int = 1) -> None:
        uid = "" if image is None else image.instance_uid
        self.refusals += [Refusal(self.uid, reason, detail, uid)] * count


def _covers(area: Dataset, image: SourceRef, named: bool) -> bool:
    """Whether a displayed area is that of an image: because it names it, or because it names none."""
    references = items(area, _REFERENCED_IMAGES)
    if not named:
        return not references
    return any(
        text(reference, 0x00081155) == image.instance_uid
        and (image.frame is None or not (frames := numbers(reference, 0x00081160)) or image.frame in frames)
        for reference in references
    )


def _ties(graphic: Dataset) -> tuple[int, str]:
    return integer(graphic, _GROUP_ID) or 0, text(graphic, _TRACKING_UID)


def _word(kind: str) -> str:
    return kind.lower() if kind in _OTHER_KINDS else "graphic of another kind"
