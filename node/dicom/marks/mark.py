"""What a document claims, in whose words, and what becomes of a claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from models.contract import Code, SourceRef
from models.deeplesion.table import DERIVED

Point = tuple[float, ...]
"""(x, y) px, column first, pixel centres at whole numbers from 0; or (L, P, S) mm."""
Axis = tuple[Point, Point]


class Origin(StrEnum):
    """Kind of object that a mark comes from, the most trustworthy first."""

    BIDIRECTIONAL = "SR TID 1501"
    GSPS = "GSPS"
    PLANAR = "SR TID 1410"
    VOLUMETRIC = "SR TID 1411"
    CONTOUR = f"RTSTRUCT {DERIVED}"
    SEGMENTATION = f"SEG {DERIVED}"
    """The last two: axes that nobody measured, taken from what somebody drew."""


@dataclass(frozen=True)
class About:
    """Whose mark it is and of what; "" and None where the document does not say.

    observer        "person" or "device"
    institution     of the observer; the name is never read
    """

    origin: Origin
    document_uid: str
    tracking_uid: str = ""
    finding: Code | None = None
    site: Code | None = None
    observer: str = ""
    institution: str = ""


@dataclass(frozen=True)
class Line:
    """Two ends, px, of one image; `group` and `tracking_uid` tie lines together where the writer set them."""

    ends: Axis
    group: int = 0
    tracking_uid: str = ""


@dataclass(frozen=True)
class Caption:
    """Lengths that a text beside the lines states, mm, in its order."""

    lengths_mm: tuple[float, ...]
    group: int = 0
    tracking_uid: str = ""


@dataclass(frozen=True)
class Lines:
    """What was drawn on one image, before it is known which lines belong together."""

    about: About
    image: SourceRef
    lines: tuple[Line, ...]
    captions: tuple[Caption, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A long and a short axis that the document itself names as such.

    image       None where only the place in the patient is given; the axes are then in mm
    images      those that the document names beside such axes
    """

    about: About
    image: SourceRef | None
    long: Axis
    short: Axis
    long_mm: float | None = None
    short_mm: float | None = None
    frame_of_reference_uid: str = ""
    images: tuple[SourceRef, ...] = ()


@dataclass(frozen=True)
class Contour:
    """A closed polygon on an image (px), or in the patient (mm) where `image` is None."""

    image: SourceRef | None
    points: tuple[Point, ...]
    frame_of_reference_uid: str = ""


@dataclass(frozen=True)
class Outline:
    """A region by its contours, one on each slice that it reaches; `images` as of a `Pair`.

    long_mm     as the document states it; of the short axis writers have different notions
    """

    about: About
    contours: tuple[Contour, ...]
    images: tuple[SourceRef, ...] = ()
    long_mm: float | None = None

    @property
    def image(self) -> SourceRef | None:
        return self.contours[0].image


@dataclass(frozen=True)
class Segment:
    """A segment of a segmentation; `frames` (1-based) where only some of its frames are meant."""

    about: About
    segmentation_uid: str
    number: int
    frames: tuple[int, ...] = ()


Claim = Lines | Pair | Outline | Segment


@dataclass(frozen=True)
class Refusal:
    """A mark that does not become a row. `reason` is one of few, so that refusals can be counted by it."""

    document_uid: str
    reason: str
    detail: str = ""
    """Numbers, never names."""
    image_uid: str = ""


@dataclass(frozen=True)
class Document:
    """One presentation state, report or key object note, read.

    series_of       SOP Instance UID → Series Instance UID of what it refers to, as far as it says
    elsewhere       SOP Instance UIDs of what it refers to in other studies
    supersedes      documents that this one replaces
    rejects         SOP Instance UID → why it is not to be used any more
    measures        (SOP Instance UID, number) of segments that it speaks of; number 0: of all
    """

    instance_uid: str
    claims: tuple[Claim, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    series_of: dict[str, str] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    supersedes: frozenset[str] = frozenset()
    rejects: dict[str, str] = field(default_factory=dict)
    measures: frozenset[tuple[str, int]] = frozenset()
