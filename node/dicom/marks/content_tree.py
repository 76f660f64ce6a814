"""Content items of a structured report, whatever wrote them: names, values, references (PS3.3 C.17.3).

A walk of its own instead of highdicom's parser, which refuses many reports that viewers write; a test holds the two
against each other where both read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from models.contract import Code, SourceRef
from node.dicom.elements import item, items, number, numbers, text
from node.dicom.marks.mark import Point

_CONTENT = 0x0040A730
_REFERENCED_ITEM = 0x0040DB73
_DEEPEST = 40
_FOLLOWED = ("SCOORD", "SCOORD3D", "IMAGE")
"""What may stand elsewhere and be referred to; a reference to a container could be one to itself."""
_DEPTH_OF_HOP = 15
"""By how much following a reference counts as going deeper: a circle soon ends."""
_MM_IN = {"mm": 1.0, "cm": 10.0, "um": 0.001}


@dataclass(frozen=True, eq=False)
class Node:
    """One content item, with the way to the document's root for items that are referred to by position."""

    item: Dataset
    root: Dataset
    depth: int = 0

    @property
    def kind(self) -> str:
        """Value type: "NUM", "SCOORD"…; "" where it is missing."""
        return text(self.item, 0x0040A040).upper()

    @property
    def name(self) -> str:
        """Code value of the concept name, "" where there is none."""
        found = code_of(item(self.item, 0x0040A043))
        return found[0] if found else ""

    @property
    def template(self) -> str:
        return text(item(self.item, 0x0040A504), 0x0040DB00)

    @property
    def value(self) -> str:
        """Of a TEXT, UIDREF, DATE…"""
        return text(self.item, 0x0040A160) or text(self.item, 0x0040A124)

    @property
    def code(self) -> Code | None:
        """Value of a CODE item."""
        return code_of(item(self.item, 0x0040A168))

    @property
    def millimetres(self) -> float | None:
        """Value of a NUM in mm; None where it is none, or in another kind of unit."""
        measured = item(self.item, 0x0040A300)
        unit = code_of(item(measured, 0x004008EA))
        value = number(measured, 0x0040A30A)
        if value is None or unit is None or unit[0] not in _MM_IN:
            return None
        return value * _MM_IN[unit[0]]

    @property
    def graphic(self) -> tuple[str, tuple[Point, ...]]:
        """Type and points of an SCOORD (px, centres at whole numbers) or SCOORD3D (mm)."""
        data = numbers(self.item, 0x00700022)
        size, shift = (3, 0.0) if self.kind == "SCOORD3D" else (2, 0.5)
        points = tuple(
            tuple(value - shift for value in data[start : start + size])
            for start in range(0, len(data) - len(data) % size, size)
        )
        return text(self.item, 0x00700023).upper(), points

    @property
    def frame_of_reference_uid(self) -> str:
        return text(self.item, 0x30060024)

    @property
    def reference(self) -> Dataset:
        """Of an IMAGE or COMPOSITE: the referenced instance."""
        return item(self.item, 0x00081199)

    @property
    def images(self) -> tuple[SourceRef, ...]:
        """The image, or each frame of it, that an IMAGE names."""
        uid = text(self.reference, 0x00081155)
        frames = numbers(self.reference, 0x00081160)
        if self.kind != "IMAGE" or not uid:
            return ()
        return tuple(SourceRef(uid, int(frame)) for frame in frames) or (SourceRef(uid, None),)

    def children(self) -> Iterator[Node]:
        """Items below; coordinates and images that are referred to, as if they stood here."""
        if self.depth >= _DEEPEST:
            return
        for child in items(self.item, _CONTENT):
            path = numbers(child, _REFERENCED_ITEM)
            if not path or text(child, 0x0040A040):
                yield Node(child, self.root, self.depth + 1)
            elif (target := self._at(path)) is not None and text(target, 0x0040A040) in _FOLLOWED:
                yield Node(target, self.root, self.depth + _DEPTH_OF_HOP)

    def within(self) -> Iterator[Node]:
        """All items below, children of other containers of the same name left out."""
        for child in self.children():
            if child.kind == "CONTAINER" and child.name == self.name:
                continue
            yield child
            yield from child.within()

    def _at(self, path: tuple[float, ...]) -> Dataset | None:
        """The item at a position such as 1.2.3: the root is 1 (PS3.3 C.17.3.2.5)."""
        here: Dataset = self.root
        for place in path[1:]:
            below = items(here, _CONTENT)
            if not 1 <= place <= len(below):
                return None
            here = below[int(place) - 1]
        return here


def code_of(coded: Dataset) -> Code | None:
    """(value, scheme, meaning); None for an item that holds no code."""
    value = text(coded, 0x00080100) or text(coded, 0x00080119) or text(coded, 0x00080120)
    if not value:
        return None
    return value, text(coded, 0x00080102), text(coded, 0x00080104)


def named(nodes: Iterator[Node] | list[Node], *names: str) -> Iterator[Node]:
    """Those with one of these code values as concept name."""
    return (node for node in nodes if node.name in names)
